// The write machine: claimed, resolved, read, applied, appended, committed, replicated, published, settled, answered.
// Deletes take the same way without an image: a keyed backend removes where others append, an addressed one is told by
// publishing. A lone node on a backend that answers at once runs all of it in one hold of the lock.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Storage
internal import Wire

extension NamespaceShard {
    /// Begins the write or delete in `slot`.
    func startWrite(_ slot: SlotPointer, now: TurnTime) -> Progress {
        let refusal = checkBeforeRecord(slot)
        guard refusal == .ok else { return end(slot, refusal) }
        if hasPressure, backend.pressure >= .high, delay(slot, now) { return .suspended }
        let partition = slot.pointee.digest.partition
        partitions.lock(partition)
        if let owner = partitions.owner(of: slot.pointee.digest) {
            let limit = namespace.live.current.pointee.pendingLimit
            let isBusy = limit > 0 && owner.pointee.waiterCount > limit
            if !isBusy { partitions.wait(slot, behind: owner) }
            partitions.unlock(partition)
            guard isBusy else { return .suspended }
            counters.count(.failKeyBusy)
            return end(slot, .keyBusy)
        }
        let reference = loadPrevious(slot)
        if writesAtOnce, isSmall(slot) {
            let result = runLocked(slot, reference, now)
            partitions.unlock(partition)
            return end(slot, result)
        }
        partitions.claim(slot)
        partitions.unlock(partition)
        slot.pointee.routedAt = scratch.routesGeneration
        return advance(slot, image: nil, now: now)
    }

    /// A claim has passed to `slot`: begins where `startWrite` would have.
    func inherit(_ slot: SlotPointer, now: TurnTime) -> Progress {
        precondition(slot.pointee.phase == .claimed)
        if isRouting, let progress = route(slot) { return progress }
        slot.pointee.routedAt = scratch.routesGeneration
        reload(slot)
        return advance(slot, image: nil, now: now)
    }

    /// Looks the record up again after the request has waited.
    func reload(_ slot: SlotPointer) {
        partitions.lock(slot.pointee.digest.partition)
        _ = loadPrevious(slot)
        partitions.unlock(slot.pointee.digest.partition)
    }

    /// Takes the steps from the slot's phase on until one has to wait or the request is answered. `image` is
    /// the previous image if its read has just ended.
    func advance(_ slot: SlotPointer, image: UnsafeRawBufferPointer?, now: TurnTime) -> Progress {
        var image = image
        while true {
            switch slot.pointee.phase {
            case .claimed:
                if let progress = passed(cluster.resolve(slot), slot, .resolved) { return progress }
            case .resolved:
                switch readPrevious(slot, &image, now) {
                case .done: slot.pointee.phase = .read
                case .pending: return .suspended
                case .refused(let result): return finish(slot, result)
                }
            case .read:
                let result = apply(slot, image, now)
                guard result == .ok else { return finish(slot, result) }
                slot.pointee.phase = .applied
            case .applied:
                switch store(slot, now) {
                case .done: slot.pointee.phase = .appended
                case .pending: return .suspended
                case .refused(let result): return finish(slot, result)
                }
            case .appended:
                switch commit(slot, isWanted: isKeyed || !slot.pointee.removesEntry) {
                case .done: slot.pointee.phase = .committed
                case .pending: return .suspended
                case .refused(let result): return commitFailed(slot, result)
                }
            case .committed:
                let answer = cluster.replicate(slot)
                if case .refused(let result) = answer { return abandon(slot, result) }
                if let progress = passed(answer, slot, .replicated) { return progress }
            case .replicated:
                let result = publishClaimed(slot)
                guard result == .ok else { return abandon(slot, result) }
                slot.pointee.phase = .published
            case .published:
                switch commit(slot, isWanted: slot.pointee.removesEntry && !isKeyed && releasesLast) {
                case .done: slot.pointee.phase = .settled
                case .pending: return .suspended
                case .refused(let result): return finish(slot, result)
                }
            case .settled: return finish(slot, .ok)
            case .free, .waiting, .abandoned, .answered: preconditionFailure("no step from \(slot.pointee.phase)")
            }
        }
    }

    private func passed(_ answer: EffectAnswer, _ slot: SlotPointer, _ phase: Phase) -> Progress? {
        switch answer {
        case .done:
            slot.pointee.phase = phase
            return nil
        case .pending: return .suspended
        case .refused(let result): return finish(slot, result)
        }
    }

    /// An image that was appended and will not be published goes back to the backend. A keyed one has lost the image
    /// before it, so only a new record can be taken back; for others the client learns that its write is in doubt.
    func abandon(_ slot: SlotPointer, _ result: ResultCode) -> Progress {
        guard !slot.pointee.removesEntry, !(isKeyed && slot.pointee.hasPrevious) else { return finish(slot, result) }
        guard isKeyed else {
            releaseNext(slot)
            return finish(slot, result)
        }
        slot.pointee.phase = .abandoned
        slot.pointee.result = result
        if case .pending = remove(slot, at: slot.pointee.next.location, nil) { return .suspended }
        return finish(slot, result)
    }

    /// The image is stored and perhaps not durable. A keyed backend has no other one: it is published.
    func commitFailed(_ slot: SlotPointer, _ result: ResultCode) -> Progress {
        guard isKeyed else { return abandon(slot, result) }
        _ = publishClaimed(slot)
        return finish(slot, result)
    }

    /// The backend is under pressure: the request begins again in a later turn. False if it has waited long enough.
    func delay(_ slot: SlotPointer, _ now: TurnTime) -> Bool {
        guard hasPressure, now.monotonic.nanoseconds(since: slot.pointee.started)
            < Limits.overloadDelayMilliseconds * 1_000_000
        else { return false }
        scratch.resetResults()
        slot.pointee.isTombstone = false
        if slot.pointee.phase != .free { slot.pointee.phase = .claimed }
        slot.pointee.isDelete = !slot.pointee.isRead && slot.pointee.request.pointee.header.info2.contains(.delete)
        scratch.delayed.append(slot)
        if !slot.pointee.isDelayed { counters.count(.requestsDelayed) }
        slot.pointee.isDelayed = true
        return true
    }

    /// Begins a request again that was put off or parked.
    func retry(_ slot: SlotPointer, _ now: TurnTime) -> Progress {
        // Compaction may have moved the image meanwhile.
        slot.pointee.phase == .claimed ? inherit(slot, now: now) : start(slot, now: now)
    }

    func releaseNext(_ slot: SlotPointer) {
        let next = slot.pointee.next
        backend.release(
            slot.pointee.digest, at: Location(rawValue: next.location), byteCount: next.byteCount)
    }

    // ---- Steps ----

    /// Whether everything that happens under the lock stays below 4 KiB.
    private func isSmall(_ slot: SlotPointer) -> Bool {
        let request = slot.pointee.request
        let previousSize = slot.pointee.hasPrevious ? slot.pointee.previous.byteCount : 0
        guard request.pointee.bytes.count <= Limits.lockedCopySizeMax / 2,
            previousSize <= Limits.lockedCopySizeMax / 2, !slot.pointee.hasExpression, slot.pointee.isFilterQuick
        else { return false }
        // Reads inside an operate copy as well.
        return !request.pointee.header.info1.contains(.read)
            || request.pointee.operationCount * previousSize <= Limits.lockedCopySizeMax
    }

    /// The whole machine in one hold of the lock; the backend answers at once by its promise to be volatile.
    private func runLocked(_ slot: SlotPointer, _ reference: IndexReference?, _ now: TurnTime) -> ResultCode {
        var image: UnsafeRawBufferPointer?
        switch readPrevious(slot, &image, now) {
        case .done: break
        case .pending: preconditionFailure("a volatile backend answers reads at once")
        case .refused(let result): return result
        }
        let result = apply(slot, image, now)
        guard result == .ok else { return result }
        switch store(slot, now) {
        case .done: break
        case .pending: preconditionFailure("a volatile backend places at once")
        case .refused(let result): return result
        }
        let published = publish(slot, reference)
        guard published != .ok, !slot.pointee.removesEntry else { return published }
        if isKeyed { _ = remove(slot, at: slot.pointee.next.location, nil) } else { releaseNext(slot) }
        return published
    }

    /// Gets the previous image if applying needs it.
    private func readPrevious(
        _ slot: SlotPointer, _ image: inout UnsafeRawBufferPointer?, _ now: TurnTime
    ) -> EffectAnswer {
        guard image == nil else { return .done }
        // Decided once: a truncate may be taken back before the image would be needed.
        slot.pointee.isPreviousHidden =
            slot.pointee.hasPrevious && !isVisible(slot.pointee.previous, now: now.wall)
        guard needsPreviousImage(slot, now) else { return .done }
        let entry = slot.pointee.previous
        do throws(StorageError) {
            let answer = try backend.read(
                slot.pointee.digest, at: Location(rawValue: entry.location), byteCount: entry.byteCount,
                tag: Tag(rawValue: UInt64(UInt(bitPattern: slot))))
            switch answer {
            case .pending: return .pending
            case .absent: return .refused(damaged(entry, slot.pointee.digest))
            case .here(let bytes):
                image = bytes
                return .done
            }
        } catch {
            return refusal(error, slot, now)
        }
    }

    /// What an error of the backend means for the request: later, or never.
    private func refusal(_ error: StorageError, _ slot: SlotPointer, _ now: TurnTime?) -> EffectAnswer {
        if error == .overloaded, let now, delay(slot, now) { return .pending }
        return .refused(resultCode(error))
    }

    /// A replace of a record without a stored key needs no look at the old image, a delete only to compare keys.
    private func needsPreviousImage(_ slot: SlotPointer, _ now: TurnTime) -> Bool {
        guard slot.pointee.hasPrevious, !slot.pointee.isPreviousHidden else { return false }
        if slot.pointee.filter != nil {
            let verdict = verdict(slot, now)
            // One that is filtered out needs nothing more.
            guard verdict == .isTrue else { return verdict == .needsRecord }
        }
        if slot.pointee.isDelete { return slot.pointee.previous.isKeyStored && slot.pointee.request.pointee.has(.key) }
        return !slot.pointee.isReplaced || slot.pointee.previous.isKeyStored
    }

    /// Gives the backend the new image, or has a keyed one remove the old.
    private func store(_ slot: SlotPointer, _ now: TurnTime) -> EffectAnswer {
        guard slot.pointee.removesEntry else { return append(slot, now) }
        return isKeyed && slot.pointee.hasPrevious ? remove(slot, at: slot.pointee.previous.location, now) : .done
    }

    private func remove(_ slot: SlotPointer, at location: UInt64, _ now: TurnTime?) -> EffectAnswer {
        do throws(StorageError) {
            let answer = try backend.remove(
                slot.pointee.digest, at: Location(rawValue: location), tag: Tag(rawValue: UInt64(UInt(bitPattern: slot))))
            guard case .done = answer else { return .pending }
            return .done
        } catch {
            return refusal(error, slot, now)
        }
    }

    private func append(_ slot: SlotPointer, _ now: TurnTime) -> EffectAnswer {
        let image = UnsafeRawBufferPointer(start: scratch.image, count: Envelope.byteCount(at: scratch.image))
        do throws(StorageError) {
            let answer = try backend.append(
                slot.pointee.digest, image, stream: slot.pointee.isTombstone ? .deleted : .fresh,
                tag: Tag(rawValue: UInt64(UInt(bitPattern: slot))))
            guard case .placed(let location) = answer else { return .pending }
            slot.pointee.next.location = location.rawValue
            return .done
        } catch {
            return refusal(error, slot, now)
        }
    }

    private func commit(_ slot: SlotPointer, isWanted: Bool) -> EffectAnswer {
        // Nobody is told of the engine's own deletes: after a crash the record is due again.
        guard isWanted, namespace.settings.commitBeforeAnswer, !slot.pointee.origin.isOwnDelete else { return .done }
        do throws(StorageError) {
            let answer = try backend.commit(slot.pointee.digest, tag: Tag(rawValue: UInt64(UInt(bitPattern: slot))))
            guard case .done = answer else { return .pending }
            return .done
        } catch {
            return .refused(resultCode(error))
        }
    }

    private func publishClaimed(_ slot: SlotPointer) -> ResultCode {
        partitions.lock(slot.pointee.digest.partition)
        defer { partitions.unlock(slot.pointee.digest.partition) }
        return publish(slot, index.find(slot.pointee.digest))
    }

    /// Swaps the index entry and releases the image that the entry holds now (compaction may have moved it
    /// since it was read). Under the lock.
    private func publish(_ slot: SlotPointer, _ reference: IndexReference?) -> ResultCode {
        let isDelete = slot.pointee.removesEntry
        if let reference {
            let held = index.entry(reference)
            if isDelete {
                index.remove(reference, partition: slot.pointee.digest.partition)
            } else {
                do throws(IndexError) {
                    _ = try index.replace(
                        reference, with: slot.pointee.next, partition: slot.pointee.digest.partition)
                } catch { return .outOfSpace }
            }
            if !isKeyed {
                backend.release(
                    slot.pointee.digest, at: Location(rawValue: held.location), byteCount: held.byteCount)
            }
            counters.changeSet(held, by: -1)
        } else if !isDelete {
            do throws(IndexError) {
                try index.insert(slot.pointee.digest, slot.pointee.next)
            } catch { return .outOfSpace }
        }
        if !isDelete {
            counters.changeSet(slot.pointee.next, by: 1)
        }
        return .ok
    }

    /// Ends a claimed request: the claim passes on, then the client is answered.
    func finish(_ slot: SlotPointer, _ result: ResultCode) -> Progress {
        let partition = slot.pointee.digest.partition
        partitions.lock(partition)
        let heir = partitions.finish(slot)
        partitions.unlock(partition)
        if let heir { scratch.post(heir) }
        return end(slot, result)
    }
}
