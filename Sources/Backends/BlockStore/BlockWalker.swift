// Finds the images of a block, front to back. Without headers each envelope leads to the next. With headers each proves
// itself: behind anything that does not, every unit is tried, so that nothing is lost but what is damaged.
internal import Base
internal import CBase
package import Storage

/// An image in a block. Sizes and places in bytes.
package struct StoredImage: BitwiseCopyable {
    /// Of its envelope, from the begin of the block.
    package let offset: Int
    package let byteCount: Int
    /// With its header, in whole units: what it counts for.
    package let size: Int
    package let order: UInt64
    package let isReleased: Bool

    /// Where what it counts for begins.
    var headerOffset: Int { offset + Envelope.storedByteCount(byteCount) - size }
}

/// One walk through one block, or the span that it begins. One thread.
package struct BlockWalker {
    private let base: UnsafeMutableRawPointer
    private let location: UInt64
    private let end: Int
    /// Bytes that an image at the front may have: of all neighbours that might belong to its span.
    private let spanEnd: Int
    private let headerSize: Int
    private let seed: UInt32
    private var offset = 0
    /// Bytes passed over between images that are not released: not what was written.
    package private(set) var damagedBytes = 0
    private var skippedBytes = 0

    /// Walks the bytes of `block` below `end`.
    package init(_ core: BlockCore, block: Int, end: Int) {
        let space = core.space
        guard let piece = space.piece(of: block) else { preconditionFailure("there is no block \(block)") }
        base = piece.base + (block - piece.firstBlock) * space.blockSize
        location = space.location(ofBlock: block)
        self.end = end
        spanEnd = (piece.blocks.upperBound - block) * space.blockSize
        headerSize = core.shape.headerSize
        seed = core.shape.seed
    }

    /// The next image; nil at the end, and if `isContiguous` also before anything that is no image.
    package mutating func next(isContiguous: Bool = false) -> StoredImage? {
        guard headerSize > 0 else { return nextEnvelope() }
        while offset + headerSize < end {
            let limit = offset == 0 ? spanEnd : end
            let header = ImageHeader(
                base + offset, location: location + UInt64((offset + headerSize) / BlockSpace.unitSize), seed: seed,
                unitsMax: (limit - offset - headerSize) / BlockSpace.unitSize)
            guard let header else {
                if isContiguous { return nil }
                offset += BlockSpace.unitSize
                skippedBytes += BlockSpace.unitSize
                continue
            }
            let place = offset + headerSize
            offset = place + header.units * BlockSpace.unitSize
            if !header.isReleased {
                damagedBytes += skippedBytes
                skippedBytes = 0
            }
            return StoredImage(
                offset: place, byteCount: Envelope.byteCount(at: base + place), size: offset - place + headerSize,
                order: header.order, isReleased: header.isReleased)
        }
        return nil
    }

    private mutating func nextEnvelope() -> StoredImage? {
        guard offset < end else { return nil }
        let byteCount = Envelope.byteCount(at: base + offset)
        precondition(byteCount >= Envelope.byteCount, "a block holds images from its start to its end")
        let image = StoredImage(
            offset: offset, byteCount: byteCount, size: Envelope.storedByteCount(byteCount), order: 0, isReleased: false)
        offset += image.size
        return image
    }

    /// Starts fetching what the next step looks at.
    func prefetchNext() { if offset < end { apus_prefetch(base + offset) } }

    /// Its envelope and payload.
    package func bytes(_ image: StoredImage) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + image.offset, count: image.byteCount)
    }

    package func location(_ image: StoredImage) -> Location {
        Location(rawValue: location + UInt64(image.offset / BlockSpace.unitSize))
    }
}
