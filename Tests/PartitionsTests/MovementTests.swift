// What a departure and an arrival move, and how evenly the nodes are loaded.
import Base
import Fabric
import Partitions
import Testing
import TestSupport

struct MovementTests {
    /// The nodes of each partition.
    private func copies(_ nodes: [TestNode]) -> (map: NamespaceMap, of: [[NodeID]]) {
        let map = view(1, nodes).maps[0]
        let copies = (0..<PartitionID.count).map { partition in
            (0..<map.copies).map { map.replica(partition, column: $0) }
        }
        return (map, copies)
    }

    private func cluster(_ count: Int, racks: Int, factor: UInt16, isUniform: Bool, first: UInt64) -> [TestNode] {
        (0..<count).map {
            TestNode(first + UInt64($0) * 13, rack: UInt32($0 % max(racks, 1)), factor: factor, isUniform: isUniform)
        }
    }

    /// Copies that are on nodes where they were not, for each that had to move: those that the departed one had.
    private func ratio(_ all: [TestNode], without place: Int) -> Double {
        var rest = all
        let gone = rest.remove(at: place).member.id
        let (before, after) = (copies(all), copies(rest))
        var (departure, arrival, needed) = (0, 0, 0)
        for (old, new) in zip(before.of, after.of) {
            departure += new.filter { !old.contains($0) }.count
            arrival += old.filter { !new.contains($0) }.count
            if old.contains(gone) { needed += 1 }
        }
        // An arrival is the same two maps the other way round: what the new node takes.
        return Double(max(departure, arrival)) / Double(needed)
    }

    @Test func plainListsMoveTheMinimum() {
        let first = SeededRandom(seed: runSeed("plainListsMoveTheMinimum")).firstID
        for (count, racks, factor) in [(4, 1, 2), (8, 1, 2), (16, 1, 3), (6, 2, 2), (9, 3, 3), (10, 5, 3), (12, 3, 2)] {
            let nodes = cluster(count, racks: racks, factor: UInt16(factor), isUniform: false, first: first)
            for place in [0, count / 2, count - 1] { #expect(ratio(nodes, without: place) == 1, "\(count), \(racks) racks") }
        }
        // Racks fewer than copies, and of unequal size.
        var nodes = cluster(7, racks: 2, factor: 3, isUniform: false, first: first)
        #expect(ratio(nodes, without: 3) == 1)
        for place in 0..<5 { nodes[place].block.rackID = 9 }
        for place in nodes.indices { #expect(ratio(nodes, without: place) == 1) }
    }

    @Test func uniformBalanceMovesLittleMore() {
        let first = SeededRandom(seed: runSeed("uniformBalanceMovesLittleMore")).firstID
        var worst = (plain: 0.0, racks: 0.0)
        for count in [3, 4, 5, 6, 8, 12, 16] {
            for factor: UInt16 in [2, 3] where Int(factor) < count {
                let plain = cluster(count, racks: 1, factor: factor, isUniform: true, first: first)
                worst.plain = max(worst.plain, ratio(plain, without: count / 2))
                for racks in [2, 3, 4] where count % racks == 0 && count > racks {
                    let nodes = cluster(count, racks: racks, factor: factor, isUniform: true, first: first)
                    worst.racks = max(worst.racks, ratio(nodes, without: count / 2))
                }
            }
        }
        print("uniformBalanceMovesLittleMore: at most \(worst.plain) of the minimum, \(worst.racks) with racks")
        #expect(worst.plain <= 1.25 && worst.racks <= 1.5)
    }

    @Test func mastersAreEven() {
        let first = SeededRandom(seed: runSeed("mastersAreEven")).firstID
        for (count, racks) in [(3, 1), (5, 1), (7, 1), (8, 1), (16, 1), (6, 2), (6, 3), (12, 4), (15, 5)] {
            for factor: UInt16 in [1, 2, 3] {
                let map = view(1, cluster(count, racks: racks, factor: factor, isUniform: true, first: first)).maps[0]
                var masters = [Int](repeating: 0, count: count)
                for partition in 0..<PartitionID.count { masters[Int(map.replicas[partition])] += 1 }
                #expect(masters.max()! - masters.min()! <= 1, "\(count) nodes, \(racks) racks, factor \(factor)")
                guard racks == 1 else { continue }
                var all = [Int](repeating: 0, count: count)
                for number in map.replicas { all[Int(number)] += 1 }
                #expect(all.max()! <= (map.replicas.count / count + 1) * 17 / 16)
            }
        }
    }

    @Test func quiescedNodesAreLast() {
        var nodes = cluster(5, racks: 1, factor: 2, isUniform: false, first: 100)
        for number in nodes.indices { nodes[number].open(view(1, nodes)) }
        nodes[2].block.isQuiesced = true
        nodes[4].isLeaving = true
        let map = view(2, nodes).maps[0]
        #expect(map.quiesced == [false, false, true, false, true] && map.copies == 2)
        let held = Set(map.replicas)
        #expect(held == [0, 1, 3])
        // It serves until somebody else has what it has.
        #expect(Set(map.actingMasters).isSubset(of: [0, 1, 3]) || !map.fills.isEmpty)
        for number in nodes.indices { nodes[number].block.isQuiesced = true }
        let all = view(3, nodes).maps[0]
        #expect(!all.quiesced.contains(true) && Set(all.replicas).count == 5)
    }

    @Test func theActiveRackHasAllMasters() {
        var nodes = cluster(6, racks: 3, factor: 2, isUniform: true, first: 100)
        for number in nodes.indices { nodes[number].block.activeRack = 2 }
        let map = view(1, nodes)
        let masters = map.maps[0].replicas.prefix(PartitionID.count)
        #expect(masters.allSatisfy { map.maps[0].racks[Int($0)] == 2 } && map.problems.isEmpty)
        for number in nodes.indices { nodes[number].block.activeRack = 7 }
        let ignored = view(1, nodes)
        #expect(ignored.problems
            == ["namespace test: active-rack 7 is ignored: no node that may have masters is on that rack"])
        for number in nodes.indices { nodes[number].block.activeRack = 0 }
        #expect(view(1, nodes).hash == ignored.hash)
    }
}

extension SeededRandom {
    fileprivate var firstID: UInt64 {
        var random = self
        return random.next() >> 8
    }
}
