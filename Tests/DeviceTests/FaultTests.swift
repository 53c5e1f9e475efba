// The faults of the twin: each fires when it is told to, does what it says, and is counted.
import Base
import Device
import TestSupport
import Testing

@Suite struct DeviceFaultTests {
    @Test func readsAndFlushesFail() throws {
        let driver = try makeDriver(seed: 1)
        #expect(try driver.write(filled(1), at: 0) == .done(byteCount: 512))
        driver.device.inject(.readError, operationsFromNow: 2)
        driver.device.inject(.flushError, operationsFromNow: 1)
        #expect(try driver.read(at: 0, 512).outcome == .done(byteCount: 512))
        #expect(try driver.flush() == .inputOutput)
        #expect(try driver.read(at: 0, 512).outcome == .inputOutput)
        #expect(try driver.read(at: 0, 512).bytes == filled(1))
        #expect(driver.device.fired(.readError) == 1 && driver.device.fired(.flushError) == 1)
        let lost = (0..<40 as Range<UInt64>).filter {
            driver.device.crashed(seed: $0).contents(at: 0, byteCount: 512) == filled(0)
        }
        #expect(!lost.isEmpty, "a flush that failed makes nothing durable")
    }

    @Test func theNthOperationOfAnyKindFails() throws {
        for number in 1...4 {
            let driver = try makeDriver(seed: 1)
            driver.device.inject(.failure, operationsFromNow: number)
            let outcomes = [
                try driver.write(filled(1), at: 0), try driver.flush(), try driver.read(at: 0, 512).outcome,
                driver.finish(try driver.submit(.discard(offset: 0, byteCount: 512))),
            ]
            for (place, outcome) in outcomes.enumerated() {
                #expect((outcome == .inputOutput) == (place + 1 == number), "operation \(number)")
            }
            #expect(driver.device.fired(.failure) == 1)
        }
    }

    /// A mixture of old and new pieces, and each may vanish in a crash even if the write was to be durable.
    @Test func aFailedWriteLeavesAnyMixture() throws {
        var mixed = 0
        for seed in 0..<40 as Range<UInt64> {
            let driver = try makeDriver(seed: seed)
            driver.device.inject(.writeError, operationsFromNow: 1)
            #expect(try driver.write(filled(1, 8 * 512), at: 0, durable: true) == .inputOutput)
            let bytes = driver.device.contents(at: 0, byteCount: 8 * 512)
            #expect(bytes.allSatisfy { $0 < 2 })
            for sector in 0..<8 { #expect(Set(bytes[(sector * 512)..<(sector * 512 + 512)]).count == 1) }
            if Set(bytes).count == 2 { mixed += 1 }
        }
        #expect(mixed > 20)
    }

    @Test func rotTurnsOneBitForEver() throws {
        let driver = try makeDriver(seed: 4)
        let bytes = filled(0xFF, 4096)
        #expect(try driver.write(bytes, at: 0, durable: true) == .done(byteCount: 4096))
        driver.device.inject(.bitRot, operationsFromNow: 1)
        let first = try driver.read(at: 0, 4096)
        #expect(first.outcome == .done(byteCount: 4096))
        let wrong = zip(first.bytes, bytes).filter { $0 != $1 }
        #expect(wrong.count == 1 && (wrong[0].0 ^ wrong[0].1).nonzeroBitCount == 1)
        #expect(try driver.read(at: 0, 4096).bytes == first.bytes)
        #expect(driver.device.crashed(seed: 1).contents(at: 0, byteCount: 4096) == first.bytes)
        #expect(driver.device.fired(.bitRot) == 1)
        driver.device.rot(at: 8192)
        #expect(driver.device.contents(at: 8192, byteCount: 1)[0].nonzeroBitCount == 1)
    }

    @Test func aMisdirectedWriteLandsElsewhere() throws {
        for seed in 0..<40 as Range<UInt64> {
            let driver = try makeDriver(seed: seed)
            driver.device.inject(.misdirectedWrite, operationsFromNow: 1)
            #expect(try driver.write(filled(6, 1024), at: 10 * 512, durable: true) == .done(byteCount: 1024))
            let all = driver.device.contents(at: 0, byteCount: 64 << 10)
            let places = all.indices.filter { all[$0] == 6 }
            #expect(places.count == 1024 && places[0] % 512 == 0 && places[0] != 10 * 512, "seed \(seed)")
            #expect(places.last == places[0] + 1023 && driver.device.fired(.misdirectedWrite) == 1)
        }
    }

    @Test func aLostWriteIsAcknowledgedAndGone() throws {
        let driver = try makeDriver(seed: 1)
        #expect(try driver.write(filled(1), at: 0, durable: true) == .done(byteCount: 512))
        driver.device.inject(.lostWrite, operationsFromNow: 1)
        #expect(try driver.write(filled(2), at: 0, durable: true) == .done(byteCount: 512))
        #expect(try driver.flush() == .done(byteCount: 0))
        #expect(try driver.read(at: 0, 512).bytes == filled(1))
        #expect(driver.device.crashed(seed: 1).contents(at: 0, byteCount: 512) == filled(1))
        #expect(driver.device.fired(.lostWrite) == 1)
    }

    @Test func aFullMediumRefusesWritesAndGrowth() throws {
        let driver = try makeDriver(seed: 1)
        driver.device.limitSpace(to: 32 << 10)
        #expect(try driver.write(filled(1), at: (32 << 10) - 512) == .done(byteCount: 512))
        #expect(try driver.write(filled(1, 1024), at: (32 << 10) - 512) == .noSpace)
        #expect(driver.device.contents(at: 32 << 10, byteCount: 512) == filled(0), "nothing of it was stored")
        #expect(throws: DeviceError.noSpace) { try driver.device.grow(to: 128 << 10) }
        driver.device.heal()
        driver.device.inject(.noSpace, operationsFromNow: 2)
        #expect(try driver.write(filled(1), at: 40 << 10) == .done(byteCount: 512))
        #expect(throws: DeviceError.noSpace) { try driver.device.grow(to: 128 << 10) }
        try driver.device.grow(to: 128 << 10)
        #expect(driver.device.geometry.byteCount == 128 << 10 && driver.device.fired(.noSpace) == 1)
    }

    @Test func probabilitiesHoldAndEnd() throws {
        let driver = try makeDriver(seed: 9)
        driver.device.inject(.readError, probability: 0.25)
        for _ in 0..<400 { _ = try driver.read(at: 0, 512) }
        let fired = driver.device.fired(.readError)
        #expect((60...140).contains(fired), "\(fired) of 400")
        #expect(driver.completions.count { $0.outcome == .inputOutput } == fired)
        driver.device.heal()
        for _ in 0..<100 { #expect(try driver.read(at: 0, 512).outcome == .done(byteCount: 512)) }
    }
}
