// How a table of blocks begins, and how it grows with the memory under it: see the invariants of BlockTable.swift.
internal import Base
internal import CBase
package import Storage

// ---- Backing ----

extension BlockTable {
    /// Blocks that are backed at a time, if there is a choice.
    private static let growthStep = 2

    /// Has `span` more blocks backed, so that `reserve` others are left; false if there is no room for any. Not under
    /// anybody's lock.
    func grow(span: Int, reserve: Int) -> Bool {
        guard space.keepsPages, backedBlocks < count else { return false }
        let growthLock = lockWord + 16
        apus_lock(growthLock)
        defer { apus_unlock(growthLock) }
        let before = backedBlocks
        if before - usedBlocks >= span + reserve, span == 1 { return true }
        let least = min(max(before + span, usedBlocks + span + reserve), count)
        let isBacked = space.grow(to: min(least + BlockTable.growthStep, count)) || space.grow(to: least)
        self[.hasNoRoom] = isBacked ? 0 : 1
        guard isBacked else { return false }
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        self[.backed] = space.backedCount
        listFree(from: before)
        return backedBlocks > before
    }

    /// Backs blocks before they are needed: a few, as many turns follow. At the end of a turn.
    func growAhead(reserve: Int) {
        let used = usedBlocks
        guard space.keepsPages, backedBlocks < usableBlocks, backedBlocks - used < reserve + min(4 + used / 32, 64) else {
            return
        }
        let growthLock = lockWord + 16
        guard apus_try_lock(growthLock) else { return }
        defer { apus_unlock(growthLock) }
        let before = backedBlocks
        guard space.grow(to: min(before + BlockTable.growthStep, count)) else { return self[.hasNoRoom] = 1 }
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        self[.backed] = space.backedCount
        listFree(from: before)
    }

    /// Lists what is free and backed from block `first` on, in turn from each piece, so that their bandwidth adds up; the
    /// lowest is taken first. Under the lock, or before anybody else knows the table.
    func listFree(from first: Int = 0) {
        let backed = backedBlocks
        let ranges = space.pieces.map { piece in
            max(0, first - piece.firstBlock)..<max(0, first - piece.firstBlock, min(piece.count, backed - piece.firstBlock))
        }
        let lowest = ranges.map(\.lowerBound).min() ?? 0
        for number in (lowest..<max(lowest, ranges.map(\.upperBound).max() ?? 0)).reversed() {
            for (piece, range) in zip(space.pieces, ranges).reversed() where range.contains(number) {
                let block = piece.firstBlock + number
                guard lines[block].state == BlockState.free else { continue }
                if lines[block].isResident == 0 { self[.residentFree] += 1 }
                lines[block].isResident = 1
                if lines[block].isListed == 0 { residentList.append(UInt32(block)) }
                lines[block].isListed = 1
            }
        }
    }
}

// ---- The start ----

extension BlockTable {
    /// An image of `byteCount` bytes, header included, at `offset` of a block was found to live. Any of several threads.
    package func adopt(_ block: Int, offset: Int, byteCount: Int) {
        addLive(block, byteCount)
        let end = UInt32(offset + byteCount)
        let place = UnsafeMutableRawPointer(lines + block) + 20
        var seen = apus_load_relaxed_u32(place)
        while seen < end, !apus_compare_exchange_u32(place, seen, end) { seen = apus_load_relaxed_u32(place) }
    }

    /// The same of an image that a walk has found.
    package func adopt(_ block: Int, _ image: StoredImage) {
        adopt(block, offset: image.headerOffset, byteCount: image.size)
    }

    /// Every block is known from now on: closed where something lives, else free. One thread, before shards are used.
    /// - Throws: `medium` if images lie over each other.
    package func settle() throws(StorageError) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        var block = 0
        self[.used] = 0
        while block < count {
            lines[block].state = BlockState.free
            let live = Int(lines[block].live)
            guard live > 0 else {
                block += 1
                continue
            }
            let filled = Int(lines[block].filled)
            let span = (filled + space.blockSize - 1) / space.blockSize
            let isLonely = (block + 1..<block + max(span, 1)).allSatisfy { $0 < count && lines[$0].live == 0 }
            guard live <= filled, isLonely, block + span <= backedBlocks else {
                throw .medium("the index points at images that lie over each other, in block \(block)")
            }
            for inner in block..<block + span {
                lines[inner].state = BlockState.inSpan
                lines[inner].isResident = 1
            }
            lines[block].state = BlockState.closed
            lines[block].span = UInt32(span)
            self[.tails] += tail(block)
            self[.used] += span
            highWater = block + span
            block += span
        }
        lowestFree = 0
        listFree()
    }

    /// Bytes of all images that live. Before shards are used.
    package var liveBytes: Int { (0..<count).reduce(0) { $0 + Int(lines[$1].live) } }
}
