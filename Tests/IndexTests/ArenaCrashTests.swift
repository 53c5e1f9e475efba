// The index over memory that loses power, or whose process is killed: nothing acknowledged is lost, whatever was under way.
import Base
import Index
import TestSupport
import Testing
import Glibc

@Suite(.serialized) struct ArenaCrashTests {
    /// More rounds: APUS_CRASHES=10.
    private static let rounds = getenv("APUS_CRASHES").flatMap { Int(String(cString: $0)) } ?? 1

    /// Digest `number` of the bucket that these tests fill: only the split to 32 buckets divides it.
    private func chosen(_ number: Int) -> Digest {
        var random = SeededRandom(seed: UInt64(number))
        return CrashWorld.digest(Digest.random(&random, in: 1), startingWith: 0b1111, bits: 4)
    }

    /// The bucket gets a chain, then a run, changes in both, a larger run, and that is split; crashes at each persist of
    /// what is watched.
    private func fixedHistory(_ shape: CrashShape, seed: UInt64) throws -> CrashFindings {
        let world = try CrashWorld(shape, seed: seed)
        func watched(_ body: () throws -> Void) rethrows {
            world.isWatched = true
            try body()
            world.isWatched = false
        }
        world.isWatched = false
        for number in 0..<11 { try world.insert(chosen(number)) }
        // The end of a line, the begin of a chain, and what happens to a record.
        try watched { for number in 11..<14 { try world.insert(chosen(number)) } }
        try watched {
            try world.replace(chosen(3))
            try world.relocate(chosen(3))
            try world.setKind(chosen(3), .tombstone)
            try world.remove(chosen(13))
            try world.replace(chosen(12))
        }
        for number in 13..<95 { try world.insert(chosen(number)) }
        // The chain becomes a run.
        try watched { for number in 95..<102 { try world.insert(chosen(number)) } }
        try watched {
            for number in [95, 50, 96] { try world.remove(chosen(number)) }
            for number in [20, 98, 60] { try world.replace(chosen(number)) }
            try world.setKind(chosen(60), .tombstone)
        }
        // A larger run, and then its split.
        for number in 102..<270 { try world.insert(chosen(number)) }
        try watched { for number in 270..<273 { try world.insert(chosen(number)) } }
        for number in 273..<280 { try world.insert(chosen(number)) }
        try watched { for number in 280..<292 { try world.insert(chosen(number)) } }
        world.crash()
        return world.findings
    }

    @Test func aFixedHistoryCrashesAtEachPersist() throws {
        let seed = runSeed("ArenaCrashTests.fixed") >> 1
        for round in 0..<UInt64(ArenaCrashTests.rounds) {
            let findings = try fixedHistory(CrashShape(crashEvery: 1, clusterBits: 4), seed: seed &+ round)
            print("fixed: \(findings.crashCount) crashes, \(findings.laterCrashCount) of later processes")
            #expect(findings.problems.isEmpty, "APUS_SEED=\(seed) + \(round): \(findings.problems.prefix(3))")
            #expect(findings.crashCount > 200 && findings.laterCrashCount > 0)
        }
    }

    // ---- What chance finds rarely ----

    private func digests(_ count: Int, startingWith prefix: UInt64, bits: UInt64) -> [Digest] {
        var random = SeededRandom(seed: prefix)
        return (0..<count).map { _ in
            CrashWorld.digest(Digest.random(&random, in: 1), startingWith: prefix, bits: bits)
        }
    }

    /// A world that is looked at only where the test says so.
    private func quietWorld(linesMax: Int = 8000) throws -> CrashWorld {
        let world = try CrashWorld(CrashShape(linesMax: linesMax, depthMax: 1), seed: 1)
        world.isWatched = false
        return world
    }

    private func expectNothingLost(_ world: CrashWorld) {
        for _ in 0..<8 { world.crash() }
        #expect(world.findings.problems.isEmpty, "\(world.findings.problems.prefix(3))")
    }

    /// A split that finds no memory has filled a part of its bucket. Later it succeeds with nothing to store there: what it
    /// publishes then must not be what the medium has of the first time.
    @Test func whatASplitHasLeftBehindDoesNotComeBack() throws {
        // Two further lines for the first bucket's chain, one for the segment of the fifth bucket; none for its chain.
        let world = try quietWorld(linesMax: 3)
        let moving = digests(30, startingWith: 0b001, bits: 3)
        for digest in moving { try world.insert(digest) }
        for prefix in [0b01, 0b10, 0b11] as [UInt64] {
            for digest in digests(10, startingWith: prefix, bits: 2) { try world.insert(digest) }
        }
        #expect(world.index.count == 60)
        for digest in moving { try world.remove(digest) }
        for digest in digests(7, startingWith: 0b000, bits: 3) { try world.insert(digest) }
        expectNothingLost(world)
    }

    /// The split to 16 buckets takes everything out of the eighth one's run, which then becomes that of another bucket.
    @Test func aRunThatWasEmptiedIsUsedByAnotherBucket() throws {
        let world = try quietWorld()
        for number in 0..<100 { try world.insert(chosen(number)) }
        // The split comes with the 36th of these, a run with the 97th, and the eighth bucket's next split after 207 records.
        for digest in digests(100, startingWith: 0b0111, bits: 4) { try world.insert(digest) }
        expectNothingLost(world)
    }

    /// The root of a partition with more than 40 buckets needs more than one line.
    @Test func segmentsOfALargePartition() throws {
        let world = try quietWorld()
        for digest in digests(440, startingWith: 0, bits: 0) { try world.insert(digest) }
        expectNothingLost(world)
    }

    private func randomShape(_ random: inout SeededRandom) -> CrashShape {
        var shape = CrashShape()
        shape.clusterBits = [2, 3, 4, 5, 12].randomElement(using: &random)!
        shape.clusterPercent = [0, 60, 95].randomElement(using: &random)!
        // Now and then there is no room for lines, or entries: what fails must have changed nothing.
        shape.linesMax = [30, 200, 8000].randomElement(using: &random)!
        shape.entriesMax = [150, 2000].randomElement(using: &random)!
        shape.recordsMax = [60, 300, 600].randomElement(using: &random)!
        shape.isPersistent = Int.random(in: 0..<4, using: &random) > 0
        return shape
    }

    @Test func randomHistoriesCrashAnywhere() throws {
        let runSeed = runSeed("ArenaCrashTests.random")
        var random = SeededRandom(seed: runSeed)
        var crashes = (first: 0, later: 0)
        try forAWhile(3 * Double(ArenaCrashTests.rounds), until: crashes.first > 10) {
            let seed = random.next() >> 1
            let shape = randomShape(&random)
            let world = try CrashWorld(shape, seed: seed)
            try world.run(900)
            world.crash()
            let findings = world.findings
            crashes = (crashes.first + findings.crashCount, crashes.later + findings.laterCrashCount)
            let history = "APUS_SEED=\(runSeed), history \(seed), \(shape)"
            #expect(findings.problems.isEmpty, "\(history): \(findings.problems.prefix(3))")
        }
        print("random: \(crashes.first) crashes, \(crashes.later) of later processes")
        #expect(crashes.first > 10)
    }

    // ---- Canaries: mistakes that the same harness must find ----

    /// How many of five histories show it. `prepared` operations are not watched: what the mistake is about comes later.
    private func caught(_ shape: CrashShape, prepared: Int = 0) throws -> Int {
        try (0..<5 as Range<UInt64>).count { seed in
            let world = try CrashWorld(shape, seed: seed)
            world.isWatched = false
            try world.run(prepared)
            world.isWatched = true
            try world.run(900)
            return !world.findings.problems.isEmpty
        }
    }

    @Test func ignoredPersistsAreFound() throws {
        #expect(try caught(CrashShape(ignoredEvery: 7, crashEvery: 40, depthMax: 1)) == 5)
    }

    @Test func handlesBeforeTheirEntriesAreFound() throws {
        #expect(try caught(CrashShape(canary: .publishesHandleEarly, crashEvery: 40, depthMax: 1)) == 5)
    }

    @Test func levelsBeforeTheirBucketsAreFound() throws {
        #expect(try caught(CrashShape(canary: .publishesLevelEarly, crashEvery: 10, depthMax: 1), prepared: 300) == 5)
    }

    @Test func runsThatAreMovedAtOnceAreFound() throws {
        let shape = CrashShape(canary: .movesRunsAtOnce, crashEvery: 10, depthMax: 1, clusterPercent: 95)
        #expect(try caught(shape, prepared: 700) == 5)
    }
}
