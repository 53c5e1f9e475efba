import Base
import Partitions
import Testing

/// The rules of the roster, row by row, and the memory rule.
struct AvailabilityTests {
    private let now = Epoch(regime: 5, viewKey: 0xA)

    private func node(_ number: Int) -> NodeID { NodeID(rawValue: UInt64(number)) }

    /// Nodes that remember `now`; the roster replicas have full copies.
    private func answer(_ roster: ClosedRange<Int>, factor: Int, present: [Int]) -> Availability {
        let nodes = roster.map { node($0) }
        return .inStrongConsistency(RosterView(
            roster: nodes, replicationFactor: factor,
            present: present.map { number in
                RosterView.Present(
                    node: node(number), version: number - roster.lowerBound < factor ? PartitionVersion(epoch: now) : nil,
                    remembered: now)
            }))
    }

    @Test func everyRowOfTheRules() {
        // Node 1 is the roster master, those behind it up to the factor are the roster replicas.
        let rows: [(roster: Int, factor: Int, present: [Int], Availability.Rule?)] = [
            (5, 2, [1, 2, 3, 4, 5], .allReplicas), (5, 2, [1, 2], .allReplicas), (5, 3, [1, 2, 3], .allReplicas),
            (1, 1, [1], .allReplicas), (3, 2, [1, 2], .allReplicas),
            (5, 2, [1, 3, 4], .majority), (5, 2, [2, 3, 4], .majority), (5, 2, [2, 3, 4, 5], .majority),
            (3, 2, [1, 3], .majority), (3, 2, [2, 3], .majority), (3, 3, [2, 3], .majority),
            (5, 2, [3, 4, 5], nil), (3, 1, [2, 3], nil),
            (4, 2, [1, 3], .halfWithMaster), (4, 2, [1, 4], .halfWithMaster), (2, 2, [1], .halfWithMaster),
            (4, 2, [2, 3], nil), (4, 2, [3, 4], nil), (2, 2, [2], nil),
            // More than the roster without the factor: with a majority it is served, without one it must not be.
            (5, 2, [1, 3, 4, 5], .majority), (5, 3, [2, 4, 5], .majority), (4, 3, [2, 3, 4], .majority),
            (4, 3, [2, 3], nil), (3, 3, [2], nil), (3, 3, [1], nil), (5, 4, [2, 3], nil),
            (5, 2, [1, 3], nil), (5, 2, [], nil), (5, 2, [1], nil),
        ]
        for (roster, factor, present, rule) in rows {
            let answer = answer(1...roster, factor: factor, present: present)
            let expected = rule.map { Availability.available($0) }
                ?? .unavailable(.roster(counting: present.count, roster: roster))
            #expect(answer == expected, "\(present) of \(roster), factor \(factor)")
        }
    }

    /// Whatever the split, at most one side serves; and somebody serves whenever a majority has a roster replica.
    @Test func neverTwoSides() {
        for roster in 1...7 {
            for factor in 1...roster {
                for mask in 0..<(1 << roster) {
                    let side = (1...roster).filter { mask >> ($0 - 1) & 1 == 1 }
                    let other = (1...roster).filter { mask >> ($0 - 1) & 1 == 0 }
                    let sides = [side, other].filter { answer(1...roster, factor: factor, present: $0).isAvailable }
                    #expect(sides.count <= 1, "\(side) against \(other), factor \(factor)")
                }
            }
        }
    }

    @Test func emptyAndTornNodesDoNotCount() {
        let full = PartitionVersion(epoch: now)
        func answer(_ present: [RosterView.Present]) -> Availability {
            .inStrongConsistency(RosterView(roster: (1...5).map { node($0) }, replicationFactor: 2, present: present))
        }
        let good = [
            RosterView.Present(node: node(1), version: full, remembered: now),
            RosterView.Present(node: node(3), version: nil, remembered: now),
        ]
        #expect(answer(good + [.init(node: node(4), version: nil, remembered: now)]) == .available(.majority))
        #expect(answer(good + [.init(node: node(4), version: nil, remembered: nil)])
            == .unavailable(.roster(counting: 2, roster: 5)))
        #expect(answer(good + [.init(node: node(2), version: full.torn, remembered: now)])
            == .unavailable(.roster(counting: 2, roster: 5)))
        // A stranger, too.
        #expect(answer(good + [.init(node: node(9), version: nil, remembered: now)])
            == .unavailable(.roster(counting: 2, roster: 5)))
        // Nobody ever served it: there is nothing to lose.
        #expect(answer([1, 3, 4].map { .init(node: node($0), version: nil, remembered: nil) }) == .available(.majority))
    }

    /// Section 6 of the design: the rules of the roster alone would serve here without acknowledged writes.
    @Test func theFiveNodesOfTheMemoryRule() {
        let (before, cut) = (Epoch(regime: 1, viewKey: 0xA), Epoch(regime: 2, viewKey: 0xB))
        let whole = PartitionVersion(epoch: before)
        let roster = [5, 4, 3, 2, 1].map { node($0) }
        // 5 is cut off; 4 and 3 serve; all four remember. Then 3 and 4 go as 5 returns.
        let present = [
            RosterView.Present(node: node(5), version: whole, remembered: before),
            RosterView.Present(node: node(1), version: nil, remembered: cut),
            RosterView.Present(node: node(2), version: nil, remembered: cut),
        ]
        #expect(Availability.inStrongConsistency(RosterView(roster: roster, replicationFactor: 2, present: present))
            == .unavailable(.memory(cut)))
        // 3 is back, a subset since 5 was cut off: with the full copy of 5 nothing is missing.
        let three = RosterView.Present(node: node(3), version: whole.joined(at: cut, from: nil), remembered: cut)
        #expect(Availability.inStrongConsistency(
            RosterView(roster: roster, replicationFactor: 2, present: present + [three])) == .available(.majority))
    }

    @Test func copiesThatAreCompleteTogether() {
        func epoch(_ regime: UInt32) -> Epoch { Epoch(regime: regime, viewKey: UInt64(regime)) }
        let full = PartitionVersion(epoch: epoch(5), ancestors: (1...4).reversed().map { epoch($0) })
        let (six, seven, eight) = (epoch(6), epoch(7), epoch(8))
        let since6 = full.joined(at: six, from: nil).advanced(to: seven)
        let since7 = full.advanced(to: six).joined(at: seven, from: nil)
        #expect(PartitionVersion.areComplete([full, since6], upTo: seven))
        #expect(!PartitionVersion.areComplete([full, since7], upTo: seven))
        #expect(!PartitionVersion.areComplete([since6], upTo: seven))
        #expect(!PartitionVersion.areComplete([full], upTo: seven))
        #expect(!PartitionVersion.areComplete([full.torn, since6], upTo: seven))
        // A chain of three, and a copy that joined again and kept what it had.
        let since8 = since6.joined(at: eight, from: nil)
        #expect(PartitionVersion.areComplete([full, since6, since8], upTo: eight))
        #expect(!PartitionVersion.areComplete([full, since8], upTo: eight))
        let again = since6.joined(at: eight, from: full)
        #expect(again.base == full.epoch && again.subsetSince == eight)
        #expect(PartitionVersion.areComplete([again, since6], upTo: eight))
        // Another line counts for nothing, and is never covered again.
        let fork = PartitionVersion(epoch: Epoch(regime: 6, viewKey: 0xF), ancestors: full.line)
        #expect(!fork.covers(since6) && !PartitionVersion.areComplete([fork, since6], upTo: seven))
        let mixed = since6.joined(at: eight, from: fork)
        let whole = PartitionVersion(epoch: eight, ancestors: mixed.ancestors)
        #expect(mixed.isMixed && whole.covers(mixed) && !whole.holdsAll(of: mixed) && whole.holdsAll(of: since8))
    }

    @Test func availabilityModeServesWhatIsThere() {
        #expect(Availability.inAvailabilityMode(nodes: 1) && !Availability.inAvailabilityMode(nodes: 0))
    }
}
