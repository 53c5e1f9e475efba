// What a device promises while it has power.
import Base
import Device
import TestSupport
import Testing

@Suite struct DevicePromiseTests {
    @Test func whatWasWrittenIsRead() throws {
        var random = SeededRandom(seed: runSeed("DevicePromiseTests"))
        let driver = try makeDriver(seed: random.next())
        var model = [UInt8](repeating: 0, count: 64 << 10)
        for _ in 0..<300 {
            let sectors = Int.random(in: 1...40, using: &random)
            let offset = Int.random(in: 0...(128 - sectors), using: &random) * 512
            let range = offset..<(offset + sectors * 512)
            if Bool.random(using: &random) {
                let bytes = range.map { _ in UInt8.random(in: 0...255, using: &random) }
                let outcome = try driver.write(bytes, at: offset, durable: .random(using: &random))
                #expect(outcome == .done(byteCount: bytes.count))
                model.replaceSubrange(range, with: bytes)
            } else {
                let found = try driver.read(at: offset, range.count)
                #expect(found.outcome == .done(byteCount: range.count) && found.bytes == Array(model[range]))
            }
        }
        #expect(driver.device.contents(at: 0, byteCount: 64 << 10) == model)
    }

    @Test func everyOperationCompletesOnceAndInAnyOrder() throws {
        var orders: Set<[UInt64]> = []
        var severalPolls = 0
        for seed in 0..<20 as Range<UInt64> {
            let driver = try makeDriver(seed: seed)
            let tags = try (0..<8).map { try driver.submitWrite(filled(UInt8($0)), at: $0 * 512) }
            driver.poll()
            if driver.completions.count < 8 { severalPolls += 1 }
            for tag in tags { #expect(driver.finish(tag) == .done(byteCount: 512)) }
            for _ in 0..<10 { driver.poll() }
            #expect(driver.completions.map(\.tag).sorted() == tags)
            orders.insert(driver.completions.map(\.tag))
        }
        #expect(orders.count > 10 && severalPolls > 10)
    }

    @Test func aFullQueueRefusesUntilItIsPolled() throws {
        let driver = try Driver(SimulatedDevice(byteCount: 64 << 10, seed: 1), depth: 2)
        let first = try driver.submitWrite(filled(1), at: 0)
        try driver.submitWrite(filled(2), at: 512)
        #expect(throws: DeviceError.queueFull) { try driver.submitWrite(filled(3), at: 1024) }
        // An end that nobody has taken still has its place.
        for _ in 0..<10 { driver.device.advance() }
        #expect(throws: DeviceError.queueFull) { try driver.submitWrite(filled(3), at: 1024) }
        _ = driver.finish(first)
        for _ in 0..<10 { driver.poll() }
        #expect(try driver.write(filled(3), at: 1024) == .done(byteCount: 512))
        #expect(driver.device.contents(at: 1024, byteCount: 512) == filled(3))
    }

    @Test func whatIsNoTransferOfWholeSectorsIsRefused() throws {
        let driver = try makeDriver(seed: 1, sectorSize: 4096, atomicWriteSize: 4096)
        let sector = driver.buffer(filled(1, 4096))
        let half = UnsafeMutableRawBufferPointer(rebasing: sector[..<512])
        let crooked = UnsafeMutableRawBufferPointer(rebasing: driver.buffer(filled(1, 8192))[512..<4608])
        let wrong: [DeviceOperation] = [
            .read(sector, offset: 512), .read(half, offset: 0), .read(crooked, offset: 0), .read(sector, offset: -4096),
            .read(sector, offset: 64 << 10), .write(UnsafeRawBufferPointer(crooked), offset: 0, durable: false),
            .discard(offset: 0, byteCount: 0), .discard(offset: 60 << 10, byteCount: 8192),
        ]
        for operation in wrong {
            do throws(DeviceError) {
                try driver.queue.submit(operation, tag: 1)
                Issue.record("\(operation) was accepted")
            } catch {
                guard case .invalid = error else { Issue.record("\(operation): \(error)"); continue }
            }
        }
        #expect(driver.device.underWayCount == 0)
    }

    @Test func readsHoldRubbishUntilTheyComplete() throws {
        let driver = try makeDriver(seed: 1)
        let buffer = driver.buffer(filled(0))
        driver.device.stall()
        let tag = try driver.submit(.read(buffer, offset: 0))
        #expect(Array(buffer) != filled(0))
        driver.device.release()
        #expect(driver.finish(tag) == .done(byteCount: 512) && Array(buffer) == filled(0))
    }

    @Test func aStalledDeviceCompletesNothing() throws {
        let driver = try makeDriver(seed: 2)
        driver.device.stall()
        let tag = try driver.submitWrite(filled(7), at: 0)
        for _ in 0..<100 { driver.poll() }
        #expect(driver.completions.isEmpty && driver.device.underWayCount == 1)
        #expect(driver.device.contents(at: 0, byteCount: 512) == filled(0))
        driver.device.release()
        #expect(driver.finish(tag) == .done(byteCount: 512))
    }

    @Test func growthBringsZeros() throws {
        let driver = try makeDriver(seed: 1)
        #expect(try driver.write(filled(9), at: 63 << 10) == .done(byteCount: 512))
        try driver.device.grow(to: 100 << 10)
        #expect(driver.device.geometry.byteCount == 100 << 10)
        #expect(try driver.read(at: 64 << 10, 36 << 10).bytes == filled(0, 36 << 10))
        #expect(try driver.write(filled(5), at: (100 << 10) - 512, durable: true) == .done(byteCount: 512))
        let crashed = driver.device.crashed(seed: 1)
        #expect(crashed.geometry.byteCount == 100 << 10)
        #expect(crashed.contents(at: (100 << 10) - 512, byteCount: 512) == filled(5))
        #expect(throws: DeviceError.self) { try driver.device.grow(to: 64 << 10) }
        #expect(throws: DeviceError.self) { try driver.device.grow(to: (200 << 10) + 1) }
    }

    /// Sector by sector the old bytes or zeros: over many seeds both.
    @Test func discardedSectorsReadAsZeroOrAsBefore() throws {
        var zeros = 0
        var kept = 0
        for seed in 0..<20 as Range<UInt64> {
            let driver = try makeDriver(seed: seed)
            #expect(try driver.write(filled(3, 4096), at: 0) == .done(byteCount: 4096))
            #expect(driver.finish(try driver.submit(.discard(offset: 512, byteCount: 2048))) == .done(byteCount: 2048))
            let bytes = driver.device.contents(at: 0, byteCount: 4096)
            for sector in 0..<8 {
                let found = Array(bytes[(sector * 512)..<(sector * 512 + 512)])
                if (1..<5).contains(sector), found == filled(0) { zeros += 1 } else {
                    kept += 1
                    #expect(found == filled(3), "seed \(seed), sector \(sector)")
                }
            }
        }
        #expect(zeros > 10 && kept > 90)
    }

    @Test func ownersOfOtherQueuesAreWoken() throws {
        let device = SimulatedDevice(byteCount: 64 << 10, seed: 3)
        let woken = KeptCount()
        let sleeper = try device.makeQueue(depth: 4) { woken.add() }
        let other = try Driver(device)
        let sector = other.buffer(filled(1))
        try sleeper.submit(.write(UnsafeRawBufferPointer(sector), offset: 0, durable: false), tag: 77)
        for _ in 0..<10 { other.poll() }
        #expect(woken.value == 1 && other.completions.isEmpty)
        var tags: [UInt64] = []
        sleeper.poll { tags.append($0.tag) }
        #expect(tags == [77])
    }

    @Test func aQueueThatIsLetGoNeedsItsBuffersNoMore() throws {
        var stored = 0
        for seed in 0..<40 as Range<UInt64> {
            let device = SimulatedDevice(byteCount: 64 << 10, seed: seed)
            device.stall()
            do {
                let driver = try Driver(device)
                try driver.submitWrite(filled(4), at: 0)
            }
            device.release()
            for _ in 0..<10 { device.advance() }
            #expect(device.underWayCount == 0)
            let found = device.contents(at: 0, byteCount: 512)
            #expect(found == filled(4) || found == filled(0))
            if found == filled(4) { stored += 1 }
        }
        #expect((1..<40).contains(stored))
    }

    @Test func oneSeedGivesOneHistory() throws {
        func history(_ seed: UInt64) throws -> ([DeviceCompletion], [UInt8], [UInt8]) {
            var random = SeededRandom(seed: 5)
            let driver = try makeDriver(seed: seed)
            for fault in DeviceFault.allCases { driver.device.inject(fault, probability: 0.05) }
            for step in 0..<200 {
                let offset = Int.random(in: 0..<120, using: &random) * 512
                switch Int.random(in: 0..<4, using: &random) {
                case 0: try driver.submit(.read(driver.buffer(filled(0)), offset: offset))
                case 1: try driver.submit(.flush)
                default: try driver.submitWrite(filled(UInt8(step), 1024), at: offset, durable: step % 3 == 0)
                }
                if step % 3 == 0 { for _ in 0..<3 { driver.poll() } }
            }
            for _ in 0..<10 { driver.poll() }
            let crashed = driver.device.crashed(seed: 8)
            return (driver.completions, driver.device.contents(at: 0, byteCount: 64 << 10),
                crashed.contents(at: 0, byteCount: 64 << 10))
        }
        let (first, again, other) = try (history(11), history(11), history(12))
        #expect(first.0 == again.0 && first.1 == again.1 && first.2 == again.2)
        #expect(first.0 != other.0)
        #expect(first.0.count == 200)
    }
}
