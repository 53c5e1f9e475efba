// The part of a proposer: it asks newcomers, proposes, gathers blocks, sends the bundle, compares hashes.
internal import Base
internal import Fabric

/// A view that this node has proposed. Arrays are parallel to the view's members.
struct Attempt {
    let view: View
    let isRunning: Bool
    let because: String
    var blocks: [[UInt8]?]
    var hashes: [UInt64?]
    var heardAt: [Instant]
    /// When this half of it began.
    var begunAt: Instant
    var sendAgainAt: Instant
    /// As sent, once all blocks are there.
    var bundle: ViewMessage?

    init(_ view: View, isRunning: Bool, because: String, now: Instant, sendAgainAt: Instant) {
        self.view = view
        self.isRunning = isRunning
        self.because = because
        blocks = view.members.map { _ in nil }
        hashes = view.members.map { _ in nil }
        heardAt = view.members.map { _ in now }
        begunAt = now
        self.sendAgainAt = sendAgainAt
    }

    /// Places of those that this half still waits for.
    var unfinished: [Int] {
        view.members.indices.filter { bundle == nil ? blocks[$0] == nil : hashes[$0] == nil }
    }

    mutating func forgive(_ now: Instant) {
        heardAt = heardAt.map { _ in now }
        begunAt = now
    }
}

/// The question to those who are not in the open view already, whether they would accept: so that a proposal that somebody
/// will refuse freezes nobody.
struct Poll {
    let members: [Member]
    var verdicts: [ViewVerdict?]
    var since: Instant
    var askedAt: Instant?
}

extension Views {
    // ---- Asking ----

    /// Whether all newcomers of the group would accept. Asks those that have not said.
    mutating func everybodyAgrees(isRunning: Bool) -> Bool {
        let members = group.members
        if poll?.members != members {
            let known = phase == .orphan ? [] : view?.members ?? []
            let verdicts: [ViewVerdict?] = members.map { $0 == me || isTrusted($0, known) ? .fine : nil }
            poll = Poll(members: members, verdicts: verdicts, since: now)
        }
        guard var poll else { return false }
        let silent = members.indices.filter { poll.verdicts[$0] == nil }
        if silent.isEmpty { return heed(poll) }
        let end = poll.since.advanced(byMilliseconds: patience)
        if end <= now {
            silent.forEach { suspect(members[$0], "does not answer whether it would take part in a view") }
            return false
        }
        let again = poll.askedAt?.advanced(byMilliseconds: pace) ?? now
        if again <= now {
            silent.forEach { send(.ask(members: members, isRunning: isRunning), to: members[$0]) }
            poll.askedAt = now
            self.poll = poll
        }
        wake(at: min(end, (poll.askedAt ?? now).advanced(byMilliseconds: pace)))
        return false
    }

    /// Whether it need not be asked.
    private func isTrusted(_ member: Member, _ known: [Member]) -> Bool {
        known.contains(member) && !formerSuspects.contains { $0.member == member }
    }

    /// Acts on what the newcomers think.
    private mutating func heed(_ poll: Poll) -> Bool {
        for (member, verdict) in zip(poll.members, poll.verdicts) where verdict != .fine {
            self.poll = nil
            act(on: verdict ?? .notReady, of: member)
            return false
        }
        return true
    }

    /// What follows from a refusal.
    private mutating func act(on verdict: ViewVerdict, of member: Member) {
        switch verdict {
        case .fine: break
        case .stale: tryAgain(afterMilliseconds: failures == 0 ? 0 : backOff())
        case .better: holdBack("node \(member.id) sees a better group without it")
        case .waits: tryAgain(afterMilliseconds: min(2 * settings.batchMilliseconds, 1_000))
        case .tooSmall: suspect(member, "wants min-cluster-size and refuses a view of \(group.members.count)")
        case .notReady: suspect(member, "is not able to store")
        }
    }

    mutating func answered(
        _ sender: Member, _ open: ViewMark, _ accepted: UInt64, _ verdict: ViewVerdict, _ canPropose: Bool
    ) {
        see(accepted)
        if let poll, poll.askedAt != nil, let place = place(of: sender, in: poll.members) {
            measure(since: poll.since)
            self.poll?.verdicts[place] = verdict
        } else if let awaited, isSame(awaited.member, sender), let since = awaited.unansweredSince {
            self.awaited?.unansweredSince = nil
            measure(since: since)
            if !canPropose { suspect(sender, "cannot propose a view") }
        }
        if let acceptance, acceptance.mark == open { handle(.open(open), from: sender) }
    }

    mutating func measure(since asked: Instant) {
        roundTrip = max(min(now.nanoseconds(since: asked), 1_000_000_000), roundTrip / 8 * 7)
    }

    // ---- Proposing ----

    mutating func propose(because: String, isRunning: Bool) {
        let number = max(accepted, highestSeen) + 1
        guard number <= ViewMark.numberMax else { return }
        let mark = ViewMark(number: number, key: newKey())
        let view = View(mark: mark, members: group.members, proposer: me.id)
        attempt = Attempt(
            view, isRunning: isRunning, because: because, now: now, sendAgainAt: now.advanced(byMilliseconds: pace))
        log(.info, "proposes view \(number) of \(view.members.count) nodes: \(because)")
        poll = nil
        for member in view.members { send(.propose(view, isRunning: isRunning), to: member) }
    }

    /// Never 0, and none that is known.
    private mutating func newKey() -> UInt64 {
        while true {
            let key = random.next() % ViewMark.keyEnd
            let isKnown = view?.mark.key == key || neighbours.contains { $0.content.view.key == key }
            if key != 0 && !isKnown { return key }
        }
    }

    /// Place of the sender, if it is about the view that is being agreed on.
    private mutating func placeInAttempt(_ mark: ViewMark, _ sender: Member) -> Int? {
        guard let attempt, attempt.view.mark == mark, let place = place(of: sender, in: attempt.view.members) else {
            return nil
        }
        if attempt.bundle == nil, attempt.heardAt[place] == attempt.begunAt, sender != me { measure(since: attempt.begunAt) }
        self.attempt?.heardAt[place] = now
        return place
    }

    mutating func accepted(_ mark: ViewMark, _ block: [UInt8], by sender: Member) {
        guard let place = placeInAttempt(mark, sender), let attempt else { return }
        let takesAgain = breaks.contains(.takesBlockAgain) && attempt.blocks[place] != nil
        if attempt.blocks[place] == nil || takesAgain { self.attempt?.blocks[place] = block }
        if takesAgain && attempt.bundle != nil {
            let newer = newBundle()
            self.attempt?.bundle = newer
        }
        if let bundle = self.attempt?.bundle { return send(bundle, to: attempt.view.members[place]) }
        guard let bundle = newBundle() else { return }
        let (instant, again) = (now, now.advanced(byMilliseconds: pace))
        self.attempt?.bundle = bundle
        self.attempt?.forgive(instant)
        self.attempt?.sendAgainAt = again
        for member in attempt.view.members { send(bundle, to: member) }
    }

    /// All blocks, if they are there.
    private func newBundle() -> ViewMessage? {
        guard let attempt else { return nil }
        let blocks = attempt.blocks.compactMap { $0 }
        return blocks.count == attempt.blocks.count ? .bundle(attempt.view.mark, blocks: blocks) : nil
    }

    mutating func working(_ mark: ViewMark, _ sender: Member) { _ = placeInAttempt(mark, sender) }

    mutating func prepared(_ mark: ViewMark, _ hash: UInt64, by sender: Member) {
        guard let place = placeInAttempt(mark, sender) else {
            // It asks, in effect, what became of the view.
            if phase == .open, view?.mark == mark { send(.open(mark), to: sender) }
            return
        }
        attempt?.hashes[place] = hash
        guard let attempt, attempt.bundle != nil else { return }
        let hashes = attempt.hashes.compactMap { $0 }
        guard hashes.count == attempt.hashes.count else { return }
        guard hashes.allSatisfy({ $0 == hashes[0] }) else { return disagree(attempt, hashes) }
        self.attempt = nil
        for member in attempt.view.members { send(.open(mark), to: member) }
    }

    /// The loud end: a fault of the software, or of memory.
    private mutating func disagree(_ attempt: Attempt, _ hashes: [UInt64]) {
        let said = zip(attempt.view.members, hashes).map { "\($0.id) has \(String($1, radix: 16))" }
        let reason = "its members compute different maps: " + said.joined(separator: ", ")
        log(.warning, "view \(attempt.view.mark.number): \(reason). Nobody opens it; compare the versions of the nodes")
        end(attempt, reason, afterMilliseconds: max(backOff(), settings.batchMilliseconds))
    }

    mutating func failed(_ mark: ViewMark, _ reason: String, by sender: Member) {
        guard placeInAttempt(mark, sender) != nil, let attempt else { return }
        let text = "node \(sender.id) cannot prepare it: \(reason)"
        end(attempt, text, afterMilliseconds: backOff())
        if sender == me {
            holdBack("it cannot prepare a view: \(reason)")
        } else {
            suspect(sender, "cannot prepare a view: \(reason)")
        }
    }

    mutating func refused(_ mark: ViewMark, _ accepted: UInt64, _ verdict: ViewVerdict, by sender: Member) {
        see(accepted)
        guard placeInAttempt(mark, sender) != nil, let attempt else { return }
        end(attempt, "node \(sender.id) refuses it: \(verdict)", afterMilliseconds: 0)
        act(on: verdict, of: sender)
        failures += 1
    }

    /// Without success. Its members stay frozen until the next view.
    mutating func end(_ attempt: Attempt, _ reason: String, afterMilliseconds: UInt64) {
        self.attempt = nil
        for member in attempt.view.members { send(.void(attempt.view.mark, reason: reason), to: member) }
        log(.info, "view \(attempt.view.mark.number) is given up: \(reason)")
        tryAgain(afterMilliseconds: afterMilliseconds)
    }

    mutating func tryAgain(afterMilliseconds milliseconds: UInt64) {
        poll = nil
        notBefore = max(notBefore, now.advanced(byMilliseconds: milliseconds))
    }

    /// How long to wait after one more failure: nothing after the first, then twice as long each time, up to 5 s, and up to
    /// half of that more by chance, so that two that disturb each other do not keep step.
    mutating func backOff() -> UInt64 {
        failures += 1
        guard failures > 1 else { return 0 }
        let wait = min(settings.batchMilliseconds << min(failures - 2, 16), ViewSettings.batchMillisecondsMax)
        return wait + UInt64.random(in: 0...wait / 2, using: &random)
    }

    /// What an attempt under way has to do now.
    mutating func driveAttempt() {
        guard let attempt else { return }
        let members = attempt.view.members
        if let gone = members.first(where: { $0 != me && neighbour($0) == nil }) {
            return end(attempt, "node \(gone.id) has departed", afterMilliseconds: 0)
        }
        let unfinished = attempt.unfinished
        let silent = unfinished.filter {
            members[$0] != me && attempt.heardAt[$0].advanced(byMilliseconds: patience) <= now
        }
        let isOver = attempt.begunAt.advanced(byMilliseconds: patienceMax) <= now
        let late = isOver ? unfinished : silent
        if !late.isEmpty {
            end(attempt, "no answer of " + late.map { "\(members[$0].id)" }.joined(separator: ", "),
                afterMilliseconds: backOff())
            for place in late where members[place] != me { suspect(members[place], "does not answer in a view") }
            if late.contains(where: { members[$0] == me }) { holdBack("it cannot store, or not prepare") }
            return
        }
        if attempt.sendAgainAt <= now {
            for place in unfinished where members[place] != me {
                send(.propose(attempt.view, isRunning: attempt.isRunning), to: members[place])
            }
            let again = now.advanced(byMilliseconds: pace)
            self.attempt?.sendAgainAt = again
        }
        let next = self.attempt?.sendAgainAt ?? now
        wake(at: next)
    }
}
