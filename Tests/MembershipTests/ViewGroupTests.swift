import Base
import Fabric
@testable import Membership
import Testing
import TestSupport

struct ViewGroupTests {
    private func member(_ id: Int) -> Member { Member(id: NodeID(rawValue: UInt64(id)), incarnation: UInt64(id)) }

    /// Nodes 0..<count, of which each pair of `missing` lacks the link in that direction.
    private func candidates(_ count: Int, _ missing: [(Int, Int)]) -> [Neighbour] {
        (1...count).map { node in
            let hears = (1...count).filter { other in
                other != node && !missing.contains { $0.0 == other && $0.1 == node }
            }
            return Neighbour(
                member: member(node), addresses: NodeAddresses(heartbeat: [], fabric: []),
                content: PulseContent(view: .none, accepted: 0, isLeaving: false, clock: 0),
                hears: (hears + [1_000]).map(member))
        }
    }

    private func group(_ count: Int, _ missing: [(Int, Int)], current: [Int] = []) -> [Int] {
        ViewGroup(member(1_000), candidates(count, missing), current: current.map(member)).members
            .map { Int($0.id.rawValue) }
    }

    @Test func allWhoHearEachOther() {
        #expect(group(4, []) == [1_000, 4, 3, 2, 1])
        #expect(ViewGroup(member(7), [], current: []).members == [member(7)])
    }

    @Test func oneDirectionIsNotEnough() {
        #expect(group(3, [(1, 2)]) == [1_000, 3, 2])
        #expect(group(3, [(2, 1)]) == [1_000, 3, 2])
    }

    @Test func thoseWhoAreTogetherStay() {
        #expect(group(3, [(1, 2)], current: [1, 3]) == [1_000, 3, 1])
    }

    @Test func theMiddleOfAStarGoes() {
        #expect(group(5, [(5, 1), (5, 2), (5, 3), (5, 4)]) == [1_000, 4, 3, 2, 1])
    }

    /// Against all subsets, tried one by one.
    @Test func theFewestAreLeftOut() {
        var random = SeededRandom(seed: runSeed("groups"))
        for _ in 0..<400 {
            let count = Int.random(in: 1...9, using: &random)
            let percent = Int.random(in: 0...60, using: &random)
            var missing: [(Int, Int)] = []
            for one in 1...count { for other in 1...count where one != other {
                if Int.random(in: 0..<100, using: &random) < percent { missing.append((one, other)) }
            } }
            let current = (1...count).filter { _ in Bool.random(using: &random) }
            let found = group(count, missing, current: current)
            #expect(isWhole(found, missing))
            var best: (Int, Int, [Int]) = (-1, -1, [])
            for set in 0..<(1 << count) {
                let kept = (1...count).reversed().filter { set >> ($0 - 1) & 1 == 1 }
                guard isWhole(kept, missing) else { continue }
                let rank = (kept.count, kept.count { current.contains($0) }, kept)
                let isBetter = (rank.0, rank.1) > (best.0, best.1)
                    || (rank.0, rank.1) == (best.0, best.1) && best.2.lexicographicallyPrecedes(rank.2)
                if isBetter { best = rank }
            }
            #expect(found == [1_000] + best.2, "missing \(missing), together \(current)")
        }
    }

    private func isWhole(_ nodes: [Int], _ missing: [(Int, Int)]) -> Bool {
        !missing.contains { nodes.contains($0.0) && nodes.contains($0.1) }
    }

    /// Bounded, whatever 256 nodes lack.
    @Test func manyNodesWithBadLinks() {
        var random = SeededRandom(seed: runSeed("many nodes"))
        var missing: [(Int, Int)] = []
        for _ in 0..<600 {
            missing.append((Int.random(in: 1...255, using: &random), Int.random(in: 1...255, using: &random)))
        }
        let found = group(255, missing)
        #expect(isWhole(found, missing.filter { $0.0 != $0.1 }) && found.count > 60)
    }
}
