// The log itself: places, groups, commits and the freeing of blocks. Invariants: LogState.swift.
internal import Base
internal import Device
internal import Storage
internal import Synchronization

private struct Carried<Value>: @unchecked Sendable { let value: Value }

final class LogCore: @unchecked Sendable {
    /// Groups that may wait to be written before appends are refused.
    static let backlogMax = 16
    private let mutex = Mutex<Void>(())
    private let wakes = Mutex<[@Sendable () -> Void]>([])
    let device: any BlockDevice
    let layout: LogLayout
    let flaw: Flaw?
    private(set) var queue: (any DeviceQueue)!

    var blocks: [LogBlock]
    var images: [UInt64: LogImage] = [:]
    /// Sequence of the image that begins at an offset on the device.
    var byOffset: [Int: UInt64] = [:]
    var shards: [LogShardState] = []
    var open: Int?
    /// Where the open group begins in the open block; nil if there is none.
    var groupStart: Int?
    var nextGroup: UInt64 = 1
    var durableGroup: UInt64 = 0
    var sealed: [SealedGroup] = []
    var isWriting = false
    var waiters: [(group: UInt64, shard: Int, tag: Tag)] = []
    var unplacedNotes: [UInt64] = []
    var nextSequence: UInt64 = 1
    var turn: UInt64 = 1
    var operations: [UInt64: LogOperation] = [:]
    var nextOperation: UInt64 = 1
    var random: SeededRandom
    var isClosed = false
    /// Blocks are freed only to make room for the last notes.
    var isClosing = false
    /// Groups that failed to be written, one after the other.
    var failedWrites = 0
    /// A shard has changed something: what a scan decides from now on means nothing.
    var hasServed = false
    var movedImages: UInt64 = 0
    var compactedBlocks: UInt64 = 0
    var damagedImages: UInt64 = 0
    var freeCount = 0
    /// Only for `returnsStaleBytes`: the newest image of each digest, and the one before.
    var newest: [Digest: [UInt8]] = [:]
    var previous: [Digest: [UInt8]] = [:]

    init(_ device: any BlockDevice, _ layout: LogLayout, _ flaw: Flaw?) throws(StorageError) {
        self.device = device
        self.layout = layout
        self.flaw = flaw
        blocks = Array(repeating: LogBlock(), count: layout.blockCount)
        freeCount = layout.blockCount
        random = SeededRandom(seed: 0)
        do throws(DeviceError) {
            queue = try device.makeQueue(depth: 256) { [weak self] in self?.wakeAll() }
        } catch { throw LogChannel.storageError(error, "open a queue") }
    }

    /// Runs `body` with everything here to itself.
    func locked<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        try mutex.withLock { (_) throws(Failure) in Carried(value: try body()) }.value
    }

    private func wakeAll() { for wake in wakes.withLock({ $0 }) { wake() } }

    func addShard(_ wake: @escaping @Sendable () -> Void) -> Int {
        wakes.withLock { $0.append(wake) }
        return locked {
            shards.append(LogShardState(wake: wake))
            return shards.count - 1
        }
    }

    // ---- Places ----

    /// Blocks that only moved images and notes may use: without them compaction could not begin, nor a release last.
    var reserve: Int { max(2, blocks.count / 8) }
    /// From here on space is won back with effort.
    var lowWater: Int { max(reserve + 2, blocks.count / 4) }
    var isLow: Bool { freeCount <= lowWater }

    /// Room for an entry in the open block, which may be a new one; where it begins in there. If a note or a move had to
    /// take the open block out of the reserve, it is not for others either.
    private func makeRoom(_ byteCount: Int, reserve: Int) throws(StorageError) -> Int {
        guard freeCount >= reserve else { throw .outOfSpace }
        if let open {
            let start = groupStart == nil ? blocks[open].fill + LogFormat.groupHeaderSize : blocks[open].fill
            if start + byteCount <= layout.blockSize { return beginGroup(start) }
        }
        guard freeCount > reserve, let next = blocks.firstIndex(where: { $0.phase == .free }) else { throw .outOfSpace }
        closeOpenBlock()
        freeCount -= 1
        blocks[next] = LogBlock()
        blocks[next].phase = .open
        blocks[next].generation = nextSequence
        blocks[next].buffer = LogBuffer(byteCount: layout.blockSize)
        nextSequence += 1
        open = next
        writeBlockHeader(next)
        return beginGroup(layout.sectorSize + LogFormat.groupHeaderSize)
    }

    private func writeBlockHeader(_ number: Int) {
        let header = UnsafeMutableRawBufferPointer(rebasing: blocks[number].buffer!.bytes[..<LogFormat.blockHeaderSize])
        header.baseAddress!.storeLittleEndian(blocks[number].generation, at: 8)
        LogFormat.seal(header, LogFormat.blockMagic)
    }

    private func beginGroup(_ entryStart: Int) -> Int {
        if groupStart == nil { groupStart = entryStart - LogFormat.groupHeaderSize }
        blocks[open!].fill = entryStart
        return entryStart
    }

    func closeOpenBlock() {
        guard let open else { return }
        sealGroup()
        blocks[open].phase = .closed
        self.open = nil
        dropBuffer(open)
    }

    func dropBuffer(_ number: Int) {
        if blocks[number].phase != .open, blocks[number].unwrittenGroups == 0 { blocks[number].buffer = nil }
    }

    /// Writes an entry at the end of the log; the offset of its image on the device.
    func place(_ header: EntryHeader, _ image: UnsafeRawBufferPointer?, reserve: Int) throws(StorageError) -> Int {
        let start = try makeRoom(header.storedByteCount, reserve: reserve)
        let bytes = blocks[open!].buffer!.bytes
        let body = start + LogFormat.entryHeaderSize
        header.write(to: UnsafeMutableRawBufferPointer(rebasing: bytes[start...]), generation: blocks[open!].generation)
        if let image { UnsafeMutableRawBufferPointer(rebasing: bytes[body...]).copyMemory(from: image) }
        blocks[open!].fill = start + header.storedByteCount
        let offset = layout.offset(ofBlock: open!) + body
        if header.isNote {
            blocks[open!].notes.append(header.sequence)
        } else {
            blocks[open!].images.append(BlockEntry(sequence: header.sequence, offset: offset, byteCount: header.byteCount))
            byOffset[offset] = header.sequence
        }
        return offset
    }

    /// The last group that has, or will have, something in it.
    var lastGroup: UInt64 { groupStart == nil ? nextGroup - 1 : nextGroup }

    /// Ends the open group: it can be written now.
    func sealGroup() {
        guard let start = groupStart, let open, let buffer = blocks[open].buffer else { return }
        let end = layout.padded(blocks[open].fill)
        let used = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[start..<blocks[open].fill])
        let entries = UnsafeRawBufferPointer(rebasing: used[LogFormat.groupHeaderSize...])
        GroupHeader(
            generation: blocks[open].generation, number: nextGroup, offset: layout.offset(ofBlock: open) + start,
            byteCount: used.count, entriesChecksum: crc32c(entries)
        ).write(to: used)
        // The first group of a block brings its header along.
        let writeStart = start == layout.sectorSize ? 0 : start
        sealed.append(SealedGroup(number: nextGroup, block: open, range: writeStart..<end, buffer: buffer))
        blocks[open].unwrittenGroups += 1
        blocks[open].fill = end
        nextGroup += 1
        groupStart = nil
    }

    // ---- Data plane ----

    func append(_ digest: Digest, _ image: UnsafeRawBufferPointer, _ reserve: Int) throws(StorageError) -> Location {
        guard !isClosed else { throw .closed }
        guard image.count <= layout.imageSizeMax else { throw .tooLarge(limitBytes: layout.imageSizeMax) }
        guard sealed.count < LogCore.backlogMax else { throw .overloaded }
        hasServed = true
        // A new block takes a sequence for its generation, so the image's is drawn when there is room.
        _ = try makeRoom(LogFormat.entryHeaderSize + Envelope.storedByteCount(image.count), reserve: reserve)
        let header = EntryHeader(isNote: false, byteCount: image.count, sequence: nextSequence)
        let offset = try place(header, image, reserve: reserve)
        nextSequence += 1
        images[header.sequence] = LogImage(
            digest: digest, byteCount: image.count, offset: offset, isLive: true, copies: [open!])
        blocks[open!].liveBytes += header.storedByteCount
        if flaw == .returnsStaleBytes {
            previous[digest] = newest[digest]
            newest[digest] = Array(image)
        }
        return location(offset)
    }

    func location(_ offset: Int) -> Location { Location(rawValue: UInt64(offset / Limits.imageUnitSize)) }

    func release(_ location: Location) {
        hasServed = true
        guard let sequence = byOffset[Int(location.rawValue) * Limits.imageUnitSize], images[sequence]!.isLive else {
            preconditionFailure("an image was released twice, or never appended")
        }
        images[sequence]!.isLive = false
        let image = images[sequence]!
        takeLife(image.storedByteCount, layout.block(at: image.offset)!)
        if flaw == .losesRelease, UInt8.random(in: 0..<4, using: &random) == 0 { return }
        unplacedNotes.append(sequence)
        placeNotes()
    }

    /// A live image of that size is in this block no more.
    func takeLife(_ byteCount: Int, _ block: Int) {
        blocks[block].liveBytes -= byteCount
        precondition(blocks[block].liveBytes >= 0)
        blocks[block].emptiedGroup = lastGroup
        turn += 1
        blocks[block].emptiedTurn = turn
    }

    /// Writes the notes that had no room before. Without space they wait.
    func placeNotes() {
        while let sequence = unplacedNotes.first {
            if images[sequence] != nil {
                let header = EntryHeader(isNote: true, byteCount: 0, sequence: sequence)
                do throws(StorageError) { _ = try place(header, nil, reserve: 0) } catch { return }
                images[sequence]!.noteBlock = open!
            }
            unplacedNotes.removeFirst()
        }
    }

    func commit(_ shard: Int, _ tag: Tag) throws(StorageError) -> DoneAnswer {
        guard !isClosed else { throw .closed }
        if flaw == .forgetsSync { return .done }
        placeNotes()
        guard unplacedNotes.isEmpty else { throw .overloaded }
        if durableGroup >= lastGroup { return .done }
        waiters.append((lastGroup, shard, tag))
        pump()
        return .pending
    }

    // ---- Device ----

    /// Starts whatever can be started.
    func pump() {
        placeNotes()
        if !isClosing || !unplacedNotes.isEmpty { freeBlocks() }
        if sealed.isEmpty, !waiters.isEmpty { sealGroup() }
        guard !isWriting, let first = sealed.first else { return }
        let offset = layout.offset(ofBlock: first.block) + first.range.lowerBound
        isWriting = submit(.write(first.buffer.view(first.range), offset: offset, durable: true), .group)
    }

    /// False: the queue has no room just now.
    func submit(_ operation: DeviceOperation, _ purpose: LogOperation) -> Bool {
        do throws(DeviceError) { try queue.submit(operation, tag: nextOperation) } catch {
            precondition(error == .queueFull, "the log asks for whole sectors within its device")
            return false
        }
        operations[nextOperation] = purpose
        nextOperation += 1
        return true
    }

    /// Takes what has completed and goes on.
    func harvest() {
        queue.poll { completion in
            guard let purpose = operations.removeValue(forKey: completion.tag) else {
                preconditionFailure("the device completed something twice")
            }
            var errno: Int32?
            if case .failed(let number) = completion.outcome { errno = number }
            ended(purpose, errno)
        }
        pump()
    }

    private func ended(_ purpose: LogOperation, _ errno: Int32?) {
        switch purpose {
        case .group: groupEnded(errno)
        case .wipe(let block, _): wipeEnded(block, errno)
        case .read(let shard, let tag, let digest, let offset, let block, let buffer):
            blocks[block].pins -= 1
            shards[shard].ended.append((tag, readResult(digest, offset, buffer, errno)))
        case .victim(let shard, let block, let buffer):
            blocks[block].pins -= 1
            shards[shard].victim?.buffer = buffer
            shards[shard].victim?.failure = errno.map { .device(errno: $0, operation: "read a block") }
        }
    }

    /// A failed group stays first and is written again, whoever waits now is told: later groups cannot overtake it.
    private func groupEnded(_ errno: Int32?) {
        isWriting = false
        if let errno {
            failedWrites += 1
            for waiter in waiters {
                let error = StorageError.device(errno: errno, operation: "write a group")
                shards[waiter.shard].ended.append((waiter.tag, .failed(error)))
            }
            waiters = []
            return
        }
        let group = sealed.removeFirst()
        precondition(group.number == durableGroup + 1, "groups become durable in order")
        durableGroup = group.number
        failedWrites = 0
        blocks[group.block].unwrittenGroups -= 1
        dropBuffer(group.block)
        for waiter in waiters where waiter.group <= durableGroup { shards[waiter.shard].ended.append((waiter.tag, .done)) }
        waiters.removeAll { $0.group <= durableGroup }
    }

    // ---- Freeing ----

    /// Wipes what can be wiped; see invariant 3.
    private func freeBlocks() {
        let oldestTurn = shards.map(\.turn).min() ?? .max
        for number in blocks.indices where blocks[number].phase == .closed && blocks[number].liveBytes == 0 {
            let block = blocks[number]
            guard !block.isVictim, block.unwrittenGroups == 0, block.pins == 0 else { continue }
            guard block.emptiedTurn <= oldestTurn else { continue }
            if block.emptiedGroup > durableGroup, flaw != .reusesTooEarly {
                if isLow, sealed.isEmpty { sealGroup() }
                continue
            }
            guard keepNotes(of: number) else { continue }
            let mark = WipeMark(nextSequence: nextSequence, nextGroup: nextGroup).sector(layout.sectorSize)
            let wipe = DeviceOperation.write(
                UnsafeRawBufferPointer(mark.bytes), offset: layout.offset(ofBlock: number), durable: true)
            if submit(wipe, .wipe(block: number, mark)) { blocks[number].phase = .wiping }
        }
    }

    /// Notes of this block that would be missed: the image is still somewhere else on the medium.
    func neededNotes(_ number: Int) -> [UInt64] {
        blocks[number].notes.filter { sequence in
            guard let image = images[sequence], image.noteBlock == number else { return false }
            return image.copies.contains { $0 != number }
        }
    }

    /// Whether no note of the block is needed any more. If space is low they are written again elsewhere, if that wins
    /// space.
    private func keepNotes(of number: Int) -> Bool {
        let needed = neededNotes(number)
        guard !needed.isEmpty else { return true }
        guard isLow, needed.count * LogFormat.entryHeaderSize < layout.blockSize / 2 else { return false }
        for sequence in needed {
            let header = EntryHeader(isNote: true, byteCount: 0, sequence: sequence)
            do throws(StorageError) { _ = try place(header, nil, reserve: 0) } catch { return false }
            images[sequence]!.noteBlock = open!
        }
        blocks[number].emptiedGroup = lastGroup
        return false
    }

    private func wipeEnded(_ number: Int, _ errno: Int32?) {
        guard errno == nil else {
            blocks[number].phase = .closed
            return
        }
        for entry in blocks[number].images {
            if byOffset[entry.offset] == entry.sequence { byOffset[entry.offset] = nil }
            guard var image = images[entry.sequence] else { continue }
            precondition(!image.isLive || layout.block(at: image.offset) != number, "a block with a live image was wiped")
            image.copies.removeAll { $0 == number }
            images[entry.sequence] = image.copies.isEmpty ? nil : image
        }
        blocks[number] = LogBlock()
        freeCount += 1
    }
}
