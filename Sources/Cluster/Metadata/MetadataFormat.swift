// Items as bytes: text that an operator can read, with a count and a checksum at the end (docs/formats.md).
package import Base

/// Why bytes are not items.
package enum MetadataFormatError: Error, Equatable {
    /// Written by a later version.
    case newer(format: Int)
    /// Not what was written: in words.
    case damaged(String)
}

/// The format of files and of the copy in a namespace's storage.
package enum MetadataFormat {
    /// What is written. Format 1, without versions, is read, too.
    package static let current = 2
    private static let magic = "apus-smd"
    private static let tab = UInt8(ascii: "\t")
    private static let newline = UInt8(ascii: "\n")

    /// A line for each item between the first line and the last.
    package static func encode(_ items: [MetadataItem]) -> [UInt8] {
        var bytes = Array("\(magic) \(current)\n".utf8)
        for item in items {
            let value = item.value.map { $0 == "-" ? "%2D" : MetadataKey.escape($0.utf8) } ?? "-"
            bytes += Array(
                ("\(item.module)\t\(item.key.text)\t\(item.generation)\t\(item.timestamp)\t\(value)\t\(item.version)\t"
                    + "\(item.follows)\n").utf8)
        }
        return bytes + Array("end \(items.count) \(checksum(bytes))\n".utf8)
    }

    /// What `encode` was given. What format 1 holds was changed by `node`, as far as anybody knows.
    package static func decode(
        _ bytes: [UInt8], of node: NodeID = MetadataVersion.none.node
    ) throws(MetadataFormatError) -> [MetadataItem] {
        let lines = bytes.split(separator: newline, omittingEmptySubsequences: false)
        guard let first = lines.first, let format = format(first) else {
            throw .damaged("it does not begin with '\(magic)' and a number")
        }
        guard format <= current else { throw .newer(format: format) }
        // The end line is followed by nothing: splitting leaves one empty part.
        guard lines.count >= 3, lines[lines.count - 1].isEmpty else { throw .damaged("its end is missing") }
        let end = lines[lines.count - 2]
        guard end.starts(with: Array("end ".utf8)) else { throw .damaged("its end is missing") }
        let body = bytes[..<end.startIndex]
        let count = lines.count - 3
        guard Array(end) == Array("end \(count) \(checksum(Array(body)))".utf8) else {
            throw .damaged("count or checksum do not fit")
        }
        var items: [MetadataItem] = []
        for line in lines[1..<(lines.count - 2)] {
            guard let item = item(line, format, node) else { throw .damaged("line \(items.count + 2) is no item") }
            items.append(item)
        }
        return items
    }

    private static func format(_ line: ArraySlice<UInt8>) -> Int? {
        let words = String(decoding: line, as: UTF8.self).split(separator: " ")
        guard words.count == 2, words[0] == magic, let format = Int(words[1]), format > 0 else { return nil }
        return format
    }

    /// Modules are names of files, too.
    package static func isModule(_ bytes: some Collection<UInt8>) -> Bool {
        !bytes.isEmpty && bytes.count <= 32
            && bytes.allSatisfy { UInt8(ascii: "a")...UInt8(ascii: "z") ~= $0 || $0 == UInt8(ascii: "-") }
    }

    private static func item(_ line: ArraySlice<UInt8>, _ format: Int, _ node: NodeID) -> MetadataItem? {
        let fields = line.split(separator: tab, omittingEmptySubsequences: false)
        guard fields.count == (format == 1 ? 5 : 7), isModule(fields[0]), let key = MetadataKey(written: fields[1]),
            let generation = UInt32(String(decoding: fields[2], as: UTF8.self)),
            let timestamp = UInt64(String(decoding: fields[3], as: UTF8.self)),
            let bytes = MetadataKey.unescape(fields[4]), let text = String(validating: bytes, as: UTF8.self)
        else { return nil }
        let value = Array(fields[4]) == [UInt8(ascii: "-")] ? nil : text
        let module = String(decoding: fields[0], as: UTF8.self)
        guard format > 1 else {
            return MetadataItem(
                module: module, key: key, value: value, generation: generation, timestamp: timestamp, node: node)
        }
        guard let version = MetadataVersion(written: String(decoding: fields[5], as: UTF8.self)),
            let follows = MetadataLine(written: String(decoding: fields[6], as: UTF8.self))
        else { return nil }
        let item = MetadataItem(
            module: module, key: key, value: value, generation: generation, timestamp: timestamp, version: version,
            follows: follows)
        return item.isSound ? item : nil
    }

    private static func checksum(_ bytes: [UInt8]) -> String {
        let text = String(bytes.withUnsafeBytes { crc32c($0) }, radix: 16)
        return String(repeating: "0", count: 8 - text.utf8.count) + text
    }
}
