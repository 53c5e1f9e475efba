import Base
@testable import Engine
import Index
import Record
import Storage
import TestSupport
import Testing
import Wire

/// Passes of expiry and eviction over an engine that is run by hand.
@Suite struct ExpiryTests {
    private let digest = Digest(low: 5, middle: 6, high: 7)

    /// An engine with the control of its passes, and what that has logged.
    private final class World {
        let harness: Harness
        var control: UpkeepControl
        var lines: [String]
        var figures = EvictionFigures()
        var stored: [UInt32] = []

        init(
            _ backend: any Backend, _ capabilities: Capabilities, reactors: Int = 1,
            _ change: (inout NamespaceSettings) -> Void = { _ in }
        ) throws {
            harness = try Harness(backend, capabilities: capabilities, reactors: reactors) {
                $0.numbers.nsupPeriodSeconds = 10
                $0.numbers.nsupHistogramPeriodSeconds = 0
                change(&$0)
            }
            lines = []
            control = UpkeepControl(harness.namespace, now: harness.time, log: { _ in })
            control = UpkeepControl(
                harness.namespace, now: harness.time,
                storesEvictVoidTime: { [unowned self] voidTime, done in
                    stored.append(voidTime)
                    done(true)
                },
                log: { [unowned self] in lines.append($0) })
        }

        /// Ticks, and runs every pass that is ordered to its end.
        func pass(after seconds: UInt64 = 10) {
            harness.turn(advancing: seconds * 1000)
            for _ in 0..<20 {
                control.tick(harness.time, figures)
                let board = harness.namespace.upkeep.board
                guard !board.isEnded(board.ordered) else { return }
                slices()
            }
            Issue.record("passes without an end: \(lines)")
        }

        func slices() { slices(harness.namespace.upkeep.board) }

        func slices(_ board: SweepBoard) {
            for _ in 0..<100_000 where !board.isEnded(board.ordered) {
                for shard in harness.shards { _ = shard.backgroundSlice() }
                harness.turn()
            }
            #expect(board.isEnded(board.ordered), "the pass ends")
        }

        func put(_ digest: Digest, timeToLive: UInt32, set: String = "") {
            let operation = Request.Operation(code: OperationCode.write, name: "n", value: Request.integer(1))
            harness.send(Request.write(digest, [operation], timeToLive: timeToLive, set: set))
            harness.settle()
            #expect(harness.answers[0]?.result == .ok)
        }
    }

    private func kind(_ world: World) -> RecordKind? {
        world.harness.namespace.index.find(digest).map { world.harness.namespace.index.entry($0).kind }
    }

    /// Late answers, several reactors: what is due goes, with its image, and nothing else.
    @Test(arguments: [1, 3], [0, 50])
    func whatIsDueGoes(reactors: Int, latePercent: Int) throws {
        var random = SeededRandom(seed: runSeed("ExpiryTests"))
        let backend = FakeBackend(seed: random.next())
        backend.latePercent = latePercent
        let world = try World(backend, .durableAtCommit, reactors: reactors) { $0.commitBeforeAnswer = true }
        var lives: [UInt32] = []
        for _ in 0..<600 {
            let life: UInt32 = [5, 20, .max].randomElement(using: &random)!
            lives.append(life)
            world.put(Digest.random(&random), timeToLive: life)
        }
        let namespace = world.harness.namespace
        world.pass()
        let due = lives.count { $0 == 5 }
        #expect(namespace.objectCount == 600 - due && backend.images.count == 600 - due)
        #expect(namespace.index.count == 600 - due, "no tombstones")
        #expect(namespace.total(.expiredObjects) == UInt64(due) && namespace.total(.clientDeleteSuccess) == 0)
        #expect(namespace.upkeep.board.figures.seen == 600)
        let report = namespace.upkeep.report
        #expect(report.nonExpirable == UInt64(lives.count { $0 == .max }))
        #expect(report.cycleDeletedHundredths == UInt64(due * 10_000 / 600))
        #expect(world.lines.last?.contains("deleted \(due) expired and 0 evicted of 600 records") ?? false)
        world.pass(after: 5)
        #expect(namespace.objectCount == 600 - due, "the next period has not begun")
        world.pass(after: 20)
        #expect(namespace.objectCount == lives.count { $0 == .max })
    }

    /// Clients renew and delete what a pass is about to delete: whatever was renewed stays.
    @Test func writersAndExpiry() throws {
        var random = SeededRandom(seed: runSeed("ExpiryTests"))
        let backend = FakeBackend(seed: random.next())
        let world = try World(backend, .durableAtCommit, reactors: 2)
        let digests = (0..<200).map { _ in Digest.random(&random) }
        for digest in digests { world.put(digest, timeToLive: 5) }
        world.harness.turn(advancing: 10_000)
        world.control.tick(world.harness.time, world.figures)
        var renewed: Set<Digest> = []
        for step in 0..<400 {
            let digest = digests.randomElement(using: &random)!
            let operation = Request.Operation(code: OperationCode.write, name: "n", value: Request.integer(2))
            if renewed.insert(digest).inserted {
                world.harness.send(Request.write(digest, [operation], timeToLive: 1000), UInt64(1 + step))
            }
            for shard in world.harness.shards { _ = shard.backgroundSlice() }
            world.harness.turn()
        }
        world.slices()
        world.harness.settle()
        for digest in digests {
            world.harness.send(Request.get(digest), 0)
            world.harness.settle()
            #expect(world.harness.answers[0]?.result == (renewed.contains(digest) ? .ok : .notFound))
        }
        #expect(world.harness.namespace.index.count == renewed.count && backend.images.count == renewed.count)
        let late = (1...400).compactMap { world.harness.answers[UInt64($0)] }
        #expect(late.count == renewed.count && late.allSatisfy { $0.result == .ok })
    }

    /// No tombstone where no older version can come back; one where it can.
    @Test func tombstonesOnlyWhereTheyAreNeeded() throws {
        let backend = FakeBackend(seed: 9)
        backend.latePercent = 0
        for (lives, isNeeded) in [
            ([5], false), ([3, 5, 5], false), ([.max, 5], true), ([1000, 5], true), ([8, 5], false), ([1000, 3, 5], true),
        ] as [([UInt32], Bool)] {
            let world = try World(backend, [])
            for life in lives { world.put(digest, timeToLive: life) }
            world.pass(after: 12)
            #expect(kind(world) == (isNeeded ? .tombstone : nil), "\(lives)")
            #expect(world.harness.namespace.total(.expiredObjects) == 1)
            world.pass(after: 12)
            #expect(world.harness.namespace.total(.expiredObjects) == 1)
            #expect(kind(world) == (isNeeded ? .tombstone : nil), "\(lives)")
        }
    }

    /// The same after a cold start, which sees all versions in any order; and a deleted record that came back to life.
    @Test(arguments: [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1], [2]])
    func afterAColdStart(_ order: [Int]) throws {
        for (lives, isNeeded) in [([5, 5, 5], false), ([.max, 100, 5], true), ([5, 1000, 5], true), ([1000, 5, 5], true)]
            as [([UInt32], Bool)] {
            let backend = FakeBackend(seed: 3)
            backend.latePercent = 0
            let before = try World(backend, [])
            var images: [(location: UInt64, bytes: [UInt8])] = []
            for life in lives {
                before.put(digest, timeToLive: life)
                let newest = try #require(backend.images.max { $0.key < $1.key })
                images.append((newest.key, newest.value))
            }
            let medium = FakeBackend(seed: 4)
            medium.latePercent = 0
            for number in order { medium.images[images[number].location] = images[number].bytes }
            let after = try World(medium, [])
            let start = try ColdStart(
                after.harness.namespace, recordsMax: 1 << 16, now: after.harness.time.wall, log: { Issue.record("\($0)") })
            for number in order {
                images[number].bytes.withUnsafeBytes { bytes in
                    _ = start.visit(
                        ScannedImage(
                            digest: digest, location: Location(rawValue: images[number].location), image: bytes,
                            sequence: images[number].location),
                        worker: 0)
                }
            }
            start.settleTombstones()
            after.pass(after: 12)
            #expect(kind(after) == (isNeeded && order.count > 1 ? .tombstone : nil), "\(lives) in order \(order)")
        }
    }

    /// A tombstone that a new record has taken the place of still counts when that expires.
    @Test func aRecordOverATombstone() throws {
        let backend = FakeBackend(seed: 5)
        backend.latePercent = 0
        let world = try World(backend, [])
        world.put(digest, timeToLive: .max)
        _ = world.harness.ask(Request.write(digest, [], info2: [.write, .delete, .durableDelete]))
        world.put(digest, timeToLive: 5)
        world.pass()
        #expect(kind(world) == .tombstone)
    }

    /// Nothing fills up while the backend is pressed, and the pass goes on afterwards.
    @Test func refusedDeletesAreTriedInTheNextPass() throws {
        let backend = FakeBackend(seed: 6)
        backend.latePercent = 0
        let world = try World(backend, [])
        world.put(digest, timeToLive: .max)
        world.put(digest, timeToLive: 5)
        backend.failPercent = 100
        world.pass()
        #expect(kind(world) == .live && world.harness.namespace.total(.expiredObjects) == 0)
        backend.failPercent = 0
        world.pass()
        #expect(kind(world) == .tombstone && world.harness.namespace.total(.expiredObjects) == 1)
    }

    /// A threshold is passed: those that die first go, a share in each period, and none of a set that is spared.
    @Test func evictionTakesThoseThatDieFirst() throws {
        var random = SeededRandom(seed: runSeed("ExpiryTests"))
        let backend = FakeBackend(seed: 7)
        backend.latePercent = 0
        let world = try World(backend, .durableAtCommit, reactors: 2) {
            $0.numbers.evictUsedPercent = 60
            $0.numbers.evictTenthsPercent = 100
        }
        let namespace = world.harness.namespace
        var short: [Digest] = []
        for number in 0..<500 {
            let digest = Digest.random(&random)
            if number % 5 == 0 { short.append(digest) }
            world.put(digest, timeToLive: UInt32(number % 5 == 0 ? 1000 + number : 100_000 + 10 * number), set: "evicted")
        }
        var spared: [Digest] = []
        for _ in 0..<50 {
            spared.append(Digest.random(&random))
            world.put(spared.last!, timeToLive: 500, set: "spared")
        }
        namespace.setValues.set(2, .disablesEviction, to: 1)
        world.figures.usedPercent = 59
        world.pass()
        #expect(namespace.total(.evictedObjects) == 0 && !namespace.upkeep.report.isHighWaterBreached)
        world.figures.usedPercent = 60
        world.pass()
        #expect(namespace.upkeep.report.isHighWaterBreached)
        let evicted = Int(namespace.total(.evictedObjects))
        #expect(evicted > 0 && evicted <= 50, "a tenth of those that may go: \(evicted), \(world.lines)")
        #expect(spared.allSatisfy { namespace.index.find($0) != nil })
        let first = short.prefix(evicted)
        #expect(first.allSatisfy { namespace.index.find($0) == nil }, "those that die first")
        #expect(namespace.objectCount == 550 - evicted && backend.images.count == 550 - evicted)
        let report = namespace.upkeep.report
        #expect(world.stored == [report.evictVoidTime] && namespace.upkeep.evictVoidTime == report.evictVoidTime)
        #expect(report.evictVoidTime > world.harness.time.wall.seconds && report.evictTimeToLive > 0)
        world.pass()
        #expect(Int(namespace.total(.evictedObjects)) > evicted && world.stored.count == 2)
        world.figures.usedPercent = 10
        world.pass()
        let before = namespace.total(.evictedObjects)
        world.pass()
        #expect(namespace.total(.evictedObjects) == before && !namespace.upkeep.report.isHighWaterBreached)
    }

    /// The threshold of an earlier process, or of another node, takes effect.
    @Test func aStoredThresholdIsApplied() throws {
        let backend = FakeBackend(seed: 8)
        backend.latePercent = 0
        let world = try World(backend, [])
        world.put(digest, timeToLive: 1000)
        world.put(Digest(low: 1, middle: 1, high: 1), timeToLive: 5000)
        threshold(world, 2000)
        world.pass()
        #expect(world.harness.namespace.total(.evictedObjects) == 1 && kind(world) == nil)
        #expect(world.harness.namespace.objectCount == 1)
    }

    private func threshold(_ world: World, _ seconds: UInt32, isPending: Bool = true) {
        let now = world.harness.time.wall
        world.harness.namespace.upkeep.setThreshold(
            seconds > 0 ? now.seconds + seconds : 0, at: now.milliseconds, isPending: isPending)
    }

    /// One that was stored by an earlier process strikes only what is as old, only after a cold start, and never where
    /// eviction is disabled.
    @Test(arguments: [false, true], [false, true])
    func whatIsNewerThanAThresholdStays(isCold: Bool, isDisabled: Bool) throws {
        let backend = FakeBackend(seed: 11)
        backend.latePercent = 0
        let world = try World(backend, []) { $0.numbers.disablesEviction = isDisabled }
        world.put(digest, timeToLive: 1000)
        threshold(world, 2000, isPending: false)
        world.harness.turn(advancing: 1)
        let fresh = Digest(low: 1, middle: 1, high: 1)
        world.put(fresh, timeToLive: 1000)
        let namespace = world.harness.namespace
        if isCold { _ = try ColdStart(namespace, recordsMax: 1 << 16, now: world.harness.time.wall, log: { _ in }) }
        for _ in 0..<3 { world.pass() }
        let isEvicted = isCold && !isDisabled
        #expect((kind(world) == nil) == isEvicted && namespace.total(.evictedObjects) == (isEvicted ? 1 : 0))
        #expect(namespace.index.find(fresh) != nil)
        #expect(namespace.upkeep.threshold.isPending == (isCold && isDisabled))
    }

    /// Each threshold that a command sets takes effect, also one below the last; 0 takes it back.
    @Test func aLowerThresholdTakesEffect() throws {
        let backend = FakeBackend(seed: 12)
        backend.latePercent = 0
        let world = try World(backend, [])
        let upkeep = world.harness.namespace.upkeep
        threshold(world, 50_000)
        world.pass()
        #expect(upkeep.report.evictVoidTime == upkeep.evictVoidTime)
        world.put(digest, timeToLive: 1000)
        world.pass()
        #expect(kind(world) == .live)
        threshold(world, 2000)
        world.pass()
        #expect(kind(world) == nil && upkeep.report.evictVoidTime == upkeep.evictVoidTime)
        threshold(world, 0)
        #expect(upkeep.report.evictVoidTime == 0 && upkeep.report.evictTimeToLive == 0)
        world.put(digest, timeToLive: 1000)
        world.pass()
        #expect(kind(world) == .live && upkeep.report.evictVoidTime == 0)
    }

    /// What a delete has failed for goes in the next pass.
    @Test func aThresholdStaysPendingWhileDeletesFail() throws {
        let backend = FakeKeyedBackend(seed: 13)
        backend.latePercent = 0
        let world = try World(backend, [.keyed, .durableAtCommit, .deletesLast])
        world.put(digest, timeToLive: 1000)
        threshold(world, 2000)
        backend.failPercent = 100
        world.pass()
        #expect(kind(world) == .live && world.harness.namespace.upkeep.threshold.isPending)
        backend.failPercent = 0
        world.pass()
        #expect(kind(world) == nil && !world.harness.namespace.upkeep.threshold.isPending)
    }

    /// A keyed backend refuses to remove what a truncate has covered: the walk is done again.
    @Test func truncatesAreTriedAgain() throws {
        let backend = FakeKeyedBackend(seed: 14)
        backend.latePercent = 0
        let world = try World(backend, [.keyed, .durableAtCommit, .deletesLast], reactors: 2)
        let namespace = world.harness.namespace
        for number in 0..<50 { world.put(Digest(low: UInt64(number), middle: 3, high: 3), timeToLive: .max) }
        namespace.truncate(set: 0, to: namespace.reserveTruncationTime(wall: world.harness.time.wall))
        backend.failPercent = 100
        world.slices(namespace.truncateBoard)
        #expect(namespace.truncateBoard.figures.failed == 50 && backend.images.count == 50)
        #expect(world.control.tick(world.harness.time, world.figures), "reactors are woken")
        #expect(namespace.isTruncating(set: 0))
        backend.failPercent = 0
        world.slices(namespace.truncateBoard)
        #expect(backend.images.isEmpty && namespace.objectCount == 0)
        #expect(!world.control.tick(world.harness.time, world.figures), "once more is enough")
    }

    /// How many older versions are known that would outlive a later one.
    @Test func longerLivesAreCounted() throws {
        let backend = FakeBackend(seed: 15)
        backend.latePercent = 0
        let world = try World(backend, [])
        world.put(Digest(low: 1, middle: 1, high: 1), timeToLive: 1000)
        world.put(Digest(low: 1, middle: 1, high: 1), timeToLive: 5)
        world.put(Digest(low: 2, middle: 2, high: 2), timeToLive: .max)
        world.put(Digest(low: 2, middle: 2, high: 2), timeToLive: 2000)
        world.put(digest, timeToLive: 5)
        world.pass()
        #expect(world.harness.namespace.upkeep.report.longerLives == 2)
        world.pass(after: 1000)
        #expect(world.harness.namespace.upkeep.report.longerLives == 1)
    }

    /// What a pass counts into is made before reactors begin, and is of a size that a node can spare.
    @Test func countersAreMadeBeforeThePass() throws {
        let world = try World(FakeBackend(seed: 16), [], reactors: 2)
        let upkeep = world.harness.namespace.upkeep
        var plan = UpkeepPlan()
        plan.evictionScale = VoidTimeScale(low: 0, high: .max, count: 1000)
        plan.histogramScale = HistogramScale(now: 0, highestVoidTime: 1000, recordSizeMax: 1 << 20, setCount: 4)
        _ = upkeep.order(plan)
        let tallies = [upkeep.begin(0).1, upkeep.begin(1).1]
        #expect(tallies[0].voidTimes != nil && tallies[0].voidTimes === upkeep.begin(0).1.voidTimes)
        #expect(tallies[0].histograms != nil && tallies[0].histograms === upkeep.begin(0).1.histograms)
        #expect(tallies[0].voidTimes !== tallies[1].voidTimes && tallies[0].histograms !== tallies[1].histograms)
        world.slices()
        #expect(upkeep.collect().evictionCounts.count == 1000)
        for reactors in [1, 4, 32, 256] {
            let count = VoidTimeScale.bucketCount(asked: 10_000_000, reactorCount: reactors)
            #expect(count >= 10_000 && count * (reactors + 2) <= 1 << 24)
            #expect(VoidTimeScale.bucketCount(asked: 10_000, reactorCount: reactors) == 10_000)
            let scale = HistogramScale(
                now: 0, highestVoidTime: 1, recordSizeMax: 1, setCount: 4095, reactorCount: reactors)
            #expect((scale.setCount + 2) * HistogramScale.wordsPerSet * (reactors + 1) <= 1 << 24)
            #expect(scale.setCount == 4095 || reactors > 1)
        }
    }

    /// Sets that were made during a pass count for the namespace.
    @Test func newSetsCountForTheNamespace() {
        let histograms = RecordHistograms(HistogramScale(now: 0, highestVoidTime: 1, recordSizeMax: 1000, setCount: 1))
        for set in 0..<4 {
            var entry = IndexEntry(digest: digest)
            entry.setID = UInt16(set)
            entry.byteCount = 128
            histograms.add(&entry)
        }
        histograms.complete()
        #expect(histograms.counts(.objectSize, set: nil).reduce(0, +) == 4)
        #expect(histograms.counts(.objectSize, set: 1).reduce(0, +) == 1)
        #expect(histograms.holds(set: 1) && !histograms.holds(set: 2))
    }

    /// Without a period nothing is deleted, although a pass counts for the histograms.
    @Test func nothingGoesWithoutAPeriod() throws {
        let backend = FakeBackend(seed: 10)
        backend.latePercent = 0
        let world = try World(backend, .volatile) {
            $0.numbers.nsupPeriodSeconds = 0
            $0.numbers.allowTimeToLiveWithoutNsup = true
            $0.numbers.nsupHistogramPeriodSeconds = 60
            $0.numbers.evictUsedPercent = 10
        }
        world.figures.usedPercent = 90
        for number in 0..<20 {
            world.put(Digest(low: UInt64(number), middle: 5, high: 5), timeToLive: number < 10 ? 5 : 50_000)
        }
        threshold(world, 60_000)
        for _ in 0..<5 { world.pass(after: 100) }
        #expect(world.harness.namespace.index.count == 20)
        #expect(world.harness.namespace.total(.expiredObjects) + world.harness.namespace.total(.evictedObjects) == 0)
        let histograms = try #require(world.harness.namespace.upkeep.report.histograms)
        #expect(histograms.counts(.timeToLive, set: nil).reduce(0, +) == 10)
    }

    @Test func histogramsCountEverything() throws {
        var random = SeededRandom(seed: runSeed("ExpiryTests"))
        let backend = FakeBackend(seed: 9)
        backend.latePercent = 0
        let world = try World(backend, .volatile, reactors: 2) { $0.numbers.nsupHistogramPeriodSeconds = 60 }
        for number in 0..<300 {
            world.put(Digest.random(&random), timeToLive: number < 100 ? .max : 1000, set: number % 3 == 0 ? "a" : "b")
        }
        #expect(world.harness.namespace.upkeep.report.histograms == nil)
        world.pass()
        world.pass()
        let histograms = try #require(world.harness.namespace.upkeep.report.histograms)
        #expect(histograms.counts(.timeToLive, set: nil).reduce(0, +) == 200)
        #expect(histograms.counts(.objectSize, set: nil).reduce(0, +) == 300)
        #expect(histograms.counts(.objectSizeLinear, set: nil)[0] == 300)
        #expect(histograms.counts(.objectSize, set: 1).reduce(0, +) == 100)
        #expect(histograms.counts(.objectSize, set: 2).reduce(0, +) == 200)
        #expect(histograms.counts(.objectSize, set: 7).reduce(0, +) == 0)
        let text = histograms.text(.objectSize, set: nil)
        #expect(text == "units=bytes:[128-256)=300" || text == "units=bytes:[64-128)=300", "\(text)")
        let linear = histograms.text(.objectSizeLinear, set: nil)
        #expect(linear.hasPrefix("units=bytes:hist-width=1048576:bucket-width=1024:buckets=300,0,0,"))
        #expect(histograms.text(.timeToLive, set: nil).hasPrefix("units=seconds:hist-width="))
    }
}
