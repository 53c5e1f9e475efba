// Sorted runs: what a bucket's overflow becomes when a chain of lines would be longer than eight. Clients
// choose digests, so a bucket can be made arbitrarily long; a run keeps a look-up at a binary search. A run
// lies in the line arena:
//
//     0   u32  elements in use      4   u32  elements there is room for: a power of two, from 256 on
//     64  u64  elements: handle (lower half), tag (next 8 bits), in descending order of digests
//
// Invariants:
// 1. A run is complete, and lasts, before a link leads to it; it is given back when no link that lasts does any more.
// 2. A run changes by stores of one element each, in an order in which every live element is there after each of them,
//    some of them twice. An element is overwritten only when its copy lasts: so the line that was written to is persisted
//    before another one is.
// 3. A run that was being changed when the process died comes right by `compactRun`, keeping what belongs to the bucket
//    and was not met before: that is all elements in order.
internal import Base
internal import CBase
internal import Glibc

enum Run {
    /// Marks a link that leads to a run.
    static let flag: UInt32 = 1 << 31
    /// Lines a chain may have.
    static let chainMax = 8
    static let headerSize = 64
    /// Elements that the smallest run has room for.
    static let roomMin = 256
    /// Elements of a line.
    static let lineElements = PrimaryIndex.lineSize / 8

    /// Lines that a run with that room takes.
    static func lineCount(room: Int) -> Int { 1 + room / lineElements }
}

extension PrimaryIndex {
    func runCount(_ run: UInt32) -> Int { Int(line(run).load(as: UInt32.self)) }
    func runRoom(_ run: UInt32) -> Int { Int(line(run).load(fromByteOffset: 4, as: UInt32.self)) }

    func elements(_ run: UInt32) -> UnsafeMutablePointer<UInt64> {
        (line(run) + Run.headerSize).assumingMemoryBound(to: UInt64.self)
    }

    private func setCount(_ run: UInt32, _ count: Int) {
        apus_store_release_u32(line(run), UInt32(count))
        persistLines(line(run), 4)
    }

    private func element(_ handle: UInt32, _ digest: Digest) -> UInt64 {
        UInt64(handle) | UInt64(IndexEntry.tag(digest)) << 32
    }

    func digest(_ element: UInt64, _ partition: PartitionID) -> Digest {
        entryAddress(UInt32(truncatingIfNeeded: element)).pointee
            .digest(partition: partition, tag: UInt8(truncatingIfNeeded: element >> 32))
    }

    /// How many elements of a run have digests above `digest`.
    private func rank(_ run: UInt32, _ digest: Digest) -> Int {
        let elements = elements(run)
        var low = 0
        var high = runCount(run)
        while low < high {
            let middle = (low + high) / 2
            if digest < self.digest(elements[middle], digest.partition) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func findInRun(_ run: UInt32, _ digest: Digest) -> IndexReference? {
        let rank = rank(run, digest)
        guard rank < runCount(run), self.digest(elements(run)[rank], digest.partition) == digest else { return nil }
        let handle = UnsafeMutableRawPointer(elements(run) + rank).assumingMemoryBound(to: UInt32.self)
        return IndexReference(handle: handle, run: run)
    }

    func forEachInRun(_ run: UInt32, _ visit: (UInt32, UInt8) -> Void) {
        for place in 0..<runCount(run) {
            let element = elements(run)[place]
            visit(UInt32(truncatingIfNeeded: element), UInt8(truncatingIfNeeded: element >> 32))
        }
    }

    /// At most `limit` elements with digests below `after` (nil: from the top), in order; whether there are
    /// more.
    func sliceOfRun(
        _ run: UInt32, _ partition: PartitionID, after: Digest?, limit: Int, _ visit: (UInt32, UInt8) -> Void
    ) -> Bool {
        var place = after.map { rank(run, $0) } ?? 0
        let elements = elements(run)
        let count = runCount(run)
        if let after, place < count, digest(elements[place], partition) == after { place += 1 }
        let end = min(count, place + limit)
        while place < end {
            visit(UInt32(truncatingIfNeeded: elements[place]), UInt8(truncatingIfNeeded: elements[place] >> 32))
            place += 1
        }
        return end < count
    }

    // ---- Whole runs ----

    private func newRun(_ room: Int) throws(IndexError) -> UInt32 {
        if let run = takeFreeRun(room) { return run }
        let offset = try lines.allocate(byteCount: Run.lineCount(room: room) * PrimaryIndex.lineSize)
        let run = UInt32(offset / PrimaryIndex.lineSize)
        line(run).storeBytes(of: UInt32(room), toByteOffset: 4, as: UInt32.self)
        return run
    }

    /// Puts a run that no link leads to on the list of free ones of its size: rooms are powers of two, so it fits the next
    /// that is needed.
    func freeRun(_ run: UInt32) {
        let size = runRoom(run).trailingZeroBitCount
        apus_lock(freeRunLock)
        apus_store_release_u32(line(run) + 8, freeRuns[size])
        freeRuns[size] = run
        apus_unlock(freeRunLock)
    }

    private func takeFreeRun(_ room: Int) -> UInt32? {
        let size = room.trailingZeroBitCount
        apus_lock(freeRunLock)
        defer { apus_unlock(freeRunLock) }
        let run = freeRuns[size]
        guard run != 0 else { return nil }
        freeRuns[size] = line(run).load(fromByteOffset: 8, as: UInt32.self)
        return run
    }

    /// Makes the line at `owner` link to a run whose elements have been written.
    private func publish(_ run: UInt32, _ count: Int, _ owner: UnsafeMutableRawPointer) {
        apus_store_release_u32(line(run), UInt32(count))
        persistLines(line(run), Run.headerSize + count * 8)
        apus_store_release_u32(owner + 12, run | Run.flag)
        persistLines(owner, PrimaryIndex.lineSize)
    }

    /// Turns the chain behind `first` into a run that also holds `handle`.
    func makeRun(
        _ first: UnsafeMutableRawPointer, adding handle: UInt32, _ digest: Digest, _ partition: Int
    ) throws(IndexError) {
        var all = [element(handle, digest)]
        let chain = link(first)
        forEachHandle(line(chain)) { all.append(UInt64($0) | UInt64($1) << 32) }
        let run = try newRun(Run.roomMin)
        all.sort { self.digest($1, digest.partition) < self.digest($0, digest.partition) }
        for (place, element) in all.enumerated() { elements(run)[place] = element }
        publish(run, all.count, first)
        var number = chain
        while number != 0 {
            let following = link(line(number))
            freeLine(partition, number)
            number = following
        }
    }

    // ---- Changes of one run ----

    /// Adds to the run that `owner` links to.
    func insertIntoRun(_ owner: UnsafeMutableRawPointer, _ handle: UInt32, _ digest: Digest) throws(IndexError) {
        let run = link(owner) & ~Run.flag
        let count = runCount(run)
        let rank = rank(run, digest)
        let added = element(handle, digest)
        if canary == .movesRunsAtOnce, count < runRoom(run) { return moveAtOnce(run, inserting: added, rank, count) }
        guard count == runRoom(run) else { return makeRoom(run, rank, count, for: added) }
        let larger = try newRun(count * 2)
        memcpy(elements(larger), elements(run), rank * 8)
        elements(larger)[rank] = added
        memcpy(elements(larger) + rank + 1, elements(run) + rank, (count - rank) * 8)
        publish(larger, count + 1, owner)
        freeRun(run)
    }

    /// Moves the elements from `rank` on up by one place, from the last one down, and stores `added` there.
    private func makeRoom(_ run: UInt32, _ rank: Int, _ count: Int, for added: UInt64) {
        let elements = elements(run)
        // The last one gets its second place before the count says so: nothing is known about what was there.
        apus_store_release_u64(elements + count, rank == count ? added : elements[count - 1])
        persistLines(elements + count, 8)
        setCount(run, count + 1)
        guard rank < count else { return }
        var place = count - 1
        while place > rank {
            // All that goes into this line, and then the one below is written to.
            let end = max(rank, (place & ~(Run.lineElements - 1)) - 1)
            while place > end {
                apus_store_release_u64(elements + place, elements[place - 1])
                place -= 1
            }
            persistLines(elements + place + 1, 8)
        }
        apus_store_release_u64(elements + rank, added)
        persistLines(elements + rank, 8)
    }

    func removeFromRun(_ reference: IndexReference) {
        let run = reference.run
        let elements = elements(run)
        let rank = (UnsafeMutableRawPointer(reference.handle) - UnsafeMutableRawPointer(elements)) / 8
        let count = runCount(run)
        precondition(rank >= 0 && rank < count)
        if canary == .movesRunsAtOnce { return moveAtOnce(run, removing: rank, count) }
        var place = rank
        while place < count - 1 {
            let end = min(count - 1, (place | (Run.lineElements - 1)) + 1)
            while place < end {
                apus_store_release_u64(elements + place, elements[place + 1])
                place += 1
            }
            persistLines(elements + place - 1, 8)
        }
        setCount(run, count - 1)
    }

    /// Keeps the elements that `keeps` wants, in their order; it is asked once for each, from the first one on.
    /// - Returns: how many are left.
    func compactRun(_ run: UInt32, _ keeps: (UInt64) -> Bool) -> Int {
        let elements = elements(run)
        let count = runCount(run)
        var kept = 0
        for place in 0..<count {
            let element = elements[place]
            guard keeps(element) else { continue }
            if kept != place {
                apus_store_release_u64(elements + kept, element)
                if kept % Run.lineElements == Run.lineElements - 1 { persistLines(elements + kept, 8) }
            }
            kept += 1
        }
        guard kept < count else { return kept }
        if kept > 0 { persistLines(elements + kept - 1, 8) }
        setCount(run, kept)
        return kept
    }

    /// Keeps the elements of a run that belong to `bucket`; an empty run is given back.
    func filterRun(_ owner: UnsafeMutableRawPointer, _ run: UInt32, _ bucket: Int, _ state: UInt64) {
        let kept = compactRun(run) { element in
            Root.bucket(Root.sortKey(entryAddress(UInt32(truncatingIfNeeded: element))), state) == bucket
        }
        if kept == 0 { dropRun(owner, run) }
    }

    /// Takes an empty run out of the bucket.
    func dropRun(_ owner: UnsafeMutableRawPointer, _ run: UInt32) {
        apus_store_release_u32(owner + 12, 0)
        persistLines(owner, PrimaryIndex.lineSize)
        freeRun(run)
    }
}
