// The part of a member: it accepts, hands in its block, prepares, opens.
internal import Base
internal import Fabric

/// The view that a node has accepted last.
struct Acceptance {
    enum Stage: Int, Comparable {
        /// Number not durable yet, or block not there.
        case accepting
        /// The block is on its way to the proposer.
        case accepted
        case preparing
        case prepared
        case opened
        static func < (left: Stage, right: Stage) -> Bool { left.rawValue < right.rawValue }
    }

    let view: View
    let proposer: Member
    var stage = Stage.accepting
    /// The number is durable.
    var isDurable = false
    var block: [UInt8]?
    /// The view is durable as the last one.
    var isRecorded = false
    var mapHash: UInt64?
    /// When its proposer last spoke.
    var heardAt: Instant
    let acceptedAt: Instant

    var mark: ViewMark { view.mark }
}

extension Views {
    mutating func receive(from sender: Member, _ bytes: [UInt8]) {
        do throws(FabricError) {
            let (message, receiver) = try ViewMessage.decode(bytes)
            guard isSame(receiver, me), sender.id != me.id, !isOld(sender) else { return }
            handle(message, from: sender)
        } catch {
            guard garbledSaidAt.map({ $0.advanced(byMilliseconds: 1_000) <= now }) ?? true else { return }
            garbledSaidAt = now
            log(.warning, "a message of node \(sender.id) cannot be understood and is ignored: \(error)")
        }
    }

    /// Whether heartbeats know another incarnation of it.
    private func isOld(_ sender: Member) -> Bool {
        placeOfNeighbour(sender.id).map { !isSame(neighbours[$0].member, sender) } ?? false
    }

    mutating func handle(_ message: ViewMessage, from sender: Member) {
        heard(sender, message)
        if let mark = message.mark, case .propose = message { see(mark.number) }
        switch message {
        case .ask(let members, let isRunning): asked(by: sender, members, isRunning)
        case .answer(let open, let accepted, let verdict, let canPropose):
            answered(sender, open, accepted, verdict, canPropose)
        case .propose(let view, let isRunning): proposed(view, isRunning, by: sender)
        case .accept(let mark, let block): accepted(mark, block, by: sender)
        case .refuse(let mark, let accepted, let verdict): refused(mark, accepted, verdict, by: sender)
        case .working(let mark): working(mark, sender)
        case .bundle(let mark, let blocks): bundled(mark, blocks, by: sender)
        case .prepared(let mark, let hash): prepared(mark, hash, by: sender)
        case .failed(let mark, let reason): failed(mark, reason, by: sender)
        case .open(let mark): opened(mark, by: sender)
        case .void(let mark, let reason): voided(mark, reason, by: sender)
        }
    }

    mutating func see(_ number: UInt64) {
        if number <= ViewMark.numberMax { highestSeen = max(highestSeen, number) }
    }

    private mutating func heard(_ sender: Member, _ message: ViewMessage) {
        if let acceptance, isSame(acceptance.proposer, sender) { self.acceptance?.heardAt = now }
        // Who only asks may be one that nothing reaches.
        guard message.isReply else { return }
        if let awaited, isSame(awaited.member, sender) { self.awaited?.heardAt = now }
        if let place = suspects.firstIndex(where: { $0.member == sender }), !suspects[place].hasAnswered {
            suspects[place].hasAnswered = true
            measure(since: suspects[place].silentSince)
        }
    }

    // ---- Accepting ----

    private mutating func asked(by sender: Member, _ members: [Member], _ isRunning: Bool) {
        let opinion = members.isEmpty ? .fine : verdict(members, isRunning: isRunning, proposer: sender, isAsked: true)
        let canPropose = isReady && (heldBackUntil ?? now) <= now && group.members.count >= settings.minClusterSize
        send(.answer(open: phase == .open ? view?.mark ?? .none : .none, accepted: accepted, opinion,
                     canPropose: canPropose), to: sender)
    }

    /// Whether stores come back, and views could be prepared.
    var isReady: Bool {
        if let unableUntil, unableUntil > now { return false }
        guard storeAgainAt == nil, let oldest = stores.first else { return storeAgainAt == nil }
        return oldest.since.advanced(byMilliseconds: patienceMax / 2) > now
    }

    /// What this node thinks of a view of these members.
    func verdict(_ members: [Member], isRunning: Bool, proposer: Member, isAsked: Bool) -> ViewVerdict {
        guard contains(members, me) else { return .better }
        if isAsked && !isReady { return .notReady }
        guard members.count >= settings.minClusterSize else { return .tooSmall }
        guard isRunning || startMissing(members).isEmpty else { return .waits }
        guard proposer != me, !contains(group.members, proposer) else { return .fine }
        if let node = neighbour(proposer), isUnhealthy(node) { return .better }
        return isBetter(standing, than: members) ? .better : .fine
    }

    /// Those of the group that are together already. Others of it may be heard and not be reached, which who has never asked
    /// them cannot know; so only without a view they count.
    private var standing: [Member] {
        guard phase != .orphan, let view else { return group.members }
        return group.members.filter { $0 == me || view.members.contains($0) }
    }

    /// More members, then more of those that are together already, then the larger proposer.
    private func isBetter(_ mine: [Member], than theirs: [Member]) -> Bool {
        guard mine.count == theirs.count else { return mine.count > theirs.count }
        let current = phase == .orphan ? [] : view?.members ?? []
        let (ours, others) = (mine.count { current.contains($0) }, theirs.count { current.contains($0) })
        return ours == others ? mine[0] > theirs[0] : ours > others
    }

    private mutating func proposed(_ view: View, _ isRunning: Bool, by sender: Member) {
        guard view.proposer == sender.id, contains(view.members, sender), contains(view.members, me) else { return }
        if let acceptance, acceptance.view == view, isSame(acceptance.proposer, sender) { return sayStage() }
        guard mayAccept(view, by: sender) else {
            return send(.refuse(view.mark, accepted: accepted, .stale), to: sender)
        }
        let verdict = verdict(view.members, isRunning: isRunning, proposer: sender, isAsked: false)
        guard verdict == .fine else { return send(.refuse(view.mark, accepted: accepted, verdict), to: sender) }
        accept(view, by: sender)
    }

    private func mayAccept(_ view: View, by sender: Member) -> Bool {
        if view.mark.number > accepted { return true }
        guard breaks.contains(.twoProposersOneNumber), let acceptance else { return false }
        return view.mark.number == accepted && acceptance.proposer.id != sender.id
    }

    private mutating func accept(_ view: View, by sender: Member) {
        giveUpAcceptance(because: "node \(sender.id) proposes view \(view.mark.number)")
        if let attempt, attempt.view.mark != view.mark { self.attempt = nil }
        accepted = view.mark.number
        acceptance = Acceptance(view: view, proposer: sender, heardAt: now, acceptedAt: now)
        if phase == .open {
            phase = .frozen
            frozenSince = now
        }
        leavingInView = leavingNow
        wantsRecluster = false
        suspects.removeAll { $0.member == sender }
        groupIsStale = true
        effects.append(.freeze(view.mark.number))
        if breaks.contains(.acceptsWithoutStoring) {
            acceptance?.isDurable = true
        } else {
            store()
        }
    }

    /// What was accepted before will not be opened here any more.
    private mutating func giveUpAcceptance(because reason: String) {
        if let acceptance, acceptance.stage == .preparing || acceptance.stage == .prepared {
            effects.append(.void(acceptance.mark, reason: reason))
        }
        acceptance = nil
    }

    /// Tells the proposer how far this node is.
    private mutating func sayStage() {
        guard let acceptance else { return }
        let mark = acceptance.mark
        switch acceptance.stage {
        case .accepted where breaks.contains(.takesBlockAgain), .preparing where breaks.contains(.takesBlockAgain):
            effects.append(.freeze(mark.number))
        case .accepting, .preparing: send(.working(mark), to: acceptance.proposer)
        case .accepted: send(.accept(mark, block: acceptance.block ?? []), to: acceptance.proposer)
        case .prepared, .opened: send(.prepared(mark, mapHash: acceptance.mapHash ?? 0), to: acceptance.proposer)
        }
    }

    mutating func tookBlock(_ number: UInt64, _ bytes: [UInt8]) {
        guard let acceptance, acceptance.mark.number == number else { return }
        if breaks.contains(.takesBlockAgain), acceptance.block != nil {
            self.acceptance?.block = bytes
            return send(.accept(acceptance.mark, block: bytes), to: acceptance.proposer)
        }
        guard acceptance.block == nil else { return }
        self.acceptance?.block = bytes
        acceptedIfReady()
    }

    private mutating func acceptedIfReady() {
        guard let acceptance, acceptance.stage == .accepting, acceptance.isDurable, let block = acceptance.block else {
            return
        }
        self.acceptance?.stage = .accepted
        send(.accept(acceptance.mark, block: block), to: acceptance.proposer)
    }

    // ---- Storing ----

    mutating func store() {
        var content = StoredView(accepted: accepted, last: last)
        if let acceptance, acceptance.stage >= .preparing { content.last = acceptance.view }
        if breaks.contains(.acceptsWithoutStoring) { content = StoredView(accepted: 0, last: nil) }
        storeAgainAt = nil
        stores.append(PendingStore(ticket: nextTicket, content: content, since: now))
        effects.append(.store(nextTicket, content.bytes))
        nextTicket += 1
    }

    mutating func stored(_ ticket: UInt64) {
        guard let done = stores.last(where: { $0.ticket <= ticket }) else { return }
        stores.removeAll { $0.ticket <= ticket }
        last = done.content.last
        guard let acceptance else { return }
        if done.content.accepted >= acceptance.mark.number { self.acceptance?.isDurable = true }
        if done.content.last == acceptance.view || breaks.contains(.acceptsWithoutStoring) {
            self.acceptance?.isRecorded = true
        }
        acceptedIfReady()
        preparedIfReady()
    }

    mutating func notStored(_ ticket: UInt64, _ reason: String) {
        guard stores.contains(where: { $0.ticket == ticket }) else { return }
        stores.removeAll { $0.ticket == ticket }
        log(.warning, "the file of the view cannot be stored: \(reason). This node takes part in no view until it can")
        storeAgainAt = now.advanced(byMilliseconds: 1_000)
    }

    // ---- Preparing ----

    private mutating func bundled(_ mark: ViewMark, _ blocks: [[UInt8]], by sender: Member) {
        guard let acceptance, acceptance.mark == mark, isSame(acceptance.proposer, sender),
            acceptance.stage == .accepted, blocks.count == acceptance.view.members.count
        else { return }
        let mine = place(of: me, in: acceptance.view.members).map { blocks[$0] }
        guard mine == acceptance.block || breaks.contains(.takesBlockAgain)
            || breaks.contains(.ignoresIncarnation) else {
            return log(.warning, "node \(sender.id) sends a bundle of view \(mark.number) with another block of this node")
        }
        self.acceptance?.stage = .preparing
        send(.working(mark), to: sender)
        store()
        let members = acceptance.view.members
        effects.append(.prepare(acceptance.view, blocks: zip(members, blocks).map { (member: $0, block: $1) }))
    }

    mutating func prepared(_ mark: ViewMark, _ hash: UInt64) {
        guard let acceptance, acceptance.mark == mark, acceptance.stage == .preparing else { return }
        self.acceptance?.mapHash = hash
        preparedIfReady()
    }

    private mutating func preparedIfReady() {
        guard let acceptance, acceptance.stage == .preparing, acceptance.isRecorded, let hash = acceptance.mapHash else {
            return
        }
        self.acceptance?.stage = .prepared
        send(.prepared(acceptance.mark, mapHash: hash), to: acceptance.proposer)
    }

    mutating func notPrepared(_ mark: ViewMark, _ reason: String) {
        guard let acceptance, acceptance.mark == mark, acceptance.stage == .preparing else { return }
        log(.warning, "view \(mark.number) cannot be prepared: \(reason)")
        unableUntil = now.advanced(byMilliseconds: min(1_000 << min(prepareFailures, 6), 64_000))
        prepareFailures += 1
        self.acceptance = nil
        effects.append(.void(mark, reason: reason))
        send(.failed(mark, reason: reason), to: acceptance.proposer)
    }

    private mutating func voided(_ mark: ViewMark, _ reason: String, by sender: Member) {
        guard let acceptance, acceptance.mark == mark, isSame(acceptance.proposer, sender),
            acceptance.stage != .opened
        else { return }
        log(.warning, "view \(mark.number) is void: \(reason)")
        giveUpAcceptance(because: reason)
    }

    // ---- Opening ----

    private mutating func opened(_ mark: ViewMark, by sender: Member) {
        guard let acceptance, acceptance.mark == mark, acceptance.stage == .prepared,
            contains(acceptance.view.members, sender)
        else { return }
        openView()
    }

    /// Somebody who has opened the view that this node has prepared is as good as word from its proposer (invariant 3).
    mutating func openIfOthersHave() {
        guard let acceptance, acceptance.stage == .prepared else { return }
        let hasOpened = acceptance.view.members.contains { $0 != me && content(of: $0)?.view == acceptance.mark }
        if hasOpened { openView() }
    }

    private mutating func openView() {
        guard let acceptance else { return }
        precondition(acceptance.mark.number > view?.mark.number ?? 0 || !breaks.isEmpty, "numbers that are opened rise")
        self.acceptance?.stage = .opened
        view = acceptance.view
        phase = .open
        hasOpened = true
        prepareFailures = 0
        unableUntil = nil
        orphanReason = ""
        waitingFor = []
        waitingSaidAt = nil
        forgetTroubles(with: acceptance.view.members)
        effects.append(.open(acceptance.view))
        let names = acceptance.view.members.map { "\($0.id)" }.joined(separator: " ")
        log(.info, "view \(acceptance.mark.number) is open, key \(String(acceptance.mark.key, radix: 16)), members \(names)")
    }
}
