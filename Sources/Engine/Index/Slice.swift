// Walking a partition in descending byte order of digests: a promise to clients, whose queries resume
// anywhere, and to migration. Splits between two slices change nothing about it.
package import Base
internal import CBase

/// Where a walk stands.
package struct IndexCursor: BitwiseCopyable, Sendable {
    /// Sort keys above this are done.
    var bound: UInt64 = .max
    /// Digests from this on upwards are done.
    var after: Digest?
    /// Nothing is left.
    package fileprivate(set) var isDone = false

    /// At the top of the partition.
    package init() {}

    /// Behind a digest, which need not exist.
    package init(after digest: Digest) {
        after = digest
        bound = Root.sortKey(digest)
    }
}

/// Room for the records of one bucket while they are sorted; kept by whoever walks, so that nothing is allocated under a
/// lock.
package struct SliceRoom {
    fileprivate var candidates: [IndexedRecord] = []

    package init() { candidates.reserveCapacity(SliceRoom.capacity) }

    /// A chain of 8 lines and what a run gives at a time.
    private static let capacity = 256
}

extension PrimaryIndex {
    /// Buckets that one slice visits at most: the lock is held for that long.
    static let sliceBuckets = 16

    /// Copies the next records of a walk into `target` and moves the cursor behind them. Under the
    /// partition's lock.
    /// - Returns: how many; 0 does not mean the end, `cursor.isDone` does.
    package func slice(
        _ partition: PartitionID, _ cursor: inout IndexCursor, into target: UnsafeMutableBufferPointer<IndexedRecord>,
        _ scratch: inout SliceRoom
    ) -> Int {
        var count = 0
        for _ in 0..<PrimaryIndex.sliceBuckets where !cursor.isDone && count < target.count {
            let room = target.count - count
            let isComplete = gather(partition, cursor, room, &scratch.candidates)
            let candidates = scratch.candidates.count
            let taken = min(room, candidates)
            for record in scratch.candidates[..<taken] {
                target[count] = record
                count += 1
            }
            if isComplete, taken == candidates {
                leaveBucket(partition, &cursor)
            } else if taken > 0 {
                cursor.after = scratch.candidates[taken - 1].digest
                cursor.bound = Root.sortKey(scratch.candidates[taken - 1].digest)
            }
        }
        return count
    }

    /// The same with room of its own; allocates.
    package func slice(
        _ partition: PartitionID, _ cursor: inout IndexCursor, into target: UnsafeMutableBufferPointer<IndexedRecord>
    ) -> Int {
        var room = SliceRoom()
        return slice(partition, &cursor, into: target, &room)
    }

    /// The records of the cursor's bucket that are still to come, sorted. False: there are more than these.
    private func gather(
        _ partition: PartitionID, _ cursor: IndexCursor, _ room: Int, _ candidates: inout [IndexedRecord]
    ) -> Bool {
        candidates.removeAll(keepingCapacity: true)
        let state = apus_load_acquire_u64(root(Int(partition.number)))
        var line = bucketLine(Int(partition.number), Root.bucket(cursor.bound, state))
        var isComplete = true
        var lowest: Digest?
        while true {
            for slot in 0..<PrimaryIndex.slots where handles(line)[slot] != 0 {
                apus_prefetch(entryAddress(handles(line)[slot]))
            }
            for slot in 0..<PrimaryIndex.slots where handles(line)[slot] != 0 {
                add(handles(line)[slot], line.load(fromByteOffset: slot, as: UInt8.self), partition, cursor, &candidates)
            }
            let next = link(line)
            if next & Run.flag != 0 {
                isComplete = !sliceOfRun(next & ~Run.flag, partition, after: cursor.after, limit: room) { handle, tag in
                    add(handle, tag, partition, cursor, &candidates)
                    lowest = candidates.last?.digest
                }
            }
            guard next != 0, next & Run.flag == 0 else { break }
            line = self.line(next)
        }
        candidates.sort { $1.digest < $0.digest }
        if !isComplete, let lowest { candidates.removeAll { $0.digest < lowest } }
        return isComplete
    }

    private func add(
        _ handle: UInt32, _ tag: UInt8, _ partition: PartitionID, _ cursor: IndexCursor,
        _ candidates: inout [IndexedRecord]
    ) {
        let entry = entryAddress(handle).pointee
        let digest = entry.digest(partition: partition, tag: tag)
        if let after = cursor.after, !(digest < after) { return }
        candidates.append(IndexedRecord(digest: digest, entry: entry))
    }

    /// Goes on with the bucket whose sort keys come next below.
    private func leaveBucket(_ partition: PartitionID, _ cursor: inout IndexCursor) {
        let state = apus_load_acquire_u64(root(Int(partition.number)))
        let bucket = Root.bucket(cursor.bound, state)
        let level = state >> 32
        let isSplit = UInt64(bucket & ((Root.firstBuckets << Int(level)) - 1)) < state & 0xFFFF_FFFF
        let prefixBits = level + 2 + (isSplit ? 1 : 0)
        let lowest = (cursor.bound >> (64 - prefixBits)) << (64 - prefixBits)
        cursor.after = nil
        if lowest == 0 { cursor.isDone = true } else { cursor.bound = lowest - 1 }
    }
}
