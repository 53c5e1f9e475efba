// Visiting all entries of a partition in no order: what sweeps need, at the price of one or two cache lines an entry, which
// arrive while others are looked at. Invariants:
// 1. Buckets are visited upwards. A split moves entries to a bucket above all others, so an entry that lives throughout
//    is met at least once; one that a split has moved behind the cursor is met again.
// 2. The lines of a bucket are visited in one hold of the lock: between two holds a split may take a line out of the chain.
//    Elements of a run are in order of digests, so there the cursor is a digest.
// 3. Nothing is allocated, and one hold touches at most 16 buckets, and at most `VisitRoom.capacity` entries.
package import Base
internal import CBase

/// Where an unordered walk of a partition stands.
package struct VisitCursor: BitwiseCopyable, Sendable {
    /// Buckets below this one are done.
    var bucket = 0
    /// The lines of the bucket are done as well.
    var areLinesDone = false
    /// And the elements of its run from this digest on upwards.
    var after: Digest?
    /// Nothing is left.
    package fileprivate(set) var isDone = false

    /// At the beginning of a partition.
    package init() {}
}

/// An entry as a visit shows it. Valid until the partition is changed or its lock is given back.
package struct VisitedEntry: BitwiseCopyable {
    /// The entry itself, in the arena.
    package let entry: UnsafePointer<IndexEntry>
    @usableFromInline let tag: UInt8

    /// The whole digest: touches the rest of the entry.
    package func digest(_ partition: PartitionID) -> Digest { entry.pointee.digest(partition: partition, tag: tag) }

    /// A copy with its digest.
    package func record(_ partition: PartitionID) -> IndexedRecord {
        IndexedRecord(digest: digest(partition), entry: entry.pointee)
    }
}

/// Where one hold of the lock collects entries. Owned by one thread; `release` gives its memory back.
package struct VisitRoom: BitwiseCopyable {
    /// No bucket is begun when so many entries were met.
    package static let enough = 64
    /// Entries that one hold meets at most: the lines of the last bucket are not parted.
    package static let capacity = enough - 1 + Run.chainMax * PrimaryIndex.slots
    @usableFromInline let entries: UnsafeMutablePointer<VisitedEntry>

    /// Room for one hold.
    package init() { entries = .allocate(capacity: VisitRoom.capacity) }

    /// Gives the memory back.
    package func release() { entries.deallocate() }
}

extension PrimaryIndex {
    /// Bytes of an entry that hold location, size, kind, times and set: those a visit fetches early.
    private static let visitedBytes = 24
    /// Lines of buckets that are fetched for the next hold.
    private static let linesAhead = 9

    /// Shows the next entries of a partition to `body` and moves the cursor behind them. Under the partition's lock; `body`
    /// does not change the partition.
    /// - Returns: how many; 0 does not mean the end, `cursor.isDone` does.
    @inlinable
    @discardableResult
    package func visit(
        _ partition: PartitionID, _ cursor: inout VisitCursor, room: VisitRoom, _ body: (VisitedEntry) -> Void
    ) -> Int {
        let count = gather(partition, &cursor, room)
        for place in 0..<count { body(room.entries[place]) }
        return count
    }

    /// Collects the next entries in `room` and starts fetching each. Under the partition's lock.
    /// - Returns: how many.
    package func gather(_ partition: PartitionID, _ cursor: inout VisitCursor, _ room: VisitRoom) -> Int {
        let number = Int(partition.number)
        let end = Root.bucketCount(apus_load_acquire_u64(root(number)))
        var count = 0
        var bucketsLeft = PrimaryIndex.sliceBuckets
        while bucketsLeft > 0, count < VisitRoom.enough, cursor.bucket < end {
            guard gatherBucket(partition, &cursor, room, &count) else { break }
            cursor.bucket += 1
            bucketsLeft -= 1
        }
        assert(count <= VisitRoom.capacity)
        cursor.isDone = cursor.bucket >= end
        if !cursor.isDone {
            for bucket in cursor.bucket..<min(cursor.bucket + PrimaryIndex.linesAhead, end) {
                apus_prefetch(bucketLine(number, bucket))
            }
        }
        return count
    }

    /// False: the bucket's run has more.
    @inline(__always)
    private func gatherBucket(
        _ partition: PartitionID, _ cursor: inout VisitCursor, _ room: VisitRoom, _ count: inout Int
    ) -> Bool {
        var line = bucketLine(Int(partition.number), cursor.bucket)
        while true {
            if !cursor.areLinesDone {
                let handles = handles(line)
                for slot in 0..<PrimaryIndex.slots where handles[slot] != 0 {
                    add(handles[slot], line.load(fromByteOffset: slot, as: UInt8.self), room, &count)
                }
            }
            let next = link(line)
            guard next != 0 else { break }
            guard next & Run.flag == 0 else { return gatherRun(next & ~Run.flag, partition, &cursor, room, &count) }
            line = self.line(next)
        }
        cursor.areLinesDone = false
        cursor.after = nil
        return true
    }

    /// The next elements of a run. False: there are more.
    private func gatherRun(
        _ run: UInt32, _ partition: PartitionID, _ cursor: inout VisitCursor, _ room: VisitRoom, _ count: inout Int
    ) -> Bool {
        cursor.areLinesDone = true
        guard count < VisitRoom.enough else { return false }
        let limit = VisitRoom.enough - count
        if sliceOfRun(run, partition, after: cursor.after, limit: limit, { add($0, $1, room, &count) }) {
            cursor.after = room.entries[count - 1].digest(partition)
            return false
        }
        cursor.areLinesDone = false
        cursor.after = nil
        return true
    }

    @inline(__always)
    private func add(_ handle: UInt32, _ tag: UInt8, _ room: VisitRoom, _ count: inout Int) {
        let entry = entryAddress(handle)
        apus_prefetch(entry)
        apus_prefetch(UnsafeRawPointer(entry) + PrimaryIndex.visitedBytes - 1)
        room.entries[count] = VisitedEntry(entry: UnsafePointer(entry), tag: tag)
        count += 1
    }
}
