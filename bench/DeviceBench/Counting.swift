// Queues that count how much is under way on them, so that fio can be given as much.
import Base
import CReactor
import Device
import SystemDevice

/// Time-weighted count of writes under way. One thread.
final class UnderWay: @unchecked Sendable {
    private var now = 0
    private var since = apus_monotonic_nanoseconds()
    private var weight = 0.0
    private var begun = apus_monotonic_nanoseconds()
    private(set) var most = 0
    private(set) var writes = 0
    private(set) var writtenBytes = 0

    func change(by amount: Int, bytes: Int = 0) {
        let time = apus_monotonic_nanoseconds()
        weight += Double(now) * Double(time - since)
        since = time
        now += amount
        most = max(most, now)
        if amount > 0 {
            writes += 1
            writtenBytes += bytes
        }
    }

    func begin() {
        change(by: 0)
        weight = 0
        begun = since
        most = now
        writes = 0
        writtenBytes = 0
    }

    /// Mean since `begin`.
    var mean: Double {
        change(by: 0)
        return weight / Double(max(since - begun, 1))
    }
}

/// Passes everything on; counts writes.
private final class CountingQueue: DeviceQueue {
    private let queue: any DeviceQueue
    private let count: UnderWay
    private var isWrite = ContiguousArray<Bool>()

    init(_ queue: any DeviceQueue, _ count: UnderWay) {
        self.queue = queue
        self.count = count
    }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        try queue.submit(operation, tag: tag)
        while isWrite.count <= Int(tag) { isWrite.append(false) }
        guard case .write(let bytes, _, _) = operation else { return isWrite[Int(tag)] = false }
        isWrite[Int(tag)] = true
        count.change(by: 1, bytes: bytes.count)
    }

    func poll(_ receive: (DeviceCompletion) -> Void) {
        queue.poll { completion in
            if isWrite[Int(completion.tag)] { count.change(by: -1) }
            receive(completion)
        }
    }

    func kick() { queue.kick() }
    func turnEnded(sleeping: Bool) { queue.turnEnded(sleeping: sleeping) }
    func prepare(_ memory: UnsafeMutableRawBufferPointer) { queue.prepare(memory) }
    func wait() { queue.wait() }
}

/// The devices of this machine, with queues that count.
struct CountingDevices: DeviceOpener {
    let count: UnderWay
    private let devices = SystemDevices()

    init(_ count: UnderWay) { self.count = count }

    func open(_ request: DeviceRequest) throws(DeviceOpenError) -> any BlockDevice { try devices.open(request) }

    func makeQueues(
        _ opened: [any BlockDevice], depth: Int, wake: DeviceWake
    ) throws(DeviceError) -> [any DeviceQueue] {
        try devices.makeQueues(opened, depth: depth, wake: wake).map { CountingQueue($0, count) }
    }
}
