// Where the blocks of one namespace lie: in ordinary memory, in a region that a later process finds again, or in the files
// of persistent memory. Invariants:
// 1. Blocks are numbered through all pieces; a block, and a span of blocks, lies within one piece.
// 2. A location is a unit of 16 bytes: the slot of its piece in 7 bits, the unit in the piece in 37. Memory is one piece
//    that may be longer than 2 TiB: its units run on through the next slots.
// 3. Only blocks below `backedCount` may be touched; it never falls. A space of several pieces is backed as a whole.
package import Base
internal import CBase
package import Storage

/// Blocks that lie behind each other.
package struct BlockPiece: Sendable {
    /// First 7 bits of its locations.
    package let slot: Int
    package let firstBlock: Int
    package let count: Int
    /// Of its first block.
    nonisolated(unsafe) package let base: UnsafeMutableRawPointer

    package var blocks: Range<Int> { firstBlock..<firstBlock + count }
}

/// A file of persistent memory with blocks behind its head.
package struct BlockFile: Sendable {
    package let slot: Int
    package let region: any MemoryRegion
    package let headSize: Int
    package let blockCount: Int

    package init(slot: Int, region: any MemoryRegion, headSize: Int, blockCount: Int) {
        self.slot = slot
        self.region = region
        self.headSize = headSize
        self.blockCount = blockCount
    }
}

/// See the invariants above. Any thread.
package final class BlockSpace: @unchecked Sendable {
    package static let unitSize = Limits.imageUnitSize
    /// Most pieces that have a slot of their own.
    package static let slotsMax = 128
    private static let slotShift: UInt64 = 37
    private static let unitMask: UInt64 = 1 << slotShift - 1

    package let blockSize: Int
    package let count: Int
    package let pieces: [BlockPiece]
    /// Pages are never given back: they belong to the region.
    package let keepsPages: Bool
    /// Stores have to be persisted.
    package let needsPersist: Bool
    private let unitShift: UInt64
    /// By slot.
    private let bases: UnsafeMutablePointer<UnsafeMutableRawPointer?>
    private let firstBlocks: UnsafeMutablePointer<Int>
    private let slotCounts: UnsafeMutablePointer<Int>
    private let regions: [(any MemoryRegion)?]
    /// Ordinary memory, which is this object's own.
    private let ownedByteCount: Int

    /// Ordinary memory; its pages come with the first touch.
    /// - Throws: `settings` without address space.
    package convenience init(dataSize: Int, blockSize: Int) throws(StorageError) {
        let count = dataSize / blockSize
        guard count > 0, let pages = apus_pages_reserve(count * blockSize, true) else {
            throw .settings("no address space for data-size \(dataSize): lower it, or raise the limit (ulimit -v)")
        }
        let piece = BlockPiece(slot: 0, firstBlock: 0, count: count, base: pages)
        self.init([piece], [nil], blockSize: blockSize, ownedByteCount: count * blockSize)
    }

    /// The first `byteCount` bytes of a region of which more and more is backed.
    package convenience init(_ region: any MemoryRegion, byteCount: Int, blockSize: Int) {
        precondition(byteCount <= region.capacity, "the region is too short")
        let piece = BlockPiece(slot: 0, firstBlock: 0, count: byteCount / blockSize, base: region.base)
        self.init([piece], [region], blockSize: blockSize, ownedByteCount: 0)
    }

    /// Files that are there in full, each with a slot of its own.
    package convenience init(_ files: [BlockFile], blockSize: Int) {
        var pieces: [BlockPiece] = []
        for file in files {
            precondition(file.slot < BlockSpace.slotsMax && !pieces.contains { $0.slot == file.slot })
            precondition(file.headSize + file.blockCount * blockSize <= file.region.backedByteCount, "the file is too short")
            let first = pieces.last?.blocks.upperBound ?? 0
            pieces.append(
                BlockPiece(
                    slot: file.slot, firstBlock: first, count: file.blockCount, base: file.region.base + file.headSize))
        }
        self.init(pieces, files.map(\.region), blockSize: blockSize, ownedByteCount: 0)
    }

    private init(
        _ pieces: [BlockPiece], _ regions: [(any MemoryRegion)?], blockSize: Int, ownedByteCount: Int
    ) {
        precondition(blockSize.nonzeroBitCount == 1 && blockSize >= 64, "a block has a power of two of bytes")
        self.pieces = pieces
        self.blockSize = blockSize
        self.ownedByteCount = ownedByteCount
        count = pieces.last?.blocks.upperBound ?? 0
        unitShift = UInt64((blockSize / BlockSpace.unitSize).trailingZeroBitCount)
        keepsPages = regions.contains { $0 != nil }
        needsPersist = regions.contains { $0?.needsPersist == true }
        bases = .allocate(capacity: BlockSpace.slotsMax)
        bases.initialize(repeating: nil, count: BlockSpace.slotsMax)
        firstBlocks = .allocate(capacity: BlockSpace.slotsMax)
        firstBlocks.initialize(repeating: 0, count: BlockSpace.slotsMax)
        slotCounts = .allocate(capacity: BlockSpace.slotsMax)
        slotCounts.initialize(repeating: 0, count: BlockSpace.slotsMax)
        var bySlot: [(any MemoryRegion)?] = Array(repeating: nil, count: BlockSpace.slotsMax)
        let slotBlocks = 1 << Int(BlockSpace.slotShift - unitShift)
        for (piece, region) in zip(pieces, regions) {
            for (number, first) in stride(from: 0, to: piece.count, by: slotBlocks).enumerated() {
                bases[piece.slot + number] = piece.base + first * blockSize
                firstBlocks[piece.slot + number] = piece.firstBlock + first
                slotCounts[piece.slot + number] = min(slotBlocks, piece.count - first)
                bySlot[piece.slot + number] = region
            }
        }
        self.regions = bySlot
    }

    deinit {
        if ownedByteCount > 0 { apus_pages_release(pieces[0].base, ownedByteCount) }
        bases.deallocate()
        firstBlocks.deallocate()
        slotCounts.deallocate()
    }

    // ---- Places ----

    /// Where the bytes of a location are; the location is one that was handed out.
    @inline(__always)
    func address(_ location: Location) -> UnsafeMutableRawPointer {
        bases[Int(location.rawValue >> BlockSpace.slotShift)].unsafelyUnwrapped
            + Int(location.rawValue & BlockSpace.unitMask) * BlockSpace.unitSize
    }

    @inline(__always)
    package func block(of location: Location) -> Int {
        firstBlocks[Int(location.rawValue >> BlockSpace.slotShift)]
            + Int((location.rawValue & BlockSpace.unitMask) >> unitShift)
    }

    /// Where in its block a location is.
    @inline(__always)
    package func offset(of location: Location) -> Int {
        Int(location.rawValue & (1 << unitShift - 1)) * BlockSpace.unitSize
    }

    /// The piece of a location from somewhere else, and its block; nil if there is none.
    package func find(_ location: Location) -> (piece: BlockPiece, block: Int)? {
        let slot = Int(location.rawValue >> BlockSpace.slotShift)
        let inSlot = Int((location.rawValue & BlockSpace.unitMask) >> unitShift)
        guard inSlot < slotCounts[slot] else { return nil }
        let block = firstBlocks[slot] + inSlot
        return piece(of: block).map { ($0, block) }
    }

    /// The piece of a block; nil if there is no such block.
    package func piece(of block: Int) -> BlockPiece? {
        var low = 0
        var high = pieces.count
        while low < high {
            let middle = (low + high) / 2
            if pieces[middle].blocks.upperBound <= block { low = middle + 1 } else { high = middle }
        }
        return low < pieces.count && block >= 0 ? pieces[low] : nil
    }

    package func address(ofBlock block: Int) -> UnsafeMutableRawPointer {
        guard let piece = piece(of: block) else { preconditionFailure("there is no block \(block)") }
        return piece.base + (block - piece.firstBlock) * blockSize
    }

    /// Location of the first unit of a block.
    package func location(ofBlock block: Int) -> UInt64 {
        guard let piece = piece(of: block) else { preconditionFailure("there is no block \(block)") }
        return UInt64(piece.slot) << BlockSpace.slotShift + UInt64(block - piece.firstBlock) << unitShift
    }

    // ---- Regions ----

    /// Blocks that may be touched.
    var backedCount: Int {
        guard pieces.count == 1, let region = regions[pieces[0].slot] else { return count }
        let offset = pieces[0].base - region.base
        return min(count, max(0, region.backedByteCount - offset) / blockSize)
    }

    /// Has `wanted` blocks backed. Takes about a millisecond for each 4 MiB. False: the medium has no room.
    func grow(to wanted: Int) -> Bool {
        guard wanted > backedCount else { return true }
        guard wanted <= count, pieces.count == 1, let region = regions[pieces[0].slot] else { return false }
        return region.grow(to: pieces[0].base - region.base + wanted * blockSize)
    }

    /// Has these bytes last, if their region asks for it.
    func persist(_ location: UInt64, _ address: UnsafeRawPointer, byteCount: Int) {
        guard needsPersist, let region = regions[Int(location >> BlockSpace.slotShift)] else { return }
        region.persist(offset: address - UnsafeRawPointer(region.base), byteCount: byteCount)
    }
}
