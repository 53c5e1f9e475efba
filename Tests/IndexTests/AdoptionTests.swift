// Going on with what an earlier process has left: whole, cut in the middle of a change, or damaged.
import Base
import Glibc
import Index
import TestSupport
import Testing

/// An index that is left behind, as bytes that a test may change.
private struct LeftIndex {
    var entries: [UInt8]
    var lines: [UInt8]
    /// Location of each record.
    let records: [Digest: UInt64]

    /// An index with those records, whose locations are their places.
    init(_ digests: [Digest], removing removed: Int = 0) throws {
        let entryRegion = SimulatedRegion(capacity: 4 << 20, seed: 1, needsPersist: false)
        let lineRegion = SimulatedRegion(capacity: 8 << 20, seed: 2, needsPersist: false)
        let index = try PrimaryIndex(entries: RegionArena(entryRegion), lines: RegionArena(lineRegion))
        var records: [Digest: UInt64] = [:]
        for (place, digest) in digests.enumerated() {
            var entry = IndexEntry(digest: digest)
            entry.location = UInt64(place)
            try index.insert(digest, entry)
            records[digest] = UInt64(place)
        }
        for digest in digests.prefix(removed) {
            index.remove(try #require(index.find(digest)), partition: digest.partition)
            records[digest] = nil
        }
        self.records = records
        (entries, lines) = (entryRegion.killImage(), lineRegion.killImage())
    }

    func attached() throws -> (index: PrimaryIndex, regions: [SimulatedRegion]) {
        let regions = [entries, lines].map { SimulatedRegion(capacity: $0.count + 4 << 20, seed: 3, image: $0) }
        let index = try PrimaryIndex(attachingTo: RegionArena(regions[0]), lines: RegionArena(regions[1]))
        return (index, regions)
    }

    /// Walks everything; what is there, and how many handles were cleared.
    func adopted() throws -> (index: PrimaryIndex, found: [Digest: UInt64], clearedCount: Int, memory: AdoptedMemory) {
        let (index, regions) = try attached()
        var found: [Digest: UInt64] = [:]
        var clearedCount = 0
        for partition in 0..<UInt16(PartitionID.count) {
            let walked = try index.adoptPartition(PartitionID(partition)) { record in
                found[record.digest] = record.entry.location
                return true
            }
            clearedCount += walked.clearedHandleCount
        }
        #expect(regions.allSatisfy { $0.changedLines().isEmpty }, "a repair does not last")
        let memory = index.finishAdoption()
        return (index, found, clearedCount, memory)
    }

    /// The sentence of the failure.
    func failure() -> String {
        do { _ = try adopted() } catch { return "\(error)" }
        return "none"
    }

    // ---- Its bytes: behind the header of the arena ----

    func half(_ offset: Int) -> UInt32 {
        lines.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 64 + offset, as: UInt32.self) }
    }

    func word(_ offset: Int) -> UInt64 {
        lines.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 64 + offset, as: UInt64.self) }
    }

    mutating func set<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
        lines.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: 64 + offset, as: Value.self) }
    }

    /// Where the line of one of a partition's first four buckets begins.
    func bucket(_ partition: Int, _ bucket: Int) -> Int { (Int(half(partition * 384 + 8)) + bucket) * 64 }

    /// Where the run of a partition's bucket begins.
    func run(_ partition: Int, _ bucket: Int) -> Int { Int(half(self.bucket(partition, bucket) + 12) & 0x7FFF_FFFF) * 64 }
}

@Suite struct AdoptionTests {
    private func digests(_ count: Int, partitions: UInt16, seed: UInt64 = 1) -> [Digest] {
        var random = SeededRandom(seed: seed)
        return (0..<count).map { _ in Digest.random(&random, in: UInt16.random(in: 0..<partitions, using: &random)) }
    }

    /// Digests of bucket 0 of partition 7, whatever its number of buckets.
    private func ofOneBucket(_ count: Int) -> [Digest] {
        (0..<count).map { Digest(low: 7, middle: UInt64($0) &* 0x9E37_79B9_7F4A_7C15, high: UInt32($0)) }
    }

    @Test func everyRecordIsShownOnceAndFound() throws {
        let left = try LeftIndex(digests(20_000, partitions: 300) + ofOneBucket(500), removing: 9000)
        let (index, found, clearedCount, memory) = try left.adopted()
        #expect(found == left.records && clearedCount == 0 && index.count == left.records.count)
        for (digest, location) in found { #expect(index.find(digest).map { index.entry($0).location } == location) }
        let used = left.entries.withUnsafeBytes { $0.load(as: UInt64.self) }
        #expect(memory.freeEntryCount == Int(used) / 40 - found.count)
    }

    @Test func anEmptyIndexIsGoneOnWith() throws {
        let (index, found, _, memory) = try LeftIndex([]).adopted()
        #expect(found.isEmpty && index.count == 0 && memory.freeEntryCount == 0 && memory.freeLineCount == 0)
        let digest = digests(1, partitions: 1)[0]
        try index.insert(digest, IndexEntry(digest: digest))
        #expect(index.find(digest) != nil)
    }

    /// What was free, or taken ahead by a partition, is used before the arena is asked.
    @Test func freeMemoryIsUsedAgain() throws {
        let all = digests(40_000, partitions: 4096)
        let left = try LeftIndex(all, removing: 30_000)
        let (index, _, _, memory) = try left.adopted()
        #expect(memory.freeEntryCount >= 30_000)
        let used = index.usedBytes
        for digest in all.prefix(15_000) { try index.insert(digest, IndexEntry(digest: digest)) }
        #expect(index.usedBytes <= used + used / 50, "\(used) bytes became \(index.usedBytes)")
        #expect(index.count == 25_000 && all.prefix(15_000).allSatisfy { index.find($0) != nil })
    }

    /// Threads that share the partitions find together what one finds.
    @Test func severalThreadsWalkTogether() throws {
        let left = try LeftIndex(digests(30_000, partitions: 4096), removing: 100)
        let index = try left.attached().index
        let job = WalkJob(index)
        var threads: [pthread_t] = []
        for _ in 0..<4 {
            var thread = pthread_t()
            let began = pthread_create(&thread, nil, { argument in
                Unmanaged<WalkJob>.fromOpaque(argument!).takeUnretainedValue().run()
                return nil
            }, Unmanaged.passUnretained(job).toOpaque())
            try #require(began == 0)
            threads.append(thread)
        }
        for thread in threads { pthread_join(thread, nil) }
        _ = index.finishAdoption()
        #expect(job.failureCount == 0 && job.recordCount == left.records.count && index.count == left.records.count)
        for (digest, location) in left.records { #expect(index.find(digest).map { index.entry($0).location } == location) }
    }

    // ---- What an interrupted change leaves ----

    /// Every store of an insert into a run and of a remove, by hand: each leaves all records.
    @Test func aRunIsWholeAfterEachStore() throws {
        let left = try LeftIndex(ofOneBucket(140))
        let run = left.run(7, 0)
        let count = Int(left.half(run))
        #expect(count > 100)
        func element(_ place: Int) -> Int { run + 64 + 8 * place }
        for rank in [0, 7, count - 10, count - 1] {
            var cut = left
            // The gap is at `place`; elements from `rank` on have moved up.
            for place in stride(from: count, to: rank, by: -1) where place > count - 12 || place < rank + 3 {
                cut = left
                for moved in stride(from: count, through: place, by: -1) {
                    cut.set(left.word(element(moved - 1)), at: element(moved))
                }
                cut.set(UInt32(count + 1), at: run)
                let after = try cut.adopted()
                #expect(after.found == left.records && after.clearedCount == 1, "insert at \(rank), gap at \(place)")
            }
            // A remove has moved down what follows `rank`, up to `place`.
            for place in rank..<count - 1 where place > count - 12 || place < rank + 3 {
                cut = left
                for moved in rank...place { cut.set(left.word(element(moved + 1)), at: element(moved)) }
                let after = try cut.adopted()
                let remaining = left.records.count - 1
                #expect(after.found.count == remaining && after.clearedCount == 1, "remove at \(rank), \(place)")
            }
        }
    }

    @Test func aFilterThatWasCutIsFinished() throws {
        let left = try LeftIndex(ofOneBucket(140))
        let run = left.run(7, 0)
        let count = Int(left.half(run))
        var cut = left
        // Every third element goes, because its entry belongs elsewhere: the first bit of its sort key is another one.
        for place in stride(from: 0, to: count, by: 3) {
            let entry = Int(left.half(run + 64 + 8 * place)) - 1
            cut.entries[64 + entry * 40 + 16 + 6] ^= 0x80
        }
        // The process dies when it has looked at half of them.
        let kept = (0..<count / 2).filter { $0 % 3 != 0 }
        for (place, source) in kept.enumerated() { cut.set(left.word(run + 64 + 8 * source), at: run + 64 + 8 * place) }
        let after = try cut.adopted()
        let remaining = left.records.count - (count + 2) / 3
        #expect(after.found.count == remaining && after.found.allSatisfy { left.records[$0.key] == $0.value })
        for digest in after.found.keys {
            after.index.remove(try #require(after.index.find(digest)), partition: digest.partition)
        }
        #expect(after.index.count == 0)
    }

    /// A handle of another bucket, one that is there twice, and a bucket that was being filled.
    @Test func whatDoesNotBelongIsCleared() throws {
        let left = try LeftIndex(digests(20, partitions: 1))
        var cut = left
        let buckets = (0..<4).filter { left.half(left.bucket(0, $0) + 16) != 0 }
        let (from, to) = (left.bucket(0, buckets[0]), left.bucket(0, buckets[1]))
        func free(_ line: Int) throws -> Int { try #require((0..<12).first { left.half(line + 16 + 4 * $0) == 0 }) }
        cut.set(left.half(from + 16), at: to + 16 + 4 * (try free(to)))
        cut.set(left.half(from + 16), at: from + 16 + 4 * (try free(from)))
        let after = try cut.adopted()
        #expect(after.found == left.records && after.clearedCount == 2)
    }

    @Test func aBucketThatWasBeingFilledIsEmptied() throws {
        // The split to five buckets is there but not published: its bucket names what the first four have.
        let all = digests(37, partitions: 1)
        var left = try LeftIndex(all)
        #expect(left.word(0) == 1, "five buckets")
        left.set(UInt64(0), at: 0)
        let first = left.bucket(0, 0)
        let segment = Int(left.half(12)) * 64
        // What moved is given back to the old bucket, as if it had not been cleared.
        var slot = 0
        for source in 0..<12 where left.half(segment + 16 + 4 * source) != 0 {
            while left.half(first + 16 + 4 * slot) != 0 { slot += 1 }
            left.set(left.half(segment + 16 + 4 * source), at: first + 16 + 4 * slot)
            left.set(left.lines[64 + segment + source], at: first + slot)
        }
        let after = try left.adopted()
        #expect(after.found == left.records)
        for digest in digests(200, partitions: 1, seed: 9) { try after.index.insert(digest, IndexEntry(digest: digest)) }
        #expect(all.allSatisfy { after.index.find($0) != nil } && after.index.count == 237)
    }

    // ---- Damage ----

    @Test func damageIsNamed() throws {
        let left = try LeftIndex(digests(20, partitions: 1) + ofOneBucket(140))
        let line = left.bucket(0, 0)
        let run = left.run(7, 0)
        func failure<Value: BitwiseCopyable>(_ value: Value, at offset: Int) -> String {
            var damaged = left
            damaged.set(value, at: offset)
            return damaged.failure()
        }
        let lineCount = (left.lines.withUnsafeBytes { Int($0.load(as: UInt64.self)) }) / 64
        #expect(failure(UInt64(99) << 32, at: 0) == "partition 0: level 99 with split 0 cannot be")
        #expect(failure(UInt64(4), at: 0) == "partition 0: level 0 with split 4 cannot be")
        #expect(failure(UInt64(1), at: 384) == "partition 1: segment 1 of 2 cannot lie at line 0 of \(lineCount)")
        #expect(failure(left.half(8), at: 384 + 8).hasPrefix("partition 1: segment 0 of 1 cannot lie at line"))
        let linked = failure(UInt32(lineCount), at: line + 12)
        #expect(linked == "partition 0: bucket 0 cannot link to line \(lineCount) of \(lineCount)")
        #expect(failure(UInt32(line / 64), at: line + 12).contains("cannot link to line \(line / 64)"), "a circle")
        #expect(failure(UInt32.max, at: line + 12).contains("links to a run at line"))
        #expect(failure(UInt32(1 << 20), at: line + 16 + 44).contains("names entry 1048576 of"))
        #expect(failure(UInt32(300), at: run + 4).contains("no run of"))
        #expect(failure(UInt32(257), at: run).contains("no run of 257 elements of 256"))
        #expect(failure(left.word(run + 64 + 800) | 1 << 60, at: run + 64 + 800).contains("in its run"))
        var swapped = left
        swapped.set(left.word(run + 64 + 80), at: run + 64 + 88)
        swapped.set(left.word(run + 64 + 88), at: run + 64 + 80)
        #expect(swapped.failure().contains("stands behind"))
        var short = left
        short.lines = [UInt8](repeating: 0, count: 4096)
        #expect(short.failure() == "the memory of the lines has 0 lines, too few for the partitions")
        short.lines.withUnsafeMutableBytes { $0.storeBytes(of: 1 << 40, as: UInt64.self) }
        #expect(short.failure() == "the memory of the lines says that 1099511627776 bytes of it are in use")
    }

    @Test func aLocationThatCannotBeIsAFailure() throws {
        let left = try LeftIndex(digests(20, partitions: 1))
        let index = try left.attached().index
        #expect(throws: AttachFailure.self) { try index.adoptPartition(PartitionID(0)) { $0.entry.location != 11 } }
    }

    /// Whatever the bytes are, the walk ends.
    @Test func damageOfChanceNeverTraps() throws {
        var random = SeededRandom(seed: runSeed("AdoptionTests.damage"))
        let left = try LeftIndex(digests(3000, partitions: 4) + ofOneBucket(600), removing: 300)
        let words = (0..<(left.lines.count - 64) / 8).filter { left.word($0 * 8) != 0 }
        var outcomes = (whole: 0, failed: 0)
        forAWhile(2, until: outcomes.failed > 0) {
            var damaged = left
            for _ in 0..<[1, 3, 40].randomElement(using: &random)! {
                // Mostly where something is: of the roots most say little.
                let choice = Int.random(in: 0..<10, using: &random)
                let word = choice < 8 ? words.randomElement(using: &random)! : Int.random(in: 0..<600 * 48, using: &random)
                switch choice % 4 {
                case 0: damaged.set(random.next(), at: word * 8)
                case 1: damaged.set(damaged.word(words.randomElement(using: &random)! * 8), at: word * 8)
                case 2: damaged.set(damaged.word(word * 8) ^ 1 << UInt64.random(in: 0..<64, using: &random), at: word * 8)
                default: damaged.entries[Int.random(in: 8..<damaged.entries.count, using: &random)] ^= 0xFF
                }
            }
            if let index = try? damaged.adopted().index {
                outcomes.whole += 1
                for digest in left.records.keys.prefix(50) { _ = index.find(digest) }
            } else {
                outcomes.failed += 1
            }
        }
        print("damage: \(outcomes.whole) walked to the end, \(outcomes.failed) refused")
        #expect(outcomes.failed > 0)
    }
}

/// What the threads of a walk share.
private final class WalkJob: @unchecked Sendable {
    private let index: PrimaryIndex
    private var lock = pthread_mutex_t()
    private var next: UInt16 = 0
    private(set) var recordCount = 0
    private(set) var failureCount = 0

    init(_ index: PrimaryIndex) { self.index = index }

    private func locked<Result>(_ body: () -> Result) -> Result {
        pthread_mutex_lock(&lock)
        defer { pthread_mutex_unlock(&lock) }
        return body()
    }

    func run() {
        while true {
            let partition = locked { () -> UInt16 in
                next += 1
                return next - 1
            }
            guard partition < PartitionID.count else { return }
            let walked = try? index.adoptPartition(PartitionID(partition)) { _ in true }
            locked {
                recordCount += walked?.recordCount ?? 0
                failureCount += walked == nil ? 1 : 0
            }
        }
    }
}
