// Reads of the reference log, and what a scan sees.
internal import Base
internal import Device
internal import Storage

enum LogReadAnswer {
    case here(LogBuffer, Range<Int>)
    case pending
}

extension LogCore {
    /// The image at a location: from the memory of its block if that is still there, else the device is asked.
    func read(
        _ shard: Int, _ digest: Digest, _ location: Location, _ byteCount: Int, _ tag: Tag
    ) throws(StorageError) -> LogReadAnswer {
        guard !isClosed else { throw .closed }
        if flaw == .returnsStaleBytes, let bytes = previous[digest], UInt8.random(in: 0..<8, using: &random) == 0 {
            let stale = LogBuffer(byteCount: bytes.count)
            stale.bytes.copyBytes(from: bytes)
            return .here(stale, 0..<bytes.count)
        }
        let offset = Int(location.rawValue) * Limits.imageUnitSize
        guard let block = layout.block(at: offset), blocks[block].phase != .free,
            byteCount >= Envelope.byteCount, byteCount <= layout.imageSizeMax
        else { throw .corrupt(location) }
        if let buffer = blocks[block].buffer {
            let start = offset - layout.offset(ofBlock: block)
            let count = Envelope.byteCount(at: buffer.bytes.baseAddress! + start)
            guard count <= byteCount, start + count <= layout.blockSize else { throw .corrupt(location) }
            return .here(buffer, start..<(start + count))
        }
        let sectors = self.sectors(offset, byteCount)
        let buffer = LogBuffer(byteCount: sectors.count)
        let operation = LogOperation.read(
            shard: shard, tag: tag, digest: digest, offset: offset, block: block, buffer)
        guard submit(.read(buffer.bytes, offset: sectors.lowerBound), operation) else { throw .overloaded }
        blocks[block].pins += 1
        return .pending
    }

    /// The whole sectors around an image.
    func sectors(_ offset: Int, _ byteCount: Int) -> Range<Int> {
        let first = offset / layout.sectorSize * layout.sectorSize
        return first..<layout.padded(offset + byteCount)
    }

    func readResult(_ digest: Digest, _ offset: Int, _ buffer: LogBuffer, _ errno: Int32?) -> LogResult {
        if let errno { return .failed(.device(errno: errno, operation: "read an image")) }
        guard let range = imageRange(digest, offset, buffer) else { return .failed(.corrupt(location(offset))) }
        return .read(buffer, range)
    }

    /// Where the image of `digest` is in the sectors that were read around it; nil if it is not whole.
    func imageRange(_ digest: Digest, _ offset: Int, _ buffer: LogBuffer) -> Range<Int>? {
        let start = offset % layout.sectorSize
        let count = Envelope.byteCount(at: buffer.bytes.baseAddress! + start)
        guard count >= Envelope.byteCount, start + count <= buffer.bytes.count else { return nil }
        let image = buffer.view(start..<(start + count))
        guard Envelope.fits(image, digest: digest) else { return nil }
        guard flaw == .ignoresChecksum || Envelope.checksumFits(image) else { return nil }
        return start..<(start + count)
    }

    // ---- Scan ----

    /// Sequences of the live images of a segment. A sequence stays with an image wherever it is moved, so no image is
    /// met twice or missed.
    func liveSequences(_ segment: Int, _ count: Int) -> [UInt64] {
        images.filter { $0.value.isLive && Int($0.key % UInt64(count)) == segment }.map(\.key).sorted()
    }

    /// Where a live image is now: in memory, or pinned on the device until `unpin`. Nil if it is gone.
    func locate(_ sequence: UInt64) -> (image: LogImage, block: Int, buffer: LogBuffer?)? {
        guard let image = images[sequence], image.isLive, let block = layout.block(at: image.offset) else { return nil }
        let buffer = blocks[block].buffer
        if buffer == nil { blocks[block].pins += 1 }
        return (image, block, buffer)
    }

    func unpin(_ block: Int) { blocks[block].pins -= 1 }

    /// What a scan at a cold start says about an image.
    func decide(_ decision: ScanDecision, _ sequence: UInt64) {
        guard !hasServed else { return }
        var dropped: [UInt64] = []
        switch decision {
        case .live, .stop: break
        case .replaces(let location, _):
            if let old = byOffset[Int(location.rawValue) * Limits.imageUnitSize] { dropped.append(old) }
        case .stale: dropped.append(sequence)
        }
        for sequence in dropped where images[sequence]?.isLive == true {
            release(location(images[sequence]!.offset))
        }
        hasServed = false
    }
}
