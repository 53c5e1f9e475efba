// Going on with an index that an earlier process has left in its arenas. Invariants:
// 1. Nothing in the arenas is followed before it was checked: whatever the bytes are, the walk ends, with records or with a
//    sentence. Every line and every entry is claimed before it is used, so nothing has two owners and no chain is a circle.
// 2. What an interrupted change has left is repaired in the order of stores of invariant 4 of PrimaryIndex: this process may
//    die as well, and the next one repairs again. Repairs need no memory.
// 3. What nobody names is not written to before all partitions were walked (`finishAdoption`).
// 4. A killed process may have left stores that the medium does not have: all is persisted before anything relies on it.
package import Base
internal import CBase

/// Why memory cannot be gone on with, as a sentence for the log. What is in it is of no use: the node starts cold.
package struct AttachFailure: Error, Sendable, CustomStringConvertible {
    package let description: String
}

/// What the walk of a partition has found.
package struct AdoptedPartition: Sendable, BitwiseCopyable {
    /// Records, each of which was shown.
    package fileprivate(set) var recordCount = 0
    /// Handles that were cleared: their entry belongs to another bucket, or another handle names it too.
    package fileprivate(set) var clearedHandleCount = 0
}

/// What the walk of all partitions has found to be free.
package struct AdoptedMemory: Sendable, BitwiseCopyable {
    package let freeEntryCount: Int
    package let freeLineCount: Int
}

/// What the walks of all partitions share.
final class Adoption: @unchecked Sendable {
    let usedEntries: UsedMap
    let usedLines: UsedMap
    /// Partitions that were walked.
    let walkedCount: UnsafeMutablePointer<UInt64>

    init(entryCount: Int, lineCount: Int) throws(AttachFailure) {
        let (entries, lines) = (UsedMap(count: entryCount), UsedMap(count: lineCount))
        guard let entries, let lines else {
            entries?.release()
            lines?.release()
            throw AttachFailure(description: "no address space for maps of \(entryCount) entries and \(lineCount) lines")
        }
        usedEntries = entries
        usedLines = lines
        walkedCount = .allocate(capacity: 1)
        walkedCount.initialize(to: 0)
    }

    deinit {
        usedEntries.release()
        usedLines.release()
        walkedCount.deallocate()
    }
}

extension PrimaryIndex {
    /// Goes on with the index in two arenas that an earlier process has filled and nobody else uses. It is to be used only
    /// after `adoptPartition` for all partitions and then `finishAdoption`.
    package convenience init(
        attachingTo entries: RegionArena, lines: RegionArena, segmentsMax: Int = Root.segmentsMax,
        canary: IndexCanary? = nil
    ) throws(AttachFailure) {
        self.init(over: entries, lines, segmentsMax, canary)
        for (arena, name, size) in [(entries, "entries", IndexEntry.byteCount), (lines, "lines", PrimaryIndex.lineSize)] {
            let used = arena.usedByteCount
            guard arena.isUsedBacked, used % size == 0, used / size < Int(Run.flag) else {
                throw AttachFailure(description: "the memory of the \(name) says that \(used) bytes of it are in use")
            }
        }
        let lineCount = lines.usedByteCount / PrimaryIndex.lineSize
        let adoption = try Adoption(entryCount: entries.usedByteCount / IndexEntry.byteCount, lineCount: lineCount)
        guard adoption.usedLines.claim(from: 0, count: Root.byteCount * PartitionID.count / PrimaryIndex.lineSize) else {
            throw AttachFailure(description: "the memory of the lines has \(lineCount) lines, too few for the partitions")
        }
        entries.persistUsed()
        lines.persistUsed()
        self.adoption = adoption
    }

    /// Walks one partition of an attached index: checks it, repairs what an interrupted change has left, and shows every
    /// record to `visit`, which answers false if no such record can be. Each partition once; any of several threads at once.
    package func adoptPartition(
        _ partition: PartitionID, _ visit: (IndexedRecord) -> Bool
    ) throws(AttachFailure) -> AdoptedPartition {
        guard let adoption else { preconditionFailure("the index was not attached, or its adoption is finished") }
        var walk = try PartitionWalk(self, adoption, partition)
        try walk.run(visit)
        states[Int(partition.number)] = PartitionState(
            count: UInt64(walk.found.recordCount), bucketCount: UInt64(walk.bucketCount))
        _ = apus_fetch_add_u64(adoption.walkedCount, 1)
        return walk.found
    }

    /// Hands what nobody names to the partitions: to each as much, and neighbours where it can be. One thread, after all
    /// partitions were walked.
    package func finishAdoption() -> AdoptedMemory {
        guard let adoption, apus_load_relaxed_u64(adoption.walkedCount) == UInt64(PartitionID.count) else {
            preconditionFailure("not all partitions were walked")
        }
        let (entries, lines) = (adoption.usedEntries, adoption.usedLines)
        let memory = AdoptedMemory(freeEntryCount: entries.freeCount, freeLineCount: lines.freeCount)
        let entryShare = memory.freeEntryCount / PartitionID.count + 1
        entries.forEachFree { place, number in freeEntry(place / entryShare, UInt32(number + 1)) }
        let lineShare = memory.freeLineCount / PartitionID.count + 1
        lines.forEachFree { place, number in freeLine(place / lineShare, UInt32(number)) }
        self.adoption = nil
        return memory
    }
}

/// The walk of one partition.
private struct PartitionWalk {
    /// How many buckets ahead the first line, the entries of that line with the second line, and the entries of that one are
    /// fetched.
    private static let lineAhead = 12
    private static let entriesAhead = 8
    private static let overflowAhead = 4
    private static let elementsAhead = 16

    /// `adoptPartition` holds it.
    private unowned(unsafe) let index: PrimaryIndex
    private let usedEntries: UsedMap
    private let usedLines: UsedMap
    private let partition: PartitionID
    private let state: UInt64
    let bucketCount: Int
    var found = AdoptedPartition()

    private var number: Int { Int(partition.number) }

    init(_ index: PrimaryIndex, _ adoption: Adoption, _ partition: PartitionID) throws(AttachFailure) {
        self.index = index
        (usedEntries, usedLines) = (adoption.usedEntries, adoption.usedLines)
        self.partition = partition
        state = apus_load_acquire_u64(index.root(Int(partition.number)))
        let (level, split) = (state >> 32, state & 0xFFFF_FFFF)
        let isPossible = level <= Root.levelMax && split < UInt64(Root.firstBuckets) << level
        bucketCount = isPossible ? Root.bucketCount(state) : 0
        guard isPossible, Root.segment(bucketCount - 1).number < Root.segmentsMax else {
            throw AttachFailure(description: "partition \(partition.number): level \(level) with split \(split) cannot be")
        }
    }

    private func failure(_ text: String) -> AttachFailure {
        AttachFailure(description: "partition \(number): \(text)")
    }

    mutating func run(_ visit: (IndexedRecord) -> Bool) throws(AttachFailure) {
        try claimSegments()
        emptyNextBucket()
        for bucket in 0..<bucketCount {
            prefetch(bucket)
            try adoptBucket(bucket, visit)
        }
    }

    // ---- Buckets ----

    /// The segments of all buckets, and the one of the next bucket, which a split may have taken already.
    private func claimSegments() throws(AttachFailure) {
        let last = Root.segment(bucketCount - 1).number
        let next = Root.segment(bucketCount).number
        for segment in 0..<Root.segmentsMax {
            let first = index.root(number).load(fromByteOffset: 8 + 4 * segment, as: UInt32.self)
            guard segment <= last || first != 0 else { continue }
            let count = Root.buckets(inSegment: segment)
            guard segment <= next, usedLines.claim(from: Int(first), count: count) else {
                throw failure("segment \(segment) of \(last + 1) cannot lie at line \(first) of \(usedLines.count)")
            }
        }
    }

    /// A split may have begun to fill the bucket that comes next. What it links to has no owner, and comes free.
    private func emptyNextBucket() {
        let segment = Root.segment(bucketCount).number
        guard segment < Root.segmentsMax,
            index.root(number).load(fromByteOffset: 8 + 4 * segment, as: UInt32.self) != 0
        else { return }
        let line = index.bucketLine(number, bucketCount)
        let words = line.assumingMemoryBound(to: UInt64.self)
        if (0..<8).contains(where: { words[$0] != 0 }) { index.clearLine(line) }
    }

    private mutating func adoptBucket(_ bucket: Int, _ visit: (IndexedRecord) -> Bool) throws(AttachFailure) {
        var line = index.bucketLine(number, bucket)
        var length = 1
        while true {
            try adoptLine(line, bucket, visit)
            let next = index.link(line)
            guard next != 0 else { return }
            guard next & Run.flag == 0 else { return try adoptRun(line, next & ~Run.flag, bucket, visit) }
            guard length < Run.chainMax, usedLines.claim(Int(next)) else {
                throw failure("bucket \(bucket) cannot link to line \(next) of \(usedLines.count)")
            }
            line = index.line(next)
            length += 1
        }
    }

    private mutating func adoptLine(
        _ line: UnsafeMutableRawPointer, _ bucket: Int, _ visit: (IndexedRecord) -> Bool
    ) throws(AttachFailure) {
        let handles = index.handles(line)
        let clearedBefore = found.clearedHandleCount
        for slot in 0..<PrimaryIndex.slots where handles[slot] != 0 {
            let tag = line.load(fromByteOffset: slot, as: UInt8.self)
            if try adopt(handles[slot], tag, bucket, visit) == nil { apus_store_release_u32(handles + slot, 0) }
        }
        if found.clearedHandleCount != clearedBefore { index.persistLines(line, PrimaryIndex.lineSize) }
    }

    /// Shows the record behind a handle; its digest, or nil if the handle is to be cleared.
    @inline(__always)
    private mutating func adopt(
        _ handle: UInt32, _ tag: UInt8, _ bucket: Int, _ visit: (IndexedRecord) -> Bool
    ) throws(AttachFailure) -> Digest? {
        guard handle != 0, Int(handle) <= usedEntries.count else {
            throw failure("bucket \(bucket) names entry \(handle) of \(usedEntries.count)")
        }
        let entry = index.entryAddress(handle)
        guard Root.bucket(Root.sortKey(entry), state) == bucket, usedEntries.claim(Int(handle) - 1) else {
            found.clearedHandleCount += 1
            return nil
        }
        let digest = entry.pointee.digest(partition: partition, tag: tag)
        guard visit(IndexedRecord(digest: digest, entry: entry.pointee)) else {
            throw failure("nothing can be at location \(entry.pointee.location), which the entry of \(digest) has")
        }
        found.recordCount += 1
        return digest
    }

    // ---- Runs ----

    private mutating func adoptRun(
        _ owner: UnsafeMutableRawPointer, _ run: UInt32, _ bucket: Int, _ visit: (IndexedRecord) -> Bool
    ) throws(AttachFailure) {
        let count = try claimRun(run, bucket)
        var place = 0
        var last: Digest?
        var problem: AttachFailure?
        let elements = index.elements(run)
        let kept = index.compactRun(run) { element in
            guard problem == nil else { return true }
            if place + PartitionWalk.elementsAhead < count {
                prefetchEntry(UInt32(truncatingIfNeeded: elements[place + PartitionWalk.elementsAhead]))
            }
            place += 1
            do throws(AttachFailure) {
                return try adoptElement(element, bucket, &last, visit)
            } catch {
                problem = error
                return true
            }
        }
        if let problem { throw problem }
        if kept == 0 { index.dropRun(owner, run) }
    }

    /// Checks the head of a run; how many elements are in use.
    private func claimRun(_ run: UInt32, _ bucket: Int) throws(AttachFailure) -> Int {
        let lineCount = usedLines.count
        guard Int(run) < lineCount else { throw failure("bucket \(bucket) links to a run at line \(run) of \(lineCount)") }
        let (count, room) = (index.runCount(run), index.runRoom(run))
        guard room >= Run.roomMin, room & (room - 1) == 0, count <= room,
            usedLines.claim(from: Int(run), count: Run.lineCount(room: room))
        else {
            throw failure("bucket \(bucket): no run of \(count) elements of \(room) can lie at line \(run) of \(lineCount)")
        }
        return count
    }

    /// Whether an element of a run stays there.
    private mutating func adoptElement(
        _ element: UInt64, _ bucket: Int, _ last: inout Digest?, _ visit: (IndexedRecord) -> Bool
    ) throws(AttachFailure) -> Bool {
        guard element >> 40 == 0 else { throw failure("bucket \(bucket) has \(element) in its run") }
        let (handle, tag) = (UInt32(truncatingIfNeeded: element), UInt8(truncatingIfNeeded: element >> 32))
        guard let digest = try adopt(handle, tag, bucket, visit) else { return false }
        if let last, !(digest < last) { throw failure("bucket \(bucket): \(digest) stands behind \(last) in its run") }
        last = digest
        return true
    }

    // ---- Prefetch: reads nothing that was not claimed, or is not at least inside of the arena ----

    @inline(__always)
    private func prefetch(_ bucket: Int) {
        if bucket + PartitionWalk.lineAhead < bucketCount {
            apus_prefetch(index.bucketLine(number, bucket + PartitionWalk.lineAhead))
        }
        if bucket + PartitionWalk.entriesAhead < bucketCount {
            let line = index.bucketLine(number, bucket + PartitionWalk.entriesAhead)
            prefetchEntries(line)
            if let second = secondLine(line) { apus_prefetch(second) }
        }
        if bucket + PartitionWalk.overflowAhead < bucketCount,
            let second = secondLine(index.bucketLine(number, bucket + PartitionWalk.overflowAhead)) {
            prefetchEntries(second)
        }
    }

    @inline(__always)
    private func secondLine(_ line: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
        let next = index.link(line)
        return next != 0 && Int(next) < usedLines.count ? index.line(next) : nil
    }

    @inline(__always)
    private func prefetchEntries(_ line: UnsafeMutableRawPointer) {
        let handles = index.handles(line)
        for slot in 0..<PrimaryIndex.slots where handles[slot] != 0 { prefetchEntry(handles[slot]) }
    }

    @inline(__always)
    private func prefetchEntry(_ handle: UInt32) {
        let entry = UnsafeMutableRawPointer(index.entryAddress(handle))
        apus_prefetch(entry)
        apus_prefetch(entry + IndexEntry.byteCount - 1)
    }
}
