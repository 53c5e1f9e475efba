// What a write may do: the checks in the order of the protocol, and the making of the new image.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Storage
internal import Wire

extension NamespaceShard {
    /// Checks that need no record. Order: stop-writes, set name, operations.
    func checkBeforeRecord(_ slot: SlotPointer) -> ResultCode {
        let header = slot.pointee.request.pointee.header
        slot.pointee.isDelete = header.info2.contains(.delete)
        slot.pointee.isReplaced = header.info3.contains(.createOrReplace) || header.info3.contains(.replaceOnly)
        if namespace.overflow == .updates, !slot.pointee.isDelete { return .outOfSpace }
        if slot.pointee.isDelete { return .ok }
        if namespace.live.current.pointee.disallowNullSetName, slot.pointee.request.pointee.set.isEmpty,
            slot.pointee.isClientsOwn {
            return .parameter
        }
        let request = slot.pointee.request
        let (result, summary) = check(request)
        guard result == .ok else { return result }
        slot.pointee.hasTouch = summary.hasTouch
        slot.pointee.hasExpression = summary.hasExpression
        return .ok
    }

    /// What the operations of a write rule out; a delete has none.
    func checkOperations(_ request: RequestPointer) -> ResultCode {
        request.pointee.header.info2.contains(.delete) ? .ok : check(request).result
    }

    private func check(_ request: RequestPointer) -> (result: ResultCode, summary: OperationRules.Summary) {
        let header = request.pointee.header
        let flags = OperationRules.Flags(
            isReplace: header.info3.contains(.createOrReplace) || header.info3.contains(.replaceOnly),
            readsAllowed: header.info1.contains(.read),
            getsAll: header.info1.contains(.getAllBins),
            respondsAll: header.info2.contains(.respondAllOperations))
        let workBefore = scratch.expressions.work
        var summary = OperationRules.Summary()
        var operations = request.pointee.operations
        while let operation = operations.next() {
            let refusal = OperationRules.check(operation, flags: flags, summary: &summary)
            guard refusal == .ok else { return (refusal, summary) }
            if operation.code == OperationCode.expressionRead || operation.code == OperationCode.expressionModify {
                guard !isTooMuchWork(since: workBefore) else { return (.parameter, summary) }
                let result = checkExpression(operation)
                guard result == .ok else { return (result, summary) }
            }
        }
        let together = OperationRules.checkTogether(summary, count: request.pointee.operationCount, flags: flags)
        return (together, summary)
    }

    /// Everything that needs the record: checks in the protocol's order, then the new image in
    /// `scratch.image` and its entry in `slot.next`. The image is sealed; nothing else has changed.
    func apply(_ slot: SlotPointer, _ image: UnsafeRawBufferPointer?, _ now: TurnTime) -> ResultCode {
        if slot.pointee.origin.isOwnDelete { return applyOwnDelete(slot, now) }
        let request = slot.pointee.request
        let previous = slot.pointee.previous
        let exists =
            slot.pointee.hasPrevious && !slot.pointee.isPreviousHidden && isVisible(previous, now: now.wall)
        let refusal = checkAgainstEntry(slot, exists: exists, previous, now)
        guard refusal == .ok else { return refusal }
        var view: ImageView?
        if exists, let image {
            view = payload(of: image, slot.pointee.digest)
            if view == nil { return damaged(previous, slot.pointee.digest) }
        }
        if exists, !passes(slot, view, now) { return .filteredOut }
        let keyResult = checkKey(request, view)
        guard keyResult == .ok else { return keyResult }
        if slot.pointee.isDelete { return leavesTombstone(slot) ? buildTombstone(slot, now) : .ok }
        return build(slot, exists: exists, view, now)
    }

    /// Existence, generation, set: what the entry alone decides.
    private func checkAgainstEntry(
        _ slot: SlotPointer, exists: Bool, _ previous: IndexEntry, _ now: TurnTime
    ) -> ResultCode {
        let request = slot.pointee.request
        let header = request.pointee.header
        if exists {
            if header.info2.contains(.createOnly) { return .recordExists }
        } else if slot.pointee.isDelete || header.info3.contains(.updateOnly)
            || header.info3.contains(.replaceOnly) || slot.pointee.hasTouch {
            return .notFound
        } else if namespace.stopWrites {
            return .outOfSpace
        }
        let policy: Generation.Policy =
            header.info2.contains(.generation) ? .equal : header.info2.contains(.generationGreater) ? .greater : .none
        let stored = exists ? previous.generation : 0
        guard Generation.allows(policy, sent: header.generation, stored: stored) else {
            counters.count(.failGeneration)
            return .generation
        }
        guard request.pointee.set.count <= Limits.setNameSizeMax else { return .parameter }
        if !namespace.truncation.isEmpty, !slot.pointee.isDelete, isTooOld(slot, exists, now) { return .forbidden }
        if exists, !request.pointee.set.isEmpty, namespace.sets.id(of: request.pointee.set) != previous.setID {
            return .parameter
        }
        if !exists, namespace.setValues.isAnySet, !slot.pointee.isDelete, isFull(set: setID(slot, exists: exists)) {
            return .forbidden
        }
        return .ok
    }

    /// Whether the version that a write would make is one that a truncate has covered.
    private func isTooOld(_ slot: SlotPointer, _ exists: Bool, _ now: TurnTime) -> Bool {
        let time = namespace.issueTime(
            wall: now.wall, previous: slot.pointee.hasPrevious ? slot.pointee.previous.lastUpdate : 0)
        return namespace.truncation.covers(time, set: setID(slot, exists: exists))
    }

    /// The set that a write goes to; 0 for none, or for one that is not there yet.
    private func setID(_ slot: SlotPointer, exists: Bool) -> UInt16 {
        let name = slot.pointee.request.pointee.set
        return name.isEmpty && exists ? slot.pointee.previous.setID : namespace.sets.id(of: name) ?? 0
    }

    /// A key that is sent must be well-formed, and equal to the stored one.
    func checkKey(_ request: RequestPointer, _ view: ImageView?) -> ResultCode {
        guard request.pointee.has(.key) else { return .ok }
        let key = request.pointee.key
        guard key.count > 1 else { return .unsupportedFeature }
        if key[0] == ParticleType.integer, key.count != 9 { return .unsupportedFeature }
        guard let stored = view?.key, !stored.isEmpty else { return .ok }
        return stored.equals(key) ? .ok : .keyMismatch
    }

    /// Applies the operations and writes the image.
    private func build(_ slot: SlotPointer, exists: Bool, _ view: ImageView?, _ now: TurnTime) -> ResultCode {
        let request = slot.pointee.request
        let previous = slot.pointee.previous
        let life = TimeToLive.voidTime(
            requested: request.pointee.header.timeToLive, existing: exists ? previous.voidTime : nil,
            settings: timeToLiveRules(set: namespace.setValues.isAnySet ? setID(slot, exists: exists) : 0),
            now: now.wall.seconds)
        guard life.result == .ok else { return life.result }
        if life.reduction == .ignored { counters.count(.ttlReductionsIgnored) }
        if life.reduction == .applied { counters.count(.ttlReductionsApplied) }
        let editor = scratch.editor
        editor.begin(slot.pointee.isReplaced ? nil : view)
        let applied = applyOperations(slot, exists: exists, view, now)
        guard applied == .ok else { return applied }
        if editor.binCount == 0 {
            guard exists else { return .notFound }
            slot.pointee.isDelete = true
            counters.count(.deletedLastBin)
            return leavesTombstone(slot) ? buildTombstone(slot, now) : .ok
        }
        var next = IndexEntry(digest: slot.pointee.digest)
        next.voidTime = life.voidTime
        next.generation = nextGeneration(slot, exists: exists)
        next.lastUpdate = namespace.issueTime(
            wall: now.wall, previous: slot.pointee.hasPrevious ? previous.lastUpdate : 0)
        next.epochSlot = 1
        let key = request.pointee.has(.key) ? request.pointee.key : view?.key ?? UnsafeRawBufferPointer(start: nil, count: 0)
        next.isKeyStored = !key.isEmpty
        let keepsSet = request.pointee.set.isEmpty && exists
        if keepsSet { next.setID = previous.setID }
        let setName = keepsSet ? namespace.sets.name(of: previous.setID) : request.pointee.set
        let header = ImageHeader(
            generation: next.generation, voidTime: next.voidTime, lastUpdate: next.lastUpdate,
            epoch: epoch(of: slot), setName: setName, key: key)
        let byteCount = Envelope.byteCount + editor.imageByteCount(header)
        guard byteCount <= namespace.live.current.pointee.recordSizeMax, byteCount <= Limits.recordSizeCeiling else {
            counters.count(.failRecordTooBig)
            return .recordTooBig
        }
        if slot.pointee.hasPrevious { namespace.longerLives?.replaces(previous, next, slot.pointee.digest) }
        // Only now: a write that is refused makes no set.
        if !keepsSet {
            guard let made = namespace.sets.makeID(for: setName) else { return .parameter }
            next.setID = made
        }
        writeImage(slot, &next, header, byteCount)
        return .ok
    }

    private func nextGeneration(_ slot: SlotPointer, exists: Bool) -> UInt16 {
        let stored = slot.pointee.previous.generation
        guard exists else { return 1 }
        return slot.pointee.isTouch ? stored : Generation.next(stored)
    }

    func writeImage(
        _ slot: SlotPointer, _ next: inout IndexEntry, _ header: ImageHeader, _ byteCount: Int
    ) {
        scratch.editor.writeImage(header, to: scratch.image + Envelope.byteCount)
        Envelope.seal(
            UnsafeMutableRawBufferPointer(start: scratch.image, count: byteCount), digest: slot.pointee.digest)
        next.byteCount = Envelope.storedByteCount(byteCount)
        slot.pointee.next = next
    }
}
