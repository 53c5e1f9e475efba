// Defragmentation over simulated devices.
import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport
import Testing

private func shape(_ blockSize: Int, canary: LogCanary? = nil) -> LogShape {
    var shape = LogShape()
    (shape.blockSize, shape.headSize, shape.flushUnit) = (blockSize, 8 << 10, 512)
    shape.canary = canary
    return shape
}

private func opener(_ blockSize: Int, blocks: Int, devices: Int = 1, seed: UInt64) -> SimulatedOpener {
    SimulatedOpener(count: devices, byteCount: (8 << 10) + blocks * blockSize, seed: seed)
}

/// How many images of at most `size` bytes fill so much of a log.
private func count(_ percent: Int, blocks: Int, blockSize: Int, averageSize: Int) -> Int {
    blocks * blockSize / 100 * percent / averageSize
}

@Suite(.serialized) struct Defragmentation {
    // ---- Space ----

    @Test(arguments: [(4 << 10, 1, 1), (16 << 10, 2, 1), (64 << 10, 2, 2)])
    func overwritesGoOnForEver(_ blockSize: Int, _ shardCount: Int, _ deviceCount: Int) throws {
        let seed = runSeed("overwritesGoOnForEver")
        var random = SeededRandom(seed: seed)
        let blocks = 48
        let size = blockSize / 16
        let numbers = count(62, blocks: blocks * deviceCount, blockSize: blockSize, averageSize: size / 2 + 40)
        let machine = opener(blockSize, blocks: blocks, devices: deviceCount, seed: seed)
        let log = try OverwriteLog(
            machine, shape(blockSize), count: numbers, size: .upTo(size), shardCount: shardCount,
            settings: [("defrag-lwm-pct", "85")], deviceCount: deviceCount)
        for number in 0..<numbers { try log.write(number, shard: number % shardCount) }
        for step in 0..<numbers * 12 {
            try log.write(Int.random(in: 0..<numbers, using: &random), shard: step % shardCount)
            if step % 8 == 0 { log.turn() }
            if step % 64 == 0 { log.clock.advance(1) }
        }
        #expect(log.wrong.isEmpty)
        let defragged = log.core.present.reduce(0) { $0 + $1.figures[.defraggedBlocks] }
        #expect(defragged > 4 * blocks * deviceCount)
        #expect(log.core.present.reduce(0) { $0 + $1.figures[.liveUnits] } == log.liveUnits)
        log.settle()
        let versions = log.index.entries.map(\.version)
        try log.backend.close()
        let again = try OverwriteLog(
            machine, shape(blockSize), count: numbers, size: .upTo(size), deviceCount: deviceCount)
        #expect(again.index.entries.map(\.version) == versions)
        #expect(again.wrong.isEmpty)
    }

    /// Nothing before the target is reached, and nothing of which too much lives.
    @Test func targetAndMarkAreHonoured() throws {
        let seed = runSeed("targetAndMarkAreHonoured")
        let numbers = 600
        let log = try OverwriteLog(
            opener(4 << 10, blocks: 64, seed: seed), shape(4 << 10), count: numbers, size: .fixed(192),
            settings: [("defrag-free-target-pct", "50"), ("defrag-lwm-pct", "40")])
        // 20 images a block: 30 blocks, half of them dead in the first 10.
        for number in 0..<numbers { try log.write(number) }
        log.settle()
        for number in stride(from: 0, to: 200, by: 2) { log.delete(number) }
        log.settle()
        #expect(log.device.freeSoonCount >= log.device.freeTargetBlocks)
        #expect(log.compaction.wantedBytes == 0)
        // Below the target now, but half of a block is more than 40 %.
        for number in 0..<100 { try log.write(2 * number) }
        log.settle()
        #expect(log.device.freeSoonCount < log.device.freeTargetBlocks)
        #expect(log.device.figures[.defragReads] == 0)
        #expect(log.compaction.wantedBytes == 0)
        // Three of ten live in the blocks of 200 to 399.
        for number in 200..<400 where number % 10 > 2 { log.delete(number) }
        log.settle()
        #expect(log.device.figures[.defraggedBlocks] > 0)
        #expect(log.device.freeSoonCount >= log.device.freeTargetBlocks)
        #expect(log.wrong.isEmpty)
    }

    /// With 65 % live and overwrites at random no block falls below a mark of 50 %: it rises when blocks run short,
    /// and the log
    /// never runs out of space. Full of live images it does, says so rather than that it is overloaded, and takes writes
    /// again when something was deleted.
    @Test func theMarkRisesBeforeTheLogIsFull() throws {
        let seed = runSeed("theMarkRisesBeforeTheLogIsFull")
        var random = SeededRandom(seed: seed)
        let (blocks, blockSize) = (256, 16 << 10)
        let numbers = count(65, blocks: blocks, blockSize: blockSize, averageSize: 128)
        let most = count(99, blocks: blocks, blockSize: blockSize, averageSize: 128)
        let log = try OverwriteLog(
            PlainOpener(device: PlainDevice(byteCount: (8 << 10) + blocks * blockSize)), shape(blockSize), count: most,
            size: .fixed(128), settings: [("flush-size", "\(blockSize)")])
        for number in 0..<numbers { try log.write(number) }
        for _ in 0..<4 * numbers { try log.write(Int.random(in: 0..<numbers, using: &random)) }
        #expect(log.device.figures[.defraggedBlocks] > 0)
        var failure: StorageError?
        for number in numbers..<most where failure == nil {
            do throws(StorageError) { try log.write(number) } catch { failure = error }
        }
        #expect(failure == .outOfSpace)
        #expect(!(0..<blocks).contains { log.device.isEligible($0) })
        #expect(log.compaction.wantedBytes == 0 && !log.core.isShortOfBlocks)
        for number in stride(from: 0, to: numbers, by: 3) { log.delete(number) }
        for _ in 0..<numbers { try log.write(Int.random(in: 0..<numbers / 3, using: &random) * 3 + 1) }
        #expect(log.wrong.isEmpty)
    }

    /// A table of several slices, and one of a part of one.
    @Test(arguments: [300, 5000]) func theEmptiestGoesFirst(_ blocks: Int) throws {
        let seed = runSeed("theEmptiestGoesFirst")
        var random = SeededRandom(seed: seed)
        let log = try OverwriteLog(
            PlainOpener(device: PlainDevice(byteCount: (8 << 10) + blocks * 512)), shape(512), count: 1, size: .fixed(64),
            settings: [("defrag-free-target-pct", "90")])
        let device = log.device
        for block in 0..<blocks {
            device.locked { _ = device.takeFree(reserve: 0) }
            device.addLive(block, Int.random(in: 1...31, using: &random))
            device.closeBlock(block)
        }
        device.locked { for block in 0..<40 { device.giveBackFree(block) } }
        var left = (0..<blocks).filter { device.liveUnits($0) < 16 }.map { device.liveUnits($0) }.sorted()
        for _ in 0..<30 {
            var answer = device.choice.choose(device, nowMilliseconds: 1)
            while case .looking = answer { answer = device.choice.choose(device, nowMilliseconds: 1) }
            guard case .victim(let block) = answer else {
                Issue.record("no victim though \(left.count) are eligible")
                return
            }
            #expect(device.liveUnits(block) == left.removeFirst())
        }
    }

    // ---- Claims ----

    @Test func claimedImagesAreTakenLater() throws {
        let seed = runSeed("claimedImagesAreTakenLater")
        let numbers = 400
        let log = try OverwriteLog(
            opener(4 << 10, blocks: 32, seed: seed), shape(4 << 10), count: numbers, size: .fixed(192),
            settings: [("defrag-free-target-pct", "90")])
        log.index.notesMoves = true
        for number in 0..<numbers { try log.write(number) }
        log.turn(slices: 0)
        for number in 0..<numbers where number % 10 != 0 { log.delete(number) }
        let claimed = stride(from: 0, to: numbers, by: 50).map { $0 }
        for number in claimed { log.index.entries[number].isClaimed = true }
        let before = claimed.map { log.index.entries[$0].location }
        for _ in 0..<400 { log.turn() }
        #expect(claimed.map { log.index.entries[$0].location } == before)
        #expect(log.index.movedFrom.count >= 400 / 10 - claimed.count - 10)
        let reads = log.device.figures[.defragReads]
        // Time stands still: nobody tries again.
        for _ in 0..<400 { log.turn() }
        #expect(log.device.figures[.defragReads] == reads)
        log.clock.advance(DefragChoice.patienceMilliseconds)
        for number in claimed { log.index.entries[number].isClaimed = false }
        log.settle()
        let after = claimed.map { log.index.entries[$0].location }
        #expect(zip(before, after).filter { $0 != $1 }.count >= claimed.count - 1)
        #expect(log.wrong.isEmpty)
    }

    @Test func nothingMovesUnderAScan() throws {
        let seed = runSeed("nothingMovesUnderAScan")
        let numbers = 400
        let log = try OverwriteLog(
            opener(4 << 10, blocks: 32, seed: seed), shape(4 << 10), count: numbers, size: .fixed(192),
            settings: [("defrag-free-target-pct", "90")])
        for number in 0..<numbers { try log.write(number) }
        for number in 0..<numbers where number % 4 != 0 { log.delete(number) }
        log.turn()
        log.core.scanBegan()
        let before = log.index.entries.map(\.location)
        #expect(log.compaction.wantedBytes == 0)
        for _ in 0..<50 { _ = try log.compaction.compact(on: log.shards[0], byteBudget: 1 << 20, arbiter: log.index) }
        #expect(log.index.entries.map(\.location) == before)
        log.core.scanEnded()
        log.settle()
        #expect(log.device.figures[.defraggedBlocks] > 0)
        #expect(log.wrong.isEmpty)
    }

    // ---- Damage ----

    /// A block with rot in it, or that cannot be read, keeps what was not moved, is named once, and tried no more.
    @Test(arguments: [DeviceFault.bitRot, .readError]) func damagedBlocksAreLeft(_ fault: DeviceFault) throws {
        let seed = runSeed("damagedBlocksAreLeft")
        let numbers = 400
        let machine = opener(4 << 10, blocks: 32, seed: seed)
        let log = try OverwriteLog(
            machine, shape(4 << 10), count: numbers, size: .fixed(192),
            settings: [("defrag-free-target-pct", "90"), ("post-write-cache", "0")])
        for number in 0..<numbers { try log.write(number) }
        for _ in 0..<20 { log.turn(slices: 0) }
        log.clock.advance(2000)
        for _ in 0..<20 { log.turn(slices: 0) }
        for number in 0..<numbers where number % 5 != 0 { log.delete(number) }
        let spoiled = 100
        let location = try #require(log.index.entries[spoiled].location)
        let block = log.device.layout.block(of: location)
        let offset = log.device.layout.offset(ofBlock: block) + log.device.layout.unit(of: location) * LogFormat.unitSize
        if fault == .bitRot {
            machine.all[0].rot(at: offset + 100)
            log.settle()
        } else {
            machine.all[0].inject(.readError, operationsFromNow: 1)
            log.settle()
            machine.all[0].heal()
        }
        let reads = log.device.figures[.defragReads]
        log.settle()
        #expect(log.device.figures[.defragReads] == reads)
        #expect(log.device.figures[.damagedBlocks] == 1)
        #expect(log.lines.all.filter { $0.contains("cannot be emptied") }.count == 1)
        #expect(log.device.figures[.defraggedBlocks] > 10)
        #expect(log.wrong.isEmpty == (fault == .readError) || log.wrong == [spoiled])
        #expect(fault == .readError || log.index.entries[spoiled].location == location)
    }

    /// A device that is given up stops neither the other one nor its shard.
    @Test func fencedDevicesAreLeftAlone() throws {
        let seed = runSeed("fencedDevicesAreLeftAlone")
        let numbers = 800
        let machine = opener(4 << 10, blocks: 32, devices: 2, seed: seed)
        let log = try OverwriteLog(
            machine, shape(4 << 10), count: numbers, size: .fixed(192),
            settings: [("defrag-free-target-pct", "90"), ("post-write-cache", "0")], deviceCount: 2)
        for number in 0..<numbers { try log.write(number) }
        log.clock.advance(2000)
        for _ in 0..<20 { log.turn(slices: 0) }
        for number in 0..<numbers where number % 5 != 0 { log.delete(number) }
        // The reads of the first victim never end.
        machine.all[0].stall()
        log.turn()
        log.core.fence(log.core.present[0], "the test says so")
        let before = log.core.present[0].figures[.movedImages]
        log.settle()
        #expect(log.core.present[0].figures[.movedImages] == before)
        #expect(log.core.present[1].figures[.defraggedBlocks] > 10)
    }

    // ---- Crashes ----

    /// Overwrites with defragmentation until power fails at some operation; how many numbers came back as no commit allows.
    private func lostInCrash(_ random: inout SeededRandom, canary: LogCanary?) throws -> Int {
        let seed = random.next()
        let blockSize = [4 << 10, 16 << 10].randomElement(using: &random)!
        let blocks = 24
        let size = blockSize / 16
        let numbers = count(55, blocks: blocks, blockSize: blockSize, averageSize: size / 2 + 40)
        let machine = opener(blockSize, blocks: blocks, seed: seed)
        let settings = [
            ("defrag-lwm-pct", "85"), ("disable-odsync", Bool.random(using: &random) ? "true" : "false"),
            ("defrag-free-target-pct", "30"),
        ].map { (name: $0.0, value: $0.1) }
        let log = try OverwriteLog(
            machine, shape(blockSize, canary: canary), count: numbers, size: .upTo(size), settings: settings)
        for number in 0..<numbers { try log.write(number) }
        guard try log.commit(0) else { return 0 }
        var committed = log.index.entries.map(\.version)
        let steps = Int.random(in: 1...numbers * 4, using: &random)
        for step in 0..<steps {
            try log.write(Int.random(in: 0..<numbers, using: &random))
            if step % 4 == 0 { log.turn() }
            if step % 64 == 0 { log.clock.advance(1) }
            guard Int.random(in: 0..<50, using: &random) == 0, try log.commit(0) else { continue }
            committed = log.index.entries.map(\.version)
        }
        let appended = log.index.entries.map(\.version)
        let again = try OverwriteLog(
            machine.crashed(seed: random.next()), shape(blockSize), count: numbers, size: .upTo(size), settings: settings)
        let wrong = again.wrong
        return (0..<numbers).filter { number in
            let entry = again.index.entries[number]
            return entry.location == nil || entry.version < committed[number] || entry.version > appended[number]
                || wrong.contains(number)
        }.count
    }

    @Test func crashesLoseNothing() throws {
        let seed = runSeed("crashesLoseNothing")
        var random = SeededRandom(seed: seed)
        var lost = 0
        var crashes = 0
        try forAWhile(10) {
            lost += try lostInCrash(&random, canary: nil)
            crashes += 1
        }
        print("crashesLoseNothing: \(crashes) crashes")
        #expect(lost == 0)
    }

    /// The same finds a log that writes over blocks before the copies of their images last.
    @Test func earlyReuseIsFound() throws {
        let seed = runSeed("earlyReuseIsFound")
        var random = SeededRandom(seed: seed)
        var lost = 0
        for _ in 0..<200 where lost == 0 { lost += try lostInCrash(&random, canary: .reusesEarly) }
        #expect(lost > 0)
    }
}
