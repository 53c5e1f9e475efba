// A few cluster parts of nodes, driven by hand: a network without delay that can be cut, disks and reactors that can be
// held. Unlike the simulator nothing happens here that a test has not asked for.
import Assembly
import Base
import Fabric
import Membership
import Metadata
import Partitions
import Testing

/// One node, and what surrounds it.
struct DrivenNode {
    var machine: ClusterNode
    let me: Member
    /// Every snapshot, in order.
    var snapshots: [ClusterSnapshot] = []
    /// Requests that are not on disk yet.
    var stores: [(ticket: UInt64, request: StoreRequest)] = []
    /// Metadata of partitions does not become durable, and nothing that was to be stored after it.
    var arePartitionsHeld = false
    /// Snapshots that not all reactors go by.
    var unpublished: [UInt64] = []
    var areReactorsHeld = false
    /// What the disk has of the namespace `test`.
    var partitions: [[UInt8]] = []
    var answers: [String] = []
    var log: [ClusterLogLine] = []
    var metadataAnswers: [MetadataAnswer] = []
    var hasLeft = false

    var phase: ClusterPhase? { snapshots.last?.phase }
    var map: NamespaceMap? { snapshots.last?.maps.first }
    var records: [PartitionRecord] { get throws { try PartitionRecord.decode(partitions, namespace: "test") } }
}

/// Nodes 0, 1, ...: the last one has the highest id, and is principal. Milliseconds.
final class HandDriven {
    private enum Plane: UInt16 { case heartbeat = 3002, fabric = 3001 }
    private struct End: Equatable {
        let node: Int
        let plane: Plane
        let id: StreamID
    }
    private var streams: [(one: End, other: End)] = []
    private var inbox: [(node: Int, event: ClusterEvent)] = []
    private var accepted: UInt64 = 0
    private var random = SeededRandom(seed: 7)
    private var clock: UInt64 = 1000
    /// Pairs of nodes between which nothing arrives.
    private var cuts: [(Int, Int)] = []
    /// Nodes that tell a fabric address where nobody is.
    var withWrongFabric: [Int] = []
    var nodes: [DrivenNode] = []

    /// `stored`: what each backend has kept of its partitions. `change`: what else a node is started with.
    init(
        _ stored: [StoredPartitions], minClusterSize: Int = 1, change: (inout ClusterBoot, Int) -> Void = { _, _ in }
    ) throws {
        for number in stored.indices {
            let host = HandDriven.host(number)
            var settings = ClusterSettings()
            settings.heartbeat.mode = .mesh
            settings.heartbeat.seeds = stored.indices.map { SeedName(host: HandDriven.host($0), port: 3002) }
            settings.heartbeat.intervalMilliseconds = 50
            settings.heartbeat.timeoutIntervals = 4
            settings.minClusterSize = minClusterSize
            settings.namespaces = [NamespaceClusterSettings(name: "test")]
            var boot = ClusterBoot(
                me: Member(id: NodeID(rawValue: UInt64(number) + 0xA0), incarnation: UInt64(number) * 1000 + 77),
                addresses: NodeAddresses(
                    heartbeat: [Address(host: host, port: 3002)], fabric: [Address(host: host, port: 3001)]),
                services: ServiceAddresses(clear: ["\(host):3000"], clearAlternate: []), build: "8.1.2.0",
                settings: settings, storedView: nil, storedPartitions: [stored[number]], now: now)
            change(&boot, number)
            nodes.append(DrivenNode(machine: try ClusterNode(boot), me: boot.me))
        }
    }

    convenience init(count: Int, minClusterSize: Int = 1) throws {
        let nothing = StoredPartitions(namespace: "test", metadata: [])
        try self.init(Array(repeating: nothing, count: count), minClusterSize: minClusterSize)
    }

    private static func host(_ node: Int) -> String { "10.0.0.\(node + 1)" }

    private var now: TurnTime {
        TurnTime(
            monotonic: Instant(nanoseconds: clock * 1_000_000), wall: RecordTime(milliseconds: 500_000_000_000 + clock))
    }

    // ---- What tests do ----

    func cut(_ one: Int, _ other: Int) { cuts.append((one, other)) }
    func heal() { cuts = [] }

    func give(_ node: Int, _ event: ClusterEvent) {
        inbox.append((node, event))
        settle()
    }

    /// The first that was held of a disk is on it.
    func releaseStore(_ node: Int) {
        let (ticket, request) = nodes[node].stores.removeFirst()
        store(node, ticket, request)
        settle()
    }

    /// Time passes until `isDone`, for so long at most. False: it was not.
    @discardableResult
    func run(for milliseconds: UInt64, until isDone: (HandDriven) -> Bool = { _ in false }) -> Bool {
        let end = clock + milliseconds
        settle()
        while !isDone(self) {
            let due = nodes.filter { !$0.hasLeft }.map { $0.machine.deadline.nanoseconds / 1_000_000 + 1 }.min() ?? end
            guard due <= end else {
                clock = end
                return isDone(self)
            }
            clock = max(clock, due)
            for node in nodes.indices where nodes[node].machine.deadline <= now.monotonic {
                inbox.append((node, .timer))
            }
            settle()
        }
        return true
    }

    func areOpenTogether() -> Bool {
        nodes.allSatisfy { $0.phase == .open && $0.snapshots.last?.view?.members.count == nodes.count }
            && Set(nodes.map { $0.snapshots.last?.view?.mark.number }).count == 1
    }

    // ---- What surrounds the machines ----

    private func settle() {
        while !inbox.isEmpty {
            let (node, event) = inbox.removeFirst()
            var effects: [ClusterEffect] = []
            nodes[node].machine.step(event, now: now, random: &random, effects: &effects)
            for effect in effects { perform(effect, node) }
        }
    }

    private func perform(_ effect: ClusterEffect, _ node: Int) {
        switch effect {
        case .heartbeat(let effect): perform(effect, node, .heartbeat)
        case .fabric(let effect): perform(effect, node, .fabric)
        case .multicast: break
        case .log(let line): nodes[node].log.append(line)
        case .resolve(let seed):
            inbox.append((node, .resolved(seed, [Address(host: seed.host, port: seed.port)])))
        case .store(let ticket, let request):
            if case .partitions = request, nodes[node].arePartitionsHeld {
                nodes[node].stores.append((ticket, request))
            } else if !nodes[node].stores.isEmpty {
                nodes[node].stores.append((ticket, request))
            } else {
                store(node, ticket, request)
            }
        case .publish(let snapshot):
            nodes[node].snapshots.append(snapshot)
            if nodes[node].areReactorsHeld {
                nodes[node].unpublished.append(snapshot.serial)
            } else {
                inbox.append((node, .published(snapshot.serial)))
            }
        case .answer(_, let text): nodes[node].answers.append(text)
        case .answerMetadata(_, let answer): nodes[node].metadataAnswers.append(answer)
        case .reserveTimes(let ticket, let names): inbox.append((node, .timesReserved(ticket, names.map { _ in 1 })))
        case .left: nodes[node].hasLeft = true
        }
    }

    private func store(_ node: Int, _ ticket: UInt64, _ request: StoreRequest) {
        if case .partitions(let all) = request { nodes[node].partitions = all[0].metadata }
        inbox.append((node, .stored(ticket)))
    }

    private func perform(_ effect: StreamEffect, _ node: Int, _ plane: Plane) {
        switch effect {
        case .connect(let id, let address, _):
            let from = End(node: node, plane: plane, id: id)
            guard let other = nodes.indices.first(where: { HandDriven.host($0) == address.host }),
                !isCut(node, other), address.port == plane.rawValue, plane == .heartbeat || !withWrongFabric.contains(other)
            else { return report(.closed(id, reason: "nobody is there"), from) }
            accepted += 1
            let to = End(node: other, plane: plane, id: .accepted(accepted))
            streams.append((from, to))
            report(.accepted(to.id, from: Address(host: HandDriven.host(node), port: 40_000)), to)
            report(.connected(id), from)
        case .send(let id, let bytes):
            guard let other = other(End(node: node, plane: plane, id: id)), !isCut(node, other.node) else { return }
            report(.received(other.id, bytes), other)
        case .close(let id):
            let end = End(node: node, plane: plane, id: id)
            guard let other = other(end) else { return }
            streams.removeAll { $0.one == end || $0.other == end }
            report(.closed(other.id, reason: "closed"), other)
        }
    }

    private func isCut(_ one: Int, _ other: Int) -> Bool {
        cuts.contains { $0 == (one, other) || $0 == (other, one) }
    }

    private func other(_ end: End) -> End? {
        for (one, other) in streams {
            if one == end { return other }
            if other == end { return one }
        }
        return nil
    }

    private func report(_ event: StreamEvent, _ end: End) {
        inbox.append((end.node, end.plane == .heartbeat ? .heartbeat(event) : .fabric(event)))
    }
}
