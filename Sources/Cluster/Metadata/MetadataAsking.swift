// Changes that this node is asked for: named, stored here, sent to the others, answered. One is named at a time, so that
// each follows the one before.
internal import Base
internal import Fabric
internal import Membership

extension MetadataSharing {
    mutating func ask(
        _ token: UInt64, _ changes: [MetadataChange], _ time: UInt64, _ now: Instant, _ effects: inout [MetadataEffect]
    ) {
        guard queue.count + shared.count < settings.waitingMax else {
            return effects.append(.answer(token: token, .refused("nothing has changed: too many changes of system metadata"
                + " wait for other nodes")))
        }
        queue.append(
            Asked(
                token: token, changes: changes, time: time,
                deadline: now.advanced(byMilliseconds: settings.answerMilliseconds)))
    }

    /// Goes on with the first that waits, as far as it can be without others.
    mutating func goOn(_ now: Instant, _ effects: inout [MetadataEffect]) {
        while case .waiting = stage, !isFrozen, let first = queue.first {
            let namespaces = first.changes.compactMap { change -> String? in
                if case .afterAllWrites(let namespace) = change.value { namespace } else { nil }
            }
            guard namespaces.isEmpty else {
                let collection = Collection(
                    ticket: ticket(), namespaces: namespaces, waitingFor: [me] + others,
                    times: namespaces.map { _ in 0 })
                stage = .collecting(collection)
                effects.append(.reserve(collection.ticket, namespaces))
                askForTimes(&effects)
                return sendAgainLater(now)
            }
            name(first, times: [], &effects)
        }
    }

    /// Gives the changes a version, and has it stored here; times stand for `afterAllWrites`, in their order.
    private mutating func name(_ asked: Asked, times: [UInt64], _ effects: inout [MetadataEffect]) {
        guard let view else { return }
        let version = max(items.highest, lastGiven).next(view: view.mark.number, node: me.id, time: asked.time)
        lastGiven = version
        var rest = times[...]
        var named: [MetadataItem] = []
        for change in asked.changes {
            let value: String? =
                switch change.value {
                case .value(let value): value
                case .afterAllWrites: "\(rest.popFirst() ?? 0)"
                }
            let item = items.next(change.module, change.key, value, at: asked.time, version: version)
            guard !isIdle(item) else { continue }
            if let refusal = refusal(of: item, isForced: change.isForced) { return end(.refused(refusal), &effects) }
            named.append(item)
        }
        guard !named.isEmpty else { return end(.done, &effects) }
        let ticket = ticket()
        stage = .storing(ticket: ticket, named, isForced: asked.changes.contains(where: \.isForced))
        effects.append(.store(ticket, named))
    }

    /// A later truncation time covers an earlier one, and there is nothing to undo where nothing was.
    private func isIdle(_ item: MetadataItem) -> Bool {
        guard item.module == MetadataModule.truncate.rawValue else { return false }
        let held = items[item.module, item.key]?.number ?? 0
        return item.value == nil ? held == 0 : item.number <= held
    }

    private func refusal(of item: MetadataItem, isForced: Bool) -> String? {
        guard item.module == MetadataModule.roster.rawValue else { return nil }
        return Roster.refusal(
            of: item, over: items.versions(item.module, item.key), members: view?.members ?? [], isForced: isForced)
    }

    /// The first that waits is answered.
    private mutating func end(_ answer: MetadataAnswer, _ effects: inout [MetadataEffect]) {
        stage = .waiting
        if let token = queue.removeFirst().token { effects.append(.answer(token: token, answer)) }
    }

    // ---- Times after all writes ----

    mutating func askForTimes(_ effects: inout [MetadataEffect]) {
        guard case .collecting(let collection) = stage, let view, !isFrozen else { return }
        let body = MetadataMessage.askTimes(view.mark, number: collection.ticket, collection.namespaces).bytes
        for member in collection.waitingFor where member != me { effects.append(.send(to: member, body)) }
    }

    /// Takes times of a member in.
    mutating func collect(
        _ ticket: UInt64, _ times: [UInt64], from member: Member, _ effects: inout [MetadataEffect]
    ) {
        guard case .collecting(var collection) = stage, collection.ticket == ticket, let asked = queue.first,
            times.count == collection.times.count, times.allSatisfy({ $0 <= RecordTime.latestMilliseconds }),
            let place = collection.waitingFor.firstIndex(of: member)
        else { return }
        collection.waitingFor.remove(at: place)
        for number in times.indices { collection.times[number] = max(collection.times[number], times[number]) }
        stage = .collecting(collection)
        if collection.waitingFor.isEmpty { name(asked, times: collection.times, &effects) }
    }

    mutating func reserved(_ ticket: UInt64, _ times: [UInt64], _ now: Instant, _ effects: inout [MetadataEffect]) {
        guard let place = reserving.firstIndex(where: { $0.ticket == ticket }) else {
            return collect(ticket, times, from: me, &effects)
        }
        let asked = reserving.remove(at: place)
        guard view?.mark == asked.mark, !isFrozen else { return }
        effects.append(.send(to: asked.sender, MetadataMessage.times(asked.mark, number: asked.number, times).bytes))
    }

    // ---- The change is on this node's disk ----

    /// True: the ticket was that of the change which is being stored.
    mutating func storedOwn(_ ticket: UInt64, _ now: Instant, _ effects: inout [MetadataEffect]) -> Bool {
        guard case .storing(ticket, let named, let isForced) = stage, let asked = queue.first else { return false }
        stage = .waiting
        queue.removeFirst()
        merge(named, &effects)
        durable.merge(named)
        var one = Shared(
            number: ticket, token: asked.token, deadline: asked.deadline, items: named, isForced: isForced,
            waitingFor: isFrozen ? [] : others)
        if breaks.contains(.answersEarly), let token = one.token {
            effects.append(.answer(token: token, .done))
            one.token = nil
        }
        shared.append(one)
        if !isFrozen { send(one, &effects) }
        sendAgainLater(now)
        settleShared(&effects)
        return true
    }

    /// True: the ticket was that of the change which was being stored.
    mutating func notStoredOwn(_ ticket: UInt64, _ reason: String, _ effects: inout [MetadataEffect]) -> Bool {
        guard case .storing(ticket, _, _) = stage else { return false }
        end(.refused("not durable, nothing has changed: \(reason)"), &effects)
        return true
    }

    private func send(_ one: Shared, _ effects: inout [MetadataEffect]) {
        guard let view else { return }
        let message = MetadataMessage.change(view.mark, number: one.number, isForced: one.isForced, one.items)
        let body = message.bytes
        for member in one.waitingFor { effects.append(.send(to: member, body)) }
    }

    mutating func sendShared(_ effects: inout [MetadataEffect]) {
        guard !isFrozen else { return }
        for one in shared { send(one, &effects) }
    }

    /// Answers what all members of the open view have.
    mutating func settleShared(_ effects: inout [MetadataEffect]) {
        guard !isFrozen else { return }
        for one in shared where one.waitingFor.isEmpty {
            if let token = one.token { effects.append(.answer(token: token, .done)) }
        }
        shared.removeAll { $0.waitingFor.isEmpty }
    }

    /// A member has it on disk, or says why not.
    mutating func acknowledged(
        _ number: UInt64, by member: Member, refusal: String? = nil, _ effects: inout [MetadataEffect]
    ) {
        guard let place = shared.firstIndex(where: { $0.number == number }) else { return }
        if let refusal, let token = shared[place].token {
            shared[place].token = nil
            effects.append(.answer(token: token, .inDoubt("it may have happened: node \(member.id): \(refusal)")))
        }
        shared[place].waitingFor.removeAll { $0 == member }
        settleShared(&effects)
    }

    // ---- The time is up ----

    mutating func answerLate(_ now: Instant, _ effects: inout [MetadataEffect]) {
        for place in shared.indices where shared[place].deadline <= now {
            guard let token = shared[place].token else { continue }
            shared[place].token = nil
            effects.append(.answer(token: token, .inDoubt("it may have happened: " + silent(shared[place].waitingFor))))
        }
        var kept: [Asked] = []
        for (place, var asked) in queue.enumerated() {
            guard let token = asked.token, asked.deadline <= now else {
                kept.append(asked)
                continue
            }
            if place == 0, case .storing = stage {
                asked.token = nil
                kept.append(asked)
                effects.append(.answer(token: token, .inDoubt("it may have happened: this node's disk does not answer")))
                continue
            }
            effects.append(.answer(token: token, .refused("nothing has changed: " + whyNothing(place))))
            if place == 0 { stage = .waiting }
        }
        queue = kept
    }

    private func silent(_ members: [Member]) -> String {
        guard !isFrozen else { return "the cluster has not agreed on a view since" }
        return "nodes have not said that they have it on disk: " + members.map { "\($0.id)" }.joined(separator: ", ")
    }

    private func whyNothing(_ place: Int) -> String {
        if isFrozen { return view == nil ? "this node is in no view yet" : "the cluster is agreeing on a view" }
        guard place == 0, case .collecting(let collection) = stage else { return "changes before it are not done yet" }
        return "nodes do not answer: " + collection.waitingFor.map { "\($0.id)" }.joined(separator: ", ")
    }
}
