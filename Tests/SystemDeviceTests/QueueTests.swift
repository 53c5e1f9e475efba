// Queues of several devices, sleeping owners, threads that come and go, queues that are let go.
import Base
import CReactor
import Device
import Glibc
import SystemDevice
import TestSupport
import Testing

@Suite struct SystemQueueTests {
    static let carriers = [SystemDevices.Carrier.automatic, .threads]

    private func devices(_ scratch: Scratch, _ carrier: SystemDevices.Carrier, _ count: Int) throws -> [SystemDevice] {
        try (0..<count).map { try openFile(scratch.file("data\($0)"), 1 << 20, carrier) }
    }

    @Test(arguments: carriers)
    func theFirstQueueSpeaksForAll(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let all = try devices(scratch, carrier, 3)
        let queues = try SystemDevices(carrier: carrier).makeQueues(all, depth: 8, wake: DeviceWake {})
        let drivers = queues.map(Driver.init)
        for (number, driver) in drivers.enumerated() {
            let bytes = UnsafeRawBufferPointer(driver.buffer(filled(UInt8(number + 1))))
            try driver.queue.submit(.write(bytes, offset: 0, durable: true), tag: UInt64(number))
        }
        queues[0].kick()
        var tags: [UInt64] = []
        while tags.count < 3 {
            queues[0].wait()
            queues[0].poll { tags.append($0.tag) }
        }
        #expect(tags.sorted() == [0, 1, 2])
        withExtendedLifetime(drivers) {}
        for (number, device) in all.enumerated() {
            #expect(try Driver(device).read(at: 0, 4096).bytes == filled(UInt8(number + 1)))
        }
    }

    @Test(arguments: carriers)
    func theOtherQueuesHandOverTheirOwn(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let queues = try SystemDevices(carrier: carrier).makeQueues(
            devices(scratch, carrier, 3), depth: 8, wake: DeviceWake {})
        let drivers = queues.map(Driver.init)
        for driver in drivers {
            for _ in 0..<8 { try driver.submit(.read(driver.buffer(filled(1)), offset: 0)) }
        }
        while drivers[2].completions.count < 8 {
            queues[2].wait()
            drivers[2].poll()
        }
        #expect(drivers[2].completions.count == 8)
        while drivers[1].completions.count < 8 {
            queues[1].wait()
            drivers[1].poll()
        }
        while drivers[0].completions.count < 8 {
            queues[0].wait()
            drivers[0].poll()
        }
        for driver in drivers { #expect(driver.completions.map(\.tag).sorted() == Array(1...8)) }
    }

    /// As a reactor sleeps: a wake that is lost leaves this test without an end, and the wait says so.
    @Test(arguments: carriers)
    func anOwnerThatSleepsIsWokenByItsDescriptor(_ carrier: SystemDevices.Carrier) throws {
        let signal = apus_eventfd()
        let epoll = epoll_create1(0)
        apus_epoll_add(epoll, signal, UInt32(APUS_READABLE) | UInt32(APUS_EDGE), 1)
        // Closed when the queues are gone: a helper thread that signals late must not write into a file of somebody else.
        defer {
            close(epoll)
            close(signal)
        }
        try sleepAndWake(carrier, epoll, signal)
    }

    private func sleepAndWake(_ carrier: SystemDevices.Carrier, _ epoll: Int32, _ signal: Int32) throws {
        let scratch = try Scratch()
        var random = SeededRandom(seed: runSeed("SystemQueueTests"))
        let wake = DeviceWake(descriptor: signal) { _ = eventfd_write(signal, 1) }
        let queues = try SystemDevices(carrier: carrier).makeQueues(devices(scratch, carrier, 2), depth: 32, wake: wake)
        let drivers = queues.map(Driver.init)
        let memory = drivers[0].buffer(filled(0, 64 << 10))
        var event = epoll_event()
        var underWay = 0
        for turn in 0..<4000 {
            for _ in 0..<Int.random(in: 0...3, using: &random) where underWay < 24 {
                let place = Int.random(in: 0..<16, using: &random) * 4096
                let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[place..<(place + 4096)])
                let offset = Int.random(in: 0..<256, using: &random) * 4096
                let queue = queues[Int.random(in: 0..<2, using: &random)]
                if turn % 20 == 0 {
                    try queue.submit(.flush, tag: 0)
                } else {
                    try queue.submit(.read(bytes, offset: offset), tag: 0)
                }
                underWay += 1
            }
            let before = underWay
            queues[0].turnEnded(sleeping: before > 0)
            if before > 0 {
                let found = epoll_wait(epoll, &event, 1, 20_000)
                #expect(found != 0, "not woken in turn \(turn) with \(before) under way")
                if found == 0 { break }
            }
            queues[0].poll { _ in underWay -= 1 }
        }
        while underWay > 0 {
            queues[0].wait()
            queues[0].poll { _ in underWay -= 1 }
        }
        // Awake, it is not signalled: the counter stays as it is read empty. But a helper thread that has ended something
        // while the owner slept may be about to signal, each once.
        queues[0].turnEnded(sleeping: false)
        var isSignalled = true
        for _ in 0...8 where isSignalled {
            var count: UInt64 = 0
            while eventfd_read(signal, &count) == 0 {}
            #expect(try drivers[1].write(filled(1), at: 0) == .done(byteCount: 4096) || drivers[1].completions.isEmpty)
            isSignalled = eventfd_read(signal, &count) == 0
        }
        #expect(!isSignalled)
    }

    @Test(arguments: carriers)
    func anOwnerWithoutDescriptorIsCalled(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let device = try openFile(scratch.file(), 1 << 20, carrier)
        let woken = KeptCount()
        let driver = Driver(try device.makeQueue(depth: 4) { woken.add() })
        for round in 1...50 {
            let before = woken.value
            try driver.submit(.read(driver.buffer(filled(0)), offset: 0))
            // At first an owner that never says when it sleeps, then one that always does.
            if round > 25 { driver.queue.turnEnded(sleeping: true) } else { driver.queue.kick() }
            while woken.value == before { usleep(100) }
            while driver.completions.count < round { driver.poll() }
        }
        #expect(driver.completions.count == 50)
    }

    @Test(arguments: carriers)
    func whatEndedBeforeItsOwnerSleptWakesIt(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let device = try openFile(scratch.file(), 1 << 20, carrier)
        let woken = KeptCount()
        let driver = Driver(try device.makeQueue(depth: 4) { woken.add() })
        driver.queue.turnEnded(sleeping: false)
        try driver.submit(.flush)
        driver.queue.wait()
        while woken.value == 0 {
            driver.queue.turnEnded(sleeping: true)
            usleep(1000)
        }
        #expect(driver.finish(1) == .done(byteCount: 0))
    }

    /// A thread submits and ends; another one finds the completions.
    @Test(arguments: carriers)
    func queuesGoFromThreadToThread(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 4 << 20, carrier), depth: 256)
        let seen = Unmanaged.passRetained(driver)
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { pointer in
                let driver = Unmanaged<Driver>.fromOpaque(pointer!).takeRetainedValue()
                for number in 0..<200 {
                    let operation =
                        number % 10 == 9
                        ? DeviceOperation.flush : .read(driver.buffer(filled(1)), offset: number * 4096)
                    _ = try? driver.submit(operation)
                }
                driver.queue.kick()
                return nil
            }, seen.toOpaque())
        pthread_join(thread, nil)
        for tag in 1...200 as ClosedRange<UInt64> {
            #expect(driver.finish(tag) == .done(byteCount: tag % 10 == 0 ? 0 : 4096))
        }
    }

    @Test(arguments: carriers)
    func aQueueThatIsLetGoNeedsItsBuffersNoMore(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let all = try devices(scratch, carrier, 2)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { memory.deallocate() }
        for round in 0..<40 {
            var queues = try SystemDevices(carrier: carrier).makeQueues(all, depth: 256, wake: DeviceWake {})
            if round % 2 == 0 { queues[0].prepare(memory) }
            for number in 0..<256 {
                let piece = UnsafeMutableRawBufferPointer(rebasing: memory[(number * 4096)..<(number * 4096 + 4096)])
                try queues[number % 2].submit(.read(piece, offset: number * 4096), tag: UInt64(number))
            }
            if round % 4 < 2 { queues[0].kick() }
            let other = queues[1]
            queues.removeAll()
            // The first queue is gone, the other one has its operations.
            var ended = 0
            while ended < 128 {
                other.wait()
                other.poll { _ in ended += 1 }
            }
            memory.initializeMemory(as: UInt8.self, repeating: 0xEE)
            usleep(500)
            #expect(memory.allSatisfy { $0 == 0xEE })
        }
    }

    /// Memory that a queue had prepared is forgotten with it, although the ring lives on: other memory may lie there.
    @Test(arguments: carriers)
    func preparedMemoryGoesWithItsQueue(_ carrier: SystemDevices.Carrier) throws {
        let scratch = try Scratch()
        let all = try devices(scratch, carrier, 2)
        var queues = try SystemDevices(carrier: carrier).makeQueues(all, depth: 8, wake: DeviceWake {})
        let survivor = Driver(queues.removeFirst())
        #expect(try survivor.write(filled(0x77), at: 0) == .done(byteCount: 4096))
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        let address = try #require(mmap(nil, 1 << 20, PROT_READ | PROT_WRITE, flags, -1, 0))
        queues[0].prepare(UnsafeMutableRawBufferPointer(start: address, count: 1 << 20))
        queues.removeAll()
        #expect(mmap(address, 1 << 20, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0) == address)
        let memory = UnsafeMutableRawBufferPointer(start: address, count: 4096)
        #expect(survivor.finish(try survivor.submit(.read(memory, offset: 0))) == .done(byteCount: 4096))
        #expect(Array(memory) == filled(0x77))
        munmap(address, 1 << 20)
    }

    @Test func preparedMemoryIsRegistered() throws {
        guard SystemDevices.ringNote == nil else { return print("skipped: \(SystemDevices.ringNote ?? "")") }
        let scratch = try Scratch()
        let driver = try Driver(openFile(scratch.file(), 1 << 20))
        let memory = driver.buffer(filled(0, 256 << 10))
        for begin in stride(from: 0, to: 256 << 10, by: 64 << 10) {
            driver.queue.prepare(UnsafeMutableRawBufferPointer(rebasing: memory[begin..<(begin + (64 << 10))]))
        }
        #expect(SystemDevices.memoryNote == nil)
        let pinned = try #require(run("grep VmPin /proc/\(getpid())/status | tr -dc 0-9"))
        #expect(Int(pinned) ?? 0 >= 256)
    }
}
