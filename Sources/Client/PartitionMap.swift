package import Base

/// Who is master of each partition of one namespace, as the nodes themselves say. A higher regime wins.
package struct PartitionMap: Sendable {
    private var masters = [Int](repeating: -1, count: PartitionID.count)
    private var regimes = [UInt32](repeating: 0, count: PartitionID.count)

    package init() {}

    /// Number of the master's node; nil if nobody has claimed the partition.
    package subscript(_ partition: PartitionID) -> Int? {
        let node = masters[Int(partition.number)]
        return node >= 0 ? node : nil
    }

    /// Partitions without a master.
    package var orphanCount: Int { masters.count { $0 < 0 } }

    /// Takes what node number `node` says it is master of: a bitmap of 4096 bits, the first bit of a byte
    /// first.
    package mutating func take(node: Int, regime: UInt32, bitmap: [UInt8]) {
        for partition in 0..<PartitionID.count {
            let isMaster = bitmap[partition >> 3] & (0x80 >> UInt8(partition & 7)) != 0
            if isMaster, masters[partition] < 0 || regime >= regimes[partition] {
                masters[partition] = node
                regimes[partition] = regime
            } else if !isMaster, masters[partition] == node {
                masters[partition] = -1
            }
        }
    }

    /// Reads an answer to `replicas`: `ns:regime,columns,bitmap,...;ns:...`; nil if `namespace` is not in it
    /// or the text is damaged. The first bitmap names the masters.
    package static func parse(_ answer: String, namespace: String) -> (regime: UInt32, bitmap: [UInt8])? {
        for entry in answer.split(separator: ";") {
            let parts = entry.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0] == namespace else { continue }
            let fields = parts[1].split(separator: ",")
            guard fields.count >= 3, let regime = UInt32(fields[0]), let bitmap = Base64Text.decode(fields[2]),
                bitmap.count == PartitionID.count / 8
            else { return nil }
            return (regime, bitmap)
        }
        return nil
    }
}

/// Base64 as nodes send it.
enum Base64Text {
    /// The bytes; nil if a character is none of the alphabet.
    static func decode(_ text: Substring) -> [UInt8]? {
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
