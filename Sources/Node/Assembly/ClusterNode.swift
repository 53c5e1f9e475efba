// A stand-in until the cluster part is wired: it is alone, and has everything.
package import Base
internal import Fabric
internal import Membership
internal import Metadata
internal import Partitions

/// The cluster part of a node that is alone: a view of one at once.
package struct ClusterNode {
    package private(set) var deadline: Instant
    package private(set) var snapshot: ClusterSnapshot?
    package var figures = ClusterFigures()
    private let boot: ClusterBoot
    private var serial: UInt64 = 0
    private var metadata: MetadataSharing

    /// Opens its view with the first `timer`.
    package init(_ boot: ClusterBoot) {
        self.boot = boot
        metadata = MetadataSharing(me: boot.me, items: boot.metadata)
        deadline = boot.now.monotonic
    }

    /// Answers an event.
    package mutating func step(
        _ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]
    ) {
        switch event {
        case .timer:
            guard snapshot == nil else { return share(.timer, now, &effects) }
            serial += 1
            figures.isIntact = true
            let mark = ViewMark(number: 1, key: random.next() & 0xFF_FFFF_FFFF | 1)
            let opened = ClusterSnapshot(
                serial: serial, phase: .open, view: View(mark: mark, members: [boot.me], proposer: boot.me.id),
                partitionGeneration: 1, peersGeneration: 0, rebalanceGeneration: 1,
                maps: boot.settings.namespaces.map { map($0, mark) }, mapHash: 1, peers: [], duplicateNodes: [],
                problems: [])
            snapshot = opened
            share(.opened(opened.view!), now, &effects)
            effects.append(.publish(opened))
        case .changeMetadata(let token, let changes):
            share(.change(token: token, changes, time: now.wall.milliseconds), now, &effects)
        case .reserved(let ticket, let times): share(.reserved(ticket, times), now, &effects)
        case .stored(let ticket): share(.stored(ticket), now, &effects)
        case .notStored(let ticket, let reason): share(.notStored(ticket, reason: reason), now, &effects)
        case .command(let token, _): effects.append(.answer(token: token, "ok"))
        case .leave: effects.append(.left)
        default: break
        }
    }

    private mutating func share(_ event: MetadataEvent, _ now: TurnTime, _ effects: inout [ClusterEffect]) {
        var wanted: [MetadataEffect] = []
        metadata.step(event, now: now.monotonic, effects: &wanted)
        for effect in wanted {
            switch effect {
            case .store(let ticket, let items): effects.append(.store(ticket, .metadata(items)))
            case .reserve(let ticket, let namespaces): effects.append(.reserve(ticket, namespaces))
            case .answer(let token, let answer): effects.append(.metadataAnswer(token: token, answer))
            case .log(let line): effects.append(.log(line))
            case .send, .prepared, .notPrepared: break
            }
        }
        deadline = metadata.deadline ?? Instant(nanoseconds: .max)
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
