// The index over arenas that lose power. The reader here knows the arena from docs/formats.md only.
import Base
import Index
import TestSupport
import Testing

@Suite struct SimulatedArenaTests {
    private func stored(_ arena: SimulatedArena, _ offset: Int, _ value: UInt64) {
        (arena.base + offset).storeBytes(of: value, as: UInt64.self)
    }

    private func fates(_ arena: SimulatedArena, _ offset: Int) -> Set<UInt64> {
        Set((0..<40 as Range<UInt64>).map { seed in
            arena.crashImage(seed: seed).withUnsafeBytes { $0.load(fromByteOffset: offset, as: UInt64.self) }
        })
    }

    @Test func whatWasPersistedStaysUntilItChanges() throws {
        let arena = SimulatedArena(capacity: 4096, seed: 1)
        #expect(try arena.allocate(byteCount: 256) == 0)
        stored(arena, 0, 1)
        #expect(fates(arena, 0) == [0, 1])
        arena.persist(offset: 0, byteCount: 8)
        #expect(fates(arena, 0) == [1] && arena.changedLines().isEmpty)
        stored(arena, 8, 2)
        stored(arena, 0, 3)
        #expect(fates(arena, 0) == [1, 3], "a line that changed again may show what it had")
        #expect((0..<40 as Range<UInt64>).allSatisfy { seed in
            let image = arena.crashImage(seed: seed)
            return (image[0] == 3) == (image[8] == 2)
        }, "a line arrives as a whole")
    }

    @Test func linesHaveTheirOwnFate() throws {
        let arena = SimulatedArena(capacity: 4096, seed: 1)
        _ = try arena.allocate(byteCount: 128)
        stored(arena, 0, 1)
        stored(arena, 64, 1)
        let images = (0..<80 as Range<UInt64>).map { arena.crashImage(seed: $0) }
        #expect(Set(images.map { [$0[0], $0[64]] }).count == 4)
        #expect(arena.crashImage(seed: 7) == arena.crashImage(seed: 7))
    }

    @Test func whatWasEvictedInBetweenMaySurvive() throws {
        let arena = SimulatedArena(capacity: 4096, seed: 1)
        _ = try arena.allocate(byteCount: 64)
        stored(arena, 0, 1)
        arena.evict(percent: 0)
        #expect(fates(arena, 0) == [0, 1])
        arena.evict(percent: 100)
        stored(arena, 0, 2)
        #expect(fates(arena, 0) == [1, 2])
    }

    @Test func ignoredPersistsAreCounted() throws {
        let arena = SimulatedArena(capacity: 4096, seed: 1, ignoredEvery: 2)
        _ = try arena.allocate(byteCount: 128)
        stored(arena, 0, 1)
        arena.persist(offset: 0, byteCount: 8)
        stored(arena, 64, 1)
        arena.persist(offset: 64, byteCount: 8)
        #expect(fates(arena, 0) == [1] && fates(arena, 64) == [0, 1] && arena.persistCount == 2)
    }

    @Test func aFullArenaRefuses() throws {
        let arena = SimulatedArena(capacity: 128, seed: 1)
        _ = try arena.allocate(byteCount: 120)
        #expect(throws: IndexError.self) { try arena.allocate(byteCount: 16) }
        #expect(try arena.allocate(byteCount: 8) == 120 && arena.usedByteCount == 128)
    }
}

/// Reads two crash images as docs/formats.md describes them. Chains only: see `ArenaCrashTests`.
private struct ImageReader {
    let entries: [UInt8]
    let lines: [UInt8]

    private func word(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
        bytes.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
    }

    private func half(_ offset: Int) -> Int {
        lines.withUnsafeBytes { Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self))) }
    }

    /// The 52 bits behind the partition, most significant first, with the last of them first.
    private func reversedKey(_ digest: Digest) -> Int {
        var bits: [Int] = (0..<4).map { Int(digest[1] >> (7 - UInt8($0)) & 1) }
        for byte in 2..<8 { bits += (0..<8).map { Int(digest[byte] >> (7 - UInt8($0)) & 1) } }
        return bits.enumerated().reduce(0) { $0 | $1.element << $1.offset }
    }

    func bucket(_ digest: Digest) -> Int {
        let state = word(lines, Int(digest.partition.number) * 384)
        let level = Int(state >> 32)
        let count = 4 << level + Int(state & 0xFFFF_FFFF)
        let key = reversedKey(digest)
        let wide = key & (8 << level - 1)
        return wide < count ? wide : key & (4 << level - 1)
    }

    func bucketCount(_ partition: Int) -> Int {
        let state = word(lines, partition * 384)
        return 4 << Int(state >> 32) + Int(state & 0xFFFF_FFFF)
    }

    /// Segment 0 has 4 buckets; each doubling adds four segments of equal size.
    private func lineOffset(_ partition: Int, _ bucket: Int) -> Int? {
        var segment = 0
        var first = 0
        var size = 4
        while bucket >= first + size {
            first += size
            segment += 1
            size = 1 << ((segment - 1) / 4)
        }
        let line = half(partition * 384 + 8 + 4 * segment)
        return line == 0 ? nil : (line + bucket - first) * 64
    }

    /// Every handle of a bucket with its digest and location; nil if the chain leads nowhere.
    func records(_ partition: Int, _ bucket: Int) -> [(digest: Digest, location: UInt64)]? {
        guard var offset = lineOffset(partition, bucket) else { return nil }
        var found: [(digest: Digest, location: UInt64)] = []
        for _ in 0..<100 {
            guard offset + 64 <= lines.count else { return nil }
            for slot in 0..<12 where half(offset + 16 + 4 * slot) != 0 {
                let entry = (half(offset + 16 + 4 * slot) - 1) * 40
                guard entry + 40 <= entries.count else { return nil }
                found.append(record(partition, entry, tag: lines[offset + slot]))
            }
            let link = half(offset + 12)
            if link == 0 { return found }
            guard link >> 31 == 0 else { return nil }
            offset = link * 64
        }
        return nil
    }

    private func record(_ partition: Int, _ entry: Int, tag: UInt8) -> (digest: Digest, location: UInt64) {
        let top = word(entries, entry + 16) >> 52
        let (third, fourth) = (word(entries, entry + 24), word(entries, entry + 32))
        let digest = Digest(
            low: UInt64(partition) | top << 12 | third << 24, middle: third >> 40 | fourth << 24,
            high: UInt32(truncatingIfNeeded: fourth >> 40) | UInt32(tag) << 24)
        return (digest, word(entries, entry) & (1 << 44 - 1))
    }
}

/// A history on an index over simulated arenas, and what a crash image of any moment may show. Buckets are kept too
/// short for sorted runs: those are not written so that they would survive (they need more than `persist` calls).
private final class CrashHistory {
    private static let partitions: [UInt16] = [1, 9]
    private let entries: SimulatedArena
    private let lines: SimulatedArena
    private let index: PrimaryIndex
    private var random: SeededRandom
    private var model: [Digest: UInt64] = [:]
    private var known: [Digest] = []
    /// What is being changed: before it ends both states are right.
    private var underWay: (digest: Digest, new: UInt64?)?
    private var nextLocation: UInt64 = 1
    /// Crash images that were looked at.
    private(set) var imageCount = 0
    private(set) var problems: [String] = []

    init(seed: UInt64, ignoredEvery: Int = 0) throws {
        random = SeededRandom(seed: seed)
        entries = SimulatedArena(capacity: 64 * 4000, seed: seed, ignoredEvery: ignoredEvery)
        lines = SimulatedArena(capacity: 4 << 20, seed: seed + 1, ignoredEvery: ignoredEvery)
        index = try PrimaryIndex(entries: entries, lines: lines)
        for arena in [entries, lines] {
            arena.beforePersist = { [unowned self] in
                arena.evict(percent: 10)
                if UInt8.random(in: 0..<200, using: &random) == 0 { crash() }
            }
        }
    }

    func run(_ operations: Int) throws {
        for _ in 0..<operations where problems.isEmpty {
            try step()
            if UInt8.random(in: 0..<20, using: &random) == 0 { lines.evict(percent: 30) }
            if UInt8.random(in: 0..<60, using: &random) == 0 { crash() }
        }
        crash()
    }

    private func newDigest() -> Digest {
        let partition = CrashHistory.partitions.randomElement(using: &random)!
        let digest = Digest.random(&random, in: partition)
        // Few different first bytes: chains become long.
        let clusters = UInt64.random(in: 0..<12, using: &random)
        return Digest(low: digest.low & 0xFFFF_FF00_0000_0FFF | clusters << 12, middle: digest.middle, high: digest.high)
    }

    private func entry(_ digest: Digest) -> IndexEntry {
        var entry = IndexEntry(digest: digest)
        entry.location = nextLocation
        nextLocation += 1
        return entry
    }

    private func step() throws {
        let choice = Int.random(in: 0..<100, using: &random)
        if known.isEmpty || choice < 40 && known.count < 500 {
            let digest = newDigest()
            guard model[digest] == nil else { return }
            let entry = entry(digest)
            underWay = (digest, entry.location)
            try index.insert(digest, entry)
            known.append(digest)
            model[digest] = entry.location
        } else {
            let place = Int.random(in: 0..<known.count, using: &random)
            let digest = known[place]
            guard let reference = index.find(digest) else { return problems.append("\(digest) is not in the index") }
            if choice < 65 {
                underWay = (digest, nil)
                index.remove(reference, partition: digest.partition)
                model[digest] = nil
                known.swapAt(place, known.count - 1)
                known.removeLast()
            } else {
                let entry = entry(digest)
                underWay = (digest, entry.location)
                if choice < 90 {
                    _ = try index.replace(reference, with: entry, partition: digest.partition)
                } else {
                    index.relocate(reference, to: entry.location)
                }
                model[digest] = entry.location
            }
        }
        underWay = nil
    }

    /// Looks at what would be left if power failed now.
    private func crash() {
        imageCount += 1
        let reader = ImageReader(
            entries: entries.crashImage(seed: random.next()), lines: lines.crashImage(seed: random.next()))
        var found: [Digest: UInt64] = [:]
        for partition in CrashHistory.partitions.map({ Int($0) }) {
            for bucket in 0..<reader.bucketCount(partition) {
                guard let records = reader.records(partition, bucket) else {
                    return problems.append("bucket \(bucket) of partition \(partition) cannot be read")
                }
                // What a split left behind in the old bucket is not looked up there.
                for (digest, location) in records where reader.bucket(digest) == bucket {
                    if let other = found[digest], other != location { problems.append("\(digest) is there twice") }
                    found[digest] = location
                }
            }
        }
        compare(found)
    }

    private func compare(_ found: [Digest: UInt64]) {
        for (digest, location) in model where found[digest] != location {
            if underWay?.digest == digest, found[digest] == underWay?.new { continue }
            problems.append("\(digest) has location \(found[digest] ?? 0), not \(location)")
        }
        for (digest, location) in found where model[digest] == nil {
            if underWay?.digest == digest, underWay?.new == location { continue }
            problems.append("a handle leads to \(digest) at \(location), which is not in the index")
        }
    }
}

@Suite struct ArenaCrashTests {
    /// After each completed operation, and between any two persists inside one, the image has every record.
    @Test func everyCrashImageHasEveryRecord() throws {
        let runSeed = runSeed("ArenaCrashTests")
        var random = SeededRandom(seed: runSeed)
        var images = 0
        try forAWhile(3) {
            let seed = random.next() >> 1
            let history = try CrashHistory(seed: seed)
            try history.run(600)
            images += history.imageCount
            #expect(history.problems.isEmpty, "APUS_SEED=\(runSeed), history \(seed): \(history.problems.prefix(3))")
        }
        #expect(images > 10)
    }

    /// The canary: if now and then a persist does nothing, the images show it.
    @Test func ignoredPersistsAreFound() throws {
        var caught = 0
        for seed in 0..<5 as Range<UInt64> {
            let history = try CrashHistory(seed: seed, ignoredEvery: 5)
            try history.run(600)
            if !history.problems.isEmpty { caught += 1 }
        }
        #expect(caught == 5)
    }
}
