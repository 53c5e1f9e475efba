// What comes from others: their changes, and the bundle of a view.
internal import Base
internal import Fabric
internal import Membership

extension MetadataSharing {
    mutating func receive(
        _ sender: Member, _ body: [UInt8], _ now: Instant, _ effects: inout [MetadataEffect]
    ) {
        let message: MetadataMessage
        do throws(FabricError) {
            message = try MetadataMessage(body)
        } catch {
            return log(.warning, "a message of node \(sender.id) cannot be read: \(error)", &effects)
        }
        switch message {
        case .change(let mark, let number, let isForced, let items):
            guard isOpen(mark, with: sender) else { return }
            take(sender, mark, number, items, isForced, &effects)
        case .stored(let mark, let number):
            guard isOpen(mark, with: sender) else { return }
            acknowledged(number, by: sender, &effects)
        case .refused(let mark, let number, let reason):
            guard isOpen(mark, with: sender) else { return }
            acknowledged(number, by: sender, refusal: reason, &effects)
        case .askTimes(let mark, let number, let namespaces):
            reserve(sender, mark, number, namespaces, &effects)
        case .times(let mark, let number, let times):
            guard isOpen(mark, with: sender) else { return }
            collect(number, times, from: sender, &effects)
        case .askItems(let print):
            guard print == snapshot.fingerprint else { return }
            effects.append(.send(to: sender, MetadataMessage.items(print, snapshot.bytes).bytes))
        case .items(let print, let bytes): fetched(print, bytes, from: sender, &effects)
        }
    }

    /// Whether that view is open here and the sender a member of it. Who has not come that far asks again.
    private func isOpen(_ mark: ViewMark, with sender: Member) -> Bool {
        guard let view, view.mark == mark, view.members.contains(sender) else { return false }
        return !isFrozen || breaks.contains(.takesWhileFrozen)
    }

    private mutating func reserve(
        _ sender: Member, _ mark: ViewMark, _ number: UInt64, _ namespaces: [String], _ effects: inout [MetadataEffect]
    ) {
        guard isOpen(mark, with: sender),
            !reserving.contains(where: { $0.sender == sender && $0.mark == mark && $0.number == number })
        else { return }
        let ticket = ticket()
        reserving.append(Reserving(ticket: ticket, sender: sender, mark: mark, number: number))
        effects.append(.reserve(ticket, namespaces))
    }

    // ---- Changes of others ----

    private mutating func take(
        _ sender: Member, _ mark: ViewMark, _ number: UInt64, _ changed: [MetadataItem], _ isForced: Bool,
        _ effects: inout [MetadataEffect]
    ) {
        // The disk has not answered yet: then it is said without being asked.
        guard !receiving.contains(where: { $0.sender == sender && $0.mark == mark && $0.number == number }) else { return }
        for item in changed where item.module == MetadataModule.roster.rawValue {
            let held = items.versions(item.module, item.key)
            let refusal = Roster.refusal(of: item, over: held, members: view?.members ?? [], isForced: isForced)
            if let refusal {
                let body = MetadataMessage.refused(mark, number: number, reason: refusal).bytes
                return effects.append(.send(to: sender, body))
            }
        }
        merge(changed, &effects)
        let ticket = ticket()
        receiving.append(Received(ticket: ticket, sender: sender, mark: mark, number: number, items: changed))
        effects.append(.store(ticket, changed))
        guard breaks.contains(.acknowledgesUnstored) else { return }
        effects.append(.send(to: sender, MetadataMessage.stored(mark, number: number).bytes))
    }

    mutating func stored(_ ticket: UInt64, _ now: Instant, _ effects: inout [MetadataEffect]) {
        if storedOwn(ticket, now, &effects) { return }
        if preparation?.ticket == ticket { return endPreparation(&effects) }
        guard let place = receiving.firstIndex(where: { $0.ticket == ticket }) else { return }
        let one = receiving.remove(at: place)
        durable.merge(one.items)
        effects.append(.send(to: one.sender, MetadataMessage.stored(one.mark, number: one.number).bytes))
    }

    mutating func notStored(
        _ ticket: UInt64, _ reason: String, _ now: Instant, _ effects: inout [MetadataEffect]
    ) {
        log(.warning, "system metadata cannot be stored: \(reason)", &effects)
        if notStoredOwn(ticket, reason, &effects) { return }
        if let failed = preparation, failed.ticket == ticket {
            preparation = nil
            return effects.append(.notPrepared(failed.mark, reason: "system metadata cannot be stored: \(reason)"))
        }
        guard let place = receiving.firstIndex(where: { $0.ticket == ticket }) else { return }
        let one = receiving.remove(at: place)
        // It is known, so the next bundle has it, and it is tried again then.
        effects.append(
            .send(to: one.sender, MetadataMessage.refused(one.mark, number: one.number, reason: reason).bytes))
    }

    // ---- The bundle of a view ----

    mutating func prepare(
        _ mark: ViewMark, _ blocks: [MemberBlock], _ now: Instant, _ effects: inout [MetadataEffect]
    ) {
        guard isFrozen, mark.number >= frozenNumber else { return }
        if let preparation, preparation.mark == mark {
            if preparation.isDone { effects.append(.prepared(mark)) }
            return
        }
        var fresh = Preparation(mark: mark)
        for block in blocks {
            do throws(FabricError) {
                switch try MetadataBlock(block.bytes) {
                case .whole(let items): fresh.versions += items
                case .fingerprint(let print):
                    let isKnown = print == snapshot.fingerprint || fresh.missing.contains { $0.print == print }
                    if !isKnown { fresh.missing.append((print, block.member)) }
                }
            } catch {
                let reason = "the metadata of node \(block.member.id) cannot be read: \(error)"
                return effects.append(.notPrepared(mark, reason: reason))
            }
        }
        preparation = fresh
        guard !fresh.missing.isEmpty else { return storeBundle(&effects) }
        askForItems(&effects)
        sendAgainLater(now)
    }

    mutating func askForItems(_ effects: inout [MetadataEffect]) {
        for (print, holder) in preparation?.missing ?? [] {
            effects.append(.send(to: holder, MetadataMessage.askItems(print).bytes))
        }
    }

    private mutating func fetched(
        _ print: MetadataFingerprint, _ bytes: [UInt8], from sender: Member, _ effects: inout [MetadataEffect]
    ) {
        let asked = preparation?.missing.firstIndex { $0.print == print && $0.holder == sender }
        guard let place = asked else { return }
        var reader = FabricReader(bytes)
        guard MetadataFingerprint(of: bytes) == print, let items = try? reader.metadataItems(), reader.left == 0 else {
            return log(.warning, "the metadata of node \(sender.id) is not what its block says", &effects)
        }
        preparation?.versions += items
        preparation?.missing.remove(at: place)
        if preparation?.missing.isEmpty == true { storeBundle(&effects) }
    }

    /// Merges the bundle, and stores what is not on this disk for certain.
    private mutating func storeBundle(_ effects: inout [MetadataEffect]) {
        guard var complete = preparation else { return }
        merge(complete.versions, &effects)
        complete.versions = []
        complete.fresh = items.all.filter { !durable.holds($0) }
        guard !complete.fresh.isEmpty else {
            preparation = complete
            return endPreparation(&effects)
        }
        let ticket = ticket()
        complete.ticket = ticket
        preparation = complete
        effects.append(.store(ticket, complete.fresh))
    }

    private mutating func endPreparation(_ effects: inout [MetadataEffect]) {
        guard let done = preparation else { return }
        preparation?.isDone = true
        preparation?.ticket = nil
        preparation?.fresh = []
        durable.merge(done.fresh)
        effects.append(.prepared(done.mark))
    }
}
