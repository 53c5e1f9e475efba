// The primary index of one namespace: a linear hash per partition. Invariants:
// 1. A bucket is a 64-byte line: 12 tags, a link, 12 handles. A handle is 0 (empty) or an entry's number plus
//    one.
// 2. Every record of a partition is in the bucket that its sort key chooses under the published (level,
//    split).
// 3. A link is 0, the number of an overflow line, or, with its top bit, the first line of a sorted run that
//    holds the whole rest of the bucket (docs/formats.md).
// 4. Order of stores: insert writes the entry, then the tag, then the handle; replace writes a fresh entry,
//    then its handle over the old one; remove stores handle 0; a split fills the new bucket, publishes
//    (level, split) in one store, then clears what moved. So after a kill between any two stores every key
//    has its old or its new state.
// 5. Where an arena needs it, each of these steps lasts (`persist`) before the next one is stored, and an entry, a line or a
//    run that was taken out is written to only when the medium knows that nothing leads there.
// 6. The caller holds the partition's lock, except for `prefetch...` and counts. `states` is not in the
//    arena.
package import Base
internal import CBase
internal import Glibc

/// Where a handle is stored. Valid until the lock is given back or the partition is changed.
package struct IndexReference: BitwiseCopyable {
    let handle: UnsafeMutablePointer<UInt32>
    /// First line of the sorted run that the handle is in, 0 if it is in a line.
    let run: UInt32
}

/// What a partition needs beside the arena. One cache line.
struct PartitionState: BitwiseCopyable {
    var count: UInt64 = 0
    var freeEntry: UInt32 = 0
    var freeLine: UInt32 = 0
    var nextEntry: UInt32 = 0
    var endEntry: UInt32 = 0
    var bucketCount: UInt64 = 0
    /// Entries in the free list.
    var freeCount: UInt64 = 0
    var padding: (UInt64, UInt64, UInt64) = (0, 0, 0)
}

/// See the invariants above.
package final class PrimaryIndex: @unchecked Sendable {
    let entries: any Arena
    let lines: any Arena
    /// The arenas can lose power: changes then pay for further calls.
    let linesNeedPersist: Bool
    let entriesNeedPersist: Bool
    /// Only in tests.
    let canary: IndexCanary?
    /// From attaching to the end of `finishAdoption`.
    var adoption: Adoption?
    let entryBase: UnsafeMutableRawPointer
    let lineBase: UnsafeMutableRawPointer
    let states: UnsafeMutablePointer<PartitionState>
    /// First free run of each size (the power of two is the place), and the lock of these lists: taken inside a
    /// partition's lock, for a few instructions, when a bucket changes the size of its run.
    let freeRuns: UnsafeMutablePointer<UInt32>
    let freeRunLock: UnsafeMutablePointer<UInt32>
    /// Average records of a bucket before another one is added, of 12 it has room for.
    static let loadMax = 9
    static let slots = 12
    static let lineSize = 64

    /// Segments of buckets a partition may have.
    let segmentsMax: Int

    /// Builds an empty index in two arenas that nobody else uses. `segmentsMax` is for tests of the limit, `canary` for
    /// tests of tests.
    package convenience init(
        entries: any Arena, lines: any Arena, segmentsMax: Int = Root.segmentsMax, canary: IndexCanary? = nil
    ) throws(IndexError) {
        self.init(over: entries, lines, segmentsMax, canary)
        let roots = try lines.allocate(byteCount: Root.byteCount * PartitionID.count)
        precondition(roots == 0, "the roots come first")
        let bucketBytes = Root.firstBuckets * PrimaryIndex.lineSize
        let first = try lines.allocate(byteCount: bucketBytes * PartitionID.count) / PrimaryIndex.lineSize
        for partition in 0..<PartitionID.count {
            let number = UInt32(first + partition * Root.firstBuckets)
            (root(partition) + 8).storeBytes(of: number, as: UInt32.self)
            states[partition].bucketCount = UInt64(Root.firstBuckets)
        }
        persistLines(lineBase, Root.byteCount * PartitionID.count)
    }

    /// What every index needs; nothing is read or written in the arenas.
    init(over entries: any Arena, _ lines: any Arena, _ segmentsMax: Int, _ canary: IndexCanary?) {
        precondition(segmentsMax <= Root.segmentsMax && MemoryLayout<PartitionState>.stride == 64)
        self.segmentsMax = segmentsMax
        self.canary = canary
        self.entries = entries
        self.lines = lines
        entryBase = entries.base
        lineBase = lines.base
        linesNeedPersist = lines.needsPersist
        entriesNeedPersist = entries.needsPersist
        freeRuns = .allocate(capacity: 64)
        freeRuns.initialize(repeating: 0, count: 64)
        freeRunLock = .allocate(capacity: 1)
        freeRunLock.initialize(to: 0)
        states = .allocate(capacity: PartitionID.count)
        states.initialize(repeating: PartitionState(), count: PartitionID.count)
    }

    /// An index in anonymous memory with room for about `recordsMax` records.
    package convenience init(heapFor recordsMax: Int = 1 << 31) throws(IndexError) {
        try self.init(
            entries: HeapArena(capacity: recordsMax * IndexEntry.byteCount),
            lines: HeapArena(capacity: recordsMax * 16 + (16 << 20)))
    }

    deinit {
        states.deallocate()
        freeRuns.deallocate()
        freeRunLock.deallocate()
    }

    // ---- Addresses ----

    @inline(__always)
    func root(_ partition: Int) -> UnsafeMutableRawPointer { lineBase + partition * Root.byteCount }

    @inline(__always)
    func line(_ number: UInt32) -> UnsafeMutableRawPointer { lineBase + Int(number) * PrimaryIndex.lineSize }

    @inline(__always)
    func entryAddress(_ handle: UInt32) -> UnsafeMutablePointer<IndexEntry> {
        (entryBase + (Int(handle) - 1) * IndexEntry.byteCount).assumingMemoryBound(to: IndexEntry.self)
    }

    @inline(__always)
    func handles(_ line: UnsafeMutableRawPointer) -> UnsafeMutablePointer<UInt32> {
        (line + 16).assumingMemoryBound(to: UInt32.self)
    }

    @inline(__always)
    func link(_ line: UnsafeMutableRawPointer) -> UInt32 { apus_load_acquire_u32(line + 12) }

    @inline(__always)
    func bucketLine(_ partition: Int, _ bucket: Int) -> UnsafeMutableRawPointer {
        let segment = Root.segment(bucket)
        let first = root(partition).load(fromByteOffset: 8 + 4 * segment.number, as: UInt32.self)
        return line(first) + segment.place * PrimaryIndex.lineSize
    }

    /// The first line of the bucket of a digest.
    @inline(__always)
    func firstLine(_ digest: Digest) -> UnsafeMutableRawPointer {
        let partition = Int(digest.partition.number)
        let state = apus_load_acquire_u64(root(partition))
        return bucketLine(partition, Root.bucket(Root.sortKey(digest), state))
    }

    // ---- Look-ups ----

    /// Starts fetching the bucket of a digest. Any thread, no lock.
    package func prefetchBucket(_ digest: Digest) { apus_prefetch(firstLine(digest)) }

    /// Starts fetching what a change in a digest's partition touches beside that. Any thread, no lock: a hint.
    package func prefetchState(_ digest: Digest) { apus_prefetch(states + Int(digest.partition.number)) }

    /// Starts fetching what leads to the bucket of a digest. Any thread, no lock.
    package func prefetchRoot(_ digest: Digest) {
        let root = root(Int(digest.partition.number))
        apus_prefetch(root)
        apus_prefetch(root + 64)
    }

    /// Starts fetching the entry that the next new record in a digest's partition will be written to, whose state
    /// should have arrived; its number. Any thread, no lock: a hint.
    package func prefetchNewEntry(_ digest: Digest) -> Int {
        let state = states + Int(digest.partition.number)
        let number = state.pointee.freeEntry != 0 ? Int(state.pointee.freeEntry) - 1 : Int(state.pointee.nextEntry)
        let entry = entryBase + number * IndexEntry.byteCount
        apus_prefetch(entry)
        apus_prefetch(entry + IndexEntry.byteCount - 1)
        return number
    }

    /// Starts fetching the entry of a digest, whose bucket should have arrived. Any thread, no lock: a hint.
    package func prefetchEntry(_ digest: Digest) {
        let line = firstLine(digest)
        var mask = apus_match_tags(line, IndexEntry.tag(digest))
        while mask != 0 {
            let handle = handles(line)[mask.trailingZeroBitCount]
            mask &= mask - 1
            guard handle != 0 else { continue }
            let entry = UnsafeMutableRawPointer(entryAddress(handle))
            apus_prefetch(entry)
            apus_prefetch(entry + IndexEntry.byteCount - 1)
        }
    }

    /// Starts fetching the entry that the next new version in a digest's partition will be written to. Any thread, no
    /// lock: a hint.
    package func prefetchFreeEntry(_ digest: Digest) {
        let free = states[Int(digest.partition.number)].freeEntry
        if free != 0 { apus_prefetch(entryAddress(free)) }
    }

    /// Location and size of what is probably the image of a digest: without a lock, so only good for a
    /// prefetch.
    package func likelyLocation(_ digest: Digest) -> (location: UInt64, byteCount: Int)? {
        let line = firstLine(digest)
        let mask = apus_match_tags(line, IndexEntry.tag(digest))
        guard mask != 0 else { return nil }
        let handle = handles(line)[mask.trailingZeroBitCount]
        guard handle != 0 else { return nil }
        let entry = entryAddress(handle).pointee
        return (entry.location, entry.byteCount)
    }

    /// The reference of a digest's entry; nil if there is none.
    package func find(_ digest: Digest) -> IndexReference? {
        let sought = IndexEntry(digest: digest)
        let tag = IndexEntry.tag(digest)
        var line = firstLine(digest)
        while true {
            var mask = apus_match_tags(line, tag)
            while mask != 0 {
                let slot = handles(line) + mask.trailingZeroBitCount
                mask &= mask - 1
                if slot.pointee != 0, holds(slot.pointee, sought) { return IndexReference(handle: slot, run: 0) }
            }
            let next = link(line)
            guard next != 0 else { return nil }
            guard next & Run.flag == 0 else { return findInRun(next & ~Run.flag, digest) }
            line = self.line(next)
        }
    }

    @inline(__always)
    private func holds(_ handle: UInt32, _ sought: IndexEntry) -> Bool {
        let entry = entryAddress(handle)
        return entry.pointee.w3 == sought.w3 && entry.pointee.w4 == sought.w4
            && (entry.pointee.w2 ^ sought.w2) >> 52 == 0
    }

    /// A copy of the entry.
    package func entry(_ reference: IndexReference) -> IndexEntry { entryAddress(reference.handle.pointee).pointee }

    /// Which entry of the arena it is now, from 0: another one after each `replace`.
    package func number(_ reference: IndexReference) -> Int { Int(reference.handle.pointee) - 1 }

    // ---- Changes ----

    /// Adds the entry of a digest that is not there.
    package func insert(_ digest: Digest, _ entry: IndexEntry) throws(IndexError) {
        let partition = Int(digest.partition.number)
        assert(find(digest) == nil)
        let handle = try newEntry(partition, entry)
        do throws(IndexError) {
            try place(handle, digest, inBucketAt: firstLine(digest), partition)
        } catch {
            freeEntry(partition, handle)
            throw error
        }
        let count = states[partition].count + 1
        apus_store_relaxed_u64(states + partition, count)
        if count > states[partition].bucketCount * UInt64(PrimaryIndex.loadMax) { try? splitOne(partition) }
    }

    /// Points the reference at a new entry of the same digest.
    package func replace(
        _ reference: IndexReference, with entry: IndexEntry, partition: PartitionID
    ) throws(IndexError) -> IndexReference {
        let partition = Int(partition.number)
        if entriesNeedPersist, canary == .publishesHandleEarly { return try replaceEarly(reference, with: entry, partition) }
        let old = reference.handle.pointee
        let fresh = try newEntry(partition, entry)
        apus_store_release_u32(reference.handle, fresh)
        // Before the entry that a handle led to is used again, the medium must know that it does not.
        persistLines(reference.handle, 4)
        freeEntry(partition, old)
        return reference
    }

    /// Stores another location into the entry: one aligned store, valid at any moment.
    package func relocate(_ reference: IndexReference, to location: UInt64) {
        let entry = entryAddress(reference.handle.pointee)
        var changed = entry.pointee
        changed.location = location
        apus_store_release_u64(entry, changed.w0)
        persistEntry(entry, 8)
    }

    /// Makes the entry one of another kind: one aligned store.
    package func setKind(_ reference: IndexReference, _ kind: RecordKind) {
        let entry = entryAddress(reference.handle.pointee)
        var changed = entry.pointee
        changed.kind = kind
        apus_store_release_u64(UnsafeMutableRawPointer(entry) + 8, changed.w1)
        persistEntry(entry, 16)
    }

    /// Takes the entry away.
    package func remove(_ reference: IndexReference, partition: PartitionID) {
        let number = Int(partition.number)
        let handle = reference.handle.pointee
        if reference.run != 0 {
            removeFromRun(reference)
        } else {
            apus_store_release_u32(reference.handle, 0)
            persistLines(reference.handle, 4)
        }
        freeEntry(number, handle)
        apus_store_relaxed_u64(states + number, states[number].count - 1)
    }

    // ---- Room ----

    /// Free entries of an average partition that do for some time.
    private static let freeEnough = 4

    /// Backs memory that will be needed soon. May take long; any thread but a reactor's. False: the medium has no room, and
    /// deletes have not made any.
    package func growAhead() -> Bool {
        let hasEntries = entries.growAhead()
        if lines.growAhead(), hasEntries { return true }
        let free = (0..<PartitionID.count).reduce(0) { sum, partition in
            sum + apus_load_relaxed_u64(UnsafeRawPointer(states + partition) + PrimaryIndex.freeCountOffset)
        }
        return free >= UInt64(PrimaryIndex.freeEnough * PartitionID.count)
    }

    private static let freeCountOffset = MemoryLayout<PartitionState>.offset(of: \.freeCount)!

    // ---- Figures ----

    /// Records of a partition. Any thread.
    package func count(_ partition: PartitionID) -> Int {
        Int(apus_load_relaxed_u64(states + Int(partition.number)))
    }

    /// Records of all partitions. Any thread; a moment old.
    package var count: Int {
        (0..<PartitionID.count).reduce(0) { $0 + Int(apus_load_relaxed_u64(states + $1)) }
    }

    /// Bytes taken: entries, buckets and what is kept beside them. Any thread.
    package var usedBytes: UInt64 {
        UInt64(entries.usedByteCount + lines.usedByteCount
            + PartitionID.count * MemoryLayout<PartitionState>.stride)
    }
}
