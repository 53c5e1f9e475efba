import Base
import Fabric
import Partitions
import Testing
import TestSupport

struct ClusterMapTests {
    @Test func namespacesThatOnlySomeHave() {
        let blocks = [(1, ["a", "b"]), (2, ["b"]), (3, ["c", "b"])].map { id, names in
            (member: Member(id: NodeID(rawValue: id), incarnation: 1),
             block: NodeBlock(namespaces: names.map { NamespaceBlock(name: $0) }))
        }
        let map = ClusterMap.compute(number: 1, key: 1, blocks: blocks)
        #expect(map.maps.map(\.name) == ["a", "b", "c"])
        #expect(map.maps.map { $0.nodes.map(\.rawValue) } == [[1], [1, 2, 3], [3]])
        #expect(map.maps.map(\.copies) == [1, 2, 1] && map.problems.isEmpty)
        #expect(map.records(for: NodeID(rawValue: 2), namespace: "a", before: []).isEmpty)
        #expect(ClusterMap.compute(number: 1, key: 1, blocks: []).maps.isEmpty)
    }

    @Test func differingSettingsAreNamed() {
        var nodes = (1...6).map { TestNode(0xA0 + UInt64($0)) }
        nodes[1].block.replicationFactor = 3
        nodes[5].block.replicationFactor = 3
        nodes[0].block.settings = [NamespaceSetting(name: "default-ttl", value: "60")]
        nodes[2].block.prefersUniformBalance = false
        for (number, size) in [9, 9, 9, 9, 9, 7].enumerated() {
            nodes[number].block.limits = [NamespaceLimit(name: "max-record-size", value: UInt64(size))]
            nodes[number].block.settings.append(NamespaceSetting(name: "max-record-size", value: "\(size)"))
        }
        let map = view(1, nodes)
        #expect(map.problems == [
            "namespace test: default-ttl is 60 on A1, not set on A2, A3, A4, A5 and 1 more",
            "namespace test: max-record-size is 9 on A1, A2, A3, A4 and 1 more, 7 on A6: 7 is used",
            "namespace test: prefer-uniform-balance is true on A1, A2, A4, A5 and 1 more, false on A3: false is used",
            "namespace test: replication-factor is 2 on A1, A3, A4 and A5, 3 on A2 and A6: 2 is used",
        ])
        #expect(map.maps[0].copies == 2)
    }

    @Test func theLeastLimitHoldsAndTheHighestMark() {
        var nodes = [TestNode(1), TestNode(2)]
        nodes[0].block.limits = [NamespaceLimit(name: "max-record-size", value: 8)]
        nodes[1].block.limits = [NamespaceLimit(name: "max-record-size", value: 4), NamespaceLimit(name: "x", value: 1)]
        nodes[0].records = [PartitionRecord](repeating: PartitionRecord(highWaterMark: 5), count: PartitionID.count)
        nodes[1].records = nodes[0].records
        nodes[1].records[77].highWaterMark = 900
        let map = view(1, nodes).maps[0]
        #expect(map.limits == [NamespaceLimit(name: "max-record-size", value: 4), NamespaceLimit(name: "x", value: 1)])
        #expect(map.highWaterMark == 900)
        nodes[0].open(view(1, nodes))
        #expect(nodes[0].records.allSatisfy { $0.highWaterMark == 900 })
    }

    /// Who serves, and under which epoch, through the life of a small cluster.
    @Test func epochsBeginWhenCopiesOrMastersChange() {
        var nodes = (1...3).map { TestNode(UInt64($0), isUniform: false) }
        func open(_ key: UInt64, _ chosen: [Int]) -> NamespaceMap {
            let map = view(key, chosen.map { nodes[$0] })
            for number in chosen { nodes[number].open(map) }
            return map.maps[0]
        }
        let first = open(0xA, [0, 1, 2])
        #expect(first.epochs.allSatisfy { $0 == Epoch(regime: 1, viewKey: 0xA) } && first.fills.isEmpty)
        // The same members again: nothing changes.
        #expect(open(0xB, [0, 1, 2]).epochs == first.epochs)
        // One is gone: where it had a copy, a new epoch begins.
        let second = open(0xC, [0, 1])
        for partition in 0..<PartitionID.count {
            let hadCopy = first.column(of: 2, partition) != nil
            #expect(second.epochs[partition] == (hadCopy ? Epoch(regime: 2, viewKey: 0xC) : first.epochs[partition]))
            #expect(!hadCopy || second.fills.contains { Int($0.partition.number) == partition })
        }
        // It is back: nowhere does it serve what it was not there for.
        let third = open(0xD, [0, 1, 2])
        for partition in 0..<PartitionID.count where first.column(of: 2, partition) != nil {
            #expect(third.actingMasters[partition] != 2 && third.epochs[partition] == Epoch(regime: 3, viewKey: 0xD))
        }
        #expect(third.duplicates.isEmpty)
        // All restart: nobody goes on as if nothing had been.
        for number in nodes.indices { nodes[number].records = nodes[number].records.map {
            $0.foundAtStart(isDurableAtAcknowledge: true)
        } }
        #expect(open(0xE, [0, 1, 2]).epochs.allSatisfy { $0.viewKey == 0xE })
    }

    @Test func twoSidesAreMerged() {
        var nodes = (1...4).map { TestNode(UInt64($0)) }
        let start = view(0xA, nodes)
        for number in nodes.indices { nodes[number].open(start) }
        for (key, side) in [(UInt64(0xB), [0, 1]), (0xC, [2, 3])] {
            let map = view(key, side.map { nodes[$0] })
            for number in side { nodes[number].open(map) }
        }
        let map = view(0xD, nodes)
        #expect(map.maps[0].duplicates.count > 3000)
        for (partition, others) in map.maps[0].duplicates.prefix(50) {
            let text = map.explain(partition: Int(partition.number), namespace: "test")!
            #expect(text.contains("waits for what others may have") && !others.isEmpty && !text.contains(";"))
        }
    }

    @Test func explanationsSayWhy() throws {
        var nodes = (1...4).map { TestNode(UInt64($0), rack: UInt32($0 % 2 + 1)) }
        nodes[3].block.isQuiesced = true
        let fresh = view(0xABC, nodes)
        let text = try #require(fresh.explain(partition: 4095, namespace: "test"))
        for words in ["partition 4095 of namespace test, view abc: 4 nodes, 2 racks, replication factor 2", "4, rack 1",
                      "quiesced nodes behind all others", "column 0, the master: ", "versions: nobody has a copy yet",
                      "all begin with epoch 1-abc", "waits for nothing: all copies are complete"] {
            #expect(text.contains(words), "\(words) is not in:\n\(text)")
        }
        // Every column names the node that the map names, taken.
        for partition in stride(from: 0, to: PartitionID.count, by: 97) {
            let lines = fresh.explain(partition: partition, namespace: "test")!.split(separator: "\n")
            for column in 0..<2 {
                let node = fresh.maps[0].replica(partition, column: column)
                let place = try #require(lines.firstIndex { $0.hasPrefix("column \(column)") })
                #expect(lines[place].hasSuffix(": \(node)"))
                #expect(lines[place...].contains { $0.hasPrefix("  \(node): ") && $0.contains("taken") })
            }
        }
        #expect(fresh.explain(partition: 4096, namespace: "test") == nil)
        #expect(fresh.explain(partition: 0, namespace: "other") == nil)
    }
}
