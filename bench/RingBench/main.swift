// Transfers through the seam of devices, as a reactor makes them: one thread that sleeps by epoll until its eventfd is
// signalled (or polls without a pause), starts what has come free, and hands all of it over at once. One JSON line for each
// measurement: operations per second, and microseconds of CPU of the process per operation.
// Usage: RingBench FILE [seconds] [all|read|write|durable] [sleep|poll] [ring|threads] [depth]
// FILE exists and holds random bytes; writes overwrite it.
import Base
import CReactor
import Device
import Glibc
import SystemDevice

/// What is measured.
private struct Load {
    let name: String
    let byteCount: Int
    let depth: Int
    /// nil: reads.
    let isDurable: Bool?
}

/// One queue under one load.
private final class Run {
    private let queue: any DeviceQueue
    private let load: Load
    private let sleeps: Bool
    private let memory: UnsafeMutableRawBufferPointer
    private let places: Int
    private let epoll = epoll_create1(0)
    private let signal = apus_eventfd()
    private var random = SeededRandom(seed: 1)
    private var free: [Int]
    private(set) var ended = 0
    private(set) var turns = 0

    init(_ device: any BlockDevice, _ opener: SystemDevices, _ load: Load, sleeps: Bool) throws {
        self.load = load
        self.sleeps = sleeps
        let signal = signal
        apus_epoll_add(epoll, signal, UInt32(APUS_READABLE) | UInt32(APUS_EDGE), 1)
        let wake = DeviceWake(descriptor: signal) { _ = eventfd_write(signal, 1) }
        queue = try opener.makeQueues([device], depth: load.depth, wake: wake)[0]
        memory = .allocate(byteCount: load.byteCount * load.depth, alignment: 4096)
        for place in stride(from: 0, to: memory.count, by: 8) {
            memory.storeBytes(of: random.next(), toByteOffset: place, as: UInt64.self)
        }
        queue.prepare(memory)
        places = device.geometry.byteCount / load.byteCount
        free = Array(0..<load.depth)
    }

    deinit {
        close(epoll)
        close(signal)
        memory.deallocate()
    }

    private func start(_ slot: Int) {
        let begin = slot * load.byteCount
        let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[begin..<(begin + load.byteCount)])
        let offset = Int(truncatingIfNeeded: random.next() % UInt64(places)) * load.byteCount
        let operation =
            load.isDurable.map { DeviceOperation.write(UnsafeRawBufferPointer(bytes), offset: offset, durable: $0) }
            ?? .read(bytes, offset: offset)
        do { try queue.submit(operation, tag: UInt64(slot)) } catch { fatalError("submit: \(error)") }
    }

    private func poll(starting: Bool) {
        queue.poll { completion in
            guard completion.outcome == .done(byteCount: load.byteCount) else { fatalError("\(completion)") }
            ended += 1
            if starting { start(Int(completion.tag)) }
        }
        turns += 1
    }

    /// Runs for a time; operations ended in it.
    func measure(seconds: Double) -> (operations: Int, nanoseconds: UInt64, cpu: (user: Double, system: Double)) {
        for slot in free { start(slot) }
        free = []
        ended = 0
        turns = 0
        let begun = apus_monotonic_nanoseconds()
        let until = begun + UInt64(seconds * 1e9)
        let before = Run.processMicroseconds()
        var event = epoll_event()
        var now = begun
        while now < until {
            queue.turnEnded(sleeping: sleeps)
            if sleeps { _ = epoll_wait(epoll, &event, 1, 100) }
            poll(starting: true)
            // The clock each turn, as a reactor has it.
            now = apus_monotonic_nanoseconds()
        }
        let after = Run.processMicroseconds()
        let counted = (ended, now - begun, (user: after.user - before.user, system: after.system - before.system))
        let turnsCounted = turns
        ended = 0
        while ended < load.depth {
            queue.wait()
            poll(starting: false)
        }
        turns = turnsCounted
        return counted
    }

    private static func processMicroseconds() -> (user: Double, system: Double) {
        var used = rusage()
        getrusage(Int32(RUSAGE_SELF.rawValue), &used)
        return (
            Double(used.ru_utime.tv_sec) * 1e6 + Double(used.ru_utime.tv_usec),
            Double(used.ru_stime.tv_sec) * 1e6 + Double(used.ru_stime.tv_usec)
        )
    }
}

private func word(_ number: Int, _ standard: String) -> String {
    CommandLine.arguments.count > number ? CommandLine.arguments[number] : standard
}

private func hundredths(_ value: Double) -> String { "\(Double(Int(value * 100)) / 100)" }

private let path = word(1, "")
private let seconds = Double(word(2, "2")) ?? 2
private let what = word(3, "all")
private let sleeps = word(4, "sleep") == "sleep"
private let opener = SystemDevices(carrier: word(5, "ring") == "threads" ? .threads : .automatic)
private let onlyDepth = Int(word(6, "0")) ?? 0
guard !path.isEmpty else {
    fatalError("usage: RingBench FILE [seconds] [all|read|write|durable] [sleep|poll] [ring|threads] [depth]")
}
private let loads =
    [1, 32, 128].map { Load(name: "read", byteCount: 4096, depth: $0, isDurable: nil) }
    + [1, 4].flatMap { depth in
        [false, true].map { Load(name: $0 ? "durable" : "write", byteCount: 1 << 20, depth: depth, isDurable: $0) }
    }
do {
    let device = try opener.open(DeviceRequest(path: path, isBlockDevice: false))
    if let note = SystemDevices.ringNote ?? (device as? SystemDevice)?.note { print("# \(note)") }
    for load in loads where what == "all" || what == load.name {
        if onlyDepth != 0, load.depth != onlyDepth { continue }
        let run = try Run(device, opener, load, sleeps: sleeps)
        let found = run.measure(seconds: seconds)
        let operations = Double(max(found.operations, 1))
        print(
            "{\"load\": \"\(load.name)\", \"bytes\": \(load.byteCount), \"depth\": \(load.depth),"
                + " \"iops\": \(hundredths(operations * 1e9 / Double(found.nanoseconds))),"
                + " \"cpu_us\": \(hundredths((found.cpu.user + found.cpu.system) / operations)),"
                + " \"user_us\": \(hundredths(found.cpu.user / operations)),"
                + " \"turns\": \(hundredths(Double(run.turns) / operations))}")
    }
    if let note = SystemDevices.memoryNote { print("# \(note)") }
} catch { fatalError("\(error)") }
