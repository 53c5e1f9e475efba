import Base
import Index
import TestSupport
import Testing

@Suite struct EntryTests {
    @Test func fieldsDoNotTouchEachOther() {
        var random = SeededRandom(seed: runSeed("EntryTests"))
        for _ in 0..<2000 {
            let digest = Digest.random(&random)
            var entry = IndexEntry(digest: digest)
            let location = random.next() >> 20
            let size = Int.random(in: 1...(1 << 19), using: &random) * 16
            let update = random.next() >> 24
            let generation = UInt16.random(in: 0...65535, using: &random)
            let void = UInt32.random(in: 0...UInt32.max, using: &random)
            let set = UInt16.random(in: 0...4095, using: &random)
            let slot = UInt8.random(in: 0...255, using: &random)
            entry.epochSlot = slot
            entry.setID = set
            entry.voidTime = void
            entry.kind = .binCemetery
            entry.replicationState = 3
            entry.isProvisional = true
            entry.generation = generation
            entry.lastUpdate = update
            entry.byteCount = size
            entry.isKeyStored = true
            entry.location = location
            #expect(entry.location == location && entry.byteCount == size && entry.isKeyStored)
            #expect(entry.lastUpdate == update && entry.generation == generation && entry.kind == .binCemetery)
            #expect(entry.voidTime == void && entry.setID == set && entry.epochSlot == slot)
            #expect(entry.replicationState == 3 && entry.isProvisional && !entry.cameByXDR && !entry.isInSecondaryIndex)
        }
    }
}

@Suite struct IndexTests {
    private func entry(_ digest: Digest, _ value: UInt64) -> IndexEntry {
        var entry = IndexEntry(digest: digest)
        entry.location = value
        return entry
    }

    private func walk(_ index: PrimaryIndex, _ partition: UInt16, room: Int) -> [IndexedRecord] {
        var cursor = IndexCursor()
        var all: [IndexedRecord] = []
        let target = UnsafeMutableBufferPointer<IndexedRecord>.allocate(capacity: room)
        defer { target.deallocate() }
        while !cursor.isDone {
            let count = index.slice(PartitionID(partition), &cursor, into: target)
            all += target[..<count]
        }
        return all
    }

    /// Inserts, replaces, relocates and removes of chance; the dictionary is the truth.
    @Test func randomHistoriesMatchTheModel() throws {
        var random = SeededRandom(seed: runSeed("IndexTests"))
        try forAWhile(2) {
            let index = try PrimaryIndex(heapFor: 1 << 20)
            var model: [Digest: UInt64] = [:]
            var known: [Digest] = []
            let partitions = [1, 3, 40].randomElement(using: &random)!
            // The lower the more digests of one bucket: their first bytes are equal.
            let spread = [0, 8, 52].randomElement(using: &random)!
            for _ in 0..<6000 {
                let value = random.next() >> 20
                if known.isEmpty || Int.random(in: 0..<100, using: &random) < 45 {
                    let partition = UInt16.random(in: 0..<UInt16(partitions), using: &random)
                    var digest = Digest.random(&random, in: partition)
                    if spread < 52 {
                        let low = digest.low & ((1 << (12 + UInt64(spread))) - 1)
                        digest = Digest(low: low, middle: digest.middle, high: digest.high)
                    }
                    guard model[digest] == nil else { continue }
                    try index.insert(digest, entry(digest, value))
                    model[digest] = value
                    known.append(digest)
                } else {
                    let place = Int.random(in: 0..<known.count, using: &random)
                    let digest = known[place]
                    let reference = try #require(index.find(digest))
                    switch Int.random(in: 0..<3, using: &random) {
                    case 0:
                        index.remove(reference, partition: digest.partition)
                        model[digest] = nil
                        known[place] = known[known.count - 1]
                        known.removeLast()
                    case 1:
                        _ = try index.replace(reference, with: entry(digest, value), partition: digest.partition)
                        model[digest] = value
                    default:
                        index.relocate(reference, to: value)
                        model[digest] = value
                    }
                }
            }
            #expect(index.count == model.count)
            for (digest, value) in model { #expect(index.find(digest).map { index.entry($0).location } == value) }
            for _ in 0..<1000 {
                let stranger = Digest.random(&random, in: 0)
                #expect((index.find(stranger) != nil) == (model[stranger] != nil))
            }
            for partition in 0..<UInt16(partitions) {
                let expected = model.keys.filter { $0.partition.number == partition }.sorted().reversed()
                let walked = walk(index, partition, room: Int.random(in: 1...70, using: &random))
                #expect(walked.map(\.digest) == Array(expected))
                #expect(walked.allSatisfy { model[$0.digest] == $0.entry.location })
            }
        }
    }

    /// The promise to clients: descending byte order, whatever the size; resuming behind any digest; splits
    /// in between.
    @Test func orderIsStableWhileThePartitionGrows() throws {
        var random = SeededRandom(seed: runSeed("order"))
        let index = try PrimaryIndex(heapFor: 1 << 20)
        var early: Set<Digest> = []
        for _ in 0..<500 {
            let digest = Digest.random(&random, in: 9)
            early.insert(digest)
            try index.insert(digest, entry(digest, 1))
        }
        var cursor = IndexCursor()
        var seen: [Digest] = []
        let target = UnsafeMutableBufferPointer<IndexedRecord>.allocate(capacity: 7)
        defer { target.deallocate() }
        while !cursor.isDone {
            let count = index.slice(PartitionID(9), &cursor, into: target)
            seen += target[..<count].map(\.digest)
            for _ in 0..<40 {
                let digest = Digest.random(&random, in: 9)
                if index.find(digest) == nil { try index.insert(digest, entry(digest, 2)) }
            }
            // A client may resume anywhere with nothing but a digest.
            if let last = seen.last { cursor = cursor.isDone ? cursor : IndexCursor(after: last) }
        }
        #expect(seen == seen.sorted().reversed() && Set(seen).count == seen.count)
        #expect(early.isSubset(of: seen), "a record that was there all the time is seen")
    }

    /// 100,000 digests that share everything but their last bytes; another bucket of the partition stays
    /// short.
    @Test func manyDigestsOfOneBucket() throws {
        let index = try PrimaryIndex(heapFor: 1 << 20)
        let count: UInt32 = 100_000
        func chosen(_ number: UInt32) -> Digest { Digest(low: 5, middle: 77, high: number &* 2_654_435_761) }
        for number in 0..<count { try index.insert(chosen(number), entry(chosen(number), UInt64(number))) }
        let other = Digest(low: 5 | 0xF000, middle: 1, high: 1)
        try index.insert(other, entry(other, 42))
        #expect(index.find(other).map { index.entry($0).location } == 42)
        for number in stride(from: 0, to: count, by: 97) {
            #expect(index.find(chosen(number)).map { index.entry($0).location } == UInt64(number))
        }
        let walked = walk(index, 5, room: 64)
        #expect(walked.count == Int(count) + 1)
        #expect(zip(walked, walked.dropFirst()).allSatisfy { $1.digest < $0.digest })
        for number in 0..<count {
            let reference = try #require(index.find(chosen(number)))
            index.remove(reference, partition: PartitionID(5))
        }
        #expect(index.count == 1 && walk(index, 5, room: 64).map(\.digest) == [other])
    }

    @Test func memoryOfRemovedRecordsIsUsedAgain() throws {
        var random = SeededRandom(seed: 3)
        let index = try PrimaryIndex(heapFor: 1 << 20)
        let digests = (0..<20_000).map { _ in Digest.random(&random, in: 1) }
        for digest in digests { try index.insert(digest, entry(digest, 1)) }
        let used = index.usedBytes
        for _ in 0..<5 {
            for digest in digests { index.remove(try #require(index.find(digest)), partition: PartitionID(1)) }
            for digest in digests { try index.insert(digest, entry(digest, 1)) }
        }
        #expect(index.usedBytes == used)
    }

    @Test func fullArenaRefusesAndStaysWhole() throws {
        var random = SeededRandom(seed: 4)
        let index = try PrimaryIndex(entries: HeapArena(capacity: 40 * 1000), lines: HeapArena(capacity: 16 << 20))
        var kept: [Digest] = []
        var refused = 0
        for _ in 0..<3000 {
            let digest = Digest.random(&random, in: 2)
            do throws(IndexError) {
                try index.insert(digest, entry(digest, 1))
                kept.append(digest)
            } catch { refused += 1 }
        }
        #expect(refused > 0 && kept.count > 500 && index.count == kept.count)
        for digest in kept { #expect(index.find(digest) != nil) }
        index.remove(try #require(index.find(kept[0])), partition: PartitionID(2))
        try index.insert(kept[0], entry(kept[0], 9))
    }

    /// A partition that has all its segments takes further records; its buckets just get longer.
    @Test func aPartitionWithoutFurtherSegments() throws {
        var random = SeededRandom(seed: 5)
        let index = try PrimaryIndex(
            entries: HeapArena(capacity: 40 << 16), lines: HeapArena(capacity: 16 << 20), segmentsMax: 5)
        let digests = (0..<20_000).map { _ in Digest.random(&random, in: 3) }
        for digest in digests { try index.insert(digest, entry(digest, 7)) }
        #expect(index.count == digests.count && digests.allSatisfy { index.find($0) != nil })
        #expect(walk(index, 3, room: 64).map(\.digest) == digests.sorted().reversed())
    }

    /// Buckets that are filled and emptied by turns do not eat the arena.
    @Test func runsAreUsedAgain() throws {
        let index = try PrimaryIndex(heapFor: 1 << 20)
        func round(_ bucket: UInt64) throws {
            let digests = (0..<400).map { Digest(low: 5 | bucket << 12, middle: $0, high: 0) }
            for digest in digests { try index.insert(digest, entry(digest, 1)) }
            for digest in digests { index.remove(try #require(index.find(digest)), partition: PartitionID(5)) }
        }
        for bucket in 0..<50 { try round(UInt64(bucket)) }
        let used = index.usedBytes
        for bucket in 0..<500 { try round(UInt64(bucket % 50)) }
        #expect(index.usedBytes <= used + used / 50, "\(used) bytes became \(index.usedBytes)")
    }
}
