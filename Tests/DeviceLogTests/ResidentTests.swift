import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport
import Testing

/// `storage-engine memory` with devices.
@Suite struct Residents {
    private static func plan() -> WarmPlan {
        var plan = WarmPlan()
        plan.isResident = true
        plan.numbers = 120
        return plan
    }

    /// Reads that were submitted to any device while `body` ran.
    private static func reads(_ opener: SimulatedOpener, _ body: () throws -> Void) rethrows -> Int {
        let before = opener.readCount
        try body()
        return opener.readCount - before
    }

    private static func live(_ log: WarmLog, steps: Int) throws {
        for _ in 0..<steps { try log.step() }
    }

    /// Whatever is written, moved or loaded: no read goes to a device, not of defragmentation either.
    @Test(arguments: [false, true]) func readsNeverGoToADevice(_ startsCold: Bool) throws {
        let seed = runSeed("readsNeverGoToADevice")
        let plan = Residents.plan()
        var log = try WarmLog(plan, plan.begin(seed: seed), seed: seed)
        try Residents.live(log, steps: 3000)
        if startsCold {
            try log.close()
            let fresh = SimulatedMemory(isPersistent: false, seed: seed)
            log = try WarmLog(plan, Remains(opener: log.opener, memory: fresh, records: log.index.records), seed: seed)
            #expect(!log.isWarm)
        }
        let count = try Residents.reads(log.opener) {
            #expect(log.index.records.indices.allSatisfy { log.isRight($0) })
            try Residents.live(log, steps: 3000)
            #expect(log.index.records.indices.allSatisfy { log.isRight($0) })
        }
        #expect(count == 0)
        #expect(log.backend.statistics.compactedBlocks > 0)
    }

    /// Going on from memory reads no block from a device; without it every block in which something lives.
    @Test func aWarmStartKeepsTheBlocks() throws {
        let seed = runSeed("aWarmStartKeepsTheBlocks")
        let plan = Residents.plan()
        for isClosed in [true, false] {
            let log = try WarmLog(plan, plan.begin(seed: seed), seed: seed)
            try Residents.live(log, steps: 1500)
            if isClosed { try log.close() }
            let remains = log.kill()
            var again: WarmLog?
            let reads = try Residents.reads(remains.opener) { again = try WarmLog(plan, remains, seed: seed) }
            // The superblocks, twice, and the metadata.
            #expect(again!.isWarm && reads < 12, "\(reads)")
            #expect(try again!.problems(coldSeed: seed).isEmpty)
        }
    }

    /// A namespace goes from one to the other without conversion.
    @Test func bothReadWhatTheOtherWrote() throws {
        let seed = runSeed("bothReadWhatTheOtherWrote")
        var plan = Residents.plan()
        var remains = plan.begin(seed: seed)
        for round in 0..<6 {
            plan.isResident = round % 2 == 0
            let log = try WarmLog(plan, remains, seed: seed &+ UInt64(round))
            #expect(try log.problems(coldSeed: seed).isEmpty)
            try Residents.live(log, steps: 400)
            try log.close()
            #expect(try WarmLog.coldProblems(plan, log.opener, log.index.records).isEmpty)
            remains = Remains(
                opener: log.opener, memory: SimulatedMemory(isPersistent: false, seed: seed), records: log.index.records)
        }
    }

    /// The memory is full before the devices are: writes are refused, deletes and defragmentation make room.
    @Test func fullMemoryIsOutOfSpace() throws {
        let seed = runSeed("fullMemoryIsOutOfSpace")
        var plan = Residents.plan()
        plan.numbers = 2000
        let remains = plan.begin(seed: seed)
        remains.memory.prepare = { name, region in
            if name == "log-buffers" { region.room = 14 * plan.shape.blockSize }
        }
        let log = try WarmLog(plan, remains, seed: seed)
        var written = 0
        var isRefused = false
        while !isRefused, written < plan.numbers {
            do throws(StorageError) {
                isRefused = try !log.append(written, patience: 1000)
                guard !isRefused else { break }
                log.publish(written)
                written += 1
            } catch { isRefused = error == .outOfSpace }
        }
        #expect(isRefused && written > 100, "\(written)")
        #expect(log.backend.statistics.availableBytes == 0)
        #expect(log.index.records.indices.allSatisfy { log.isRight($0) })
        for number in 0..<written where number % 2 == 0 { log.delete(number) }
        for _ in 0..<500 { log.turn() }
        for number in 0..<written / 4 {
            #expect(try log.append(number, patience: 3000))
            log.publish(number)
        }
        #expect(log.index.records.indices.allSatisfy { log.isRight($0) })
        #expect(try WarmLog(plan, log.kill(), seed: seed).problems(coldSeed: seed).isEmpty)
    }

    @Test func growthWaitsForAStart() throws {
        let plan = Residents.plan()
        let log = try WarmLog(plan, plan.begin(seed: 1), seed: 1)
        try log.opener.device("d0")!.grow(to: plan.byteCount + 4 * plan.shape.blockSize)
        #expect(throws: StorageError.settings("a log in memory takes new blocks of d0 in at a start only")) {
            _ = try log.backend.grow(to: nil)
        }
        let again = try WarmLog(plan, log.kill(), seed: 2)
        #expect(again.backend.statistics.totalBytes == UInt64(28 * plan.shape.blockSize))
    }
}
