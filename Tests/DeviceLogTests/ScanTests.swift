import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport
import Testing

private let continuing = [(name: "on-missing-device", value: "continue")]

@Suite struct Scans {
    private static let count = 60

    /// A device with images in several blocks, closed.
    private static func filled(seed: UInt64) throws -> TestLog { try filledWithPlaces(seed: seed).log }

    private static func filledWithPlaces(seed: UInt64) throws -> (log: TestLog, locations: [Location]) {
        let log = TestLog(count: 1, seed: seed)
        let backend = try log.open(["d0"])
        let locations = try backend.append(0..<count)
        try backend.close()
        return (log, locations)
    }

    /// Whether an image that is not shown is the last of its block. Each has a group of its own: a last group whose header
    /// is gone is as if it had never been written.
    private static func isLastLost(_ shown: [Shown], _ locations: [Location]) -> Bool {
        let lost = locations.filter { location in !shown.contains { $0.location == location } }
        return lost.allSatisfy { location in
            !locations.contains { $0.rawValue >> 8 == location.rawValue >> 8 && $0.rawValue > location.rawValue }
        }
    }

    /// What a cold start of a copy of the device shows after `spoil`, with its figures and log lines; nil if it does not
    /// open.
    private static func started(
        _ log: TestLog, _ seed: UInt64, _ spoil: (SimulatedDevice) -> Void
    ) throws -> (shown: [Shown], isCounted: Bool, lines: [String])? {
        let copy = TestLog(log.opener.crashed(seed: seed))
        spoil(copy.opener.all[0])
        guard copy.refusal(["d0"]).isEmpty else { return nil }
        let backend = try copy.open(["d0"])
        let shown = try backend.coldStart(segments: 2)
        let isCounted = backend.statistics.details.contains {
            ($0.name.hasSuffix("damaged_blocks") || $0.name.hasSuffix("damaged_images")) && $0.value != "0"
        }
        return (shown, isCounted, copy.lines.all)
    }

    /// One bit in every sector of the device: what is shown is right, and what is lost is named and counted.
    @Test func everyFlippedSectorIsHarmlessOrNamed() throws {
        let seed = runSeed("everyFlippedSector")
        let log = try Scans.filled(seed: seed)
        var random = SeededRandom(seed: seed)
        var lost = 0
        for sector in 0..<(TestLog.byteCount / 512) {
            for _ in 0..<8 {
                let byte = sector * 512 + Int(random.next() % 512)
                let result = try Scans.started(log, seed) { $0.rot(at: byte) }
                guard let result else {
                    Issue.record("a flipped bit in byte \(byte) keeps the log from opening")
                    continue
                }
                #expect(result.shown.areRight, "byte \(byte)")
                #expect(Set(result.shown.map { $0.location }).count == result.shown.count)
                let isWhole = result.shown.count == Scans.count
                lost += Scans.count - result.shown.count
                #expect(result.shown.count >= Scans.count - 1, "byte \(byte)")
                let isNamed = result.lines.contains { $0.contains("d0: write block") }
                #expect(isWhole || (result.isCounted && isNamed), "byte \(byte)")
            }
        }
        #expect(lost > 0)
    }

    /// A whole sector of noise: its images and those that reach into it are lost, no others.
    @Test func everySectorOfNoiseIsHarmlessOrNamed() throws {
        let seed = runSeed("everySectorOfNoise")
        let (log, locations) = try Scans.filledWithPlaces(seed: seed)
        var random = SeededRandom(seed: seed)
        for sector in 0..<(TestLog.byteCount / 512) {
            let result = try Scans.started(log, seed) { device in
                for byte in 0..<512 where random.next() % 3 > 0 { device.rot(at: sector * 512 + byte) }
            }
            guard let result else {
                Issue.record("noise in sector \(sector) keeps the log from opening")
                continue
            }
            #expect(result.shown.areRight, "sector \(sector)")
            #expect(result.shown.count >= Scans.count - 2, "sector \(sector)")
            #expect(result.isCounted || Scans.isLastLost(result.shown, locations), "sector \(sector)")
        }
    }

    @Test func readErrorsThatPassAreNoHarm() throws {
        let seed = runSeed("readErrorsThatPass")
        let log = try Scans.filled(seed: seed)
        for operation in 1..<60 {
            let result = try Scans.started(log, seed) { $0.inject(.readError, operationsFromNow: operation) }
            #expect(result?.shown.count == Scans.count)
        }
    }

    @Test func aDeviceThatCannotBeReadStopsTheColdStartUnlessTheSettingSays() throws {
        let seed = runSeed("aDeviceThatCannotBeRead")
        let log = TestLog(count: 2, seed: seed)
        let backend = try log.open(["d0", "d1"])
        let locations = try backend.append(0..<Scans.count)
        try backend.close()
        let strict = try log.open(["d0", "d1"])
        log.opener.device("d1")!.inject(.readError, probability: 1)
        #expect(throws: StorageError.self) { try strict.coldStart() }
        #expect(throws: StorageError.self) { try strict.coldStart() }
        log.opener.device("d1")!.heal()
        let lenient = try log.open(["d0", "d1"], continuing)
        log.opener.device("d1")!.inject(.readError, probability: 1)
        let shown = try lenient.coldStart()
        #expect(shown.map(\.number).sorted() == (0..<Scans.count).filter { locations[$0].rawValue >> 37 == 0 })
        #expect(log.lines.contain("bytes of write block") && log.lines.contain("device d1 is given up"))
        #expect(try lenient.append(100..<110).allSatisfy { $0.rawValue >> 37 == 0 })
    }

    @Test(arguments: [1, 2, 3, 7, 40]) func segmentsShareTheWork(_ segments: Int) throws {
        let log = TestLog(count: 3, seed: runSeed("segmentsShareTheWork"))
        let backend = try log.open(TestLog.names(3))
        let locations = try backend.append(0..<90)
        try backend.close()
        let again = try log.open(TestLog.names(3))
        #expect(again.statistics.scanDoneBytes == 0)
        let shown = try again.coldStart(segments: segments)
        #expect(Set(shown.map(\.location)) == Set(locations) && shown.count == 90)
        #expect(again.statistics.scanDoneBytes == again.statistics.scanTotalBytes)
        #expect(again.statistics.scanTotalBytes == again.statistics.totalBytes)
        // And while it serves: from the device, and what is in memory.
        _ = try again.append(90..<100)
        let later = try again.coldStart(segments: segments)
        #expect(later.map(\.number).sorted() == Array(0..<100) && later.areRight)
    }

    @Test func whatTheColdStartDecidesIsWhatLives() throws {
        let log = TestLog(count: 2, seed: runSeed("whatTheColdStartDecides"))
        let backend = try log.open(TestLog.names(2))
        for version in 0..<3 { _ = try backend.append(0..<20, version: version) }
        try backend.close()
        let again = try log.open(TestLog.names(2))
        let shown = try again.coldStart(segments: 3)
        #expect(shown.count == 60)
        let live = (0..<20).map { (NumberedImage.bytes($0).count + 15) / 16 * 16 }.reduce(0, +)
        #expect(again.statistics.usedBytes == UInt64(live))
        for number in 0..<20 {
            let newest = shown.filter { $0.number == number }.max { $0.order < $1.order }!
            #expect(newest.version == 2)
            #expect(try again.holds(number, version: 2, at: newest.location))
        }
    }

    @Test func aStoppedColdStartServesNothing() throws {
        let log = try Scans.filled(seed: runSeed("aStoppedColdStart"))
        let backend = try log.open(["d0"])
        var visits = 0
        try backend.scan(segment: 0, of: 1) { _ in
            visits += 1
            return visits < 5 ? .live : .stop
        }
        #expect(visits == 5)
        #expect(throws: StorageError.outOfSpace) { try backend.append([1]) }
        #expect(throws: StorageError.self) { try backend.coldStart() }
        try backend.close()
        #expect(try log.open(["d0"]).coldStart().count == Scans.count)
    }

    /// Blocks are used again and again; what earlier uses have left in them is never shown, whatever a crash keeps.
    @Test func earlierUsesAreNotShown() throws {
        let seed = runSeed("earlierUses")
        var log = TestLog(count: 1, byteCount: (8 << 10) + 8 * (4 << 10), seed: seed)
        var newest = 0
        for round in 0..<60 {
            let backend = try log.open(["d0"])
            let shown = try backend.coldStart(segments: 2)
            #expect(shown.areRight)
            for number in 0..<12 where round > 0 {
                let best = shown.filter { $0.number == number }.max { $0.order < $1.order }
                #expect(best?.version == newest, "round \(round), number \(number)")
            }
            // Appended and released at once, so that blocks come back; the last version stays.
            newest = round % 200
            let last = shown.filter { one in !shown.contains { $0.number == one.number && $0.order > one.order } }
            _ = try backend.append(0..<12, version: newest)
            let shard = try backend.makeTestShard()
            for one in last {
                shard.release(
                    NumberedImage.digest(one.number), at: one.location,
                    byteCount: NumberedImage.bytes(one.number, version: one.version).count)
            }
            if round % 3 == 0 { try backend.close() }
            log = TestLog(log.opener.crashed(seed: seed &+ UInt64(round)))
        }
    }

    /// A block whose front a crash has lost, with groups of two uses: the older one is hidden. The next use of the block may
    /// spoil the newer one and lose its own front in a crash, too: the hidden must not come back.
    @Test func whatALostFrontHidesDoesNotComeBack() throws {
        let log = TestLog(count: 1, seed: runSeed("whatALostFrontHides"))
        let backend = try #require(try log.open(["d0"]) as? DeviceLogBackend)
        // Each image has a group of its own, in a sector of its own.
        let locations = try backend.append(0..<6)
        let device = try #require(backend.core.devices[0])
        let layout = device.layout
        let block = layout.block(of: locations[0])
        #expect(locations.allSatisfy { layout.block(of: $0) == block })
        var machine = log.opener.crashed(seed: log.seed)

        func store(_ sector: DeviceMemory, _ unit: Int) throws {
            let offset = layout.offset(ofBlock: block) + unit * LogFormat.unitSize
            try ControlChannel(machine.all[0], path: "d0").write(sector.view, offset)
        }
        func numbersOfStart() throws -> [Int] {
            let shown = try TestLog(machine).open(["d0"]).coldStart()
            machine = machine.crashed(seed: log.seed)
            return shown.map(\.number).sorted()
        }
        try store(DeviceMemory(byteCount: 512), 0)
        #expect(try numbersOfStart() == [1, 2, 3, 4, 5])

        let last = layout.unitsPerBlock - 512 / LogFormat.unitSize
        let later = DeviceMemory(byteCount: 512)
        LogFormat.writeGroup(
            GroupHeader(
                units: LogFormat.groupHeaderUnits, sequence: device.lines[block].sequence + 2, block: block, unit: last,
                identity: backend.core.identity, stream: 0),
            to: later.base)
        try store(later, last)
        #expect(try numbersOfStart() == [])
        try store(DeviceMemory(byteCount: 512), last)
        #expect(try numbersOfStart() == [])
    }
}
