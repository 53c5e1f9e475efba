// Memory of a partition, and its growth by one bucket at a time.
internal import Base
internal import CBase

extension PrimaryIndex {
    // ---- Entries ----

    /// A fresh entry with that content; its handle.
    @inline(__always)
    func newEntry(_ partition: Int, _ content: IndexEntry) throws(IndexError) -> UInt32 {
        let handle = try takeEntry(partition)
        write(content, to: handle)
        return handle
    }

    /// An entry that no handle names; its handle.
    @inline(__always)
    func takeEntry(_ partition: Int) throws(IndexError) -> UInt32 {
        let state = states + partition
        let free = state.pointee.freeEntry
        guard free == 0 else {
            state.pointee.freeEntry = UInt32(truncatingIfNeeded: entryAddress(free).pointee.w0)
            apus_store_relaxed_u64(&state.pointee.freeCount, state.pointee.freeCount - 1)
            return free
        }
        if state.pointee.nextEntry == state.pointee.endEntry { try takeEntries(partition) }
        state.pointee.nextEntry += 1
        return state.pointee.nextEntry
    }

    /// Writes a whole entry that no handle names yet.
    @inline(__always)
    func write(_ content: IndexEntry, to handle: UInt32) {
        let address = entryAddress(handle)
        address.initialize(to: content)
        persistEntry(address, IndexEntry.byteCount)
    }

    /// Puts an entry that no handle names, here or on the medium, on the partition's free list: it is linked through the
    /// entries themselves.
    func freeEntry(_ partition: Int, _ handle: UInt32) {
        apus_store_release_u64(entryAddress(handle), UInt64(states[partition].freeEntry))
        states[partition].freeEntry = handle
        apus_store_relaxed_u64(&states[partition].freeCount, states[partition].freeCount + 1)
    }

    /// Takes a run of entries from the arena: about a thirtieth of what the partition has.
    private func takeEntries(_ partition: Int) throws(IndexError) {
        let wanted = min(max(Int(states[partition].count) / 32, 8), 256)
        let offset = try entries.allocate(byteCount: wanted * IndexEntry.byteCount)
        let first = offset / IndexEntry.byteCount
        guard first + wanted < Int(UInt32.max) else { throw .tooManyRecords }
        states[partition].nextEntry = UInt32(first)
        states[partition].endEntry = UInt32(first + wanted)
    }

    // ---- Lines ----

    func newLine(_ partition: Int) throws(IndexError) -> UInt32 {
        let number = states[partition].freeLine
        guard number == 0 else {
            states[partition].freeLine = line(number).load(fromByteOffset: 16, as: UInt32.self)
            line(number).initializeMemory(as: UInt64.self, repeating: 0, count: 8)
            return number
        }
        return UInt32(try lines.allocate(byteCount: PrimaryIndex.lineSize) / PrimaryIndex.lineSize)
    }

    /// Puts a line that no link names, here or on the medium, on the partition's free list.
    func freeLine(_ partition: Int, _ number: UInt32) {
        apus_store_release_u32(line(number) + 16, states[partition].freeLine)
        states[partition].freeLine = number
    }

    /// Puts a handle into the bucket that begins at `first`.
    func place(
        _ handle: UInt32, _ digest: Digest, inBucketAt first: UnsafeMutableRawPointer, _ partition: Int
    ) throws(IndexError) {
        let tag = IndexEntry.tag(digest)
        var line = first
        var length = 1
        while true {
            let slots = handles(line)
            for slot in 0..<PrimaryIndex.slots where slots[slot] == 0 {
                store(handle, tag, line, slot)
                return
            }
            let next = link(line)
            if next == 0 {
                if length >= Run.chainMax { return try makeRun(first, adding: handle, digest, partition) }
                let number = try newLine(partition)
                store(handle, tag, self.line(number), 0)
                apus_store_release_u32(line + 12, number)
                return persistLines(line, PrimaryIndex.lineSize)
            }
            if next & Run.flag != 0 { return try insertIntoRun(line, handle, digest) }
            line = self.line(next)
            length += 1
        }
    }

    private func store(_ handle: UInt32, _ tag: UInt8, _ line: UnsafeMutableRawPointer, _ slot: Int) {
        apus_store_release_u8(line + slot, tag)
        apus_store_release_u32(handles(line) + slot, handle)
        persistLines(line, PrimaryIndex.lineSize)
    }

    /// Makes a line empty that nothing published links to.
    func clearLine(_ line: UnsafeMutableRawPointer) {
        line.initializeMemory(as: UInt64.self, repeating: 0, count: 8)
        persistLines(line, PrimaryIndex.lineSize)
    }

    // ---- Persist ----

    /// Makes stores to lines last: does nothing where that takes no effort.
    @inline(__always)
    func persistLines(_ address: UnsafeMutableRawPointer, _ byteCount: Int) {
        if linesNeedPersist { lines.persist(offset: address - lineBase, byteCount: byteCount) }
    }

    /// Makes stores to an entry last.
    @inline(__always)
    func persistEntry(_ address: UnsafeMutableRawPointer, _ byteCount: Int) {
        if entriesNeedPersist { entries.persist(offset: address - entryBase, byteCount: byteCount) }
    }

    // ---- Split ----

    /// Adds one bucket and moves what belongs there. Without memory for it the partition just stays denser.
    func splitOne(_ partition: Int) throws(IndexError) {
        let state = apus_load_acquire_u64(root(partition))
        let level = state >> 32
        let split = state & 0xFFFF_FFFF
        let added = Root.bucketCount(state)
        let source = Int(split)
        try prepareSegment(partition, of: added)
        let target = bucketLine(partition, added)
        let nextState = split + 1 == UInt64(Root.firstBuckets) << level ? (level + 1) << 32 : state + 1
        let first = bucketLine(partition, source)
        if canary == .publishesLevelEarly { publish(nextState, partition) }
        try copyMoving(partition, first, to: target, added, nextState)
        publish(nextState, partition)
        states[partition].bucketCount += 1
        clearMoved(partition, first, source, nextState)
    }

    private func publish(_ state: UInt64, _ partition: Int) {
        apus_store_release_u64(root(partition), state)
        persistLines(root(partition), 8)
    }

    private func prepareSegment(_ partition: Int, of bucket: Int) throws(IndexError) {
        let segment = Root.segment(bucket)
        guard segment.place == 0 else { return }
        // Clients choose digests: a partition that has all its segments just gets denser.
        guard segment.number < segmentsMax else { throw .tooManyRecords }
        let address = root(partition) + 8 + 4 * segment.number
        guard address.load(as: UInt32.self) == 0 else { return }
        let bytes = Root.buckets(inSegment: segment.number) * PrimaryIndex.lineSize
        let offset = try lines.allocate(byteCount: bytes)
        apus_store_release_u32(address, UInt32(offset / PrimaryIndex.lineSize))
        persistLines(address, 4)
    }

    /// Fills the new bucket with everything of the old one that belongs there.
    private func copyMoving(
        _ partition: Int, _ first: UnsafeMutableRawPointer, to target: UnsafeMutableRawPointer, _ bucket: Int,
        _ nextState: UInt64
    ) throws(IndexError) {
        // Their sort keys stand in the entries: all misses of the first line at once.
        for slot in 0..<PrimaryIndex.slots where handles(first)[slot] != 0 {
            let entry = UnsafeMutableRawPointer(entryAddress(handles(first)[slot]))
            apus_prefetch(entry)
            apus_prefetch(entry + IndexEntry.byteCount - 1)
        }
        var failure: IndexError?
        forEachHandle(first) { handle, tag in
            let entry = entryAddress(handle)
            guard failure == nil, Root.bucket(Root.sortKey(entry), nextState) == bucket else { return }
            let digest = entry.pointee.digest(partition: PartitionID(UInt16(partition)), tag: tag)
            do throws(IndexError) { try place(handle, digest, inBucketAt: target, partition) } catch { failure = error }
        }
        guard let failure else { return }
        emptyBucket(partition, target)
        throw failure
    }

    /// Clears the handles that moved out of the old bucket, and gives back overflow lines that became empty.
    private func clearMoved(_ partition: Int, _ first: UnsafeMutableRawPointer, _ bucket: Int, _ state: UInt64) {
        var before: UnsafeMutableRawPointer?
        var line = first
        while true {
            let slots = handles(line)
            var live = 0
            for slot in 0..<PrimaryIndex.slots where slots[slot] != 0 {
                if Root.bucket(Root.sortKey(entryAddress(slots[slot])), state) == bucket {
                    live += 1
                } else {
                    apus_store_release_u32(slots + slot, 0)
                }
            }
            persistLines(line, PrimaryIndex.lineSize)
            let next = link(line)
            if live == 0, let previous = before {
                apus_store_release_u32(previous + 12, next)
                persistLines(previous, PrimaryIndex.lineSize)
                freeLine(partition, UInt32((line - lineBase) / PrimaryIndex.lineSize))
            } else {
                before = line
            }
            guard next != 0 else { return }
            guard next & Run.flag == 0 else {
                return filterRun(before ?? first, next & ~Run.flag, bucket, state)
            }
            line = self.line(next)
        }
    }

    /// Takes everything out of a bucket that was not published, without touching the entries. The medium must know: a
    /// later split may have nothing to store there, and then publish it.
    private func emptyBucket(_ partition: Int, _ first: UnsafeMutableRawPointer) {
        let next = link(first)
        clearLine(first)
        var number = next
        while number != 0, number & Run.flag == 0 {
            let following = link(line(number))
            freeLine(partition, number)
            number = following
        }
        if number != 0 { freeRun(number & ~Run.flag) }
    }

    /// Calls `visit` with every handle of the bucket and its tag.
    func forEachHandle(_ first: UnsafeMutableRawPointer, _ visit: (UInt32, UInt8) -> Void) {
        var line = first
        while true {
            let slots = handles(line)
            for slot in 0..<PrimaryIndex.slots where slots[slot] != 0 {
                visit(slots[slot], line.load(fromByteOffset: slot, as: UInt8.self))
            }
            let next = link(line)
            guard next != 0 else { return }
            guard next & Run.flag == 0 else { return forEachInRun(next & ~Run.flag, visit) }
            line = self.line(next)
        }
    }
}
