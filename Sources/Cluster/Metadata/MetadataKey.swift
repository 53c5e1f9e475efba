// Names of items. Invariants:
// 1. `text` is ASCII without spaces, and the same parts have the same text: two keys are equal exactly if their parts are,
//    byte by byte. Parts are names of sets among others, which are any bytes: nothing here asks what Unicode makes of them.

/// The name of an item within its module: one or more parts, as they stand in files with `|` between them.
package struct MetadataKey: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Parts with what is not plain as `%` and two hexadecimal digits.
    package let text: String
    private static let bar = UInt8(ascii: "|")
    private static let percent = UInt8(ascii: "%")

    /// Of any bytes.
    package init(_ parts: [[UInt8]]) {
        text = parts.map { MetadataKey.escape($0) }.joined(separator: "|")
    }

    /// What stands in a file, or travels; nil if a `%` has no two digits behind it.
    package init?(written: ArraySlice<UInt8>) {
        let fields = written.split(separator: MetadataKey.bar, omittingEmptySubsequences: false)
        let parts = fields.compactMap { MetadataKey.unescape($0) }
        guard parts.count == fields.count else { return nil }
        self.init(parts)
    }

    /// What it was made of.
    package var parts: [[UInt8]] {
        text.utf8.split(separator: MetadataKey.bar, omittingEmptySubsequences: false).map { part in
            MetadataKey.unescape(Array(part)[...]) ?? []
        }
    }

    package var description: String { text }

    /// Whether the first part is that name.
    package func isOf(namespace: String) -> Bool {
        let own = MetadataKey.escape(namespace.utf8)
        return text == own || text.hasPrefix(own + "|")
    }

    /// By text; ASCII, so by bytes.
    package static func < (left: MetadataKey, right: MetadataKey) -> Bool { left.text < right.text }

    /// Bytes up to space, `%`, `|` and those above ~ as % and two digits.
    static func escape(_ bytes: some Sequence<UInt8>) -> String {
        var text: [UInt8] = []
        for byte in bytes {
            if byte <= 0x20 || byte == percent || byte == bar || byte > 0x7E {
                let digits = String(byte, radix: 16, uppercase: true)
                text += Array("%\(digits.utf8.count == 1 ? "0" : "")\(digits)".utf8)
            } else {
                text.append(byte)
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// What `escape` was given; nil if a `%` has no two digits behind it.
    static func unescape(_ bytes: ArraySlice<UInt8>) -> [UInt8]? {
        var plain: [UInt8] = []
        var place = bytes.startIndex
        while place < bytes.endIndex {
            guard bytes[place] == percent else {
                plain.append(bytes[place])
                place += 1
                continue
            }
            guard place + 2 < bytes.endIndex,
                let byte = UInt8(String(decoding: bytes[(place + 1)...(place + 2)], as: UTF8.self), radix: 16)
            else { return nil }
            plain.append(byte)
            place += 3
        }
        return plain
    }
}
