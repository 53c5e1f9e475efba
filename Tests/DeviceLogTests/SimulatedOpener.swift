import Base
import Device
import Synchronization

/// A machine full of simulated devices, by path, that can lose power in the middle of anything. Any thread.
final class SimulatedOpener: DeviceOpener {
    private struct State {
        var devices: [(path: String, device: SimulatedDevice)]
        var random: SeededRandom
        /// Paths that cannot be opened, and why.
        var refused: [(path: String, error: DeviceOpenError)] = []
        var operationsLeft: Int?
        var crashSeed: UInt64 = 0
        var afterCrash: [(path: String, device: SimulatedDevice)]?
        var submitted = 0
        /// Writes, discards and growth on a device that is only looked at.
        var written = 0
        var read = 0
        var watcher: (@Sendable () -> Void)?
    }
    private let state: Mutex<State>

    init(_ devices: [(path: String, device: SimulatedDevice)], seed: UInt64) {
        state = Mutex(State(devices: devices, random: SeededRandom(seed: seed)))
    }

    /// Paths "d0", "d1", ... of devices that read as zero.
    convenience init(count: Int, byteCount: Int, latencyTicksMax: Int = 3, seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let geometry = DeviceGeometry(sectorSize: 512, byteCount: byteCount, atomicWriteSize: 512)
        let devices = (0..<count).map { number in
            var settings = SimulatedDeviceSettings(geometry: geometry, seed: random.next())
            settings.latencyTicksMax = latencyTicksMax
            return (path: "d\(number)", device: SimulatedDevice(settings))
        }
        self.init(devices, seed: random.next())
    }

    func device(_ path: String) -> SimulatedDevice? {
        state.withLock { $0.devices.first { $0.path == path }?.device }
    }

    var all: [SimulatedDevice] { state.withLock { $0.devices.map(\.device) } }
    var writtenCount: Int { state.withLock { $0.written } }
    /// Reads that were submitted.
    var readCount: Int { state.withLock { $0.read } }

    func set(_ path: String, _ device: SimulatedDevice?) {
        state.withLock { state in
            state.devices.removeAll { $0.path == path }
            if let device { state.devices.append((path, device)) }
        }
    }

    func refuse(_ path: String, _ error: DeviceOpenError?) {
        state.withLock { state in
            state.refused.removeAll { $0.path == path }
            if let error { state.refused.append((path, error)) }
        }
    }

    /// `watcher` is called after each operation was submitted: it is under way then.
    func watch(_ watcher: (@Sendable () -> Void)?) { state.withLock { $0.watcher = watcher } }

    // ---- DeviceOpener ----

    func open(_ request: DeviceRequest) throws(DeviceOpenError) -> any BlockDevice {
        try state.withLock { (state) throws(DeviceOpenError) in
            if let refusal = state.refused.first(where: { $0.path == request.path }) { throw refusal.error }
            if let known = state.devices.first(where: { $0.path == request.path })?.device {
                let isGrown = !request.isLookedAt && !request.isBlockDevice
                    && request.fileByteCount > known.geometry.byteCount
                do throws(DeviceError) { if isGrown { try known.grow(to: request.fileByteCount) } } catch {
                    throw DeviceOpenError("cannot grow")
                }
                return WatchedDevice(known, self)
            }
            guard !request.isLookedAt, !request.isBlockDevice, request.fileByteCount > 0 else {
                throw DeviceOpenError("does not exist", isMissing: true)
            }
            let made = SimulatedDevice(byteCount: request.fileByteCount, seed: state.random.next())
            state.devices.append((request.path, made))
            return WatchedDevice(made, self)
        }
    }

    // ---- Power failures ----

    /// The next crash comes when `operations` more have been submitted on any device; that one is under way then.
    func prepareCrash(after operations: Int, seed: UInt64) {
        state.withLock { state in
            (state.operationsLeft, state.crashSeed, state.afterCrash) = (operations, seed, nil)
        }
    }

    /// No crash comes but those that are asked for.
    func cancelCrash() { state.withLock { ($0.operationsLeft, $0.afterCrash) = (nil, nil) } }

    /// The machine after a power failure: at the moment that was prepared, if that has come, else now.
    func crashed(seed: UInt64) -> SimulatedOpener {
        let devices = state.withLock { state in state.afterCrash ?? SimulatedOpener.crashed(state.devices, seed) }
        return SimulatedOpener(devices, seed: seed)
    }

    private static func crashed(
        _ devices: [(path: String, device: SimulatedDevice)], _ seed: UInt64
    ) -> [(path: String, device: SimulatedDevice)] {
        var random = SeededRandom(seed: seed)
        return devices.map { ($0.path, $0.device.crashed(seed: random.next())) }
    }

    fileprivate func countRead() { state.withLock { $0.read += 1 } }

    fileprivate func submitted(isWrite: Bool) {
        defer { state.withLock { $0.watcher }?() }
        state.withLock { state in
            if isWrite { state.written += 1 }
            guard let left = state.operationsLeft else { return }
            state.operationsLeft = left > 0 ? left - 1 : nil
            if left == 0 { state.afterCrash = SimulatedOpener.crashed(state.devices, state.crashSeed) }
        }
    }
}

/// Tells its opener what is submitted.
private final class WatchedDevice: BlockDevice {
    private let inner: SimulatedDevice
    private let opener: SimulatedOpener

    init(_ inner: SimulatedDevice, _ opener: SimulatedOpener) {
        self.inner = inner
        self.opener = opener
    }

    var geometry: DeviceGeometry { inner.geometry }

    func grow(to byteCount: Int) throws(DeviceError) {
        opener.submitted(isWrite: true)
        try inner.grow(to: byteCount)
    }

    func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue {
        WatchedQueue(try inner.makeQueue(depth: depth, wake: wake), opener)
    }
}

private final class WatchedQueue: DeviceQueue {
    private let inner: any DeviceQueue
    private let opener: SimulatedOpener

    init(_ inner: any DeviceQueue, _ opener: SimulatedOpener) {
        self.inner = inner
        self.opener = opener
    }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        try inner.submit(operation, tag: tag)
        if case .read = operation { opener.countRead() }
        switch operation {
        case .read, .flush: opener.submitted(isWrite: false)
        case .write, .discard: opener.submitted(isWrite: true)
        }
    }

    func poll(_ receive: (DeviceCompletion) -> Void) { inner.poll(receive) }
    func wait() { inner.wait() }
}
