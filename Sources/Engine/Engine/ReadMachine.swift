// Point reads. They take no claim: they see the last published entry.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Storage
internal import Wire

extension NamespaceShard {
    /// Begins the read in `slot`.
    func startRead(_ slot: SlotPointer, now: TurnTime) -> Progress {
        let digest = slot.pointee.digest
        partitions.lock(digest.partition)
        _ = loadPrevious(slot)
        partitions.unlock(digest.partition)
        let entry = slot.pointee.previous
        guard slot.pointee.hasPrevious, isVisible(entry, now: now.wall) else { return end(slot, .notFound) }
        let request = slot.pointee.request
        if !request.pointee.set.isEmpty, namespace.sets.id(of: request.pointee.set) != entry.setID {
            return end(slot, .parameter)
        }
        let verdict = verdict(slot, now)
        if verdict == .isFalse || verdict == .unknown { return end(slot, .filteredOut) }
        if request.pointee.header.info1.contains(.noBins), verdict == .isTrue,
            !(request.pointee.has(.key) && entry.isKeyStored) {
            return endRead(slot, nil, now)
        }
        do throws(StorageError) {
            let answer = try backend.read(
                digest, at: Location(rawValue: entry.location), byteCount: entry.byteCount,
                tag: Tag(rawValue: UInt64(UInt(bitPattern: slot))))
            switch answer {
            case .here(let image): return finishRead(slot, image, now)
            case .absent: return readAgain(slot, now)
            case .pending: return .suspended
            }
        } catch {
            if error == .overloaded, delay(slot, now) { return .suspended }
            if case .corrupt = error { return readAgain(slot, now) }
            return end(slot, resultCode(error))
        }
    }

    /// The image was not where the entry said. If the entry has changed since, the record is read again; if a delete
    /// is under way, it is gone; otherwise it is damaged.
    func readAgain(_ slot: SlotPointer, _ now: TurnTime) -> Progress {
        let digest = slot.pointee.digest
        let (entry, isClaimed) = current(digest)
        guard let location = entry?.location else { return end(slot, .notFound) }
        if location == slot.pointee.previous.location {
            return end(slot, isClaimed && isKeyed ? .notFound : damaged(slot.pointee.previous, digest))
        }
        slot.pointee.attempts += 1
        guard slot.pointee.attempts < Limits.readAttemptsMax else { return end(slot, .keyBusy) }
        return startRead(slot, now: now)
    }

    /// The image is here: answers.
    func finishRead(_ slot: SlotPointer, _ image: UnsafeRawBufferPointer, _ now: TurnTime) -> Progress {
        guard let view = payload(of: image, slot.pointee.digest) else { return readAgain(slot, now) }
        if isKeyed {
            // It may be a newer image than the entry's: the answer is all of one version.
            slot.pointee.previous.generation = view.generation
            slot.pointee.previous.voidTime = view.voidTime
            slot.pointee.previous.lastUpdate = view.lastUpdate
        }
        guard passes(slot, view, now) else { return end(slot, .filteredOut) }
        let keyResult = checkKey(slot.pointee.request, view)
        guard keyResult == .ok else { return end(slot, keyResult) }
        return endRead(slot, view, now)
    }

    private func endRead(_ slot: SlotPointer, _ view: ImageView?, _ now: TurnTime) -> Progress {
        let request = slot.pointee.request
        let info1 = request.pointee.header.info1
        let touch = TimeToLive.shouldTouch(
            requested: request.pointee.header.timeToLive, defaultPercent: readTouchPercent(set: slot.pointee.previous.setID),
            voidTime: slot.pointee.previous.voidTime, lastUpdate: slot.pointee.previous.lastUpdate,
            now: now.wall.seconds)
        if case .malformed = touch { return end(slot, .parameter) }
        if let view, !info1.contains(.noBins) {
            if info1.contains(.getAllBins) {
                answerAllBins(slot, view)
                countEnd(slot, .ok)
            } else {
                let result = selectBins(slot, view, now)
                guard result == .ok else { return end(slot, result) }
                _ = end(slot, .ok)
            }
        } else {
            _ = end(slot, .ok)
        }
        if case .touch = touch { self.touch(slot, now) }
        return .answered
    }

    /// Bins are stored as they travel: one copy.
    private func answerAllBins(_ slot: SlotPointer, _ view: ImageView) {
        deliver(
            slot, .ok, slot.pointee.previous.generation, slot.pointee.previous.voidTime,
            AnswerOperations(bytes: view.binBytes, count: view.binCount))
    }

    /// Collects the bins that the read operations name.
    private func selectBins(_ slot: SlotPointer, _ view: ImageView, _ now: TurnTime) -> ResultCode {
        let request = slot.pointee.request
        guard (1...Limits.operationsMax).contains(request.pointee.operationCount) else { return .parameter }
        let respondsAll = request.pointee.header.info2.contains(.respondAllOperations)
        let workBefore = scratch.expressions.work
        let searchesHashed = beginBins(view, names: request.pointee.operationCount)
        var operations = request.pointee.operations
        while let operation = operations.next() {
            let refusal = OperationRules.checkRead(operation)
            guard refusal == .ok else { return refusal }
            if operation.code == OperationCode.expressionRead {
                guard !isTooMuchWork(since: workBefore) else { return .parameter }
                let facts = facts(slot.pointee.previous, slot.pointee.digest, now)
                let result = applyExpression(
                    operation, facts, BinSource(view), respondsAll: respondsAll, code: resultCode(slot, operation))
                guard result == .ok else { return result }
                continue
            }
            addBin(operation, view, searchesHashed: searchesHashed, respondsAll: respondsAll)
            guard !scratch.isResultTooLarge else { return .recordTooBig }
        }
        return .ok
    }

    /// Renews the time to live after a read: a write of the engine's own, by the ordinary write machine. The
    /// record keeps its bins and its generation and lives as long again.
    private func touch(_ read: SlotPointer, _ now: TurnTime) {
        let previous = read.pointee.previous
        let lifeSeconds = previous.voidTime - RecordTime(milliseconds: previous.lastUpdate).seconds
        guard lifeSeconds > 0, lifeSeconds <= Limits.timeToLiveSecondsMax else { return counters.count(.readTouchSkip) }
        let slot = scratch.slots.take()
        slot.pointee.begin(
            scratch.touchTemplate.request(digest: read.pointee.digest, timeToLive: lifeSeconds),
            namespace: number, connection: 0, now: now.monotonic)
        slot.pointee.isTouch = true
        slot.pointee.deadline = read.pointee.deadline
        runOwn(slot, now)
    }
}
