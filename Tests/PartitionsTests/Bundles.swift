// Bundles of chance for the tests of maps.
import Base
import Fabric
import Partitions

/// A node of a test: what it is configured as, and what it stores of namespace `test`.
struct TestNode {
    var member: Member
    var block: NamespaceBlock
    var records: [PartitionRecord] = []
    var isLeaving = false

    init(_ id: UInt64, rack: UInt32 = 0, factor: UInt16 = 2, isUniform: Bool = true) {
        member = Member(id: NodeID(rawValue: id), incarnation: 1)
        block = NamespaceBlock(name: "test", rackID: rack, replicationFactor: factor, prefersUniformBalance: isUniform)
    }

    /// What it hands in.
    var handedIn: (member: Member, block: NodeBlock) {
        var block = block
        if !records.isEmpty {
            block.claims = PartitionClaims(records)
            block.highWaterMark = records.reduce(0) { max($0, $1.highWaterMark) }
        }
        return (member, NodeBlock(namespaces: [block], isLeaving: isLeaving))
    }

    /// Stores what the map says.
    mutating func open(_ map: ClusterMap) { records = map.records(for: member.id, namespace: "test", before: records) }
}

/// The map of a view of these nodes.
func view(
    _ key: UInt64, _ nodes: [TestNode], number: UInt64 = 0, breaks: PartitionBreaks = [], processSeed: UInt64 = 0
) -> ClusterMap {
    ClusterMap.compute(
        number: number, key: key, blocks: nodes.map(\.handedIn), breaks: breaks, processSeed: processSeed)
}

extension SeededRandom {
    mutating func below(_ end: Int) -> Int { Int.random(in: 0..<end, using: &self) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    /// 40 bits, never 0.
    mutating func key() -> UInt64 { UInt64.random(in: 1...0xFF_FFFF_FFFF, using: &self) }

    /// 1 to 16 nodes of chance, with racks, factors, quiesced ones and settings that may differ.
    mutating func nodes() -> [TestNode] {
        let racks = below(5)
        let (factor, isUniform) = (UInt16(1 + below(4)), chance(60))
        let activeRack = chance(20) ? UInt32(1 + below(4)) : 0
        let start = chance(50) ? next() >> 1 : 0xBB90_0000
        return (0..<(1 + below(16))).map { number in
            let id = start + UInt64(number * (1 + below(3))) * 7
            var node = TestNode(id, rack: UInt32(racks == 0 ? 0 : below(racks)))
            node.block.replicationFactor = chance(5) ? factor + 1 : factor
            node.block.prefersUniformBalance = chance(2) ? !isUniform : isUniform
            node.block.activeRack = chance(2) ? 0 : activeRack
            node.block.isQuiesced = chance(8)
            node.isLeaving = chance(4)
            node.block.limits = [NamespaceLimit(name: "max-record-size", value: UInt64(1 + below(3)) << 20)]
            return node
        }.reduce(into: []) { nodes, node in
            if !nodes.contains(where: { $0.member.id == node.member.id }) { nodes.append(node) }
        }
    }

    /// Records of chance: lines that fork out of a few epochs, subsets, torn copies, nothing, and memories of all kinds.
    mutating func records(pool: [PartitionVersion]) -> [PartitionRecord] {
        (0..<PartitionID.count).map { _ in
            var record = PartitionRecord(highWaterMark: UInt64(below(1000)))
            if chance(60) { record.version = pool[below(pool.count)] }
            let memory = chance(70) ? record.version?.epoch ?? Epoch(rawValue: 0) : pool[below(pool.count)].epoch
            record.remembered = Epoch(rawValue: max(memory.rawValue, record.version?.epoch.rawValue ?? 0))
            record.servedCopies = chance(30) ? UInt16(1 + below(4)) : 0
            return record
        }
    }

    /// Versions of a few lines.
    mutating func versions() -> [PartitionVersion] {
        var all = [PartitionVersion(epoch: Epoch(regime: UInt32(1 + below(3)), viewKey: key()))]
        for _ in 0..<(2 + below(20)) {
            let from = all[below(all.count)]
            let next = Epoch(regime: from.epoch.regime + UInt32(1 + below(2)), viewKey: key())
            let held = chance(30) ? nil : all[below(all.count)]
            let version = chance(30) ? from.joined(at: next, from: held) : from.advanced(to: next)
            all.append(chance(20) ? version.torn : version)
        }
        return all
    }
}
