// Where the other threads of a node meet its cluster part: what they see of it, and what they want from it. Invariants:
// 1. Every command that was taken is answered once, if only with an error when the node stops.
// 2. The routes of a snapshot hold before the snapshot is shown.
internal import Assembly
internal import Base
internal import CReactor
internal import Glibc
internal import Reactor
internal import Metadata
internal import Synchronization

/// See the invariants above. Any thread.
final class ClusterDesk: Sendable {
    private struct Inbox {
        var events: [ClusterEvent] = []
        var answers: [(token: UInt64, answer: @Sendable (String) -> Void)] = []
        var changes: [(token: UInt64, answer: @Sendable (MetadataAnswer) -> Void)] = []
        var lastToken: UInt64 = 0
        var isClosed = false
        var isStopAsked = false
    }
    private struct Shown {
        var snapshot: ClusterSnapshot?
        var figures = ClusterFigures()
        var peers = PeerHistory()
        var hasLeft = false
        var rebalancedAt: Instant?
        var rosters: [MetadataItem] = []
    }
    private let inbox = Mutex(Inbox())
    private let shown = Mutex(Shown())
    /// Signalled when an event was left.
    let wake: Int32

    init() {
        wake = apus_eventfd()
        precondition(wake >= 0, "no file descriptors left for the cluster")
    }

    deinit { close(wake) }

    // ---- For everybody ----

    /// The last that was published; nil before the first.
    var snapshot: ClusterSnapshot? { shown.withLock { $0.snapshot } }
    /// What the cluster part counts, up to a second old.
    var figures: ClusterFigures { shown.withLock { $0.figures } }
    /// The members of now and of before.
    var peers: PeerHistory { shown.withLock { $0.peers } }
    /// When the view opened that is open, or was last; nil before the first.
    var rebalancedAt: Instant? { shown.withLock { $0.rebalancedAt } }
    /// The rosters that were stored when it did.
    var rosters: [MetadataItem] { shown.withLock { $0.rosters } }
    /// Whether nothing depends on this node any more: it was told to leave, and has.
    var hasLeft: Bool { shown.withLock { $0.hasLeft } }

    /// Departed members are not told of any more.
    func forgetDeparted() { shown.withLock { $0.peers.forgetDeparted() } }

    /// Leaves an event for the cluster's thread; after its end it is forgotten.
    func post(_ event: ClusterEvent) {
        let isTaken = inbox.withLock { inbox in
            if !inbox.isClosed { inbox.events.append(event) }
            return !inbox.isClosed
        }
        if isTaken { _ = eventfd_write(wake, 1) }
    }

    /// Asks for something; `answer` is called once, on any thread, perhaps within this call.
    func command(_ command: ClusterCommand, _ answer: @escaping @Sendable (String) -> Void) {
        let isTaken = inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            inbox.lastToken += 1
            inbox.answers.append((inbox.lastToken, answer))
            inbox.events.append(.command(token: inbox.lastToken, command))
            return true
        }
        guard isTaken else { return answer(ClusterDesk.stopping) }
        _ = eventfd_write(wake, 1)
    }
    private static let stopping = "ERROR:11:the node is stopping"

    /// Asks for changes of system metadata, all or none; `answer` is called once, on any thread, perhaps within this call.
    func change(_ changes: [MetadataChange], _ answer: @escaping @Sendable (MetadataAnswer) -> Void) {
        let isTaken = inbox.withLock { inbox in
            guard !inbox.isClosed else { return false }
            inbox.lastToken += 1
            inbox.changes.append((inbox.lastToken, answer))
            let time = SystemClock.now().wall.milliseconds
            inbox.events.append(.changeMetadata(token: inbox.lastToken, changes, time: time))
            return true
        }
        guard isTaken else { return answer(.refused("nothing has changed: the node is stopping")) }
        _ = eventfd_write(wake, 1)
    }

    /// The cluster's thread is to end.
    func askToStop() {
        inbox.withLock { $0.isStopAsked = true }
        _ = eventfd_write(wake, 1)
    }

    // ---- For the cluster's thread ----

    var isStopAsked: Bool { inbox.withLock { $0.isStopAsked } }

    /// What was left since the last call, in order.
    func takeEvents() -> [ClusterEvent] {
        inbox.withLock { inbox in
            let events = inbox.events
            inbox.events = []
            return events
        }
    }

    /// A command is answered.
    func answer(_ token: UInt64, _ text: String) {
        let answer = inbox.withLock { inbox in
            inbox.answers.firstIndex { $0.token == token }.map { inbox.answers.remove(at: $0).answer }
        }
        answer?(text)
    }

    /// A change of system metadata is answered.
    func answer(_ token: UInt64, _ outcome: MetadataAnswer) {
        let answer = inbox.withLock { inbox in
            inbox.changes.firstIndex { $0.token == token }.map { inbox.changes.remove(at: $0).answer }
        }
        answer?(outcome)
    }

    /// Everybody sees this from now on. `rosters`: what is stored.
    func show(_ snapshot: ClusterSnapshot, rosters: [MetadataItem]) {
        shown.withLock { shown in
            if snapshot.rebalanceGeneration != shown.snapshot?.rebalanceGeneration ?? 0 {
                shown.rebalancedAt = SystemClock.monotonic()
                shown.rosters = rosters
            }
            shown.peers.update(snapshot)
            shown.snapshot = snapshot
        }
    }

    func show(_ figures: ClusterFigures) { shown.withLock { $0.figures = figures } }

    func showLeft() { shown.withLock { $0.hasLeft = true } }

    /// Nothing more is taken; what is open is answered with an error.
    func close() {
        let (answers, changes) = inbox.withLock { inbox in
            inbox.isClosed = true
            inbox.events = []
            let open = (inbox.answers, inbox.changes)
            (inbox.answers, inbox.changes) = ([], [])
            return open
        }
        for one in answers { one.answer(ClusterDesk.stopping) }
        for one in changes { one.answer(.inDoubt("it may have happened: the node is stopping")) }
    }

    private func close(_ descriptor: Int32) { Glibc.close(descriptor) }
}

/// Which members there were: clients ask what has changed since a generation they know.
struct PeerHistory: Sendable {
    private static let departedMax = 256
    /// Members of now, and the generation in which each has appeared or changed.
    private(set) var present: [(peer: PeerDescription, since: UInt64)] = []
    /// Members that have gone, and the generation in which each has; the longest gone are forgotten first.
    private(set) var departed: [(peer: PeerDescription, since: UInt64)] = []
    private(set) var generation: UInt64 = 0

    /// Departed members are not told of any more.
    mutating func forgetDeparted() { departed = [] }

    mutating func update(_ snapshot: ClusterSnapshot) {
        guard snapshot.peersGeneration != generation || snapshot.peers != present.map(\.peer) else { return }
        generation = snapshot.peersGeneration
        let old = present
        for one in old where !snapshot.peers.contains(where: { $0.id == one.peer.id }) {
            departed.append((one.peer, generation))
        }
        present = snapshot.peers.map { peer in
            let known = old.first { $0.peer == peer }
            return (peer, known?.since ?? generation)
        }
        departed.removeAll { gone in snapshot.peers.contains { $0.id == gone.peer.id } }
        if departed.count > PeerHistory.departedMax { departed.removeFirst(departed.count - PeerHistory.departedMax) }
    }
}
