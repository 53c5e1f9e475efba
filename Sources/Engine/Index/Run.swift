// Sorted runs: what a bucket's overflow becomes when a chain of lines would be longer than eight. Clients
// choose digests, so a bucket can be made arbitrarily long; a run keeps a look-up at a binary search. A run
// lies in the line arena:
//
//     0   u32  elements in use      4   u32  elements there is room for
//     64  u64  elements: handle (lower half), tag (next 8 bits), in descending order of digests
internal import Base
internal import CBase
internal import Glibc

enum Run {
    /// Marks a link that leads to a run.
    static let flag: UInt32 = 1 << 31
    /// Lines a chain may have.
    static let chainMax = 8
    static let headerSize = 64
}

extension PrimaryIndex {
    private func runCount(_ run: UInt32) -> Int { Int(line(run).load(as: UInt32.self)) }
    private func runRoom(_ run: UInt32) -> Int { Int(line(run).load(fromByteOffset: 4, as: UInt32.self)) }

    private func elements(_ run: UInt32) -> UnsafeMutablePointer<UInt64> {
        (line(run) + Run.headerSize).assumingMemoryBound(to: UInt64.self)
    }

    private func setCount(_ run: UInt32, _ count: Int) { apus_store_release_u32(line(run), UInt32(count)) }

    private func digest(_ element: UInt64, _ partition: PartitionID) -> Digest {
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

    private func newRun(_ room: Int) throws(IndexError) -> UInt32 {
        if let run = takeFreeRun(room) { return run }
        let bytes = Run.headerSize + room * 8
        let offset = try lines.allocate(byteCount: bytes)
        let run = UInt32(offset / PrimaryIndex.lineSize)
        line(run).storeBytes(of: UInt32(room), toByteOffset: 4, as: UInt32.self)
        return run
    }

    /// Puts a run on the list of free ones of its size: rooms are powers of two, so it fits the next that is needed.
    func freeRun(_ run: UInt32) {
        let size = runRoom(run).trailingZeroBitCount
        apus_lock(freeRunLock)
        line(run).storeBytes(of: freeRuns[size], toByteOffset: 8, as: UInt32.self)
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
        setCount(run, 0)
        return run
    }

    /// Turns the chain behind `first` into a run that also holds `handle`.
    func makeRun(
        _ first: UnsafeMutableRawPointer, adding handle: UInt32, _ digest: Digest, _ partition: Int
    ) throws(IndexError) {
        var all = [UInt64(handle) | UInt64(IndexEntry.tag(digest)) << 32]
        let chain = link(first)
        forEachHandle(line(chain)) { all.append(UInt64($0) | UInt64($1) << 32) }
        let run = try newRun(256)
        all.sort { self.digest($1, digest.partition) < self.digest($0, digest.partition) }
        for (place, element) in all.enumerated() { elements(run)[place] = element }
        setCount(run, all.count)
        apus_store_release_u32(first + 12, run | Run.flag)
        var number = chain
        while number != 0 {
            let following = link(line(number))
            freeLine(partition, number)
            number = following
        }
    }

    /// Adds to the run that `owner` links to; elements move one place, so every one of them is always there.
    func insertIntoRun(
        _ owner: UnsafeMutableRawPointer, _ handle: UInt32, _ digest: Digest, _ partition: Int
    ) throws(IndexError) {
        var run = link(owner) & ~Run.flag
        let count = runCount(run)
        if count == runRoom(run) {
            let larger = try newRun(count * 2)
            memcpy(elements(larger), elements(run), count * 8)
            setCount(larger, count)
            apus_store_release_u32(owner + 12, larger | Run.flag)
            freeRun(run)
            run = larger
        }
        let rank = rank(run, digest)
        let elements = elements(run)
        setCount(run, count + 1)
        memmove(elements + rank + 1, elements + rank, (count - rank) * 8)
        apus_store_release_u64(elements + rank, UInt64(handle) | UInt64(IndexEntry.tag(digest)) << 32)
    }

    func removeFromRun(_ reference: IndexReference) {
        let elements = elements(reference.run)
        let rank = (UnsafeMutableRawPointer(reference.handle) - UnsafeMutableRawPointer(elements)) / 8
        let count = runCount(reference.run)
        precondition(rank >= 0 && rank < count)
        memmove(elements + rank, elements + rank + 1, (count - rank - 1) * 8)
        setCount(reference.run, count - 1)
    }

    /// Keeps the elements of a run that belong to `bucket`; an empty run is given back.
    func filterRun(
        _ partition: Int, _ owner: UnsafeMutableRawPointer, _ run: UInt32, _ bucket: Int, _ state: UInt64
    ) {
        let elements = elements(run)
        var kept = 0
        for place in 0..<runCount(run) {
            let entry = entryAddress(UInt32(truncatingIfNeeded: elements[place]))
            guard Root.bucket(Root.sortKey(entry), state) == bucket else { continue }
            elements[kept] = elements[place]
            kept += 1
        }
        setCount(run, kept)
        guard kept == 0 else { return }
        apus_store_release_u32(owner + 12, 0)
        freeRun(run)
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
}
