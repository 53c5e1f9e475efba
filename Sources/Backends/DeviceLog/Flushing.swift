// From a full or old group to one that lasts. Everything here but `LogDevice.seal` is called on some shard's thread, without
// locks.
internal import Base
internal import CBase
internal import Device
internal import Storage

extension LogDevice {
    /// Seals the open group of a stream. The group, if all of its bytes are there: the caller has it written. Nil if
    /// they are not (whoever brings the last sees to it) or if there is nothing in it. Under the lock.
    func seal(_ stream: LogStream) -> GroupWrite? {
        guard !isGivenUp, let old = stream.endGroup() else { return nil }
        let first = stream.firstUnit(old.group)
        let offset = first * LogFormat.unitSize
        let used = old.units * LogFormat.unitSize
        let end = layout.padded(used)
        let bytes = core.buffers.bytes(old.buffer)
        (bytes + used).initializeMemory(as: UInt8.self, repeating: 0, count: end - used)
        let block = core.buffers[old.buffer].block
        LogFormat.writeGroup(
            GroupHeader(
                units: old.units - first, sequence: lines[block].sequence, block: block, unit: first,
                identity: core.identity, stream: stream.number),
            to: bytes + offset)
        let write = GroupWrite(
            device: slot, stream: stream.number, buffer: old.buffer, number: stream.sealedCount, offset: offset,
            byteCount: end - offset, isDurable: !core.isSyncDisabled)
        stream.sealedCount += 1
        stream.pending.append(PendingGroup(write: write))
        core.buffers[old.buffer].unwrittenGroups += 1
        core.addUnwritten(write.byteCount)
        figures.add(.unwrittenBytes, write.byteCount)
        let reserved = UInt32(old.units - first - LogFormat.groupHeaderUnits)
        let counter = core.buffers.counter(old.buffer, group: old.group)
        return apus_fetch_add_u32(counter, 0 &- reserved) == reserved ? write : nil
    }

    /// The sealed group that begins there. Under the lock.
    func sealedGroup(_ stream: LogStream, buffer: Int, group: Int) -> GroupWrite? {
        // An earlier block may have been in this buffer, whose groups wait here for an older one.
        stream.pending.last { pending in
            !pending.isWritten && pending.write.buffer == buffer && pending.write.offset == group * layout.flushUnit
        }?.write
    }

    /// A group is written. What can go on now: waiters that are done, and a group for those that are not.
    func written(_ write: GroupWrite) -> (done: [CommitWaiter], next: GroupWrite?) {
        let (isWhole, done, next) = locked { () -> (Bool, [CommitWaiter], GroupWrite?) in
            guard !isGivenUp else { return (false, [], nil) }
            let stream = streams[write.stream]
            precondition(write.number >= stream.writtenCount, "a group was written twice")
            stream.pending[Int(write.number - stream.writtenCount)].isWritten = true
            while let first = stream.pending.first, first.isWritten {
                stream.pending.removeFirst()
                stream.writtenCount += 1
            }
            core.addUnwritten(-write.byteCount)
            figures.add(.unwrittenBytes, -write.byteCount)
            core.buffers[write.buffer].unwrittenGroups -= 1
            if write.isDurable { setDurable(stream, stream.writtenCount) }
            let buffer = core.buffers[write.buffer]
            return (buffer.isWhole && buffer.unwrittenGroups == 0, takeWaiters(), groupForWaiters())
        }
        if isWhole { closeBlock(in: write.buffer) }
        return (done, next)
    }

    private func setDurable(_ stream: LogStream, _ count: UInt64) {
        stream.durableCount = count
        if stream.number == 0 { figures.set(.durableFresh, Int(count)) }
    }

    /// Committers wait and nothing is under way that they could ride on: the open group has to go. Under the lock.
    func groupForWaiters() -> GroupWrite? {
        hasWaiters && streams[0].pending.isEmpty ? seal(streams[0]) : nil
    }

    /// The block in `buffer` is complete and written.
    func closeBlock(in buffer: Int) {
        let block = core.buffers[buffer].block
        core.buffers.cache(buffer) { oldest in
            let line = core.buffers[oldest]
            guard let device = core.device(line.device), device.buffer(of: line.block) == oldest else { return }
            device.setBuffer(line.block, nil)
        }
        closeBlock(block)
    }

    /// With `disable-odsync`: whether a flush should begin now, because somebody waits for what is written to last.
    func beginFlush() -> Bool {
        guard core.isSyncDisabled else { return false }
        return locked {
            let isWanted = streams.contains { $0.writtenCount > $0.durableCount } && (hasWaiters || hasRetired)
            guard flushing == nil, isWanted, !isFenced else { return false }
            flushing = streams.map(\.writtenCount)
            return true
        }
    }

    /// The flush is done, or has found no room in the queue and will be tried again.
    func flushed(_ isDone: Bool) -> [CommitWaiter] {
        locked {
            if isDone, let flushing { for (stream, count) in zip(streams, flushing) { setDurable(stream, count) } }
            flushing = nil
            return takeWaiters()
        }
    }

    /// Takes no more into the open block of a stream. Its buffer, if everything in it is written already. Under the lock.
    private func closeStream(_ stream: LogStream, writes: inout [GroupWrite]) -> Int? {
        let now = stream.now
        guard now.isOpen else { return nil }
        repeat { if let write = seal(stream) { writes.append(write) } } while !stream.close()
        core.buffers[now.buffer].isWhole = true
        return core.buffers[now.buffer].unwrittenGroups == 0 ? now.buffer : nil
    }

    /// Has the next fresh image begin a new block; what is to be written because of that.
    func endFreshBlock() -> [GroupWrite] {
        var writes: [GroupWrite] = []
        let whole = locked { isGivenUp ? nil : closeStream(streams[0], writes: &writes) }
        if let whole { closeBlock(in: whole) }
        return writes
    }

    /// Opens a new block on a stream whose block has no room for `units`; what is to be written because of that. Somebody
    /// else may have done it meanwhile.
    /// - Throws: `outOfSpace`, `overloaded`.
    func openBlock(
        _ stream: LogStream, units: Int, isDelete: Bool = false, writes: inout [GroupWrite]
    ) throws(StorageError) {
        apus_lock(lockWord)
        var whole: Int?
        defer {
            apus_unlock(lockWord)
            if let whole { closeBlock(in: whole) }
        }
        guard !isGivenUp else { throw .overloaded }
        let now = stream.now
        if now.isOpen, now.units + units <= layout.unitsPerBlock { return }
        whole = closeStream(stream, writes: &writes)
        // Moved images leave one block, too, as long as others are about to become free: a crash may take back what
        // was won, and the next start needs a block to begin with.
        let reserve = stream.number == 1 || isDelete ? 1 : reserveBlocks
        let taken = takeFree(reserve: reserve) ?? (stream.number == 1 && !hasRetired ? takeFree(reserve: 0) : nil)
        guard let block = taken else { try refuse(stream, &writes) }
        // The same for the buffers of a log in memory, which may have no more of it.
        let room = core.buffers.roomWhenFull
        let isMoreDue = hasRetired || room.map { $0.soon > $0.now } ?? false
        let left = stream.number == 1 || isDelete ? (room != nil && isMoreDue ? 1 : 0) : core.buffers.reserve
        guard let buffer = core.buffers.take(device: slot, block: block, leaving: left) else {
            giveBackFree(block)
            guard let room, room.soon <= left else { throw .overloaded }
            try refuse(stream, &writes)
        }
        precondition(lines[block].state == BlockState.free && lines[block].liveUnits == 0)
        lines[block].state = BlockState.open
        setLeftUnits(block, 0)
        lines[block].isKnownDamaged = false
        lines[block].sequence = core.takeSequence(stream: stream.number)
        // Before the block's first location is given out: a later process has to know whose bytes these are.
        core.buffers.begin(buffer, sequence: lines[block].sequence)
        keepSequence(block)
        setBuffer(block, buffer)
        stream.open(buffer)
    }

    /// There is no block for a stream now. Under the lock.
    private func refuse(_ stream: LogStream, _ writes: inout [GroupWrite]) throws(StorageError) -> Never {
        guard hasRetired else {
            // Defragmentation may win some back; what it moves itself finds none either.
            if stream.number == 0, choice.canWin(self) { throw .overloaded }
            throw .outOfSpace
        }
        // What will be free soon waits for these to last.
        for other in streams { if let write = seal(other) { writes.append(write) } }
        throw .overloaded
    }
}
