import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport
import Testing

/// Processes that die and go on from what they left: how many did, and what was wrong first.
private struct Generations {
    private(set) var starts = 0
    private(set) var problem: String?
    private var random: SeededRandom
    private let canary: LogCanary?

    init(seed: UInt64, canary: LogCanary? = nil) {
        random = SeededRandom(seed: seed)
        self.canary = canary
    }

    /// One history of several processes.
    mutating func run() throws {
        var plan = WarmPlan.random(&random, canary: canary)
        var remains = plan.begin(seed: random.next())
        for generation in 0..<Int.random(in: 2...5, using: &random) {
            guard let left = try live(plan, remains, isFirst: generation == 0), problem == nil else { return }
            remains = left
            // The next one has its blocks in memory, or no more.
            if Int.random(in: 0..<6, using: &random) == 0 { plan.isResident.toggle() }
        }
        // The last one ends as it should, and nobody goes on from its memory.
        guard let last = try start(plan, remains, isFirst: false) else { return }
        for _ in 0..<50 { try last.step() }
        try last.close()
        note(try WarmLog.coldProblems(plan, last.opener, last.index.records), "after the end")
    }

    private mutating func note(_ problems: [String], _ moment: String) {
        guard problem == nil, let first = problems.first else { return }
        problem = "\(moment): \(first)"
    }

    /// Nil if it does not start, which is noted.
    private mutating func open(
        _ plan: WarmPlan, _ remains: Remains, isFirst: Bool = false, eventsLeft: Int? = nil
    ) throws -> WarmLog? {
        starts += 1
        // What a kill leaves of writes that do not last is known of whole devices only, not of an image of their crash.
        let dies = plan.isPersistent || !plan.isSyncDisabled
        do {
            let log = try WarmLog(plan, remains, eventsLeft: dies ? eventsLeft : nil, seed: random.next())
            if !isFirst, !log.isWarm { note(["cold: \(log.memory.reasons)"], "a start") }
            return log
        } catch StorageError.medium(let sentence) {
            note([sentence], "a start")
            return nil
        }
    }

    /// A process that has started; before it, some may have died while they did.
    private mutating func start(_ plan: WarmPlan, _ begin: Remains, isFirst: Bool) throws -> WarmLog? {
        var remains = begin
        while !isFirst, Int.random(in: 0..<3, using: &random) > 0 {
            guard let log = try open(plan, remains, eventsLeft: Int.random(in: 0..<30, using: &random)) else { return nil }
            guard let left = log.remains else { break }
            remains = left
        }
        return try open(plan, remains, isFirst: isFirst)
    }

    /// A process from its start to its death; what it leaves, unless it does not start.
    private mutating func live(_ plan: WarmPlan, _ begin: Remains, isFirst: Bool) throws -> Remains? {
        guard let checked = try start(plan, begin, isFirst: isFirst) else { return nil }
        note(try checked.problems(coldSeed: random.next()), "after a start")
        let remains = Remains(opener: checked.opener, memory: checked.memory.afterKill(), records: checked.index.records)
        guard let log = try open(plan, remains, eventsLeft: Int.random(in: 20..<1500, using: &random)) else { return nil }
        for _ in 0..<Int.random(in: 10...600, using: &random) where log.remains == nil { try log.step() }
        return log.remains ?? log.kill()
    }
}

@Suite struct WarmStarts {
    @Test func processesThatDieLoseNothing() throws {
        let seed = runSeed("processesThatDieLoseNothing")
        var generations = Generations(seed: seed)
        var histories = 0
        try forAWhile(10) {
            guard generations.problem == nil else { return }
            try generations.run()
            histories += 1
        }
        print("processesThatDieLoseNothing: \(histories) histories, \(generations.starts) starts")
        #expect(generations.problem == nil)
    }

    /// Power fails while a process goes on from shared memory, which is lost with that: the devices alone have everything
    /// that was committed, whatever was written again half.
    @Test func powerFailsDuringAStart() throws {
        let seed = runSeed("powerFailsDuringAStart")
        var random = SeededRandom(seed: seed)
        var deaths = 0
        try forAWhile(5, until: deaths > 0) {
            let history = random.next()
            var random = SeededRandom(seed: history)
            var plan = WarmPlan.random(&random)
            (plan.isPersistent, plan.isSyncDisabled) = (false, false)
            let log = try WarmLog(plan, plan.begin(seed: random.next()), seed: random.next())
            for _ in 0..<Int.random(in: 50...800, using: &random) { try log.step() }
            let committed = try log.commitAll()
            for _ in 0..<Int.random(in: 0...60, using: &random) { try log.step() }
            let start = try WarmLog(
                plan, log.kill(), eventsLeft: Int.random(in: 0..<40, using: &random), seed: random.next())
            guard let left = start.remains else { return }
            deaths += 1
            let lost = try WarmLog.lost(plan, left, committed: committed)
            #expect(lost.isEmpty, "history \(history)")
        }
        print("powerFailsDuringAStart: \(deaths) starts")
        #expect(deaths > 0)
    }

    /// Room in the memory for few buffers only: the log works with those, and dies and goes on as ever.
    @Test(arguments: 4...9) func fewBuffersAreEnough(_ buffers: Int) throws {
        let seed = runSeed("fewBuffersAreEnough")
        var plan = WarmPlan()
        plan.settings = [("post-write-cache", "65536")]
        var remains = plan.begin(seed: seed)
        for round in 0..<6 {
            remains.memory.prepare = { name, region in
                if name == "log-buffers" { region.room = buffers * plan.shape.blockSize }
            }
            let log = try WarmLog(plan, remains, seed: seed &+ UInt64(round))
            #expect(log.isWarm == (round > 0))
            for number in 0..<plan.numbers * 8 {
                #expect(try log.append(number % plan.numbers))
                log.publish(number % plan.numbers)
                if number % 3 == 0 { log.turn() }
            }
            #expect(log.memory.regions.first { $0.name == "log-buffers" }!.region.backedByteCount
                <= buffers * plan.shape.blockSize)
            #expect(log.index.records.indices.allSatisfy { log.isRight($0) })
            remains = log.kill()
        }
    }

    /// With room the cache grows to what it may have, step by step.
    @Test func buffersAreBackedWhenTheyAreNeeded() throws {
        let seed = runSeed("buffersAreBackedWhenTheyAreNeeded")
        var plan = WarmPlan()
        plan.settings = [("post-write-cache", "65536")]
        plan.numbers = 350
        let log = try WarmLog(plan, plan.begin(seed: seed), seed: seed)
        let region = log.memory.regions.first { $0.name == "log-buffers" }!.region
        #expect(region.backedByteCount == 4 * plan.shape.blockSize)
        for number in 0..<plan.numbers {
            #expect(try log.append(number))
            log.publish(number)
            for _ in 0..<4 { log.turn() }
        }
        // The cache is full; not all that writing could need is backed.
        let backed = region.backedByteCount / plan.shape.blockSize
        #expect(backed >= 16 && backed < log.backend.core.buffers.count, "\(backed)")
    }

    @Test func withoutRoomThereIsASentence() throws {
        let plan = WarmPlan()
        let remains = plan.begin(seed: 1)
        remains.memory.prepare = { name, region in if name == "log-buffers" { region.room = 3 * plan.shape.blockSize } }
        var sentence = ""
        do { _ = try WarmLog(plan, remains, seed: 1) } catch StorageError.settings(let words) { sentence = words }
        #expect(sentence.contains("the shmem of the index is full: 1 MB more are needed for write buffers"), "\(sentence)")
        #expect(sentence.contains("max-write-cache") && sentence.contains("index-type heap"))
    }

    /// Settings that ask for more or fewer buffers from start to start.
    @Test func theShapeOfTheBuffersMayChange() throws {
        let seed = runSeed("theShapeOfTheBuffersMayChange")
        var random = SeededRandom(seed: seed)
        var plan = WarmPlan()
        var remains = plan.begin(seed: seed)
        for round in 0..<40 {
            let blocks = Int.random(in: 2...40, using: &random)
            plan.settings = [("post-write-cache", "\(blocks * plan.shape.blockSize)")]
            let log = try WarmLog(plan, remains, seed: random.next())
            #expect(log.isWarm == (round > 0))
            let problems = try log.problems(coldSeed: random.next())
            #expect(problems.isEmpty)
            for _ in 0..<Int.random(in: 0..<300, using: &random) { try log.step() }
            remains = log.kill()
        }
    }

    /// What was closed needs no writes at all to go on, and reads no blocks.
    @Test func aClosedLogGoesOnWithoutWriting() throws {
        let seed = runSeed("aClosedLogGoesOnWithoutWriting")
        let plan = WarmPlan()
        let log = try WarmLog(plan, plan.begin(seed: seed), seed: seed)
        for _ in 0..<400 { try log.step() }
        try log.close()
        let again = try WarmLog(plan, log.kill(), seed: seed)
        #expect(again.isWarm && again.lines.contain("0 write blocks were in it, 0 of them were written again"))
        #expect(try again.problems(coldSeed: seed).isEmpty)
        #expect(again.backend.statistics.scanTotalBytes == 0)
    }

    /// The same finds a log that forgets what was not written, and one whose images do not outlive a loss of power.
    @Test(arguments: [LogCanary.forgetsUnwritten, .publishesUnpersisted]) func mistakesAreFound(_ canary: LogCanary) throws {
        let seed = runSeed("mistakesAreFound")
        var generations = Generations(seed: seed, canary: canary)
        for _ in 0..<100 where generations.problem == nil {
            try generations.run()
        }
        #expect(generations.problem != nil)
    }
}
