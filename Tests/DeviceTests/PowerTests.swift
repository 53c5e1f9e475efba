// What is left when power fails.
import Base
import Device
import TestSupport
import Testing

@Suite struct DevicePowerTests {
    /// Contents of one sector over many crashes.
    private func fates(_ device: SimulatedDevice, at offset: Int, _ byteCount: Int = 512) -> Set<[UInt8]> {
        Set((0..<60 as Range<UInt64>).map { device.crashed(seed: $0).contents(at: offset, byteCount: byteCount) })
    }

    @Test func durableDataIsNeverLost() throws {
        let driver = try makeDriver(seed: 1)
        #expect(try driver.write(filled(1), at: 0, durable: true) == .done(byteCount: 512))
        #expect(try driver.write(filled(2), at: 512) == .done(byteCount: 512))
        #expect(try driver.flush() == .done(byteCount: 0))
        #expect(fates(driver.device, at: 0) == [filled(1)] && fates(driver.device, at: 512) == [filled(2)])
    }

    @Test func unsyncedWritesAreLostOrNot() throws {
        let driver = try makeDriver(seed: 1)
        #expect(try driver.write(filled(1), at: 0) == .done(byteCount: 512))
        driver.device.stall()
        try driver.submitWrite(filled(2), at: 512, durable: true)
        #expect(fates(driver.device, at: 0) == [filled(0), filled(1)], "completed, not flushed")
        #expect(fates(driver.device, at: 512) == [filled(0), filled(2)], "submitted, not completed")
    }

    /// A flush covers what had completed when it was submitted, not what completed before it did.
    @Test func aFlushCoversWhatWasCompletedBefore() throws {
        var lostAfterFlush = 0
        for seed in 0..<60 as Range<UInt64> {
            let driver = try makeDriver(seed: seed)
            #expect(try driver.write(filled(1), at: 0) == .done(byteCount: 512))
            let flush = try driver.submit(.flush)
            let write = try driver.submitWrite(filled(2), at: 512)
            #expect(driver.finish(write) == .done(byteCount: 512) && driver.finish(flush) == .done(byteCount: 0))
            #expect(fates(driver.device, at: 0) == [filled(1)])
            if fates(driver.device, at: 512).contains(filled(0)) { lostAfterFlush += 1 }
        }
        #expect(lostAfterFlush == 60)
    }

    /// Of several writes to one sector, one is only there if those before it are: the last durable one, or any later.
    @Test func overlappingWritesArriveInOrder() throws {
        let driver = try makeDriver(seed: 3)
        #expect(try driver.write(filled(1), at: 0) == .done(byteCount: 512))
        #expect(try driver.write(filled(2), at: 0, durable: true) == .done(byteCount: 512))
        #expect(try driver.write(filled(3), at: 0) == .done(byteCount: 512))
        #expect(try driver.write(filled(4, 1024), at: 0) == .done(byteCount: 1024))
        #expect(fates(driver.device, at: 0) == [filled(2), filled(3), filled(4)])
        #expect(fates(driver.device, at: 512) == [filled(0), filled(4)])
    }

    /// A durable write to a part of a piece takes the rest of the piece along: it is one thing on the medium.
    @Test func aPieceBecomesDurableAsAWhole() throws {
        let driver = try makeDriver(seed: 3, atomicWriteSize: 4096)
        #expect(try driver.write(filled(1), at: 0) == .done(byteCount: 512))
        #expect(try driver.write(filled(2), at: 512, durable: true) == .done(byteCount: 512))
        #expect(fates(driver.device, at: 0, 1024) == [filled(1) + filled(2)])
    }

    @Test(arguments: [512, 4096]) func writesTearAtPiecesOnly(_ pieceSize: Int) throws {
        var torn = 0
        var whole = 0
        let driver = try makeDriver(seed: 1, atomicWriteSize: pieceSize)
        driver.device.stall()
        try driver.submitWrite(filled(1, 4 * 4096), at: 4096)
        for seed in 0..<200 as Range<UInt64> {
            let bytes = driver.device.crashed(seed: seed).contents(at: 4096, byteCount: 4 * 4096)
            for piece in 0..<(4 * 4096 / pieceSize) {
                let found = Set(bytes[(piece * pieceSize)..<((piece + 1) * pieceSize)])
                #expect(found.count == 1, "seed \(seed): piece \(piece) of \(pieceSize) bytes is torn")
            }
            for sector in 0..<4 where Set(bytes[(sector * 4096)..<(sector * 4096 + 4096)]).count == 2 { torn += 1 }
            if bytes == filled(1, 4 * 4096) { whole += 1 }
        }
        #expect(pieceSize == 4096 ? torn == 0 : torn > 50, "\(torn) sectors of 4096 bytes torn")
        #expect(whole > 20, "a write that is under way may have arrived as a whole")
    }

    /// Random writes, flushes and crashes against a model that knows, for each sector, what it may show.
    @Test func randomHistoriesKeepThePromises() throws {
        var random = SeededRandom(seed: runSeed("DevicePowerTests"))
        try forAWhile(1) {
            var driver = try makeDriver(seed: random.next(), byteCount: 16 << 10)
            // What a sector may hold after a crash: the durable value first, then each later one.
            var allowed = [[UInt8]](repeating: [0], count: 32)
            var value: UInt8 = 0
            for _ in 0..<80 {
                switch Int.random(in: 0..<10, using: &random) {
                case 0..<7:
                    let sectors = Int.random(in: 1...5, using: &random)
                    let first = Int.random(in: 0...(32 - sectors), using: &random)
                    let isDurable = Bool.random(using: &random)
                    value = value % 250 + 1
                    let outcome = try driver.write(filled(value, sectors * 512), at: first * 512, durable: isDurable)
                    #expect(outcome == .done(byteCount: sectors * 512))
                    for sector in first..<(first + sectors) {
                        allowed[sector] = isDurable ? [value] : allowed[sector] + [value]
                    }
                case 7..<9:
                    #expect(try driver.flush() == .done(byteCount: 0))
                    allowed = allowed.map { [$0[$0.count - 1]] }
                default:
                    driver = try Driver(driver.device.crashed(seed: random.next()))
                    let bytes = driver.device.contents(at: 0, byteCount: 16 << 10)
                    for sector in 0..<32 {
                        #expect(allowed[sector].contains(bytes[sector * 512]))
                        allowed[sector] = [bytes[sector * 512]]
                    }
                }
            }
        }
    }

    @Test func theCrashedDeviceIsASoundOne() throws {
        let driver = try makeDriver(seed: 1)
        driver.device.inject(.failure, probability: 1)
        driver.device.stall()
        try driver.submitWrite(filled(1), at: 0)
        let crashed = try Driver(driver.device.crashed(seed: 1))
        #expect(crashed.device.underWayCount == 0)
        #expect(try crashed.write(filled(8), at: 1024, durable: true) == .done(byteCount: 512))
        #expect(try crashed.read(at: 1024, 512).bytes == filled(8))
        #expect(driver.device.underWayCount == 1, "the old device goes on as it was")
        #expect(driver.device.contents(at: 1024, byteCount: 512) == filled(0))
    }
}
