// Info requests: lines of text. A line is a name, then "/" arguments or ":" parameters `key=value` separated
// by ";".
internal import Base

/// One line of an info request, without its newline; a view into the request.
package struct InfoLine: BitwiseCopyable {
    /// The line as sent: an answer repeats it byte for byte.
    package let text: UnsafeRawBufferPointer
}

/// Splits the body of an info request into lines. Empty lines are skipped; a last line without newline
/// counts.
package struct InfoRequestParser {
    private let body: UnsafeRawBufferPointer
    private var offset = 0

    package init(_ body: UnsafeRawBufferPointer) { self.body = body }

    /// The next line, nil at the end.
    package mutating func next() -> InfoLine? {
        while offset < body.count {
            let start = offset
            while offset < body.count, body[offset] != UInt8(ascii: "\n") { offset += 1 }
            let line = UnsafeRawBufferPointer(rebasing: body[start..<offset])
            offset += 1
            if !line.isEmpty { return InfoLine(text: line) }
        }
        return nil
    }
}

/// A line taken apart. Allocates: info is not the data path.
package struct InfoRequest {
    /// Up to 31 characters in front of the first "/", ":" or end.
    package let name: String
    /// What stands between slashes behind the name.
    package let arguments: [String]
    /// `key=value` pairs in order; a word without "=" has an empty value.
    package let parameters: [(String, String)]
    /// The same as they came: names of sets are bytes, not text.
    private let argumentBytes: [[UInt8]]
    private let valueBytes: [[UInt8]]

    /// Nil if there is no name or it is too long.
    package init?(_ line: InfoLine) {
        let text = line.text
        let end = text.firstIndex { [UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: ";")].contains($0) } ?? text.count
        guard end > 0, end <= Limits.infoNameSizeMax else { return nil }
        name = UnsafeRawBufferPointer(rebasing: text[..<end]).text
        let rest = text[min(end + 1, text.count)...]
        let isPath = end < text.count && text[end] == UInt8(ascii: "/")
        // Split as bytes: what Unicode joins to a separator is still behind it.
        let words = rest.split(separator: isPath ? UInt8(ascii: "/") : UInt8(ascii: ";")).map { Array($0) }
        argumentBytes = isPath ? words : []
        arguments = argumentBytes.map { String(decoding: $0, as: UTF8.self) }
        let pairs = (isPath ? [] : words).map { word in
            let equals = word.firstIndex(of: UInt8(ascii: "=")) ?? word.count
            return (name: Array(word[..<equals]), value: Array(word[min(equals + 1, word.count)...]))
        }
        parameters = pairs.map { (String(decoding: $0.name, as: UTF8.self), String(decoding: $0.value, as: UTF8.self)) }
        valueBytes = pairs.map(\.value)
    }

    /// The value of a parameter.
    package subscript(_ key: String) -> String? { parameters.first { $0.0 == key }?.1 }

    /// The value of a parameter as it came.
    package func bytes(_ key: String) -> [UInt8]? { parameters.firstIndex { $0.0 == key }.map { valueBytes[$0] } }

    /// An argument as it came.
    package func bytes(argument number: Int) -> [UInt8]? {
        number < argumentBytes.count ? argumentBytes[number] : nil
    }
}

/// Error values of info commands.
package enum InfoError {
    /// `ERROR:<code>:<message>`; code 1 is left out.
    package static func text(_ code: Int, _ message: String) -> String {
        code == 1 ? "ERROR::\(message)" : "ERROR:\(code):\(message)"
    }
}

/// Base64 with padding, as bitmaps and contexts travel.
package enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    /// Four characters for every three bytes begun.
    package static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var word = UInt32(0)
            for position in 0..<3 {
                word = word << 8 | (position < group.count ? UInt32(group[start + position]) : 0)
            }
            for position in 0..<4 {
                let isPadding = position > group.count
                text.append(isPadding ? UInt8(ascii: "=") : alphabet[Int(word >> UInt32(18 - 6 * position)) & 63])
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// The bytes; nil if a character is none of the alphabet.
    package static func decode(_ text: Substring) -> [UInt8]? {
        var bytes: [UInt8] = []
        var word: UInt32 = 0
        var count = 0
        for character in text.utf8 where character != UInt8(ascii: "=") {
            guard let value = value(character) else { return nil }
            word = word << 6 | value
            count += 1
            if count % 4 == 0 {
                for shift: UInt32 in [16, 8, 0] { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
            }
        }
        if count % 4 == 2 { bytes.append(UInt8(truncatingIfNeeded: word >> 4)) }
        if count % 4 == 3 { bytes += [UInt8(truncatingIfNeeded: word >> 10), UInt8(truncatingIfNeeded: word >> 2)] }
        return count % 4 == 1 ? nil : bytes
    }

    private static func value(_ character: UInt8) -> UInt32? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}
