// A memory namespace on one reactor. Invariants:
// 1. The open blocks belong to this shard alone: nobody else appends to them.
// 2. Bytes below `fill` of an open block are images; a location is handed out after its bytes are written.
internal import Base
internal import CBase
internal import Glibc
internal import Storage

/// One block that a shard appends to.
private struct OpenBlock {
    var number = -1
    var fill = 0
}

/// Appends, reads and compacts for one reactor. Reactor's thread only, except `liveBytes`.
final class MemoryShard: BackendShard {
    /// Images whose index entries are fetched together.
    private static let lookAheadMax = 16
    private let blocks: BlockTable
    private let number: Int
    private let counters: UnsafeMutablePointer<UInt64>
    private let reserveBlocks: Int
    private var fresh = OpenBlock()
    private var moved = OpenBlock()
    private var victim = -1
    private var victimOffset = 0

    init(_ blocks: BlockTable, reserveBlocks: Int) throws(StorageError) {
        self.blocks = blocks
        self.reserveBlocks = reserveBlocks
        guard let number = blocks.epochs.join() else {
            throw .settings("more than \(TurnEpochs.membersMax) service-threads: storage-engine memory has no more shards")
        }
        self.number = number
        counters = .allocate(capacity: 8)
        counters.initialize(repeating: 0, count: 8)
    }

    deinit { counters.deallocate() }

    // ---- Contract ----

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        guard image.count <= Memory.imageSizeMax else { throw .tooLarge(limitBytes: Memory.imageSizeMax) }
        let size = Envelope.storedByteCount(image.count)
        let offset: Int
        if size > BlockTable.blockSize {
            offset = try takeSpan(size)
        } else if stream != .moved {
            offset = try place(size, &fresh, reserve: reserveBlocks)
        } else {
            offset = try place(size, &moved, reserve: 0)
        }
        guard let source = image.baseAddress else { throw .settings("an empty image") }
        memcpy(blocks.base + offset, source, image.count)
        blocks.addLive(offset / BlockTable.blockSize, size)
        count(0, size)
        if size > BlockTable.blockSize { blocks.close(offset / BlockTable.blockSize, filled: size) }
        return .placed(Location(rawValue: UInt64(offset / Limits.imageUnitSize)))
    }

    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        .here(UnsafeRawBufferPointer(start: address(location), count: byteCount))
    }

    func prefetch(at location: Location, byteCount: Int) {
        let address = address(location)
        for line in 0..<min((byteCount + 63) / 64, 4) { apus_prefetch(address + 64 * line) }
    }

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        let offset = Int(location.rawValue) * Limits.imageUnitSize
        let size = Envelope.storedByteCount(byteCount)
        blocks.removeLive(offset / BlockTable.blockSize, size)
        count(0, -size)
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer { .done }

    func poll(_ receive: (borrowing Completion) -> Void) { blocks.epochs.turnBegan(number) }

    func turnEnded(sleeping: Bool) {
        if sleeping { blocks.epochs.fellAsleep(number) }
        blocks.discardPages()
    }

    // ---- Places ----

    private func address(_ location: Location) -> UnsafeMutableRawPointer {
        blocks.base + Int(location.rawValue) * Limits.imageUnitSize
    }

    private func place(_ size: Int, _ block: inout OpenBlock, reserve: Int) throws(StorageError) -> Int {
        if block.number < 0 || BlockTable.blockSize - block.fill < size {
            guard let next = blocks.take(span: 1, reserve: reserve) else { throw .outOfSpace }
            if block.number >= 0 { blocks.close(block.number, filled: block.fill) }
            block = OpenBlock(number: next, fill: 0)
        }
        defer { block.fill += size }
        return block.number * BlockTable.blockSize + block.fill
    }

    private func takeSpan(_ size: Int) throws(StorageError) -> Int {
        let span = (size + BlockTable.blockSize - 1) / BlockTable.blockSize
        guard let first = blocks.take(span: span, reserve: reserveBlocks) else { throw .outOfSpace }
        return first * BlockTable.blockSize
    }

    // ---- Figures ----

    private func count(_ counter: Int, _ amount: Int) {
        let word = counters + counter
        apus_store_relaxed_u64(word, apus_load_relaxed_u64(word) &+ UInt64(bitPattern: Int64(amount)))
    }

    /// What this shard appended less what it released; only the sum over all shards means something. Any
    /// thread.
    var liveBytes: Int64 { Int64(bitPattern: apus_load_relaxed_u64(counters)) }
    /// Images this shard moved. Any thread.
    var movedImages: UInt64 { apus_load_relaxed_u64(counters + 1) }
    /// Blocks this shard emptied. Any thread.
    var compactedBlocks: UInt64 { apus_load_relaxed_u64(counters + 2) }

    // ---- Compaction ----

    /// Looks at about `byteBudget` bytes of the emptiest block; returns how many it was.
    func compact(byteBudget: Int, livePercent: Int, arbiter: any LivenessArbiter) throws(StorageError) -> Int {
        if victim < 0 {
            guard let block = blocks.claimEmptiest(livePercent: livePercent) else { return 0 }
            victim = block
            victimOffset = 0
        }
        let end = blocks.filled(victim)
        let start = victimOffset
        while victimOffset < end, victimOffset - start < byteBudget {
            for _ in 0..<lookAhead(until: end, arbiter) {
                victimOffset += try moveIfLive(victim * BlockTable.blockSize + victimOffset, arbiter)
            }
        }
        let seen = max(victimOffset - start, 1)
        if victimOffset >= end {
            blocks.emptied(victim)
            victim = -1
            count(2, 1)
        }
        return seen
    }

    /// Has the index fetch what it needs for the next images of the victim; returns how many these are.
    private func lookAhead(until end: Int, _ arbiter: any LivenessArbiter) -> Int {
        var images = 0
        for stage in 0..<2 {
            var offset = victimOffset
            images = 0
            while offset < end, images < MemoryShard.lookAheadMax {
                let image = UnsafeRawPointer(blocks.base + victim * BlockTable.blockSize + offset)
                arbiter.prefetch(Envelope.digest(at: image), stage: stage)
                offset += Envelope.storedByteCount(Envelope.byteCount(at: image))
                images += 1
            }
        }
        return images
    }

    /// Moves the image at `offset` if it is live; returns its size.
    private func moveIfLive(_ offset: Int, _ arbiter: any LivenessArbiter) throws(StorageError) -> Int {
        let source = UnsafeRawPointer(blocks.base + offset)
        let byteCount = Envelope.byteCount(at: source)
        precondition(byteCount >= Envelope.byteCount, "a block holds images from its start to its end")
        let size = Envelope.storedByteCount(byteCount)
        let digest = Envelope.digest(at: source)
        let from = Location(rawValue: UInt64(offset / Limits.imageUnitSize))
        guard arbiter.isLive(digest, at: from) else { return size }
        let answer = try append(
            digest, UnsafeRawBufferPointer(start: source, count: size), stream: .moved, tag: Tag(rawValue: 0))
        guard case .placed(let to) = answer else { preconditionFailure("memory places at once") }
        if arbiter.relocate(digest, from: from, to: to) {
            release(digest, at: from, byteCount: size)
            count(1, 1)
        } else {
            release(digest, at: to, byteCount: size)
        }
        return size
    }
}
