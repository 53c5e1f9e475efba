// What a device of the system promises while it runs, over io_uring and over helper threads.
import Base
import Device
import Glibc
import SystemDevice
import TestSupport
import Testing

@Suite struct SystemDevicePromiseTests {
    static let carriers = [SystemDevices.Carrier.automatic, .threads]

    @Test(arguments: carriers, [false, true])
    func whatWasWrittenIsRead(_ carrier: SystemDevices.Carrier, throughPageCache: Bool) throws {
        var random = SeededRandom(seed: runSeed("SystemDevicePromiseTests"))
        let scratch = try Scratch()
        let byteCount = 4 << 20
        let device = try openFile(scratch.file(), byteCount, carrier, throughPageCache: throughPageCache)
        let driver = try Driver(device)
        let slab = driver.buffer(filled(0, 1 << 20))
        driver.queue.prepare(UnsafeMutableRawBufferPointer(rebasing: slab[..<(512 << 10)]))
        let sector = device.geometry.sectorSize
        var model = filled(0, byteCount)
        for _ in 0..<400 {
            let sectors = Int.random(in: 1...(256 << 10) / sector, using: &random)
            let offset = Int.random(in: 0...(byteCount / sector - sectors), using: &random) * sector
            let count = sectors * sector
            // Within the prepared half, across its end, or beyond.
            let begin = Int.random(in: 0...((1 << 20) - count) / sector, using: &random) * sector
            let memory = UnsafeMutableRawBufferPointer(rebasing: slab[begin..<(begin + count)])
            if Bool.random(using: &random) {
                let seed = UInt8.random(in: 0...255, using: &random)
                for place in 0..<count { memory[place] = UInt8(truncatingIfNeeded: place &* 31) ^ seed }
                let durable = Bool.random(using: &random)
                let tag = try driver.submit(.write(UnsafeRawBufferPointer(memory), offset: offset, durable: durable))
                #expect(driver.finish(tag) == .done(byteCount: count))
                model.replaceSubrange(offset..<(offset + count), with: memory)
            } else {
                let tag = try driver.submit(.read(memory, offset: offset))
                #expect(driver.finish(tag) == .done(byteCount: count))
                #expect(memory.elementsEqual(model[offset..<(offset + count)]))
            }
        }
        #expect(try driver.read(at: 0, byteCount).bytes == model)
        #expect(driver.finish(try driver.submit(.flush)) == .done(byteCount: 0))
    }

    @Test(arguments: carriers)
    func manyUnderWayCompleteOnceEach(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 8 << 20, carrier), depth: 500)
        for round in 0..<4 {
            let begun = driver.completions.count
            let tags = try (0..<500).map { number in
                let bytes = UnsafeRawBufferPointer(driver.buffer(filled(UInt8(truncatingIfNeeded: number + round))))
                return try driver.submit(.write(bytes, offset: number * 4096, durable: number % 50 == 0))
            }
            for tag in tags { #expect(driver.finish(tag) == .done(byteCount: 4096)) }
            #expect(driver.completions[begun...].map(\.tag).sorted() == tags)
        }
        for number in 0..<500 {
            #expect(try driver.read(at: number * 4096, 4096).bytes == filled(UInt8(truncatingIfNeeded: number + 3)))
        }
    }

    @Test(arguments: carriers)
    func aFullQueueRefusesUntilItIsPolled(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 1 << 20, carrier), depth: 2)
        let sector = UnsafeRawBufferPointer(driver.buffer(filled(1)))
        let first = try driver.submit(.write(sector, offset: 0, durable: false))
        let second = try driver.submit(.write(sector, offset: 4096, durable: false))
        #expect(throws: DeviceError.queueFull) { try driver.submit(.flush) }
        driver.queue.kick()
        driver.queue.wait()
        // An end that nobody has taken still has its place.
        #expect(throws: DeviceError.queueFull) { try driver.submit(.flush) }
        for tag in [first, second] { #expect(driver.finish(tag) == .done(byteCount: 4096)) }
        #expect(try driver.write(filled(3), at: 8192) == .done(byteCount: 4096))
    }

    @Test(arguments: carriers)
    func receiversMaySubmit(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 1 << 20, carrier), depth: 4)
        let memory = driver.buffer(filled(0))
        var ended = 0
        var underWay = 4
        for tag in 0..<4 as Range<UInt64> { try driver.queue.submit(.read(memory, offset: 0), tag: tag) }
        // To the last: what is still under way would read into memory that is freed.
        while underWay > 0 {
            driver.queue.wait()
            driver.queue.poll { completion in
                #expect(completion.outcome == .done(byteCount: 4096))
                ended += 1
                underWay -= 1
                guard ended < 1000 else { return }
                do {
                    try driver.queue.submit(.read(memory, offset: 4096 * (ended % 256)), tag: completion.tag)
                    underWay += 1
                } catch {
                    Issue.record("\(error)")
                }
            }
        }
        #expect(ended == 1003)
    }

    @Test(arguments: carriers)
    func whatIsNoTransferOfWholeSectorsIsRefused(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let device = try openFile(scratch.file(), 64 << 10, carrier)
        let driver = try Driver(device)
        let sector = driver.buffer(filled(1))
        let crooked = UnsafeMutableRawBufferPointer(rebasing: driver.buffer(filled(1, 8192))[8..<4104])
        let wrong: [DeviceOperation] = [
            .read(sector, offset: 100), .read(UnsafeMutableRawBufferPointer(rebasing: sector[..<100]), offset: 0),
            .read(crooked, offset: 0), .read(sector, offset: -4096), .read(sector, offset: 64 << 10),
            .write(UnsafeRawBufferPointer(crooked), offset: 0, durable: false), .discard(offset: 0, byteCount: 0),
            .read(UnsafeMutableRawBufferPointer(start: nil, count: 0), offset: 0), .read(sector, offset: .max - 511),
            .discard(offset: 60 << 10, byteCount: 8192), .discard(offset: 0, byteCount: -4096),
        ]
        for operation in wrong {
            do throws(DeviceError) {
                try driver.queue.submit(operation, tag: 1)
                Issue.record("\(operation) was accepted")
            } catch {
                guard case .invalid = error else { Issue.record("\(operation): \(error)"); continue }
            }
        }
        for depth in [0, -1, SystemDevices.operationsMax + 1] {
            #expect(throws: DeviceError.self) { try device.makeQueue(depth: depth) {} }
        }
    }

    @Test(arguments: carriers)
    func discardedSectorsReadAsZeroOrAsBefore(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 1 << 20, carrier))
        #expect(try driver.write(filled(3, 1 << 20), at: 0) == .done(byteCount: 1 << 20))
        let tag = try driver.submit(.discard(offset: 64 << 10, byteCount: 128 << 10))
        #expect(driver.finish(tag) == .done(byteCount: 128 << 10))
        let bytes = try driver.read(at: 0, 1 << 20).bytes
        #expect(bytes[..<(64 << 10)].allSatisfy { $0 == 3 } && bytes[(192 << 10)...].allSatisfy { $0 == 3 })
        #expect(bytes[(64 << 10)..<(192 << 10)].allSatisfy { $0 == 0 || $0 == 3 })
    }

    @Test(arguments: carriers)
    func growthBringsZerosToQueuesThatAreThere(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let device = try openFile(scratch.file(), 1 << 20, carrier)
        let driver = try Driver(device)
        #expect(try driver.write(filled(9), at: (1 << 20) - 4096) == .done(byteCount: 4096))
        #expect(throws: DeviceError.self) { try driver.write(filled(9), at: 1 << 20) }
        try device.grow(to: 3 << 20)
        #expect(device.geometry.byteCount == 3 << 20)
        #expect(try driver.read(at: 1 << 20, 2 << 20).bytes == filled(0, 2 << 20))
        #expect(try driver.write(filled(7), at: (3 << 20) - 4096, durable: true) == .done(byteCount: 4096))
        #expect(throws: DeviceError.self) { try device.grow(to: 1 << 20) }
        #expect(throws: DeviceError.self) { try device.grow(to: (4 << 20) + 1) }
        // More than the file system has: nothing is taken.
        #expect(throws: DeviceError.noSpace) { try device.grow(to: 1 << 58) }
        #expect(device.geometry.byteCount == 3 << 20)
        #expect(run("stat -c %s '\(scratch.file())'") == "\(3 << 20)")
    }

    @Test(arguments: carriers)
    func aFileThatIsCutOffFailsItsReads(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 1 << 20, carrier))
        #expect(try driver.write(filled(5, 1 << 20), at: 0) == .done(byteCount: 1 << 20))
        #expect(truncate(scratch.file(), 100 << 10) == 0)
        let eof = DeviceCompletion.Outcome.failed(errno: DeviceErrno.inputOutput)
        #expect(try driver.read(at: 512 << 10, 4096).outcome == eof)
        #expect(try driver.read(at: 96 << 10, 8192).outcome == eof)
        #expect(truncate(scratch.file(), (100 << 10) + 100) == 0)
        #expect(try driver.read(at: 96 << 10, 8192).outcome == eof)
        #expect(try driver.read(at: 0, 96 << 10).bytes == filled(5, 96 << 10))
    }

    /// The page cache must not keep what a direct write has replaced.
    @Test(arguments: carriers)
    func cachedReadsSeeEveryCompletedWrite(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 64 << 10, carrier, throughPageCache: true))
        for round in 0..<200 {
            let bytes = filled(UInt8(truncatingIfNeeded: round), 8192)
            #expect(try driver.write(bytes, at: (round % 4) * 8192) == .done(byteCount: 8192))
            #expect(try driver.read(at: (round % 4) * 8192, 8192).bytes == bytes)
        }
    }
}
