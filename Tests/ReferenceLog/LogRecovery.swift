// Start and end of the reference log, and its figures.
internal import Base
internal import Device
internal import Storage

/// A group as it was found.
private struct FoundGroup {
    let header: GroupHeader
    let block: Int
    /// In the block.
    let start: Int
    let isWhole: Bool
}

extension LogCore {
    /// Reads all blocks and learns what lives. The last group may be torn: then it was never confirmed, and is taken
    /// off the medium so that it does not come back when others have followed it.
    func recover(_ channel: LogChannel) throws(StorageError) {
        var groups: [FoundGroup] = []
        var memory: [Int: LogBuffer] = [:]
        for block in blocks.indices {
            let first = try channel.read(layout.offset(ofBlock: block), 2 * layout.sectorSize, "read a block")
            avoidGeneration(of: first.view(layout.sectorSize..<layout.sectorSize + LogFormat.groupHeaderSize))
            if let mark = WipeMark(first.view(0..<layout.sectorSize)) {
                nextSequence = max(nextSequence, mark.nextSequence)
                nextGroup = max(nextGroup, mark.nextGroup)
                continue
            }
            let header = first.view(0..<LogFormat.blockHeaderSize)
            guard LogFormat.isSealed(header, LogFormat.blockMagic) else { continue }
            let generation = header.baseAddress!.littleEndian(UInt64.self, at: 8)
            take(block, generation)
            let buffer = try channel.read(layout.offset(ofBlock: block), layout.blockSize, "read a block")
            memory[block] = buffer
            groups += findGroups(block, generation, buffer)
        }
        groups.sort { $0.header.number < $1.header.number }
        if let last = groups.last, !last.isWhole, flaw != .ignoresChecksum {
            nextGroup = max(nextGroup, last.header.number + 1)
            let mark = WipeMark(nextSequence: nextSequence, nextGroup: nextGroup).sector(layout.sectorSize)
            try channel.write(mark, layout.offset(ofBlock: last.block) + last.start, "take a torn group off the medium")
            groups.removeLast()
        }
        var noted: [(sequence: UInt64, block: Int)] = []
        for group in groups { learn(group, memory[group.block]!, &noted) }
        for note in noted { forget(note.sequence, notedIn: note.block) }
        durableGroup = nextGroup - 1
        if let last = groups.last {
            reopen(last.block, memory[last.block]!, from: last.start + layout.padded(last.header.byteCount))
        }
        random = SeededRandom(seed: nextSequence)
    }

    /// Goes on behind the last group of the block written last. Were its rest given up, some restarts in a row would take
    /// every block there is, and with all of them nearly empty there would be no room for a note or a move.
    private func reopen(_ block: Int, _ buffer: LogBuffer, from fill: Int) {
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[fill...]).initializeMemory(as: UInt8.self, repeating: 0)
        blocks[block].phase = .open
        blocks[block].fill = fill
        blocks[block].buffer = buffer
        open = block
    }

    /// A block is in use: its wipe would have taken its header.
    private func take(_ block: Int, _ generation: UInt64) {
        blocks[block].phase = .closed
        blocks[block].generation = generation
        blocks[block].fill = layout.blockSize
        freeCount -= 1
        nextSequence = max(nextSequence, generation + 1)
    }

    /// A torn first group may have left itself without the header of its block. A new header of the same generation
    /// would bring it back.
    private func avoidGeneration(of group: UnsafeRawBufferPointer) {
        guard LogFormat.isSealed(group, LogFormat.groupMagic) else { return }
        nextSequence = max(nextSequence, group.baseAddress!.littleEndian(UInt64.self, at: 8) + 1)
    }

    /// The groups of a block, in order.
    private func findGroups(_ block: Int, _ generation: UInt64, _ buffer: LogBuffer) -> [FoundGroup] {
        var groups: [FoundGroup] = []
        var start = layout.sectorSize
        while start < layout.blockSize {
            let bytes = buffer.view(start..<layout.blockSize)
            let header = GroupHeader(bytes, at: layout.offset(ofBlock: block) + start)
            guard let header, header.generation == generation else {
                start += layout.sectorSize
                continue
            }
            let entries = UnsafeRawBufferPointer(rebasing: bytes[LogFormat.groupHeaderSize..<header.byteCount])
            let isWhole = crc32c(entries) == header.entriesChecksum
            groups.append(FoundGroup(header: header, block: block, start: start, isWhole: isWhole))
            start += layout.padded(header.byteCount)
        }
        return groups
    }

    /// Takes the entries of a group into the tables.
    private func learn(
        _ group: FoundGroup, _ buffer: LogBuffer, _ noted: inout [(sequence: UInt64, block: Int)]
    ) {
        let block = group.block
        nextGroup = max(nextGroup, group.header.number + 1)
        var place = group.start + LogFormat.groupHeaderSize
        let end = group.start + group.header.byteCount
        while place < end {
            let header = EntryHeader(
                buffer.view(place..<end), generation: group.header.generation, checking: flaw != .ignoresChecksum)
            guard let header else { return damagedImages += 1 }
            nextSequence = max(nextSequence, header.sequence + 1)
            if header.isNote {
                blocks[block].notes.append(header.sequence)
                noted.append((header.sequence, block))
            } else {
                let start = place + LogFormat.entryHeaderSize
                learnImage(header, block, start, buffer.view(start..<(start + header.byteCount)))
            }
            place += header.storedByteCount
        }
    }

    private func learnImage(_ header: EntryHeader, _ block: Int, _ start: Int, _ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Envelope.byteCount else { return damagedImages += 1 }
        let digest = Envelope.digest(at: bytes.baseAddress!)
        let offset = layout.offset(ofBlock: block) + start
        let isWhole = flaw == .ignoresChecksum || Envelope.fits(bytes, digest: digest) && Envelope.checksumFits(bytes)
        if !isWhole {
            damagedImages += 1
            blocks[block].isDamaged = true
        }
        let entry = BlockEntry(sequence: header.sequence, offset: offset, byteCount: header.byteCount)
        blocks[block].images.append(entry)
        byOffset[offset] = header.sequence
        if let known = images[header.sequence] {
            // Another copy: moved, and the crash came before the block it was moved from was wiped. The last one counts:
            // otherwise every crash could cost the room of a move.
            if !known.copies.contains(block) { images[header.sequence]!.copies.append(block) }
            guard isWhole else { return }
            if known.isLive { blocks[layout.block(at: known.offset)!].liveBytes -= header.storedByteCount }
            images[header.sequence]!.offset = offset
            images[header.sequence]!.isLive = true
        } else {
            images[header.sequence] = LogImage(
                digest: digest, byteCount: header.byteCount, offset: offset, isLive: isWhole, copies: [block])
        }
        if isWhole { blocks[block].liveBytes += header.storedByteCount }
    }

    /// An image was released before the crash.
    private func forget(_ sequence: UInt64, notedIn block: Int) {
        guard let image = images[sequence] else { return }
        images[sequence]!.noteBlock = block
        guard image.isLive else { return }
        images[sequence]!.isLive = false
        blocks[layout.block(at: image.offset)!].liveBytes -= image.storedByteCount
    }

    // ---- End ----

    /// Writes out what is under way; three failures are the device's last word.
    func close() throws(StorageError) {
        locked { failedWrites = 0 }
        var polls = 0
        while try !locked({ () throws(StorageError) in try stepToClose() }) {
            queue.wait()
            polls += 1
            guard polls < 1_000_000 else { throw .device(errno: DeviceErrno.inputOutput, operation: "close: no answer") }
        }
    }

    /// True: everything is durable and nothing is under way.
    private func stepToClose() throws(StorageError) -> Bool {
        guard !isClosed else { throw .closed }
        isClosing = true
        placeNotes()
        sealGroup()
        harvest()
        guard failedWrites < 3 else {
            isClosed = true
            throw .device(errno: DeviceErrno.inputOutput, operation: "write the last groups")
        }
        isClosed = sealed.isEmpty && groupStart == nil && operations.isEmpty
        guard !isClosed || unplacedNotes.isEmpty else {
            throw .device(errno: DeviceErrno.noSpace, operation: "write the last notes")
        }
        return isClosed
    }

    // ---- Figures ----

    var pressure: Pressure {
        let isOpenFull = open.map { blocks[$0].fill + layout.imageSizeMax > layout.blockSize } ?? true
        if sealed.count >= LogCore.backlogMax || freeCount < reserve || freeCount == reserve && isOpenFull { return .full }
        return sealed.count > LogCore.backlogMax / 2 || freeCount <= reserve + 1 ? .high : .none
    }

    var statistics: BackendStatistics {
        var figures = BackendStatistics()
        figures.totalBytes = UInt64(blocks.count * layout.blockSize)
        figures.usedBytes = images.values.reduce(0) {
            $0 + ($1.isLive ? UInt64(Envelope.storedByteCount($1.byteCount)) : 0)
        }
        figures.availableBytes = UInt64(max(0, freeCount - reserve) * layout.blockRoom)
        figures.allocatedBytes = UInt64((blocks.count - freeCount) * layout.blockSize)
        figures.movedImages = movedImages
        figures.compactedBlocks = compactedBlocks
        figures.pressure = pressure
        figures.details = [("damaged-images", "\(damagedImages)")]
        return figures
    }
}
