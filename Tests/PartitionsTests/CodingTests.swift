import Base
import Fabric
import Partitions
import Testing
import TestSupport

struct CodingTests {
    private func epoch(_ regime: UInt32, _ key: UInt64 = 0xABCDE) -> Epoch { Epoch(regime: regime, viewKey: key) }

    /// As many ancestors as fit, a subset with a base.
    private var largest: PartitionVersion {
        PartitionVersion(
            epoch: epoch(100), ancestors: (1...16).map { epoch(100 - UInt32($0)) }, subsetSince: epoch(95), base: epoch(90))
    }

    @Test func recordsComeBack() throws {
        var random = SeededRandom(seed: runSeed("recordsComeBack"))
        for _ in 0..<50 {
            let pool = random.versions() + [largest]
            var records = random.records(pool: pool)
            for place in records.indices {
                records[place].servedCopies = 0
                records[place].isOpen = random.chance(20)
            }
            let stored = PartitionRecord.encode(records)
            #expect(stored.allSatisfy { $0.count <= 256 })
            #expect(try PartitionRecord.decode(stored, namespace: "test") == records)
        }
        #expect(PartitionRecord(version: largest).encoded.count == 174)
        let none = try PartitionRecord.decode([], namespace: "test")
        #expect(none == [PartitionRecord](repeating: PartitionRecord(), count: PartitionID.count))
    }

    @Test func whoStartsAnewServesNothingAndTearsWhatWasOpen() throws {
        var record = PartitionRecord(version: largest, isOpen: true, servedCopies: 2)
        let stored = try PartitionRecord(record.encoded, namespace: "test", partition: 1)
        #expect(stored.servedCopies == 0)
        #expect(stored.foundAtStart(isDurableAtAcknowledge: false).version == largest.torn)
        #expect(stored.foundAtStart(isDurableAtAcknowledge: true).version == largest)
        record.isOpen = false
        #expect(record.foundAtStart(isDurableAtAcknowledge: false).version == largest)
    }

    @Test func aDamagedRecordNamesItsPartition() {
        var stored = PartitionRecord.encode(
            [PartitionRecord](repeating: PartitionRecord(version: largest), count: PartitionID.count))
        for place in stored[17].indices {
            let good = stored[17]
            stored[17][place] ^= 0x10
            do {
                _ = try PartitionRecord.decode(stored, namespace: "orders")
                Issue.record("byte \(place) of a record may be anything")
            } catch {
                #expect(error.description.hasPrefix("namespace orders: the metadata of partition 17 is damaged: "))
            }
            stored[17] = Array(good.dropLast())
            #expect(throws: FabricError.self) { try PartitionRecord.decode(stored, namespace: "orders") }
            stored[17] = good
        }
        stored[17][0] = 2
        #expect(throws: FabricError(
            "namespace orders: the metadata of partition 17 is damaged: it has format 2, this version reads format 1")
        ) { try PartitionRecord.decode(stored, namespace: "orders") }
        #expect(throws: FabricError("namespace orders: there is metadata of 4095 partitions, there should be 4096")) {
            try PartitionRecord.decode(Array(stored.dropLast()), namespace: "orders")
        }
    }

    private func block(_ random: inout SeededRandom) -> NodeBlock {
        let namespaces = (0..<(1 + random.below(3))).map { number in
            NamespaceBlock(
                name: "space\(number)", records: random.records(pool: random.versions() + [largest]), rackID: 7,
                replicationFactor: 3, activeRack: 2, isQuiesced: random.chance(50), stopWritesPercent: 90,
                conflictPolicy: .lastUpdateTime, isStronglyConsistent: true,
                limits: [NamespaceLimit(name: "max-record-size", value: 1 << 20)],
                settings: [NamespaceSetting(name: "default-ttl", value: "0"), NamespaceSetting(name: "a", value: "ü")])
        }
        return NodeBlock(namespaces: namespaces, isLeaving: true, build: "1.2", services: [1, 2], systemMetadata: [3])
    }

    @Test func blocksComeBack() throws {
        var random = SeededRandom(seed: runSeed("blocksComeBack"))
        for _ in 0..<20 {
            let block = block(&random)
            let bytes = block.encoded
            let read = try NodeBlock(bytes)
            #expect(read == block)
            #expect(read.encoded == bytes)
        }
    }

    @Test func anyBytesAreRefusedOrUnderstood() {
        var random = SeededRandom(seed: runSeed("anyBytesAreRefusedOrUnderstood"))
        let good = block(&random).encoded
        for size in 0..<min(good.count, 600) {
            #expect(throws: FabricError.self) { try NodeBlock(Array(good.prefix(size))) }
        }
        #expect(throws: FabricError.self) { try NodeBlock(good + [0]) }
        var understood = 0
        forAWhile(2) {
            var bytes = good
            for _ in 0...random.below(4) { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
            if random.chance(20) { bytes = (0..<random.below(200)).map { _ in UInt8(random.below(256)) } }
            if random.chance(10) { bytes.replaceSubrange(0..<min(2, bytes.count), with: [1, 1]) }
            guard let block = try? NodeBlock(bytes) else { return }
            understood += 1
            // What was understood has a map, whatever it says, and travels on.
            let member = Member(id: NodeID(rawValue: 1), incarnation: 1)
            let other = Member(id: NodeID(rawValue: 2), incarnation: 1)
            let map = ClusterMap.compute(number: 1, key: 3, blocks: [(member, block), (other, block)])
            #expect(map.maps.count == block.namespaces.count)
            for space in map.maps { _ = map.records(for: member.id, namespace: space.name, before: []) }
            #expect((try? NodeBlock(block.encoded)) == block)
        }
        #expect(understood > 0)
    }

    @Test func aNewerBlockSaysSo() {
        var bytes = NodeBlock(namespaces: []).encoded
        bytes[0] = 2
        let member = Member(id: NodeID(rawValue: 0xA1), incarnation: 1)
        #expect(throws: FabricError("node A1: its block has format 2, this version reads format 1")) {
            try ClusterMap.compute(number: 1, key: 1, encoded: [(member, bytes)])
        }
    }

    @Test func anEmptyBlockOfManyNamespacesIsSmall() {
        let block = NodeBlock(namespaces: (0..<32).map { NamespaceBlock(name: "space\(100 + $0)") })
        #expect(block.encoded.count < 32 * 64)
        let more = NodeBlock(namespaces: (0..<33).map { NamespaceBlock(name: "space\(100 + $0)") })
        #expect(throws: FabricError("its block has 33 namespaces")) { try NodeBlock(more.encoded) }
    }
}
