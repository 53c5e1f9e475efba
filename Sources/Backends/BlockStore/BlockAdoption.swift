// A start that goes on from an index: what the index points at lives, whatever else is in the blocks does not. Invariants:
// 1. Every image that is adopted counts in its block. With headers it has a bit as well, one for 32 bytes: no two images
//    begin so close together.
// 2. With headers, and unless everything was closed in good order, every block is walked before any of it is used: images
//    that were adopted must be there, all others are released for good. So nothing that was never published, and nothing
//    that lost its entry right before the end, comes back when the index is built from the blocks one day. Images follow
//    each other without gaps, but for what is damaged: behind a gap a walk looks only for what it misses.
// 3. Nothing is changed that another walk, after another crash, would not find the same way.
internal import Base
internal import CBase
package import Storage

/// See the invariants above.
package final class BlockAdoption: @unchecked Sendable {
    private static let bytesPerBit = 32
    /// Blocks that are walked side by side, so that the memory fetches for one what another waits for.
    private static let walksMax = 16
    private let core: BlockCore
    private let space: BlockSpace
    private let headerSize: Int
    /// Nil if nothing is walked.
    private let bits: UnsafeMutableRawPointer?
    private let bitsByteCount: Int

    /// - Throws: `settings` without address space for the bits.
    package init(_ core: BlockCore, isWalked: Bool) throws(StorageError) {
        self.core = core
        space = core.space
        headerSize = core.shape.headerSize
        let bitCount = space.count * space.blockSize / BlockAdoption.bytesPerBit
        bitsByteCount = (bitCount / 8 + 4095) / 4096 * 4096
        guard isWalked, headerSize > 0 else {
            bits = nil
            return
        }
        guard let pages = apus_pages_reserve(bitsByteCount, false) else {
            throw .settings("no address space for \(bitsByteCount >> 20) MB: raise the limit (ulimit -v)")
        }
        bits = pages
    }

    deinit { if let bits { apus_pages_release(bits, bitsByteCount) } }

    // ---- Adoption ----

    /// The index points at an image of `byteCount` bytes at `location`. Any of several threads; false if none can be there.
    package func adopt(_ location: Location, byteCount: Int) -> Bool {
        guard byteCount >= Envelope.byteCount, byteCount <= core.shape.imageSizeMax + BlockSpace.unitSize,
            let (piece, block) = space.find(location), block < core.table.backedBlocks
        else { return false }
        let offset = space.offset(of: location) - headerSize
        let size = headerSize + Envelope.storedByteCount(byteCount)
        let room = offset == 0
            ? (min(piece.blocks.upperBound, core.table.backedBlocks) - block) * space.blockSize : space.blockSize - offset
        guard offset >= 0, size <= room else { return false }
        if let bits {
            let number = bit(block, offset)
            let one = UInt64(1) << UInt64(number % 64)
            let before = apus_fetch_add_u64(bits + number / 64 * 8, one)
            // Two entries for one image: the sum is wrong now, but so is the index.
            guard before & one == 0 else { return false }
        }
        core.table.adopt(block, offset: offset, byteCount: size)
        return true
    }

    private func bit(_ block: Int, _ offset: Int) -> Int { (block * space.blockSize + offset) / BlockAdoption.bytesPerBit }

    private func isAdopted(_ block: Int, _ offset: Int) -> Bool {
        guard let bits else { return false }
        let number = bit(block, offset)
        return apus_load_relaxed_u64(bits + number / 64 * 8) >> UInt64(number % 64) & 1 == 1
    }

    // ---- The end ----

    /// Every image was adopted. One thread.
    /// - Throws: `medium` if the index points at what is not there.
    package func finish() throws(StorageError) {
        if bits != nil { try walkAll() }
        try core.table.settle()
        core.startBytes = core.table.liveBytes
    }

    /// A walk through a block that is under way.
    private struct Walk {
        let block: Int
        var walker: BlockWalker
        var adoptedBytes = 0
    }

    private func walkAll() throws(StorageError) {
        var next = 0
        var walks: [Walk] = []
        while next < space.count || !walks.isEmpty {
            while walks.count < BlockAdoption.walksMax, next < space.count {
                walks.append(Walk(block: next, walker: BlockWalker(core, block: next, end: space.blockSize)))
                next += span(next)
            }
            var place = 0
            while place < walks.count {
                if step(&walks[place]) {
                    place += 1
                } else {
                    try check(walks[place])
                    walks.swapAt(place, walks.count - 1)
                    walks.removeLast()
                }
            }
        }
    }

    /// Goes on to the next image; false at the end of the block.
    private func step(_ walk: inout Walk) -> Bool {
        let isWhole = walk.adoptedBytes == core.table.liveBytes(walk.block)
        guard let image = walk.walker.next(isContiguous: isWhole) else { return false }
        walk.walker.prefetchNext()
        if isAdopted(walk.block, image.offset - headerSize) {
            if !image.isReleased { walk.adoptedBytes += image.size }
        } else if image.isReleased {
            // The process may have died before that lasted.
            core.persistHeader(walk.walker.location(image))
        } else {
            core.release(walk.walker.location(image))
        }
        return true
    }

    private func check(_ walk: Walk) throws(StorageError) {
        let live = core.table.liveBytes(walk.block)
        guard walk.adoptedBytes != live else { return }
        throw .medium(
            "the index points at images of \(live) bytes in block \(walk.block), where \(walk.adoptedBytes) bytes of them"
                + " are")
    }

    /// Blocks of the span that a block begins; 1 if it begins none.
    private func span(_ block: Int) -> Int {
        let filled = core.table.liveBytes(block) > 0 ? core.table.filled(block) : 0
        return max(1, (filled + space.blockSize - 1) / space.blockSize)
    }
}
