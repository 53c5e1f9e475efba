package import Base
internal import Wire

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
        entries(answer).first { $0.namespace == namespace }.map { ($0.regime, $0.bitmaps[0]) }
    }

    /// All namespaces in an answer to `replicas` and their bitmaps, one at least; what is damaged is left out.
    package static func columns(_ answer: String) -> [(namespace: String, bitmaps: [[UInt8]])] {
        entries(answer).map { ($0.namespace, $0.bitmaps) }
    }

    private static func entries(_ answer: String) -> [(namespace: String, regime: UInt32, bitmaps: [[UInt8]])] {
        answer.split(separator: ";").compactMap { entry in
            let parts = entry.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { return nil }
            let fields = parts[1].split(separator: ",")
            guard fields.count >= 3, let regime = UInt32(fields[0]) else { return nil }
            let bitmaps = fields.dropFirst(2).map { Base64.decode($0) ?? [] }
            guard bitmaps.allSatisfy({ $0.count == PartitionID.count / 8 }) else { return nil }
            return (String(parts[0]), regime, bitmaps)
        }
    }
}
