// One io_uring for the queues of one thread. Invariants:
// 1. The token of every submission is the place of its operation in `table`; an operation under way has exactly one
//    submission in the ring or in the kernel.
// 2. The completion ring has room for every operation, so it never overflows.
// 3. The eventfd is signalled by the kernel only while `attention` is not `awake`. Whoever switches it on looks at the
//    completion ring once more afterwards, so no completion falls between.
// 4. The ring is closed when nothing is under way: no buffer is touched after `letGo` of its queue.
internal import CUring
internal import Device
internal import Glibc

/// Who has to be told of completions.
enum Attention {
    /// The owner has never said: each completion wakes it.
    case unknown
    /// It sleeps until it is woken.
    case asleep
    /// It polls soon.
    case awake
}

/// Queues over a ring, see the invariants above. One thread at a time, any thread.
final class RingGroup: QueueGroup {
    private let devices: [SystemDevice]
    private let files: UnsafeMutablePointer<(transfers: Int32, reads: Int32)>
    private let hasFixedFiles: Bool
    private let ring: OpaquePointer
    private let ends: UnsafeMutablePointer<apus_ring_end>
    private let wake: DeviceWake
    private let waker: WakeThread?
    private var table: OperationTable
    private var memory: PreparedMemory
    private var attention = Attention.unknown
    private var isPolling = false
    /// Operations that were submitted since the last kick.
    private var unsubmitted = 0

    /// So many start without waiting for the kick: the device works on the first while the owner still submits. Measured by
    /// RingBench, reads at depth 32: 20 % more of them than with one kick for all, for the same CPU time each.
    private static let batchMax = 4
    private static let endsMax = 64
    private static let submissionsMax = 4096
    /// The kernel transfers less than 2 GiB at a time.
    private static let transferMax = 1 << 30
    private static let retriesMax: UInt8 = 100
    static let waitMilliseconds: Int32 = 10

    /// A ring with its devices registered.
    /// - Throws: `failed`.
    init(_ devices: [SystemDevice], depth: Int, wake: DeviceWake) throws(DeviceError) {
        let total = devices.count * depth
        var failure: Int32 = 0
        waker = wake.descriptor >= 0 ? nil : try WakeThread(wake)
        let opened = apus_ring_open(UInt32(min(total, RingGroup.submissionsMax)), UInt32(max(total, 2) * 2), &failure)
        guard let opened else {
            waker?.stop()
            throw .failed(errno: -failure)
        }
        failure = apus_ring_register_signal(opened, waker?.descriptor ?? wake.descriptor)
        guard failure == 0 else {
            apus_ring_close(opened)
            waker?.stop()
            throw .failed(errno: -failure)
        }
        self.devices = devices
        self.wake = wake
        ring = opened
        ends = .allocate(capacity: RingGroup.endsMax)
        table = OperationTable(queues: devices.count, depth: depth)
        memory = PreparedMemory(opened)
        let descriptors = devices.flatMap { [$0.descriptor, $0.readDescriptor] }
        hasFixedFiles = apus_ring_register_files(opened, descriptors, UInt32(descriptors.count)) == 0
        files = .allocate(capacity: devices.count)
        for (number, device) in devices.enumerated() {
            let fixed = (transfers: Int32(2 * number), reads: Int32(2 * number + 1))
            (files + number).initialize(to: hasFixedFiles ? fixed : (device.descriptor, device.readDescriptor))
        }
    }

    deinit {
        let isIdle = devices.indices.allSatisfy { table.underWayCount($0) == 0 }
        precondition(isIdle, "a ring closes when nothing is under way")
        apus_ring_close(ring)
        waker?.stop()
        ends.deallocate()
        files.deallocate()
    }

    // ---- Starting ----

    func submit(_ operation: Operation) throws(DeviceError) {
        if table.isFull(Int(operation.queue)) { throw .queueFull }
        start(table.add(operation))
        unsubmitted += 1
        if unsubmitted >= RingGroup.batchMax { kick() }
    }

    /// Fills a submission with what is left of an operation.
    private func start(_ place: Int32) {
        while !enter(place) {
            // The submission ring is full: the kernel takes what is there, at once unless it is short of memory.
            kick()
        }
    }

    /// False if the submission ring is full.
    @inline(__always)
    private func enter(_ place: Int32) -> Bool {
        let operation = table[place]
        let (file, readFile) = files[Int(operation.pointee.queue)]
        var transfer = apus_ring_transfer(
            address: nil, offset: UInt64(operation.pointee.offset), token: UInt64(truncatingIfNeeded: place), byte_count: 0,
            file: operation.pointee.kind == .read ? readFile : file, buffer: -1, is_fixed: hasFixedFiles)
        switch operation.pointee.kind {
        case .read:
            describeRest(of: operation, &transfer)
            return apus_ring_read(ring, &transfer)
        case .write, .durableWrite:
            describeRest(of: operation, &transfer)
            return apus_ring_write(ring, &transfer, operation.pointee.kind == .durableWrite)
        case .flush:
            transfer.offset = 0
            return apus_ring_flush(ring, &transfer)
        case .discard: return apus_ring_discard(ring, &transfer, UInt64(operation.pointee.byteCount))
        }
    }

    @inline(__always)
    private func describeRest(of operation: UnsafeMutablePointer<Operation>, _ transfer: inout apus_ring_transfer) {
        let done = operation.pointee.doneByteCount
        let byteCount = min(operation.pointee.byteCount - done, RingGroup.transferMax)
        transfer.address = operation.pointee.address.unsafelyUnwrapped + done
        transfer.offset += UInt64(done)
        transfer.byte_count = UInt32(byteCount)
        transfer.buffer = memory.number(of: UInt(bitPattern: transfer.address), byteCount)
    }

    func kick() {
        unsubmitted = 0
        apus_ring_submit(ring)
    }

    // ---- Ending ----

    func poll(_ queue: Int?, _ receive: (DeviceCompletion) -> Void) {
        precondition(!isPolling, "poll is called from inside poll")
        isPolling = true
        defer { isPolling = false }
        if attention == .asleep {
            attention = .awake
            apus_ring_signal(ring, false)
        }
        kick()
        apus_ring_attend(ring)
        while table.hasEnds, let completion = table.takeEnd(of: queue) { receive(completion) }
        var left = apus_ring_ready(ring)
        while left > 0 {
            let count = apus_ring_take(ring, ends, min(left, UInt32(RingGroup.endsMax)))
            left -= count
            for number in 0..<Int(count) {
                let place = Int32(truncatingIfNeeded: ends[number].token)
                guard hasEnded(place, ends[number].result) else { continue }
                hand(place, queue, receive)
            }
        }
    }

    /// Hands an end over, or keeps it for its own queue.
    @inline(__always)
    private func hand(_ place: Int32, _ queue: Int?, _ receive: (DeviceCompletion) -> Void) {
        let operation = table[place]
        if let queue, queue != Int(operation.pointee.queue) { return table.appendEnd(place) }
        let completion = operation.pointee.completion
        table.remove(place)
        receive(completion)
    }

    /// Notes what the kernel says of an operation; false if it was started anew for the rest.
    @inline(__always)
    private func hasEnded(_ place: Int32, _ result: Int32) -> Bool {
        let operation = table[place]
        let isWhole = operation.pointee.doneByteCount &+ Int(result) == operation.pointee.byteCount
        if !(isWhole && result >= 0), !settle(operation, result) {
            start(place)
            return false
        }
        table.markEnded(place)
        return true
    }

    /// An end that is no whole transfer: false if there is a rest to do.
    @inline(never)
    private func settle(_ operation: UnsafeMutablePointer<Operation>, _ result: Int32) -> Bool {
        let device = devices[Int(operation.pointee.queue)]
        switch OperationStep(operation.pointee, result: Int(result), readsDirectly: device.readsDirectly) {
        case .ended(let failure):
            operation.pointee.failure = failure
            return true
        case .progress(let byteCount):
            operation.pointee.doneByteCount += byteCount
            operation.pointee.retries = 0
            return false
        case .again:
            operation.pointee.retries += 1
            guard operation.pointee.retries > RingGroup.retriesMax else { return false }
            operation.pointee.failure = -result
            return true
        }
    }

    // ---- Sleeping ----

    func turnEnded(sleeping: Bool) {
        kick()
        guard sleeping else {
            if attention != .awake { apus_ring_signal(ring, false) }
            attention = .awake
            return
        }
        if attention == .awake { apus_ring_signal(ring, true) }
        attention = .asleep
        if hasSomething { wake.call() }
    }

    private var hasSomething: Bool { table.hasEnds || apus_ring_has_ends(ring) }

    func wait(_ queue: Int?) {
        kick()
        if !hasSomething { apus_ring_wait(ring, RingGroup.waitMilliseconds) }
    }

    // ---- Memory, and the end ----

    func prepare(_ region: UnsafeMutableRawBufferPointer, queue: Int) { memory.add(region, holder: queue) }

    func letGo(_ queue: Int) {
        precondition(!isPolling, "a queue is let go from inside poll")
        while table.underWayCount(queue) > 0 {
            kick()
            apus_ring_attend(ring)
            let count = apus_ring_take(ring, ends, UInt32(RingGroup.endsMax))
            for number in 0..<Int(count) {
                let place = Int32(truncatingIfNeeded: ends[number].token)
                if hasEnded(place, ends[number].result) { table.appendEnd(place) }
            }
            if count == 0 { apus_ring_wait(ring, RingGroup.waitMilliseconds) }
        }
        while table.takeEnd(of: queue) != nil {}
        // Submissions of other queues may name memory of this one.
        kick()
        memory.remove(holder: queue)
    }
}
