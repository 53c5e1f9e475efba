// Agreement on views (cluster-design.md, section 2; docs/decisions/028). Invariants:
// 1. A number is accepted once, ever: `accepted` only rises, and is durable before the acceptance leaves this node. So two
//    views of one number have no member in common.
// 2. A view is prepared only from the blocks of *all* its members, and a member gives its block only after it has frozen
//    every older view. So when a view is prepared anywhere, all its members have stopped writing under older keys.
// 3. A view is opened only after all its members have prepared it with one map hash. So whoever is prepared may open it as
//    soon as one node says that it has.
// 4. A node opens rising numbers, and the view it opens names its own incarnation.
// 5. The bundle of a view has the same bytes wherever it goes: a block is taken once for each number.
package import Base
package import Fabric

/// Settings of agreement.
package struct ViewSettings: Sendable, Equatable {
    package var minClusterSize: Int
    package var heartbeatIntervalMilliseconds: UInt64
    /// After so many intervals without a pulse a node is gone.
    package var heartbeatTimeoutIntervals: UInt64
    package var startWaitMilliseconds: UInt64
    package var startWaitMaxMilliseconds: UInt64

    package init(
        minClusterSize: Int = 1, heartbeatIntervalMilliseconds: UInt64 = 150, heartbeatTimeoutIntervals: UInt64 = 10,
        startWaitMilliseconds: UInt64 = 15_000, startWaitMaxMilliseconds: UInt64 = 60_000
    ) {
        self.minClusterSize = minClusterSize
        self.heartbeatIntervalMilliseconds = heartbeatIntervalMilliseconds
        self.heartbeatTimeoutIntervals = heartbeatTimeoutIntervals
        self.startWaitMilliseconds = startWaitMilliseconds
        self.startWaitMaxMilliseconds = startWaitMaxMilliseconds
    }

    /// Changes of so long become one view.
    var batchMilliseconds: UInt64 { min(2 * heartbeatIntervalMilliseconds, ViewSettings.batchMillisecondsMax) }
    var timeoutMilliseconds: UInt64 { heartbeatIntervalMilliseconds * heartbeatTimeoutIntervals }
    static let batchMillisecondsMax: UInt64 = 5_000
}

/// What happens to agreement.
package enum ViewEvent: Sendable {
    /// `deadline` has come.
    case timer
    /// All nodes that are heard, by id; at every change of what they say, too.
    case neighbours([Neighbour])
    case message(from: Member, [UInt8])
    /// Answers `store`: durable, with all stores before it.
    case stored(UInt64)
    /// Answers `store`: it will not be. Stored again a second later.
    case notStored(UInt64, reason: String)
    /// Answers `freeze`.
    case block(number: UInt64, [UInt8])
    /// Answers `prepare`: map computed, metadata durable.
    case prepared(ViewMark, mapHash: UInt64)
    case notPrepared(ViewMark, reason: String)
    case recluster(token: UInt64)
    case settings(ViewSettings)
    /// This node is to stop.
    case leave
}

/// What agreement wants done.
package enum ViewEffect: Sendable {
    /// May be lost, late, or come twice. Never to this node itself.
    case send(to: Member, [UInt8])
    /// The file of the view. Stores become durable in this order.
    case store(UInt64, [UInt8])
    /// From here on nothing is acknowledged or published under an older key. Answered by `block`: what this node has to say
    /// for the view of this number. Of several, only the last one has to be answered.
    case freeze(UInt64)
    /// Compute the map from these blocks, store metadata; nothing is served yet. In the order of the view's members.
    case prepare(View, blocks: [(member: Member, block: [UInt8])])
    /// Serve.
    case `open`(View)
    /// What was prepared will not be opened.
    case void(ViewMark, reason: String)
    /// This node belongs to no view: it serves nothing.
    case orphan(reason: String)
    case answer(token: UInt64, String)
    case log(ClusterLogLine)
}

/// Where a node stands.
package enum ViewPhase: Sendable, Equatable { case orphan, frozen, open }

/// Rules that tests switch off, to see that they notice.
package struct ViewBreaks: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }
    /// The accepted number is not stored.
    package static let acceptsWithoutStoring = ViewBreaks(rawValue: 1)
    /// A block is taken again when it is sent again, and the proposer uses the newer one.
    package static let takesBlockAgain = ViewBreaks(rawValue: 2)
    /// A number that was accepted from one proposer is accepted from another.
    package static let twoProposersOneNumber = ViewBreaks(rawValue: 4)
    /// A restarted node passes for the one that it was.
    package static let ignoresIncarnation = ViewBreaks(rawValue: 8)
}

/// See the invariants above. One thread.
package struct Views {
    package let me: Member
    package var settings: ViewSettings
    /// Only tests set this.
    package var breaks: ViewBreaks = []
    /// Nodes that are not left out for their health: they have the last copy of something.
    package var indispensable: [NodeID] = [] { didSet { groupIsStale = true } }

    /// The view that is open, or was last.
    package internal(set) var view: View?
    package internal(set) var phase = ViewPhase.orphan
    /// The highest number accepted.
    package internal(set) var accepted: UInt64
    /// When it wants `timer`; the end of time if nothing is to be done.
    package internal(set) var deadline: Instant

    // What is known of others.
    var neighbours: [Neighbour] = []
    var group: ViewGroup
    var groupIsStale = true
    var suspects: [Suspect] = []
    /// How long each was left out the last time, until it is in a view again.
    var formerSuspects: [Suspect] = []
    var highestSeen: UInt64 = 0
    /// Nanoseconds, the longest of late.
    var roundTrip: UInt64 = 1_000_000

    // As a member.
    var last: View?
    var acceptance: Acceptance?
    var stores: [PendingStore] = []
    var nextTicket: UInt64 = 1
    var storeAgainAt: Instant?

    // As a proposer.
    var attempt: Attempt?
    var poll: Poll?
    var failures: UInt64 = 0
    var notBefore = Instant(nanoseconds: 0)
    var changeSince: Instant?
    var unevenSince: Instant?
    var asymmetricSince: Instant?
    var heldBackUntil: Instant?
    var wantsRecluster = false

    // While another one is to propose.
    var awaited: Awaited?

    // Start and leaving.
    let bootedAt: Instant
    var hasOpened = false
    var isLeaving = false
    var leavingInView: [NodeID] = []
    var waitingSaidAt: Instant?
    var orphanReason = ""
    var frozenSince: Instant?
    /// Prepared views that failed here since the last one that was opened.
    var prepareFailures: UInt64 = 0
    /// So long this node asks to be left out.
    var unableUntil: Instant?
    /// When a message that made no sense was last mentioned.
    var garbledSaidAt: Instant?
    package internal(set) var waitingFor: [NodeID] = []

    // Of one step.
    var now: Instant
    var random = SeededRandom(seed: 0)
    var effects: [ViewEffect] = []
    var toMyself: [ViewMessage] = []
    var wake = Instant.never

    /// - Parameter stored: what an earlier process of this node left; nil if there was none.
    package init(me: Member, stored: StoredView?, settings: ViewSettings, now: Instant) {
        self.me = me
        self.settings = settings
        self.now = now
        accepted = stored?.accepted ?? 0
        last = stored?.last
        bootedAt = now
        deadline = now
        group = ViewGroup(me, [], current: [])
    }

    /// Whether all members of the open view say that it is theirs: `cluster_integrity`.
    package var isIntact: Bool {
        guard phase == .open, let view else { return false }
        return view.members.allSatisfy { $0 == me || content(of: $0)?.view == view.mark }
    }

    /// One event. `effects` are appended to.
    package mutating func step(
        _ event: ViewEvent, now: Instant, random: inout SeededRandom, effects: inout [ViewEffect]
    ) {
        swap(&self.random, &random)
        swap(&self.effects, &effects)
        let overslept = now.nanoseconds(since: deadline) > patience * 500_000
        self.now = max(now, self.now)
        if overslept { forgive() }
        take(event)
        repeat {
            settle()
            consider()
        } while !toMyself.isEmpty
        swap(&self.random, &random)
        swap(&self.effects, &effects)
    }

    private mutating func take(_ event: ViewEvent) {
        switch event {
        case .timer: break
        case .neighbours(let neighbours): notice(neighbours)
        case .message(let sender, let bytes): receive(from: sender, bytes)
        case .stored(let ticket): stored(ticket)
        case .notStored(let ticket, let reason): notStored(ticket, reason)
        case .block(let number, let bytes): tookBlock(number, bytes)
        case .prepared(let mark, let hash): prepared(mark, hash)
        case .notPrepared(let mark, let reason): notPrepared(mark, reason)
        case .recluster(let token): recluster(token)
        case .settings(let settings):
            self.settings = settings
            groupIsStale = true
        case .leave: isLeaving = true
        }
    }

    /// What this node has told itself. Each message leads to at most one further, so this ends.
    private mutating func settle() {
        while !toMyself.isEmpty {
            let message = toMyself.removeFirst()
            handle(message, from: me)
        }
    }

    mutating func send(_ message: ViewMessage, to member: Member) {
        if member == me {
            toMyself.append(message)
        } else {
            effects.append(.send(to: member, message.bytes(to: member)))
        }
    }

    mutating func log(_ level: ClusterLogLevel, _ text: String) {
        effects.append(.log(ClusterLogLine(level, .clustering, text)))
    }

    /// Asks for a timer then.
    mutating func wake(at instant: Instant) { wake = min(wake, instant) }

    // ---- Time ----

    /// Milliseconds between questions.
    var pace: UInt64 { min(max(settings.heartbeatIntervalMilliseconds / 2, roundTrip / 500_000, 10), 1_000) }

    /// Milliseconds after which a node that does not answer is silent. Longer after failures: the network may be slower than
    /// was measured.
    var patience: UInt64 {
        max(settings.timeoutMilliseconds, min(roundTrip / 125_000, 4_000), 4 * pace) * (1 + min(failures, 8) / 2)
    }

    /// Milliseconds for one half of an agreement, however much its members say that they are at it.
    var patienceMax: UInt64 { 5_000 + 2 * patience }

    /// This node was paused: what others have sent meanwhile may still have to be read.
    private mutating func forgive() {
        attempt?.forgive(now)
        awaited?.heardAt = now
        poll?.since = now
        acceptance?.heardAt = now
        unevenSince = nil
        asymmetricSince = nil
    }

    // ---- Who is who ----

    func neighbour(_ member: Member) -> Neighbour? {
        guard let place = placeOfNeighbour(member.id), isSame(neighbours[place].member, member) else { return nil }
        return neighbours[place]
    }

    /// Neighbours are sorted by id.
    func placeOfNeighbour(_ id: NodeID) -> Int? {
        let place = neighbours.lowerBound { $0.member.id < id }
        return place < neighbours.count && neighbours[place].member.id == id ? place : nil
    }

    func content(of member: Member) -> PulseContent? { neighbour(member)?.content }

    /// Whether both name the same run of a node.
    func isSame(_ one: Member, _ other: Member) -> Bool {
        breaks.contains(.ignoresIncarnation) ? one.id == other.id : one == other
    }

    func contains(_ members: [Member], _ member: Member) -> Bool { members.contains { isSame($0, member) } }

    /// Place in a list of members.
    func place(of member: Member, in members: [Member]) -> Int? { members.firstIndex { isSame($0, member) } }
}

/// A node that did not answer where it should have.
struct Suspect {
    let member: Member
    /// When it should have spoken, at the latest.
    let silentSince: Instant
    /// Not asked before.
    var until: Instant
    var milliseconds: UInt64
    /// It has answered since: it may be in a view again after `until`.
    var hasAnswered = false
    var askedAt: Instant

    static let millisecondsMax: UInt64 = 8_000
}

/// A store under way.
struct PendingStore {
    let ticket: UInt64
    let content: StoredView
    let since: Instant
}

/// Whom this node expects to propose.
struct Awaited {
    let member: Member
    var heardAt: Instant
    var askedAt: Instant?
    /// The first question without an answer.
    var unansweredSince: Instant?
}
