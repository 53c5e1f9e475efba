// The blocks of one namespace that keeps its images in memory of some kind: which are free, and how full the others are.
// Invariants:
// 1. A block is unknown (until the start has ended), free, open (one shard appends to it), closed, emptying (one shard
//    compacts it), retired, or inside a span. Blocks that are not backed are free, and nobody takes them.
// 2. `live` of a block is the size of its images that were appended and not released, headers included; a block is retired
//    only at 0.
// 3. A retired block becomes free only when every shard has begun a turn, or fallen asleep, after it was
//    retired: until then somebody may still read bytes that were lent to him.
// 4. States change under `lock`, except closed -> retired, which whoever takes the last live byte away does
//    by compare-and-swap.
// 5. A span is a run of blocks for one image that is larger than a block; its first block stands for all of
//    them.
// 6. Where pages are kept, every free block that is backed is listed: single blocks are taken from the list, spans are
//    looked for. What is kept back for compaction is backed before anything else is used.
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
    /// What lives in it is being found out.
    static let unknown: UInt32 = 7
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
    /// Something in it is not what was written: compaction cannot empty it.
    var isSpoiled: UInt32 = 0
}

/// See the invariants above. Any thread.
package final class BlockTable: @unchecked Sendable {
    /// Lines that are looked at for one victim of compaction.
    private static let victimLines = 1 << 16
    package let space: BlockSpace
    let count: Int
    let lines: UnsafeMutablePointer<BlockLine>
    /// Word 0: the table; word 16: growth, which goes on for long and is not waited for under the other.
    let lockWord: UnsafeMutablePointer<UInt32>
    enum Word: Int { case used = 0, residentFree, tails, discards, backed, hasNoRoom, count }
    /// Each on a line of its own.
    private let words: UnsafeMutablePointer<UInt64>
    /// Turns of the shards.
    let epochs = TurnEpochs()
    var lowestFree = 0
    /// Holds each free block that has its pages still, and some that are not free any more.
    var residentList: [UInt32] = []
    private var discards: [Range<Int>] = []
    /// No block from here on has ever been used.
    var highWater = 0
    private var nextVictim = 0
    private var retiredList: [UInt32] = []

    /// All blocks that are backed are free, or unknown until `settle`.
    package init(_ space: BlockSpace, isUnknown: Bool) {
        self.space = space
        count = space.count
        lines = .allocate(capacity: count)
        lines.initialize(repeating: BlockLine(state: isUnknown ? BlockState.unknown : BlockState.free), count: count)
        lockWord = .allocate(capacity: 32)
        lockWord.initialize(repeating: 0, count: 32)
        words = .allocate(capacity: 8 * Word.count.rawValue)
        words.initialize(repeating: 0, count: 8 * Word.count.rawValue)
        retiredList.reserveCapacity(1024)
        residentList.reserveCapacity(2048)
        discards.reserveCapacity(256)
        self[.backed] = space.backedCount
        if isUnknown { self[.used] = count } else if space.keepsPages { listFree() }
    }

    deinit {
        lines.deallocate()
        lockWord.deallocate()
        words.deallocate()
    }

    subscript(word: Word) -> Int {
        get { Int(Int64(bitPattern: apus_load_relaxed_u64(words + 8 * word.rawValue))) }
        set { apus_store_relaxed_u64(words + 8 * word.rawValue, UInt64(bitPattern: Int64(newValue))) }
    }

    // ---- Blocks ----

    /// Blocks that are not free. A moment old.
    package var usedBlocks: Int { self[.used] }
    /// Blocks that may be touched. A moment old.
    package var backedBlocks: Int { self[.backed] }
    /// Blocks that are, or could be, backed, as far as is known.
    package var usableBlocks: Int { self[.hasNoRoom] == 1 ? self[.backed] : count }

    /// Free blocks that keep their pages: compaction frees in bursts, and a page that comes back must be cleared again.
    private var residentFreeMax: Int { space.keepsPages ? .max : max(4, usedBlocks / 32) }

    /// Takes `span` neighbouring blocks and opens them as one; nil if there are none beyond `reserve` others.
    func take(span: Int, reserve: Int) -> Int? {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        recycle()
        guard backedBlocks - usedBlocks >= span + reserve else { return nil }
        var found = (span == 1 ? findResident() : nil) ?? findFree(span)
        if found == nil, !discards.isEmpty {
            // Nearly full: what waits to be given back is needed now.
            finishDiscards(takeDiscards())
            found = findFree(span)
        }
        guard let first = found else { return nil }
        for block in first..<(first + span) {
            if lines[block].isResident == 1 { self[.residentFree] -= 1 }
            lines[block].isResident = 1
            lines[block].state = BlockState.inSpan
        }
        lines[first].live = 0
        lines[first].filled = 0
        lines[first].span = UInt32(span)
        lines[first].isSpoiled = 0
        highWater = max(highWater, first + span)
        apus_store_release_u32(state(first), BlockState.open)
        self[.used] += span
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
        let backed = backedBlocks
        for piece in space.pieces where piece.blocks.upperBound > lowestFree {
            var block = max(lowestFree, piece.firstBlock)
            var length = 0
            while block < min(piece.blocks.upperBound, backed) {
                length = lines[block].state == BlockState.free ? length + 1 : 0
                if span == 1 || length == 1 && block == lowestFree { lowestFree = max(lowestFree, block - length + 1) }
                if length == span {
                    if span == 1 { lowestFree = block + 1 }
                    return block - span + 1
                }
                block += 1
            }
        }
        return nil
    }

    /// The shard that filled a block, or a span, closes it.
    func close(_ block: Int, filled: Int) {
        lines[block].filled = UInt32(filled)
        apus_fetch_add_u64(words + 8 * Word.tails.rawValue, UInt64(tail(block)))
        closeAgain(block)
    }

    func tail(_ block: Int) -> Int {
        Int(lines[block].span) * space.blockSize - Int(lines[block].filled)
    }

    /// Bytes that no image fitted into. A moment old.
    var tailBytes: Int { self[.tails] }

    private func closeAgain(_ block: Int) {
        apus_store_release_u32(state(block), BlockState.closed)
        apus_fence()
        if apus_load_acquire_u64(live(block)) == 0 { retire(block, from: BlockState.closed) }
    }

    /// Counts an image of `byteCount` bytes into its block.
    package func addLive(_ block: Int, _ byteCount: Int) { apus_fetch_add_u64(live(block), UInt64(byteCount)) }

    /// Counts an image out of its block; the last one out retires a closed block.
    package func removeLive(_ block: Int, _ byteCount: Int) {
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
        apus_fetch_add_u64(words + 8 * Word.tails.rawValue, 0 &- UInt64(tail(first)))
        for block in first..<(first + span) {
            lines[block].state = BlockState.free
            lines[block].span = 1
            self[.residentFree] += 1
            if lines[block].isListed == 0 { residentList.append(UInt32(block)) }
            lines[block].isListed = 1
        }
        lowestFree = min(lowestFree, first)
        self[.used] -= span
        for block in first..<(first + span) where self[.residentFree] > residentFreeMax { giveBack(block) }
    }

    /// Gives a free block back to the system, with its neighbour if that is free too: together they are one huge page.
    /// Alone it goes only if many wait, for the neighbour loses its huge page then.
    private func giveBack(_ block: Int) {
        guard lines[block].state == BlockState.free else { return }
        let first = block & ~1
        var given = first..<min(first + 2, count)
        if !given.allSatisfy({ lines[$0].state == BlockState.free }) {
            guard self[.residentFree] > residentFreeMax + usedBlocks / 64 else { return }
            given = block..<(block + 1)
        }
        for block in given {
            if lines[block].isResident == 1 { self[.residentFree] -= 1 }
            lines[block].isResident = 0
            lines[block].state = BlockState.discarding
        }
        discards.append(given)
        self[.discards] = discards.count
    }

    /// Gives back what `free` has marked: a system call, so not under anybody's lock. At the end of a turn.
    func discardPages() {
        guard self[.discards] > 0 else { return }
        apus_lock(lockWord)
        let taken = takeDiscards()
        apus_unlock(lockWord)
        for range in taken {
            _ = apus_pages_discard(space.address(ofBlock: range.lowerBound), range.count * space.blockSize)
        }
        apus_lock(lockWord)
        finishDiscards(taken)
        apus_unlock(lockWord)
    }

    /// What waits to be given back is the caller's now. Under the lock.
    private func takeDiscards() -> [Range<Int>] {
        let taken = discards
        discards.removeAll(keepingCapacity: true)
        self[.discards] = 0
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

    /// Claims the closed block with the most dead bytes, if at most `livePercent` of what was written to it is live. Of a
    /// large table a part is looked at, the next time the next.
    func claimEmptiest(livePercent: Int) -> Int? {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        recycle()
        var best: Int?
        var bestDead = 0
        if nextVictim >= highWater { nextVictim = 0 }
        let looked = nextVictim..<min(nextVictim + BlockTable.victimLines, highWater)
        nextVictim = looked.upperBound
        for block in looked
        where lines[block].state == BlockState.closed && lines[block].span == 1 && lines[block].isSpoiled == 0 {
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
    func emptied(_ block: Int, isSpoiled: Bool) {
        if apus_load_acquire_u64(live(block)) == 0 {
            retire(block, from: BlockState.emptying)
        } else {
            lines[block].isSpoiled = isSpoiled ? 1 : 0
            closeAgain(block)
        }
    }

    package func filled(_ block: Int) -> Int { Int(lines[block].filled) }
    func liveBytes(_ block: Int) -> Int { Int(apus_load_relaxed_u64(live(block))) }

    /// Whether images may be in a block, or in the span that it begins.
    package func mayHoldImages(_ block: Int) -> Bool {
        switch apus_load_acquire_u32(state(block)) {
        case BlockState.free, BlockState.discarding, BlockState.inSpan: false
        default: true
        }
    }

    /// Bytes of pages taken. A moment old.
    package var allocatedBytes: Int { (usedBlocks + max(self[.residentFree], 0)) * space.blockSize }

    private func state(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + 16
    }
    private func live(_ block: Int) -> UnsafeMutableRawPointer { UnsafeMutableRawPointer(lines + block) }
}
