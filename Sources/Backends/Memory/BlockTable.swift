// The blocks of one memory namespace: address space of `data-size` bytes, cut into blocks of 1 MiB.
// Invariants:
// 1. A block is free, open (one shard appends to it), closed, emptying (one shard compacts it), retired, or
//    inside a span.
// 2. `live` of a block is the size of its images that were appended and not released; a block is retired only
//    at 0.
// 3. A retired block becomes free only when every shard has begun a turn, or fallen asleep, after it was
//    retired: until then somebody may still read bytes that were lent to him.
// 4. States change under `lock`, except closed -> retired, which whoever takes the last live byte away does
//    by compare-and-swap.
// 5. A span is a run of blocks for one image that is larger than a block; its first block stands for all of
//    them.
internal import Base
internal import CBase
internal import Storage

enum BlockState {
    static let free: UInt32 = 0
    static let open: UInt32 = 1
    static let closed: UInt32 = 2
    static let emptying: UInt32 = 3
    static let retired: UInt32 = 4
    static let inSpan: UInt32 = 5
    /// On its way back to the system; free after that.
    static let discarding: UInt32 = 6
}

/// What is known of one block.
struct BlockLine: BitwiseCopyable {
    var live: UInt64 = 0
    var retiredEpoch: UInt64 = 0
    var state: UInt32 = BlockState.free
    /// Bytes in use when it was closed.
    var filled: UInt32 = 0
    /// Blocks that this one stands for: 1, or the length of a span.
    var span: UInt32 = 1
    /// The pages have been touched since they were last given back.
    var isResident: UInt32 = 0
    /// In the list of free blocks with pages.
    var isListed: UInt32 = 0
}

/// See the invariants above. Any thread.
final class BlockTable: @unchecked Sendable {
    static let blockSize = 1 << 20
    let base: UnsafeMutableRawPointer
    let count: Int
    private let lines: UnsafeMutablePointer<BlockLine>
    private let lockWord: UnsafeMutablePointer<UInt32>
    // Word 8: used blocks; 16: free blocks with their pages; 24: tails,
    // bytes at the ends of closed blocks that no image fitted into; 32: discards waiting. Each on a line of its own.
    private let words: UnsafeMutablePointer<UInt64>
    /// Turns of the shards.
    let epochs = TurnEpochs()
    private var lowestFree = 0
    /// Free blocks whose pages are still there, and a list that holds each of them (and some that are not free any more).
    private var residentFree: Int {
        get { Int(apus_load_relaxed_u64(words + 16)) }
        set { apus_store_relaxed_u64(words + 16, UInt64(newValue)) }
    }
    private var residentList: [UInt32] = []
    private var discards: [Range<Int>] = []
    /// No block from here on has ever been used.
    private var highWater = 0
    private var retiredList: [UInt32] = []
    /// Free blocks that keep their pages: compaction frees in bursts, and a page that comes back must be cleared again.
    private var residentFreeMax: Int { max(4, usedBlocks / 32) }

    init(dataSize: Int) throws(StorageError) {
        count = dataSize / BlockTable.blockSize
        guard count > 0, let pages = apus_pages_reserve(count * BlockTable.blockSize, true) else {
            throw .settings("no address space for data-size \(dataSize): lower it, or raise the limit (ulimit -v)")
        }
        base = pages
        lines = .allocate(capacity: count)
        lines.initialize(repeating: BlockLine(), count: count)
        lockWord = .allocate(capacity: 16)
        lockWord.initialize(repeating: 0, count: 16)
        words = .allocate(capacity: 40)
        words.initialize(repeating: 0, count: 40)
        retiredList.reserveCapacity(1024)
        residentList.reserveCapacity(2048)
        discards.reserveCapacity(256)
    }

    deinit {
        apus_pages_release(base, count * BlockTable.blockSize)
        lines.deallocate()
        lockWord.deallocate()
        words.deallocate()
    }

    // ---- Blocks ----

    /// Blocks that are not free. A moment old.
    var usedBlocks: Int { Int(apus_load_relaxed_u64(words + 8)) }

    /// Takes `span` neighbouring blocks and opens them as one; nil if there are none beyond `reserve` others.
    func take(span: Int, reserve: Int) -> Int? {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        recycle()
        guard count - usedBlocks >= span + reserve else { return nil }
        var found = (span == 1 ? findResident() : nil) ?? findFree(span)
        if found == nil, !discards.isEmpty {
            // Nearly full: what waits to be given back is needed now.
            finishDiscards(takeDiscards())
            found = findFree(span)
        }
        guard let first = found else { return nil }
        for block in first..<(first + span) {
            if lines[block].isResident == 1 { residentFree -= 1 }
            lines[block].isResident = 1
            lines[block].state = BlockState.inSpan
        }
        lines[first].live = 0
        lines[first].filled = 0
        lines[first].span = UInt32(span)
        highWater = max(highWater, first + span)
        apus_store_release_u32(state(first), BlockState.open)
        apus_store_relaxed_u64(words + 8, UInt64(usedBlocks + span))
        return first
    }

    /// A free block that has its pages still.
    private func findResident() -> Int? {
        while let block = residentList.popLast() {
            lines[Int(block)].isListed = 0
            let line = lines[Int(block)]
            if line.state == BlockState.free, line.isResident == 1 { return Int(block) }
        }
        return nil
    }

    private func findFree(_ span: Int) -> Int? {
        var block = lowestFree
        var length = 0
        while block < count {
            length = lines[block].state == BlockState.free ? length + 1 : 0
            if span == 1 || length == 1 && block == lowestFree { lowestFree = max(lowestFree, block - length + 1) }
            if length == span {
                if span == 1 { lowestFree = block + 1 }
                return block - span + 1
            }
            block += 1
        }
        return nil
    }

    /// The shard that filled a block, or a span, closes it.
    func close(_ block: Int, filled: Int) {
        lines[block].filled = UInt32(filled)
        apus_fetch_add_u64(words + 24, UInt64(tail(block)))
        closeAgain(block)
    }

    private func tail(_ block: Int) -> Int {
        Int(lines[block].span) * BlockTable.blockSize - Int(lines[block].filled)
    }

    /// Bytes that no image fitted into. A moment old.
    var tailBytes: Int { Int(apus_load_relaxed_u64(words + 24)) }

    private func closeAgain(_ block: Int) {
        apus_store_release_u32(state(block), BlockState.closed)
        apus_fence()
        if apus_load_acquire_u64(live(block)) == 0 { retire(block, from: BlockState.closed) }
    }

    /// Counts an image of `byteCount` bytes into its block.
    func addLive(_ block: Int, _ byteCount: Int) { apus_fetch_add_u64(live(block), UInt64(byteCount)) }

    /// Counts an image out of its block; the last one out retires a closed block.
    func removeLive(_ block: Int, _ byteCount: Int) {
        let before = apus_fetch_add_u64(live(block), 0 &- UInt64(byteCount))
        precondition(before >= UInt64(byteCount), "an image was released twice")
        guard before == UInt64(byteCount) else { return }
        apus_fence()
        if apus_load_acquire_u32(state(block)) == BlockState.closed { retire(block, from: BlockState.closed) }
    }

    private func retire(_ block: Int, from old: UInt32) {
        guard apus_compare_exchange_u32(state(block), old, BlockState.retired) else { return }
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        lines[block].retiredEpoch = epochs.retire()
        retiredList.append(UInt32(block))
    }

    /// Makes free what was retired and can no longer be seen. Under the lock.
    private func recycle() {
        guard !retiredList.isEmpty else { return }
        let oldest = epochs.oldest
        retiredList.removeAll { block in
            guard lines[Int(block)].retiredEpoch <= oldest else { return false }
            free(Int(block))
            return true
        }
    }

    private func free(_ first: Int) {
        let span = Int(lines[first].span)
        precondition(lines[first].live == 0)
        apus_fetch_add_u64(words + 24, 0 &- UInt64(tail(first)))
        for block in first..<(first + span) {
            lines[block].state = BlockState.free
            lines[block].span = 1
            residentFree += 1
            if lines[block].isListed == 0 { residentList.append(UInt32(block)) }
            lines[block].isListed = 1
        }
        lowestFree = min(lowestFree, first)
        apus_store_relaxed_u64(words + 8, UInt64(usedBlocks - span))
        for block in first..<(first + span) where residentFree > residentFreeMax { giveBack(block) }
    }

    /// Gives a free block back to the system, with its neighbour if that is free too: together they are one huge page.
    /// Alone it goes only if many wait, for the neighbour loses its huge page then.
    private func giveBack(_ block: Int) {
        guard lines[block].state == BlockState.free else { return }
        let first = block & ~1
        var given = first..<min(first + 2, count)
        if !given.allSatisfy({ lines[$0].state == BlockState.free }) {
            guard residentFree > residentFreeMax + usedBlocks / 64 else { return }
            given = block..<(block + 1)
        }
        for block in given {
            if lines[block].isResident == 1 { residentFree -= 1 }
            lines[block].isResident = 0
            lines[block].state = BlockState.discarding
        }
        discards.append(given)
        apus_store_relaxed_u64(words + 32, UInt64(discards.count))
    }

    /// Gives back what `free` has marked: a system call, so not under anybody's lock. At the end of a turn.
    func discardPages() {
        guard apus_load_relaxed_u64(words + 32) > 0 else { return }
        apus_lock(lockWord)
        let taken = takeDiscards()
        apus_unlock(lockWord)
        for range in taken {
            _ = apus_pages_discard(base + range.lowerBound * BlockTable.blockSize, range.count * BlockTable.blockSize)
        }
        apus_lock(lockWord)
        finishDiscards(taken)
        apus_unlock(lockWord)
    }

    /// What waits to be given back is the caller's now. Under the lock.
    private func takeDiscards() -> [Range<Int>] {
        let taken = discards
        discards.removeAll(keepingCapacity: true)
        apus_store_relaxed_u64(words + 32, 0)
        return taken
    }

    /// These blocks can be taken again. Pages that the system did not take are merely cleared for nothing later.
    private func finishDiscards(_ ranges: [Range<Int>]) {
        for range in ranges {
            for block in range { lines[block].state = BlockState.free }
            lowestFree = min(lowestFree, range.lowerBound)
        }
    }

    // ---- Compaction ----

    /// Claims the closed block with the most dead bytes, if at most `livePercent` of what was written to it is live.
    func claimEmptiest(livePercent: Int) -> Int? {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        recycle()
        var best: Int?
        var bestDead = 0
        for block in 0..<highWater where lines[block].state == BlockState.closed && lines[block].span == 1 {
            let filled = Int(lines[block].filled)
            let live = Int(apus_load_relaxed_u64(self.live(block)))
            if filled - live > bestDead, live * 100 <= filled * livePercent {
                best = block
                bestDead = filled - live
            }
        }
        guard let best, apus_compare_exchange_u32(state(best), BlockState.closed, BlockState.emptying) else { return nil }
        return best
    }

    /// A block has been walked to its end: retired if nothing is left, else closed again (an append whose
    /// entry is not published yet was passed over).
    func emptied(_ block: Int) {
        if apus_load_acquire_u64(live(block)) == 0 {
            retire(block, from: BlockState.emptying)
        } else {
            closeAgain(block)
        }
    }

    func filled(_ block: Int) -> Int { Int(lines[block].filled) }

    /// Bytes of pages taken. A moment old.
    var allocatedBytes: Int { (usedBlocks + max(residentFree, 0)) * BlockTable.blockSize }

    private func state(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + 16
    }
    private func live(_ block: Int) -> UnsafeMutableRawPointer { UnsafeMutableRawPointer(lines + block) }
}
