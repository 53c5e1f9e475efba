// The twin of a real device, as unkind as the rules of `BlockDevice` allow. Invariants:
// 1. Time is ticks: each `poll` of any queue is one, and so is `advance`. An operation takes effect at the tick its
//    latency has run out, then waits in `ended` for its queue to be polled.
// 2. Everything random is drawn from one seeded generator under `lock`, so one seed and one order of calls give one history.
// 3. Bytes of a write are taken at submission and must still be the same at its completion; a buffer of a read holds rubbish
//    until then.
// 4. A stalled device completes nothing. A queue that was let go has no operation under way, except that its writes may
//    have reached the medium.
internal import Base
internal import Synchronization

/// How a simulated device is made.
public struct SimulatedDeviceSettings: Sendable {
    /// Size and sectors.
    public var geometry: DeviceGeometry
    /// Seed of everything that is left to chance.
    public var seed: UInt64
    /// Ticks that an operation takes at most, beyond the first.
    public var latencyTicksMax = 3
    /// Bytes that growth can reach, and that writes can fill: behind it they fail with ENOSPC.
    public var spaceLimit = Int.max

    /// Joins the figures.
    public init(geometry: DeviceGeometry, seed: UInt64) {
        self.geometry = geometry
        self.seed = seed
    }
}

/// An operation on its way.
private struct Pending {
    let queue: Int
    let tag: UInt64
    let kind: OperationKind
    let fault: DeviceFault?
    /// Where it takes effect: a misdirected write has another offset than it was submitted with.
    let offset: Int
    let byteCount: Int
    let isDurable: Bool
    /// A write's own copy.
    let bytes: [UInt8]
    /// The caller's.
    let buffer: UnsafeRawBufferPointer?
    /// A flush: writes that had completed when it was submitted.
    let writesBefore: UInt64
    var ticksLeft: Int
}

/// A device in memory that loses, delays and spoils what it may. See the invariants above. Any thread.
public final class SimulatedDevice: BlockDevice, @unchecked Sendable {
    private let lock = Mutex<Void>(())
    // All that follows is under `lock`.
    private var settings: SimulatedDeviceSettings
    private var medium: SimulatedMedium
    private var random: SeededRandom
    private var faults = FaultPlan()
    private var pending: [Pending] = []
    private var ended: [(queue: Int, completion: DeviceCompletion)] = []
    private var wakes: [@Sendable () -> Void] = []
    private var isStalled = false

    /// A device that reads as zero.
    public convenience init(_ settings: SimulatedDeviceSettings) {
        self.init(settings, DeviceImage(byteCount: settings.geometry.byteCount))
    }

    /// A device that reads as zero, with latency and without a limit of space.
    public convenience init(
        byteCount: Int, sectorSize: Int = 512, atomicWriteSize: Int = 512, seed: UInt64
    ) {
        let geometry = DeviceGeometry(
            sectorSize: sectorSize, byteCount: byteCount, atomicWriteSize: atomicWriteSize)
        self.init(SimulatedDeviceSettings(geometry: geometry, seed: seed))
    }

    private init(_ settings: SimulatedDeviceSettings, _ image: DeviceImage) {
        self.settings = settings
        medium = SimulatedMedium(image, pieceSize: settings.geometry.atomicWriteSize)
        random = SeededRandom(seed: settings.seed)
    }

    // ---- What tests switch ----

    /// Lets every operation that `fault` can hit suffer it with this probability, from now on; 0 for never.
    public func inject(_ fault: DeviceFault, probability: Double) {
        lock.withLock { _ in faults.set(fault, probability: probability) }
    }

    /// Lets the `operationsFromNow`-th operation that `fault` can hit suffer it; 1 is the next one.
    public func inject(_ fault: DeviceFault, operationsFromNow: Int) {
        lock.withLock { _ in faults.add(fault, operationsFromNow: operationsFromNow) }
    }

    /// Switches all faults off that have not fired, and the limit of space.
    public func heal() {
        lock.withLock { _ in
            faults.clear()
            settings.spaceLimit = .max
        }
    }

    /// How many operations have suffered `fault`.
    public func fired(_ fault: DeviceFault) -> Int { lock.withLock { _ in faults.fired(fault) } }

    /// Turns over one bit, chosen by chance, in the stored byte at `offset`.
    public func rot(at offset: Int) {
        lock.withLock { _ in medium.rot(offset, bit: Int.random(in: 0..<8, using: &random)) }
    }

    /// Writes that end behind this many bytes fail with ENOSPC from now on, and so does growth.
    public func limitSpace(to byteCount: Int) { lock.withLock { _ in settings.spaceLimit = byteCount } }

    /// Completes nothing until `release`.
    public func stall() { lock.withLock { _ in isStalled = true } }

    /// Goes on after `stall`.
    public func release() { lock.withLock { _ in isStalled = false } }

    /// One tick: operations make progress without a poll. Wakes the owners of queues in which something has completed.
    public func advance() { tick(polling: nil) }

    /// Operations that were submitted and have not completed.
    public var underWayCount: Int { lock.withLock { _ in pending.count } }

    /// The bytes that a read submitted now, with nothing else under way, would find.
    public func contents(at offset: Int, byteCount: Int) -> [UInt8] {
        lock.withLock { _ in medium.visible.bytes(offset, byteCount) }
    }

    /// The device as it may be found if power fails now: all that is durable, and of everything else what `seed` decides. No
    /// faults are on there, and nothing is under way. This device is not changed; it may be used on, or let go.
    public func crashed(seed: UInt64) -> SimulatedDevice {
        lock.withLock { _ in
            var chance = SeededRandom(seed: seed)
            let underWay = pending.filter { $0.kind == .write && $0.fault != .lostWrite && $0.fault != .noSpace }
            let image = medium.crashed(underWay: underWay.map { ($0.bytes, $0.offset) }, &chance)
            var settings = settings
            settings.seed = chance.next()
            return SimulatedDevice(settings, image)
        }
    }

    // ---- Contract ----

    /// What it looks like now.
    public var geometry: DeviceGeometry { lock.withLock { _ in settings.geometry } }

    /// Grows up to `spaceLimit`.
    public func grow(to byteCount: Int) throws(DeviceError) {
        try lock.withLock { (_) throws(DeviceError) in
            guard byteCount >= settings.geometry.byteCount, byteCount % settings.geometry.sectorSize == 0 else {
                throw .invalid("a device of \(settings.geometry.byteCount) bytes cannot grow to \(byteCount)")
            }
            if faults.draw(.growth, &random) == .noSpace || byteCount > settings.spaceLimit { throw .noSpace }
            medium.grow(to: byteCount)
            settings.geometry.byteCount = byteCount
        }
    }

    /// A queue; never fails.
    public func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue {
        lock.withLock { _ in
            wakes.append(wake)
            return SimulatedQueue(self, number: wakes.count - 1, depth: depth)
        }
    }

    // ---- Queues ----

    fileprivate func submit(
        _ operation: DeviceOperation, tag: UInt64, queue: Int, depth: Int
    ) throws(DeviceError) {
        try lock.withLock { (_) throws(DeviceError) in
            let used = pending.count { $0.queue == queue } + ended.count { $0.queue == queue }
            guard used < depth else { throw .queueFull }
            try pending.append(begun(operation, tag, queue))
        }
    }

    /// Checks an operation and draws what will become of it.
    private func begun(_ operation: DeviceOperation, _ tag: UInt64, _ queue: Int) throws(DeviceError) -> Pending {
        let kind: OperationKind
        var offset = 0
        var byteCount = 0
        var isDurable = false
        var buffer: UnsafeRawBufferPointer?
        switch operation {
        case .read(let bytes, let at): (kind, offset, buffer) = (.read, at, UnsafeRawBufferPointer(bytes))
        case .write(let bytes, let at, let durable): (kind, offset, buffer, isDurable) = (.write, at, bytes, durable)
        case .flush: kind = .flush
        case .discard(let at, let count): (kind, offset, byteCount) = (.discard, at, count)
        }
        if let buffer {
            byteCount = buffer.count
            guard Int(bitPattern: buffer.baseAddress) % settings.geometry.sectorSize == 0 else {
                throw .invalid("the buffer is not aligned to \(settings.geometry.sectorSize) bytes")
            }
        }
        if kind != .flush, let problem = settings.geometry.problem(offset: offset, byteCount: byteCount) {
            throw .invalid(problem)
        }
        var fault = faults.draw(kind, &random)
        if kind == .write, offset + byteCount > settings.spaceLimit { fault = .noSpace }
        if fault == .misdirectedWrite { offset = otherPlace(than: offset, byteCount) }
        if case .read(let bytes, _) = operation { bytes.initializeMemory(as: UInt8.self, repeating: 0xA5) }
        return Pending(
            queue: queue, tag: tag, kind: kind, fault: fault, offset: offset, byteCount: byteCount, isDurable: isDurable,
            bytes: kind == .write ? buffer.map { Array($0) } ?? [] : [], buffer: buffer, writesBefore: medium.writes,
            ticksLeft: Int.random(in: 0...settings.latencyTicksMax, using: &random))
    }

    /// Another offset in whole sectors where a write of that size fits; the same only if there is no other.
    private func otherPlace(than offset: Int, _ byteCount: Int) -> Int {
        let sectorSize = settings.geometry.sectorSize
        let places = (settings.geometry.byteCount - byteCount) / sectorSize
        guard places > 0 else { return offset }
        let drawn = Int.random(in: 0..<places, using: &random)
        return (drawn < offset / sectorSize ? drawn : drawn + 1) * sectorSize
    }

    fileprivate func poll(_ queue: Int) -> [DeviceCompletion] {
        tick(polling: queue)
        return lock.withLock { _ in
            let mine = ended.filter { $0.queue == queue }.map(\.completion)
            ended.removeAll { $0.queue == queue }
            return mine
        }
    }

    /// Forgets the buffers of a queue that was let go; its writes reach the medium or not.
    fileprivate func close(_ queue: Int) {
        lock.withLock { _ in
            for operation in pending where operation.queue == queue && operation.kind == .write {
                if operation.fault == nil { medium.storeSome(operation.bytes, at: operation.offset, &random) }
            }
            pending.removeAll { $0.queue == queue }
            ended.removeAll { $0.queue == queue }
            wakes[queue] = {}
        }
    }

    // ---- Time ----

    private func tick(polling queue: Int?) {
        let woken = lock.withLock { _ in
            guard !isStalled else { return [@Sendable () -> Void]() }
            let due = pending.filter { $0.ticksLeft == 0 }.shuffled(using: &random)
            pending.removeAll { $0.ticksLeft == 0 }
            for place in pending.indices { pending[place].ticksLeft -= 1 }
            for operation in due {
                ended.append((operation.queue, DeviceCompletion(tag: operation.tag, outcome: perform(operation))))
            }
            return due.filter { $0.queue != queue }.map { wakes[$0.queue] }
        }
        for wake in woken { wake() }
    }

    /// The operation takes effect.
    private func perform(_ operation: Pending) -> DeviceCompletion.Outcome {
        if operation.kind == .write, let buffer = operation.buffer {
            let isSame = operation.bytes.withUnsafeBytes { buffer.equals($0) }
            precondition(isSame, "the buffer of a write was changed before its completion")
        }
        switch operation.fault {
        case .failure, .readError, .writeError, .flushError:
            if operation.kind == .write { medium.storeSome(operation.bytes, at: operation.offset, &random) }
            return .failed(errno: DeviceErrno.inputOutput)
        case .noSpace: return .failed(errno: DeviceErrno.noSpace)
        case .lostWrite: return .done(byteCount: operation.byteCount)
        case .bitRot:
            let byte = operation.offset + Int.random(in: 0..<operation.byteCount, using: &random)
            medium.rot(byte, bit: Int.random(in: 0..<8, using: &random))
        case .misdirectedWrite, nil: break
        }
        switch operation.kind {
        case .read:
            operation.buffer.map { medium.visible.read(operation.offset, into: UnsafeMutableRawBufferPointer(mutating: $0)) }
        case .write: medium.store(operation.bytes, at: operation.offset, durable: operation.isDurable)
        case .flush: medium.flush(upTo: operation.writesBefore)
        case .discard:
            medium.discard(operation.offset, operation.byteCount, sectorSize: settings.geometry.sectorSize, &random)
        case .growth: preconditionFailure("growth is not queued")
        }
        return .done(byteCount: operation.byteCount)
    }
}

/// A queue of a simulated device.
private final class SimulatedQueue: DeviceQueue {
    private let device: SimulatedDevice
    private let number: Int
    private let depth: Int

    init(_ device: SimulatedDevice, number: Int, depth: Int) {
        self.device = device
        self.number = number
        self.depth = depth
    }

    deinit { device.close(number) }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        try device.submit(operation, tag: tag, queue: number, depth: depth)
    }

    func poll(_ receive: (DeviceCompletion) -> Void) {
        for completion in device.poll(number) { receive(completion) }
    }

    /// Time only moves when somebody polls.
    func wait() {}
}
