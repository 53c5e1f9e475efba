// Compaction of the reference log: the live images of the emptiest block move to the end of the log.
internal import Base
internal import Device
internal import Storage

extension LogCore {
    /// The closed block that gives back most, if it gives back at least an eighth.
    private func emptiestBlock() -> Int? {
        var best: (number: Int, left: Int)?
        for number in blocks.indices where blocks[number].phase == .closed {
            let block = blocks[number]
            guard !block.isVictim, !block.isDamaged, block.unwrittenGroups == 0, block.liveBytes > 0 else { continue }
            let left = block.liveBytes + neededNotes(number).count * LogFormat.entryHeaderSize
            if left <= layout.blockRoom / 8 * 7, left < best?.left ?? .max { best = (number, left) }
        }
        return best?.number
    }

    /// Nothing while a block that is to be emptied is still being read.
    var wantedBytes: Int {
        let victims = shards.compactMap(\.victim)
        guard !isClosed, !victims.contains(where: \.isBeingRead) else { return 0 }
        guard !victims.isEmpty || isLow && emptiestBlock() != nil else { return 0 }
        return freeCount <= reserve ? CompactionUrgency.pressingBytes : layout.blockSize
    }

    /// The block that `shard` empties, which may be a new one. Nil: there is none, or its bytes are still on their way.
    func victim(of shard: Int) throws(StorageError) -> LogVictim? {
        guard !isClosed else { throw .closed }
        hasServed = true
        if let victim = shards[shard].victim {
            if let failure = victim.failure {
                endVictim(shard)
                throw failure
            }
            return victim.buffer == nil ? nil : victim
        }
        guard isLow, let block = emptiestBlock() else { return nil }
        let buffer = LogBuffer(byteCount: layout.blockSize)
        let read = submit(
            .read(buffer.bytes, offset: layout.offset(ofBlock: block)), .victim(shard: shard, block: block, buffer))
        guard read else { return nil }
        blocks[block].pins += 1
        blocks[block].isVictim = true
        shards[shard].victim = LogVictim(block: block, entries: blocks[block].images)
        return nil
    }

    /// The next image of the victim that is live for the log; ends the victim behind its last one.
    func nextOfVictim(_ shard: Int) -> (entry: BlockEntry, digest: Digest)? {
        while let victim = shards[shard].victim, victim.next < victim.entries.count {
            let entry = victim.entries[victim.next]
            shards[shard].victim!.next += 1
            guard let image = images[entry.sequence], image.isLive, image.offset == entry.offset else { continue }
            return (entry, image.digest)
        }
        endVictim(shard)
        return nil
    }

    func endVictim(_ shard: Int) {
        guard let victim = shards[shard].victim else { return }
        blocks[victim.block].isVictim = false
        if blocks[victim.block].liveBytes == 0 { compactedBlocks += 1 }
        shards[shard].victim = nil
    }

    /// Copies an image of the victim to the end of the log; nil if it is dead meanwhile, or not whole.
    func copy(_ entry: BlockEntry, _ shard: Int) throws(StorageError) -> Location? {
        guard let victim = shards[shard].victim, let buffer = victim.buffer, let image = images[entry.sequence], image.isLive
        else { return nil }
        let start = entry.offset - layout.offset(ofBlock: victim.block)
        let bytes = buffer.view(start..<(start + entry.byteCount))
        guard Envelope.fits(bytes, digest: image.digest), Envelope.checksumFits(bytes) else {
            blocks[victim.block].isDamaged = true
            damagedImages += 1
            return nil
        }
        let header = EntryHeader(isNote: false, byteCount: entry.byteCount, sequence: entry.sequence)
        let offset = try place(header, bytes, reserve: 0)
        if !image.copies.contains(open!) { images[entry.sequence]!.copies.append(open!) }
        return location(offset)
    }

    /// The index has followed the copy, or not. Another shard may have released the copy already.
    func copied(_ entry: BlockEntry, to location: Location, _ isFollowed: Bool) {
        let offset = Int(location.rawValue) * Limits.imageUnitSize
        guard isFollowed else {
            // Whoever made the image dead notes its sequence; that goes for the copy too.
            byOffset[offset] = nil
            return
        }
        movedImages += 1
        guard let image = images[entry.sequence], image.isLive else { return }
        images[entry.sequence]!.offset = offset
        blocks[layout.block(at: offset)!].liveBytes += image.storedByteCount
        takeLife(image.storedByteCount, layout.block(at: entry.offset)!)
    }
}
