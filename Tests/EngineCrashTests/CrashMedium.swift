// Simulated devices by path ("d0", "d1", ...) that lose power together, at any operation on any of them. Invariants:
// 1. What a power failure left is taken once, from all devices at the same moment; the medium is dead from then on: what
//    happens on it later has not happened.
import Base
import Device
import Synchronization

/// See the invariants above. Any thread.
final class CrashMedium: DeviceOpener {
    private struct State {
        var operationsLeft: Int?
        var seed: UInt64 = 0
        var left: [SimulatedDevice]?
    }
    let devices: [SimulatedDevice]
    /// What it does wrong on purpose.
    let canary: CrashCanary?
    private let state = Mutex(State())
    private let dead = Atomic(false)

    init(_ devices: [SimulatedDevice], canary: CrashCanary?) {
        self.devices = devices
        self.canary = canary
    }

    static func path(_ number: Int) -> String { "d\(number)" }

    /// Power has failed.
    var isDead: Bool { dead.load(ordering: .relaxed) }

    /// Power fails when `operations` more have been submitted; the one after them is under way then.
    func prepareCrash(after operations: Int, seed: UInt64) {
        state.withLock { state in
            state.operationsLeft = operations
            state.seed = seed
        }
    }

    func cancelCrash() { state.withLock { $0.operationsLeft = nil } }

    /// Power fails now, if it has not yet.
    func crash(seed: UInt64) {
        state.withLock { state in
            guard state.left == nil else { return }
            state.seed = seed
            fail(&state)
        }
    }

    /// The process dies now, the machine does not: writes that were under way arrive or not, and need not last.
    func kill() {
        state.withLock { if $0.left == nil { $0.left = devices } }
        dead.store(true, ordering: .relaxed)
    }

    /// What the failure has left.
    func afterCrash() -> CrashMedium {
        guard let left = state.withLock({ $0.left }) else { preconditionFailure("power has not failed") }
        return CrashMedium(left, canary: canary)
    }

    /// The same devices for the next process.
    func reused() -> CrashMedium { CrashMedium(devices, canary: canary) }

    private func fail(_ state: inout State) {
        var random = SeededRandom(seed: state.seed)
        state.left = devices.map { $0.crashed(seed: random.next()) }
        dead.store(true, ordering: .relaxed)
    }

    fileprivate func submitted() {
        state.withLock { state in
            guard let left = state.operationsLeft, state.left == nil else { return }
            state.operationsLeft = left - 1
            if left == 0 { fail(&state) }
        }
    }

    var isIdle: Bool { devices.allSatisfy { $0.underWayCount == 0 } }

    func advance() { for device in devices { device.advance() } }

    func open(_ request: DeviceRequest) throws(DeviceOpenError) -> any BlockDevice {
        guard let number = devices.indices.first(where: { CrashMedium.path($0) == request.path }) else {
            throw DeviceOpenError("does not exist", isMissing: true)
        }
        return MediumDevice(devices[number], self)
    }
}

/// One device of a medium.
private final class MediumDevice: BlockDevice {
    private let inner: SimulatedDevice
    private let medium: CrashMedium

    init(_ inner: SimulatedDevice, _ medium: CrashMedium) {
        self.inner = inner
        self.medium = medium
    }

    var geometry: DeviceGeometry { inner.geometry }

    func grow(to byteCount: Int) throws(DeviceError) { try inner.grow(to: byteCount) }

    func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue {
        MediumQueue(try inner.makeQueue(depth: depth, wake: wake), medium)
    }
}

private final class MediumQueue: DeviceQueue {
    private static let sectorSizeMax = 4096
    private let inner: any DeviceQueue
    private let medium: CrashMedium
    /// For reads that take the place of a forgotten flush.
    private let spare = UnsafeMutableRawBufferPointer.allocate(
        byteCount: MediumQueue.sectorSizeMax, alignment: MediumQueue.sectorSizeMax)

    init(_ inner: any DeviceQueue, _ medium: CrashMedium) {
        self.inner = inner
        self.medium = medium
    }

    deinit { spare.deallocate() }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        switch (medium.canary, operation) {
        case (.forgetsDurable, .write(let bytes, let offset, _)):
            try inner.submit(.write(bytes, offset: offset, durable: false), tag: tag)
        case (.forgetsFlush, .flush): try inner.submit(.read(spare, offset: 0), tag: tag)
        default: try inner.submit(operation, tag: tag)
        }
        medium.submitted()
    }

    func poll(_ receive: (DeviceCompletion) -> Void) { inner.poll(receive) }
    func wait() { inner.wait() }
}
