// Helper threads that do what io_uring would. Invariants:
// 1. Everything mutable is under `lock`, except that `unkicked` is the owner's thread only, and an operation that a helper
//    has taken from `started` is that helper's until it reports the end.
// 2. A place is in at most one of: `unkicked`, `started`, the hands of one helper, the table's chain of ends.
// 3. `letGo` returns when nothing is under way on its queue: no buffer is touched afterwards.
internal import CUring
internal import Device
internal import Glibc

/// Queues over helper threads, see the invariants above. One thread at a time, any thread.
final class ThreadGroup: QueueGroup {
    private let shared: Shared
    private var unkicked: [Int32] = []
    private let threads: [pthread_t]
    private var isPolling = false

    static let threadsMax = 8

    /// Starts the threads.
    /// - Throws: `failed` if there is not a single one.
    init(_ devices: [SystemDevice], depth: Int, wake: DeviceWake) throws(DeviceError) {
        shared = Shared(devices, depth: depth, wake: wake)
        var started: [pthread_t] = []
        var reason: Int32 = 0
        while started.count < min(ThreadGroup.threadsMax, depth * devices.count), reason == 0 {
            var thread = pthread_t()
            let body = Unmanaged.passRetained(shared)
            reason = pthread_create(
                &thread, nil,
                { pointer in
                    Unmanaged<Shared>.fromOpaque(pointer!).takeRetainedValue().run()
                    return nil
                }, body.toOpaque())
            if reason == 0 { started.append(thread) } else { body.release() }
        }
        threads = started
        if started.isEmpty { throw .failed(errno: reason) }
    }

    deinit {
        shared.stop()
        for thread in threads {
            // The last queue may be let go by what a wake calls.
            if pthread_equal(thread, pthread_self()) != 0 { pthread_detach(thread) } else { pthread_join(thread, nil) }
        }
    }

    func submit(_ operation: Operation) throws(DeviceError) {
        let place = shared.withLock { $0.isFull(Int(operation.queue)) ? -1 : $0.add(operation) }
        if place < 0 { throw .queueFull }
        unkicked.append(place)
    }

    func kick() {
        guard !unkicked.isEmpty else { return }
        shared.start(unkicked)
        unkicked.removeAll(keepingCapacity: true)
    }

    func poll(_ queue: Int?, _ receive: (DeviceCompletion) -> Void) {
        precondition(!isPolling, "poll is called from inside poll")
        isPolling = true
        defer { isPolling = false }
        kick()
        shared.noteAwake(onlyIfAsleep: true)
        while let completion = shared.withLock({ $0.takeEnd(of: queue) }) { receive(completion) }
    }

    func turnEnded(sleeping: Bool) {
        kick()
        if sleeping { shared.noteAsleep() } else { shared.noteAwake(onlyIfAsleep: false) }
    }

    /// Threads transfer from and to any memory.
    func prepare(_ memory: UnsafeMutableRawBufferPointer, queue: Int) {}

    func wait(_ queue: Int?) {
        kick()
        shared.wait { !$0.hasEnds }
    }

    func letGo(_ queue: Int) {
        precondition(!isPolling, "a queue is let go from inside poll")
        kick()
        while shared.withLock({ $0.underWayCount(queue) }) > 0 { shared.wait { $0.underWayCount(queue) > 0 } }
        shared.withLock { while $0.takeEnd(of: queue) != nil {} }
    }
}

/// What the owner and the helpers share.
private final class Shared: @unchecked Sendable {
    private let devices: [SystemDevice]
    private let wake: DeviceWake
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let hasWork: UnsafeMutablePointer<pthread_cond_t>
    private let hasEnd: UnsafeMutablePointer<pthread_cond_t>
    private var table: OperationTable
    /// Started operations that no helper has taken: a ring with room for all.
    private let started: UnsafeMutablePointer<Int32>
    private let startedMax: Int
    private var startedFirst = 0
    private var startedCount = 0
    private var attention = Attention.unknown
    private var isStopped = false

    init(_ devices: [SystemDevice], depth: Int, wake: DeviceWake) {
        self.devices = devices
        self.wake = wake
        table = OperationTable(queues: devices.count, depth: depth)
        startedMax = devices.count * depth
        started = .allocate(capacity: startedMax)
        lock = .allocate(capacity: 1)
        hasWork = .allocate(capacity: 1)
        hasEnd = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        pthread_cond_init(hasWork, nil)
        pthread_cond_init(hasEnd, nil)
    }

    deinit {
        pthread_cond_destroy(hasEnd)
        pthread_cond_destroy(hasWork)
        pthread_mutex_destroy(lock)
        hasEnd.deallocate()
        hasWork.deallocate()
        lock.deallocate()
        started.deallocate()
    }

    // ---- The owner's ----

    func withLock<Result>(_ body: (inout OperationTable) -> Result) -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return body(&table)
    }

    func start(_ places: [Int32]) {
        pthread_mutex_lock(lock)
        for place in places { append(place) }
        pthread_mutex_unlock(lock)
        if places.count == 1 { pthread_cond_signal(hasWork) } else { pthread_cond_broadcast(hasWork) }
    }

    private func append(_ place: Int32) {
        precondition(startedCount < startedMax, "more operations than places")
        started[(startedFirst + startedCount) % startedMax] = place
        startedCount += 1
    }

    func noteAwake(onlyIfAsleep: Bool) {
        pthread_mutex_lock(lock)
        if attention == .asleep || !onlyIfAsleep { attention = .awake }
        pthread_mutex_unlock(lock)
    }

    func noteAsleep() {
        pthread_mutex_lock(lock)
        attention = .asleep
        let isDue = table.hasEnds
        pthread_mutex_unlock(lock)
        if isDue { wake.call() }
    }

    /// Sleeps for a moment at most while the condition holds.
    func wait(while holds: (borrowing OperationTable) -> Bool) {
        var until = timespec()
        clock_gettime(CLOCK_REALTIME, &until)
        until.tv_nsec += Int(RingGroup.waitMilliseconds) * 1_000_000
        if until.tv_nsec >= 1_000_000_000 {
            until.tv_nsec -= 1_000_000_000
            until.tv_sec += 1
        }
        pthread_mutex_lock(lock)
        if holds(table) { pthread_cond_timedwait(hasEnd, lock, &until) }
        pthread_mutex_unlock(lock)
    }

    func stop() {
        pthread_mutex_lock(lock)
        isStopped = true
        pthread_mutex_unlock(lock)
        pthread_cond_broadcast(hasWork)
    }

    // ---- The helpers' ----

    func run() {
        pthread_mutex_lock(lock)
        while !isStopped {
            guard startedCount > 0 else {
                pthread_cond_wait(hasWork, lock)
                continue
            }
            let place = started[startedFirst]
            startedFirst = (startedFirst + 1) % startedMax
            startedCount -= 1
            let operation = table[place].pointee
            pthread_mutex_unlock(lock)
            let failure = perform(operation)
            pthread_mutex_lock(lock)
            finish(place, failure)
        }
        pthread_mutex_unlock(lock)
    }

    /// Reports an end and wakes who waits for it; unlocks meanwhile.
    private func finish(_ place: Int32, _ failure: Int32) {
        table[place].pointee.failure = failure
        table.markEnded(place)
        table.appendEnd(place)
        let isDue = attention != .awake
        pthread_cond_broadcast(hasEnd)
        guard isDue else { return }
        pthread_mutex_unlock(lock)
        wake.call()
        pthread_mutex_lock(lock)
    }

    /// All of an operation; 0 or an errno.
    private func perform(_ original: Operation) -> Int32 {
        var operation = original
        let device = devices[Int(operation.queue)]
        while true {
            let result = call(operation, device)
            switch OperationStep(operation, result: result, readsDirectly: device.readsDirectly) {
            case .ended(let failure): return failure
            case .progress(let byteCount): operation.doneByteCount += byteCount
            case .again: sched_yield()
            }
        }
    }

    /// One system call for what is left of an operation: bytes, or -errno.
    private func call(_ operation: Operation, _ device: SystemDevice) -> Int {
        let done = operation.doneByteCount
        let address = operation.address.map { $0 + done }
        let byteCount = operation.byteCount - done
        let offset = operation.offset + done
        let result =
            switch operation.kind {
            case .read: pread(device.readDescriptor, address, byteCount, off_t(offset))
            case .write: Int(apus_write_at(device.descriptor, address, byteCount, Int64(offset), false))
            case .durableWrite: Int(apus_write_at(device.descriptor, address, byteCount, Int64(offset), true))
            case .flush: Int(fdatasync(device.descriptor))
            case .discard: Int(apus_punch_hole(device.descriptor, Int64(offset), Int64(byteCount)))
            }
        return result < 0 ? Int(-errno) : result
    }
}
