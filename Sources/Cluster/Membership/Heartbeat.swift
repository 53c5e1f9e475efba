// Who is there: pulses to every other node, and theirs. A stream that a node dials it only sends on, one that it accepts it
// only reads: there is never a question which of two connections counts. Invariants:
// 1. Of one node id at most one incarnation is `present`; while one is contested, none is.
// 2. A retired incarnation does not come back, unless it goes on pulsing: beside its successor both are contested then, and
//    without one it is present again.
// 3. Only pulses make an arrival. Fabric traffic puts a departure off, at most to twice the timeout.
// 4. Nothing that arrives can trap, or make the machine keep more than its bounds.
// 5. Time never goes back, and after a pause of this node nobody is judged before an interval has passed.
package import Base
package import Fabric

/// The heartbeat machine. See the invariants above.
package struct Heartbeat: Sendable {
    /// A seed of the configuration, or a tipped one.
    struct Seed: Sendable {
        let name: SeedName
        let isTipped: Bool
        /// What it was last looked up as.
        var addresses: [Address] = []
        /// Asked, and not answered.
        var asked: Instant?
        var attempts: UInt64 = 0
        var retryAt: Instant
        /// When it was looked up first.
        var firstAsked: Instant?
        /// A node was found by it, or the node there has found this one.
        var isReached = false
        /// A failure was logged since the last success, and what it was.
        var isLogged = false
        var trouble = ""
        /// Streams in a row that the other end closed after the hello.
        var closedAfterHello = 0
    }

    /// A stream to an address of a seed, of which nobody knows yet who is behind it.
    struct SeedStream: Sendable {
        let stream: StreamID
        let seed: SeedName
        let address: Address
        var since: Instant
        var isStanding = false
    }

    struct AcceptedStream: Sendable {
        let stream: StreamID
        let from: Address
        /// Of the last bytes.
        var since: Instant
        /// From its hello.
        var member: Member?
        var framer = StreamFramer()
    }

    package let member: Member
    package var breaks: HeartbeatBreaks = []
    package internal(set) var statistics = HeartbeatStatistics()
    var settings: HeartbeatSettings
    var content: PulseContent
    var contentAt = Instant(nanoseconds: 0)
    var peers = HeartbeatPeers()
    var health = HeartbeatHealth()
    var seeds: [Seed]
    var seedStreams: [SeedStream] = []
    var accepted: [AcceptedStream] = []
    /// Addresses that turned out to be this node's.
    var ownAddresses: [Address]
    var notices = HeartbeatNotices()
    var sequence: UInt64 = 0
    /// Of `told`.
    var serial: UInt64 = 0
    /// Whom the last pulse said to be heard.
    var told: [Member] = []
    var nextPulse: Instant
    /// When a dial or a seed is due; may be early.
    var dialAt: Instant
    var graceUntil: Instant
    var lastStep: Instant?
    private var dialled: UInt64 = 0
    /// A pulse named somebody who is not known.
    var mayHaveStrangers = false
    private var isOver = false
    // Of the step under way.
    var now = Instant(nanoseconds: 0)
    var random = SeededRandom(seed: 0)
    var out: [HeartbeatEffect] = []
    var isChanged = false

    package init(member: Member, settings: HeartbeatSettings, content: PulseContent) {
        precondition(member.incarnation != 0)
        self.member = member
        self.settings = settings
        self.content = content
        ownAddresses = settings.addresses.heartbeat
        nextPulse = now
        dialAt = now
        graceUntil = now
        seeds = settings.seeds.map { [now] in Seed(name: $0, isTipped: false, retryAt: now) }
    }

    var interval: UInt64 { settings.tunables.intervalMilliseconds }
    var timeout: UInt64 { settings.tunables.timeoutMilliseconds }
    var timeoutNanoseconds: UInt64 { timeout * 1_000_000 }

    /// When it wants `timer` at the latest.
    package var deadline: Instant {
        isOver ? .never : settings.mode == .mesh ? min(nextPulse, dialAt) : nextPulse
    }

    /// Takes one event. `now` is monotonic.
    package mutating func step(
        _ event: HeartbeatEvent, now: Instant, random: inout SeededRandom, effects: inout [HeartbeatEffect]
    ) {
        guard !isOver else { return }
        self.now = max(now, self.now)
        self.random = random
        noticePause()
        handle(event)
        if !isOver {
            if self.now >= nextPulse { tick() }
            if settings.mode == .mesh, self.now >= dialAt { dialAll() }
        }
        if isChanged { out.append(.neighboursChanged) }
        isChanged = false
        effects += out
        out.removeAll(keepingCapacity: true)
        random = self.random
    }

    private mutating func handle(_ event: HeartbeatEvent) {
        switch event {
        case .timer: break
        case .stream(let event): streamEvent(event)
        case .datagram(let bytes, let from): datagram(bytes, from: from)
        case .resolved(let seed, let addresses): resolved(seed, addresses)
        case .evidence(let member):
            if let index = peers.index(of: member) { peers.all[index].lastEvidence = now }
        case .content(let new): contentChanged(new)
        case .settings(let tunables):
            settings.tunables = tunables
            nextPulse = min(nextPulse, now.advanced(byMilliseconds: interval))
            dialAt = now
        case .tip(let seed): out.append(.answered(tip(seed)))
        case .tipClear(let names): out.append(.answered(tipClear(names)))
        case .goodbye: goodbye()
        }
    }

    /// When this node did not run for a while, silence says nothing: what the others sent waits to be read.
    private mutating func noticePause() {
        defer { lastStep = now }
        guard let lastStep else { return }
        let gap = now.nanoseconds(since: lastStep)
        guard gap > 2 * interval * 1_000_000 else { return }
        graceUntil = now.advanced(byMilliseconds: interval)
        if gap > timeoutNanoseconds {
            log(.warning, "this node stood still for \(gap / 1_000_000) ms, longer than the timeout of \(timeout) ms: the"
                + " others may have gone on without it. Nobody is judged for one interval")
        }
    }

    private mutating func contentChanged(_ new: PulseContent) {
        var same = new
        same.clock = content.clock
        if same != content { hasten() }
        content = new
        contentAt = now
    }

    /// What others should know soon goes out in a fifth of an interval.
    mutating func hasten() { nextPulse = min(nextPulse, now.advanced(byMilliseconds: interval / 5)) }

    mutating func log(_ level: ClusterLogLevel, _ text: String) { out.append(.log(ClusterLogLine(level, .hb, text))) }

    mutating func nextStream() -> StreamID {
        dialled += 1
        return .dialled(dialled)
    }

    /// This node's clock, in milliseconds since 2010.
    var clock: UInt64 {
        min(content.clock &+ now.nanoseconds(since: contentAt) / 1_000_000, RecordTime.latestMilliseconds)
    }

    private mutating func goodbye() {
        sendPulses(isGoodbye: true)
        isOver = true
    }

    // ---- What is known ----

    /// Nodes in good standing, by id.
    package var neighbours: [Neighbour] {
        peers.all.filter { $0.standing == .present }.map {
            Neighbour(
                member: $0.member, addresses: $0.addresses, content: $0.content, hears: $0.hears,
                isUnhealthy: health.isUnhealthy($0.member.id))
        }
    }

    /// Ids that more than one node claims, by id: none of them is a neighbour. This node's own may be among them.
    package var duplicateNodes: [NodeID] {
        var ids: [NodeID] = []
        for peer in peers.all where peer.standing == .contested && ids.last != peer.member.id { ids.append(peer.member.id) }
        return isAccused && !ids.contains(member.id) ? (ids + [member.id]).sorted() : ids
    }

    /// Others hear another node of this one's id.
    var isAccused: Bool { peers.all.contains { $0.standing == .present && $0.duplicates.contains(member.id) } }

    /// What somebody should look at, one sentence each.
    package var problems: [String] { notices.sentences(now) + (seedProblem.map { [$0] } ?? []) }

    /// Share of the pulses of a node that did not arrive lately, 0 to 1.
    package func loss(_ id: NodeID) -> Double { health.loss(id) }

    /// The seeds and their origin, for `get-config` and logs.
    package var seedNames: [SeedName] { seeds.map(\.name) }

    /// How far clocks are apart. Who is more than `skewMax` milliseconds off the median is an outlier.
    package func clocks(skewMax: UInt64) -> HeartbeatClocks {
        let others = peers.all.filter { $0.standing == .present }
        let all = (others.map(\.clockOffset) + [0]).sorted()
        var clocks = HeartbeatClocks()
        clocks.medianOffset = all[(all.count - 1) / 2]
        clocks.skewMilliseconds = all.reduce(0) { max($0, ($1 - clocks.medianOffset).magnitude) }
        var outliers = others.filter { ($0.clockOffset - clocks.medianOffset).magnitude > skewMax }.map(\.member.id)
        if clocks.medianOffset.magnitude > skewMax { outliers.append(member.id) }
        clocks.outliers = outliers.sorted()
        return clocks
    }
}
