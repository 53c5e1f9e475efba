import Base
import Fabric
import Partitions
import SlowMap
import Testing
import TestSupport

struct SlowMapTests {
    /// Both ways give the same map.
    private func compare(_ number: Int, _ key: UInt64, _ nodes: [TestNode]) -> ClusterMap? {
        let map = view(key, nodes, number: UInt64(number))
        guard let fast = map.map("test"),
            let slow = SlowMap.map("test", number: UInt64(number), key: key, blocks: map.blocks)
        else { return nil }
        #expect(fast == slow)
        #expect(map.hash == view(key, nodes.reversed(), number: UInt64(number)).hash)
        return fast == slow ? map : nil
    }

    /// What has to hold in every map, whoever computed it.
    private func check(_ map: NamespaceMap) {
        let candidates = map.nodes.indices.filter { !map.quiesced[$0] }
        let racks = Set(candidates.map { map.racks[$0] }).count
        for partition in 0..<PartitionID.count {
            let nodes = (0..<map.copies).map { Int(map.replicas[$0 * PartitionID.count + partition]) }
            #expect(Set(nodes).count == map.copies, "P2: copies on one node")
            #expect(Set(nodes.map { map.racks[$0] }).count == min(racks, map.copies), "P2: racks")
            #expect(nodes.allSatisfy { !map.quiesced[$0] })
        }
    }

    @Test func agreesWithTheSlowWay() {
        var random = SeededRandom(seed: runSeed("agreesWithTheSlowWay"))
        var inputs = 0
        forAWhile(5) {
            var nodes = random.nodes()
            let pool = random.versions()
            let isFresh = random.chance(20)
            for number in nodes.indices where !isFresh { nodes[number].records = random.records(pool: pool) }
            guard let map = compare(random.below(9), random.key(), nodes) else {
                Issue.record("no map, or two: input \(inputs)")
                return
            }
            check(map.maps[0])
            // What the members store is the next input: kept epochs come of that.
            for number in nodes.indices { nodes[number].open(map) }
            if random.chance(30) { nodes[0].block.isQuiesced.toggle() }
            if compare(random.below(9), random.key(), nodes) == nil { Issue.record("no map, or two: after input \(inputs)") }
            inputs += 2
        }
        print("agreesWithTheSlowWay: \(inputs) inputs")
    }

    @Test func quotasFilledInAnotherOrderAreNoticed() {
        let nodes = (1...5).map { TestNode(UInt64($0)) }
        let right = view(7, nodes)
        #expect(view(7, nodes, processSeed: 3).hash == right.hash)
        let broken = view(7, nodes, breaks: .hashOrderedQuota, processSeed: 3)
        #expect(broken.hash != right.hash)
        #expect(broken.map("test") != SlowMap.map("test", number: 0, key: 7, blocks: right.blocks))
    }

    /// A hash that was written down: another process, another build, another machine must come to it.
    @Test func theHashIsTheSameEverywhere() {
        var random = SeededRandom(seed: 42)
        var nodes = random.nodes()
        for number in nodes.indices { nodes[number].records = random.records(pool: random.versions()) }
        #expect(view(0x12_3456_789A, nodes).hash == 8_692_623_730_421_950_508)
    }
}
