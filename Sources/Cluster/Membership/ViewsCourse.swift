// What to do next: who belongs together, who is to propose, and when. Runs after every event.
internal import Base
internal import Fabric

extension Views {
    // ---- What heartbeats say ----

    mutating func notice(_ neighbours: [Neighbour]) {
        let old = self.neighbours
        self.neighbours = neighbours
        for one in neighbours {
            see(one.content.accepted)
            see(one.content.view.number)
        }
        let isUnchanged = old.count == neighbours.count && zip(old, neighbours).allSatisfy {
            $0.member == $1.member && $0.isUnhealthy == $1.isUnhealthy && $0.hears == $1.hears
                && ($0.content.accepted == $1.content.accepted || !isOutdated($0))
        }
        if !isUnchanged { groupIsStale = true }
        suspects = suspects.filter { neighbour($0.member) != nil }
        openIfOthersHave()
    }

    func isUnhealthy(_ node: Neighbour) -> Bool {
        node.isUnhealthy && !indispensable.contains(node.member.id)
    }

    /// Whether its last pulse lacks members of the open view, and is older than its consent to that view. Pulses can be held
    /// up while its other messages arrive; then it does hear them, as it has agreed on the view with them.
    private func isOutdated(_ node: Neighbour) -> Bool {
        guard phase != .orphan, let view, node.content.accepted < view.mark.number, view.members.contains(node.member)
        else { return false }
        var others = node.hears.reversed().makeIterator()
        var next = others.next()
        for member in view.members where member != node.member {
            while let heard = next, heard > member { next = others.next() }
            if next != member { return true }
        }
        return false
    }

    private func completed(_ node: Neighbour) -> Neighbour {
        guard isOutdated(node), let view else { return node }
        var node = node
        node.hears = Set(node.hears + view.members.filter { $0 != node.member }).sorted()
        return node
    }

    private func hearsMe(_ node: Neighbour) -> Bool { contains(node.hears, me) }

    /// Who could be in a view with this node.
    private mutating func refreshGroup() {
        for place in suspects.indices where suspects[place].hasAnswered && suspects[place].until <= now {
            groupIsStale = true
        }
        suspects.removeAll { $0.hasAnswered && $0.until <= now }
        guard groupIsStale else { return }
        groupIsStale = false
        let candidates = neighbours.map { completed($0) }.filter { node in
            hearsMe(node) && !isUnhealthy(node) && !suspects.contains { $0.member == node.member }
        }
        let new = ViewGroup(me, candidates, current: phase == .orphan ? [] : view?.members ?? [])
        if new.leftOut.isEmpty {
            asymmetricSince = nil
        } else if asymmetricSince == nil {
            asymmetricSince = now
        }
        if new.members != group.members { poll = nil }
        group = new
    }

    // ---- Suspects ----

    /// Leaves a node out of views until it has answered, and for a second at least, longer each time.
    mutating func suspect(_ member: Member, _ what: String) {
        poll = nil
        groupIsStale = true
        let known = suspects.firstIndex { $0.member == member }
        let before = known.map { suspects[$0].milliseconds } ?? formerSuspects.first { $0.member == member }?.milliseconds
        let wait = before.map { min(2 * $0, Suspect.millisecondsMax) } ?? 1_000
        let new = Suspect(
            member: member, silentSince: Instant(nanoseconds: now.nanoseconds - min(now.nanoseconds, patience * 1_000_000)),
            until: now.advanced(byMilliseconds: wait), milliseconds: wait, askedAt: now)
        if let known { suspects[known] = new } else { suspects.append(new) }
        formerSuspects.removeAll { $0.member == member }
        formerSuspects.append(new)
        if before == nil || known == nil {
            log(.warning, "node \(member.id) \(what): it is left out of views until it answers")
        }
    }

    /// A view with them is open: they are as good as others.
    mutating func forgetTroubles(with members: [Member]) {
        suspects = suspects.filter { !contains(members, $0.member) }
        formerSuspects = formerSuspects.filter { !contains(members, $0.member) && neighbour($0.member) != nil }
        failures = 0
        notBefore = now
        changeSince = nil
        unevenSince = nil
        heldBackUntil = nil
        poll = nil
        awaited = nil
        wantsRecluster = false
        groupIsStale = true
    }

    private mutating func askSuspects() {
        for place in suspects.indices where !suspects[place].hasAnswered {
            let next = max(suspects[place].until, suspects[place].askedAt.advanced(byMilliseconds: 1_000))
            if next <= now {
                send(.ask(members: [], isRunning: phase != .orphan), to: suspects[place].member)
                suspects[place].askedAt = now
            }
            wake(at: max(suspects[place].until, suspects[place].askedAt.advanced(byMilliseconds: 1_000)))
        }
        for one in suspects where one.hasAnswered { wake(at: one.until) }
    }

    // ---- No view ----

    mutating func becomeOrphan(_ reason: String) {
        guard phase != .orphan || orphanReason != reason else { return }
        phase = .orphan
        orphanReason = reason
        groupIsStale = true
        effects.append(.orphan(reason: reason))
        log(.warning, "this node belongs to no view: \(reason)")
    }

    /// Others do better without this node, or it cannot propose: it is quiet for a while.
    mutating func holdBack(_ reason: String) {
        heldBackUntil = now.advanced(byMilliseconds: max(backOff(), 500))
        if phase == .frozen || isViewGone { becomeOrphan(reason) }
    }

    /// A member of the open view has gone elsewhere.
    private var isViewGone: Bool {
        guard let view, phase != .orphan else { return false }
        return neighbours.contains { $0.content.view.number > accepted && view.members.contains($0.member) }
    }

    /// Members of the last view that are missing in a view of these, if this node has to wait for them.
    func startMissing(_ members: [Member]) -> [NodeID] {
        guard !hasOpened, let last, last.members.contains(where: { $0.id != me.id }) else { return [] }
        let ids = last.members.map(\.id)
        let missing = ids.filter { id in !members.contains { $0.id == id } }
        let hasWaited = bootedAt.advanced(byMilliseconds: settings.startWaitMilliseconds) <= now
        if 2 * (ids.count - missing.count) > ids.count && hasWaited { return [] }
        return bootedAt.advanced(byMilliseconds: settings.startWaitMaxMilliseconds) <= now ? [] : missing
    }

    // ---- What next ----

    var leavingNow: [NodeID] {
        neighbours.filter(\.content.isLeaving).map(\.member.id) + (isLeaving ? [me.id] : [])
    }

    /// Why the view that is open will not do; nil if it does.
    private mutating func trouble() -> String? {
        guard phase == .open, let view else { return phase == .frozen ? "a view was not opened" : "there is no view" }
        if group.members != view.members { return change(view.members, group.members) }
        let leaving = leavingNow.filter { !leavingInView.contains($0) }
        if let first = leaving.first { return "node \(first) leaves" }
        if wantsRecluster { return "recluster" }
        let isEven = view.members.allSatisfy { member in
            guard member != me, let content = content(of: member) else { return true }
            return content.view == view.mark && content.accepted <= accepted
        }
        if isEven {
            unevenSince = nil
            return nil
        }
        let since = unevenSince ?? now
        unevenSince = since
        let end = since.advanced(byMilliseconds: 2 * patience)
        wake(at: end)
        return end <= now ? "not all members have opened view \(view.mark.number)" : nil
    }

    private func change(_ old: [Member], _ new: [Member]) -> String {
        let gone = old.filter { !new.contains($0) }.map { "\($0.id) is gone" }
        let come = new.filter { !old.contains($0) }.map { "\($0.id) has come" }
        return (gone + come).joined(separator: ", ")
    }

    mutating func consider() {
        wake = .never
        if let again = storeAgainAt {
            if again <= now { store() } else { wake(at: again) }
        }
        refreshGroup()
        openIfOthersHave()
        if phase == .frozen, let frozenSince {
            let end = frozenSince.advanced(byMilliseconds: 2 * patienceMax)
            if end <= now { becomeOrphan("it has accepted a view that was never opened") } else { wake(at: end) }
        }
        if isViewGone, attempt == nil { becomeOrphan("others have opened a newer view without it") }
        course()
        refreshGroup()
        askSuspects()
        deadline = max(wake, now.advanced(byMilliseconds: 1))
    }

    private mutating func course() {
        if attempt != nil {
            driveAttempt()
            if attempt != nil { return }
        }
        refreshGroup()
        guard let reason = trouble() else {
            changeSince = nil
            awaited = nil
            poll = nil
            return
        }
        if changeSince == nil { changeSince = now }
        guard group.members.count >= settings.minClusterSize else { return beTooFew() }
        if group.members[0] == me {
            awaited = nil
            prepareProposal(reason)
        } else {
            poll = nil
            awaitProposal(of: group.members[0])
        }
    }

    /// Another one has to propose. One that says nothing is passed over.
    private mutating func awaitProposal(of other: Member) {
        if awaited?.member != other { awaited = Awaited(member: other, heardAt: now) }
        guard let awaited else { return }
        let end = awaited.heardAt.advanced(byMilliseconds: patience)
        if end <= now {
            suspect(other, "is to propose a view, and does not answer")
            return wake(at: now)
        }
        let again = awaited.askedAt?.advanced(byMilliseconds: 2 * pace) ?? awaited.heardAt.advanced(byMilliseconds: pace)
        if again <= now {
            send(.ask(members: [], isRunning: phase != .orphan), to: other)
            self.awaited?.askedAt = now
            self.awaited?.unansweredSince = awaited.unansweredSince ?? now
        }
        sayWaiting(startMissing(group.members))
        if phase == .orphan, orphanReason.isEmpty, let theirs = content(of: other)?.view, theirs != .none,
            (changeSince ?? now).advanced(byMilliseconds: 2 * patience) <= now {
            becomeOrphan("view \(theirs.number) of node \(other.id) is without it: not all of its members hear this node")
        }
        wake(at: min(end, max(again, now.advanced(byMilliseconds: pace))))
    }

    /// Whether somebody else's view may still come.
    private func isUnderWay(_ acceptance: Acceptance) -> Bool {
        acceptance.stage != .opened && acceptance.proposer != me && neighbour(acceptance.proposer) != nil
            && acceptance.heardAt.advanced(byMilliseconds: patience) > now
    }

    private mutating func beTooFew() {
        poll = nil
        awaited = nil
        let due = dueTime()
        if due > now { return wake(at: due) }
        becomeOrphan("there are \(group.members.count) nodes, min-cluster-size is \(settings.minClusterSize)")
    }

    private mutating func prepareProposal(_ reason: String) {
        if let until = heldBackUntil {
            if until > now { return wake(at: until) }
            heldBackUntil = nil
        }
        guard isReady else {
            holdBack("it cannot store")
            return wake(at: heldBackUntil ?? now)
        }
        let due = max(notBefore, dueTime())
        if due > now { return wake(at: due) }
        if let acceptance, isUnderWay(acceptance) {
            return wake(at: acceptance.heardAt.advanced(byMilliseconds: patience))
        }
        let isRunning = phase != .orphan || group.members.contains { content(of: $0).map { $0.view != .none } ?? false }
        let missing = isRunning ? [] : startMissing(group.members)
        guard missing.isEmpty else { return sayWaiting(missing) }
        guard everybodyAgrees(isRunning: isRunning) else { return }
        propose(because: reason, isRunning: isRunning)
        wake(at: now.advanced(byMilliseconds: pace))
    }

    /// When what has changed has been gathered.
    private func dueTime() -> Instant {
        guard let changeSince else { return now }
        let isUrgent = wantsRecluster || phase == .frozen && acceptance.map { neighbour($0.proposer) == nil } ?? true
        let batch = isUrgent ? now : changeSince.advanced(byMilliseconds: settings.batchMilliseconds)
        guard let asymmetricSince else { return batch }
        return max(batch, asymmetricSince.advanced(byMilliseconds: settings.timeoutMilliseconds))
    }

    private mutating func sayWaiting(_ missing: [NodeID]) {
        waitingFor = missing
        guard !missing.isEmpty else { return }
        let names = missing.map { "\($0)" }.joined(separator: ", ")
        if phase == .orphan, orphanReason.isEmpty { becomeOrphan("it waits for the members of its last view") }
        let next = waitingSaidAt?.advanced(byMilliseconds: 2_000) ?? now
        if next <= now {
            waitingSaidAt = now
            log(.info, "waits for nodes of the last view: \(names) missing")
        }
        wake(at: (waitingSaidAt ?? now).advanced(byMilliseconds: 2_000))
        for wait in [settings.startWaitMilliseconds, settings.startWaitMaxMilliseconds] {
            let end = bootedAt.advanced(byMilliseconds: wait)
            if end > now { wake(at: end) }
        }
    }

    /// `ok` from the principal; others do nothing.
    mutating func recluster(_ token: UInt64) {
        guard phase == .open, view?.principal == me.id, group.members[0] == me else {
            return effects.append(.answer(token: token, "ignored-by-non-principal"))
        }
        wantsRecluster = true
        effects.append(.answer(token: token, "ok"))
    }
}
