// A stand-in until the cluster part is wired: it is alone, and has everything.
package import Base
internal import Fabric
internal import Membership
internal import Partitions

/// The cluster part of a node that is alone: a view of one at once.
package struct ClusterNode {
    package private(set) var deadline: Instant
    package private(set) var snapshot: ClusterSnapshot?
    package var figures = ClusterFigures()
    private let boot: ClusterBoot
    private var serial: UInt64 = 0

    /// Opens its view with the first `timer`.
    package init(_ boot: ClusterBoot) {
        self.boot = boot
        deadline = boot.now.monotonic
    }

    /// Answers an event.
    package mutating func step(
        _ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]
    ) {
        switch event {
        case .timer:
            deadline = Instant(nanoseconds: .max)
            guard snapshot == nil else { return }
            serial += 1
            figures.isIntact = true
            let mark = ViewMark(number: 1, key: random.next() & 0xFF_FFFF_FFFF | 1)
            let opened = ClusterSnapshot(
                serial: serial, phase: .open, view: View(mark: mark, members: [boot.me], proposer: boot.me.id),
                partitionGeneration: 1, peersGeneration: 0, rebalanceGeneration: 1,
                maps: boot.settings.namespaces.map { map($0, mark) }, mapHash: 1, peers: [], duplicateNodes: [],
                problems: [])
            snapshot = opened
            effects.append(.publish(opened))
        case .command(let token, _): effects.append(.answer(token: token, "ok"))
        case .leave: effects.append(.left)
        default: break
        }
    }

    private func map(_ settings: NamespaceClusterSettings, _ mark: ViewMark) -> NamespaceMap {
        let zeros = [UInt16](repeating: 0, count: PartitionID.count)
        return NamespaceMap(
            name: settings.name, nodes: [boot.me.id], racks: [settings.rackID], quiesced: [false], copies: 1,
            replicas: zeros, actingMasters: zeros,
            epochs: [Epoch](repeating: Epoch(regime: 1, viewKey: mark.key), count: PartitionID.count), duplicates: [],
            fills: [])
    }
}
