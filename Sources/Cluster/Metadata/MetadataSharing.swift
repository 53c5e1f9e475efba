// Sharing of system metadata among the members of a view. Pure. Invariants:
// 1. `items` never loses a version but to one that replaces it. All that is on this node's disk is in it, but for a
//    change of its own that has just been stored and is sent to all (`shared`).
// 2. A change is named and stored here first, then sent to the other members of the open view, and again until all have
//    answered that they have it on disk; in the next view it is sent again to all of that. It is acknowledged only then.
// 3. From `block` to the next `opened` nothing is taken from others but what a bundle holds: all members of the next view
//    open it with what is in its blocks.
// 4. A bundle is on disk and in force before `prepared`; every member makes the same of the same bundle.
// 5. `durable` is on this node's disk and in force for certain, and is part of `items`.
// 6. A token is answered once: `done`, `refused` (nothing has changed and nothing will), or `inDoubt`.
package import Base
package import Fabric
package import Membership

/// A change that somebody asks for.
package struct MetadataChange: Equatable, Sendable {
    package enum Value: Equatable, Sendable {
        /// Nil deletes the item.
        case value(String?)
        /// Of a truncate: a time after all that any member of the view has published so far, of that namespace.
        case afterAllWrites(namespace: String)
    }
    package let module: MetadataModule
    package let key: MetadataKey
    package let value: Value
    /// Of a roster: although too few of the one before are here.
    package let isForced: Bool

    package init(_ module: MetadataModule, _ key: MetadataKey, _ value: Value, isForced: Bool = false) {
        self.module = module
        self.key = key
        self.value = value
        self.isForced = isForced
    }
}

/// What came of a change.
package enum MetadataAnswer: Equatable, Sendable {
    /// Every member of the view has it on disk.
    case done
    /// Nothing has changed: why.
    case refused(String)
    /// It may have happened, and may happen yet: why nobody knows.
    case inDoubt(String)
}

/// What happens to the sharing of metadata.
package enum MetadataEvent: Sendable {
    case timer
    /// Changes of one request, at that wall clock time in milliseconds since 2010; all or none of them.
    case change(token: UInt64, [MetadataChange], time: UInt64)
    /// What all members of a view have said of their items, as `block` gave it.
    case prepare(ViewMark, blocks: [MemberBlock])
    /// The view is open here.
    case opened(View)
    /// A body of kind `metadata`.
    case message(from: Member, [UInt8])
    case stored(UInt64)
    case notStored(UInt64, reason: String)
    /// Answers `reserve`, in its order.
    case reserved(UInt64, [UInt64])
}

/// A member's part of a bundle.
package struct MemberBlock: Equatable, Sendable {
    package let member: Member
    package let bytes: [UInt8]

    package init(member: Member, bytes: [UInt8]) {
        self.member = member
        self.bytes = bytes
    }
}

/// What the sharing of metadata wants done, in this order.
package enum MetadataEffect: Sendable {
    case send(to: Member, [UInt8])
    /// To be merged into the node's files, durable, and then put in force, before it is answered.
    case store(UInt64, [MetadataItem])
    /// Times after all that this node has published of these namespaces, before which nothing is published any more.
    case reserve(UInt64, [String])
    /// What the bundle of that view says is durable and in force.
    case prepared(ViewMark)
    case notPrepared(ViewMark, reason: String)
    case answer(token: UInt64, MetadataAnswer)
    case log(ClusterLogLine)
}

/// Numbers of the sharing.
package struct MetadataSettings: Sendable {
    /// Until what was not answered is sent again.
    package var resendMilliseconds: UInt64 = 200
    /// Until a change is answered in any case.
    package var answerMilliseconds: UInt64 = 10_000
    /// More bytes of items than this stand in a block as their fingerprint.
    package var wholeBlockSizeMax = 64 << 10
    /// Changes that wait for their turn.
    package var waitingMax = 1024

    package init() {}
}

/// Rules that a test may switch off, to see that it notices.
package struct MetadataBreaks: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// A change is answered before the others have it.
    package static let answersEarly = MetadataBreaks(rawValue: 1)
    /// Another member's change is acknowledged before it is on disk.
    package static let acknowledgesUnstored = MetadataBreaks(rawValue: 2)
    /// Changes are taken while a view is agreed on.
    package static let takesWhileFrozen = MetadataBreaks(rawValue: 4)
    /// What was not acknowledged by all is forgotten when the view changes.
    package static let forgetsAtViewChange = MetadataBreaks(rawValue: 8)
}

/// See the invariants above. Driven by one thread.
package struct MetadataSharing: Sendable {
    let me: Member
    let settings: MetadataSettings
    package var breaks: MetadataBreaks = []
    /// All items that are known.
    package internal(set) var items: MetadataItems
    /// Those that are on this node's disk, and in force.
    package internal(set) var durable: MetadataItems
    /// The view that is open, or was last.
    var view: View?
    /// A view is being agreed on, or there was none yet.
    var isFrozen = true
    /// The highest number that a block was taken for.
    var frozenNumber: UInt64 = 0
    /// What the last block was taken of, for those who ask.
    var snapshot = Snapshot([])
    var preparation: Preparation?
    var queue: [Asked] = []
    /// What is being done with the first of the queue.
    var stage = Stage.waiting
    /// Changes of this node that others may not have yet.
    var shared: [Shared] = []
    /// Versions from others that are being stored.
    var receiving: [Received] = []
    /// Members that wait for times of this node.
    var reserving: [Reserving] = []
    /// The highest version that this node has given.
    var lastGiven = MetadataVersion.none
    var lastTicket: UInt64 = 0
    var resendAt: Instant?

    /// A node that holds `items` on its disk, and is in no view.
    package init(me: Member, items: MetadataItems, settings: MetadataSettings = MetadataSettings()) {
        self.me = me
        self.items = items
        durable = items
        self.settings = settings
    }

    /// When `timer` is wanted; nil: not at all.
    package var deadline: Instant? {
        let answers = queue.filter { $0.token != nil }.map(\.deadline)
            + shared.filter { $0.token != nil }.map(\.deadline)
        return (answers + [resendAt].compactMap { $0 }).min()
    }

    /// The view in which changes are taken now; nil while one is being agreed on.
    package var openView: View? { isFrozen ? nil : view }

    package mutating func step(_ event: MetadataEvent, now: Instant, effects: inout [MetadataEffect]) {
        switch event {
        case .timer: break
        case .change(let token, let changes, let time): ask(token, changes, time, now, &effects)
        case .prepare(let mark, let blocks): prepare(mark, blocks, now, &effects)
        case .opened(let view): begin(view, now, &effects)
        case .message(let sender, let body): receive(sender, body, now, &effects)
        case .stored(let ticket): stored(ticket, now, &effects)
        case .notStored(let ticket, let reason): notStored(ticket, reason, now, &effects)
        case .reserved(let ticket, let times): reserved(ticket, times, now, &effects)
        }
        answerLate(now, &effects)
        goOn(now, &effects)
        sendAgain(now, &effects)
    }

    /// What this node has to say of its items in view `number`; from now on nothing is taken from others.
    package mutating func block(for number: UInt64) -> [UInt8] {
        isFrozen = true
        frozenNumber = max(frozenNumber, number)
        // What is being stored of an older bundle may not come to be: the next one stores it again.
        preparation = nil
        snapshot = Snapshot(items.all)
        // Times that were collected in the old view say nothing about members of the new one.
        if case .collecting = stage { stage = .waiting }
        guard snapshot.bytes.count > settings.wholeBlockSizeMax else { return MetadataBlock.whole(snapshot.items).bytes }
        return MetadataBlock.fingerprint(snapshot.fingerprint).bytes
    }

    private mutating func begin(_ view: View, _ now: Instant, _ effects: inout [MetadataEffect]) {
        // A block for a later view was taken already: that one is to open.
        guard view.mark.number >= frozenNumber, view.members.contains(me) else { return }
        self.view = view
        isFrozen = false
        preparation = nil
        if breaks.contains(.forgetsAtViewChange) {
            for one in shared { if let token = one.token { effects.append(.answer(token: token, .done)) } }
            shared = []
        }
        for place in shared.indices { shared[place].waitingFor = others }
        resendAt = shared.isEmpty ? nil : now
        settleShared(&effects)
    }

    /// The other members of the view.
    var others: [Member] { view?.members.filter { $0 != me } ?? [] }

    mutating func ticket() -> UInt64 {
        lastTicket += 1
        return lastTicket
    }

    /// When what is not answered is sent again: sooner if something else is due before.
    mutating func sendAgainLater(_ now: Instant) {
        let later = now.advanced(byMilliseconds: settings.resendMilliseconds)
        resendAt = min(resendAt ?? later, later)
    }

    private mutating func sendAgain(_ now: Instant, _ effects: inout [MetadataEffect]) {
        guard let due = resendAt, due <= now else { return }
        resendAt = nil
        sendShared(&effects)
        askForTimes(&effects)
        askForItems(&effects)
        if isWaitingForOthers { sendAgainLater(now) }
    }

    private var isWaitingForOthers: Bool {
        if preparation?.missing.isEmpty == false { return true }
        guard !isFrozen else { return false }
        if case .collecting(let collection) = stage, !collection.waitingFor.isEmpty { return true }
        return shared.contains { !$0.waitingFor.isEmpty }
    }

    mutating func log(_ level: ClusterLogLevel, _ text: String, _ effects: inout [MetadataEffect]) {
        effects.append(.log(ClusterLogLine(level, .smd, text)))
    }

    /// Takes versions in.
    mutating func merge(_ versions: [MetadataItem], _ effects: inout [MetadataEffect]) {
        for item in versions where items.merge(item) {
            let held = items.versions(item.module, item.key)
            if held.count > 1 { tellConflict(held, &effects) }
        }
    }

    private mutating func tellConflict(_ held: [MetadataItem], _ effects: inout [MetadataEffect]) {
        let (first, place) = (held[0], "\(held[0].module) {\(held[0].key)}")
        if first.isCutOff {
            guard let later = held.dropFirst().first(where: { $0.isOrdered(after: first) }) else { return }
            log(.warning, "\(place): \(first.number) of node \(first.version.node) counts, the change to"
                + " \(later.value ?? "nothing") by node \(later.version.node) did not know of it", &effects)
        } else if let other = held.dropFirst().first(where: { !$0.hasValue(of: first) }) {
            log(.warning, "\(place) was changed by two nodes that did not know of each other: '\(first.value ?? "-")' of"
                + " node \(first.version.node) counts, '\(other.value ?? "-")' of node \(other.version.node) is kept"
                + " until the next change (smd-show:module=conflicts)", &effects)
        }
    }
}

extension MetadataSharing {
    /// All items at the moment of a block.
    struct Snapshot: Sendable {
        let items: [MetadataItem]
        /// As they travel.
        let bytes: [UInt8]
        let fingerprint: MetadataFingerprint

        init(_ items: [MetadataItem]) {
            self.items = items
            var writer = FabricWriter()
            writer.list(items) { $0.metadataItem($1) }
            bytes = writer.bytes
            fingerprint = MetadataFingerprint(of: bytes)
        }
    }

    /// A bundle on its way to this node's disk.
    struct Preparation: Sendable {
        let mark: ViewMark
        /// What the blocks hold, and what was fetched.
        var versions: [MetadataItem] = []
        /// Items that are not here yet, and who has them.
        var missing: [(print: MetadataFingerprint, holder: Member)] = []
        /// Set while the bundle is being stored.
        var ticket: UInt64?
        /// What is being stored.
        var fresh: [MetadataItem] = []
        var isDone = false
    }

    /// A member that asks for times after all writes.
    struct Reserving: Sendable {
        let ticket: UInt64
        let sender: Member
        let mark: ViewMark
        let number: UInt64
    }

    /// A request.
    struct Asked: Sendable {
        /// Nil when it was answered.
        var token: UInt64?
        let changes: [MetadataChange]
        let time: UInt64
        let deadline: Instant
    }

    enum Stage: Sendable {
        case waiting
        /// Times after all writes are asked for.
        case collecting(Collection)
        case storing(ticket: UInt64, [MetadataItem], isForced: Bool)
    }

    struct Collection: Sendable {
        let ticket: UInt64
        let namespaces: [String]
        var waitingFor: [Member]
        /// The highest so far, of each namespace.
        var times: [UInt64]
    }

    /// A change of this node that is on its disk.
    struct Shared: Sendable {
        let number: UInt64
        var token: UInt64?
        let deadline: Instant
        let items: [MetadataItem]
        let isForced: Bool
        /// Those of the view that have not said that they have it.
        var waitingFor: [Member]
    }

    /// A change of another member.
    struct Received: Sendable {
        let ticket: UInt64
        let sender: Member
        let mark: ViewMark
        let number: UInt64
        let items: [MetadataItem]
    }
}
