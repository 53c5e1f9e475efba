import Base
import Device
import ReferenceLog
import Storage
import StorageConformance
import Synchronization

/// The reference log on a simulated device.
final class LogSubject: ConformanceSubject {
    private static let smallByteCount = 1 << 20
    let flaw: Flaw?
    private let byteCount: Int
    private let blockSize: Int
    private let seed: UInt64
    private var device: CrashPointDevice

    let capabilities: Capabilities

    init(
        byteCount: Int, blockSize: Int = ReferenceLogBackend.blockSize, seed: UInt64, flaw: Flaw? = nil,
        promises: Capabilities = ReferenceLogBackend.capabilities
    ) {
        capabilities = promises
        self.byteCount = byteCount
        self.blockSize = blockSize
        self.seed = seed
        self.flaw = flaw
        device = CrashPointDevice(SimulatedDevice(byteCount: byteCount, seed: seed))
    }

    var descriptor: BackendDescriptor {
        ReferenceLogBackend.descriptor(device: device, blockSize: blockSize, flaw: flaw)
    }

    func make() throws(StorageError) -> any Backend { try open(SimulatedDevice(byteCount: byteCount, seed: seed)) }

    func makeSmall() throws(StorageError) -> (any Backend)? {
        try open(SimulatedDevice(byteCount: LogSubject.smallByteCount, seed: seed))
    }

    func reopen(after ending: Ending) throws(StorageError) -> any Backend {
        switch ending {
        case .close: try open(device.inner)
        case .crash(let seed): try open(device.crashed(seed: seed))
        }
    }

    private func open(_ inner: SimulatedDevice) throws(StorageError) -> any Backend {
        device = CrashPointDevice(inner)
        return try ReferenceLogBackend(device: device, blockSize: blockSize, flaw: flaw)
    }

    func injectFault(after operations: Int) -> Bool {
        device.inner.inject(.failure, operationsFromNow: operations + 1)
        return true
    }

    func endFaults() -> Bool {
        device.inner.heal()
        return device.inner.fired(.failure) == 0
    }

    func prepareCrash(after operations: Int, seed: UInt64) -> Bool {
        device.prepare(after: operations, seed: seed)
        return true
    }

    func advance() { device.inner.advance() }
}

/// A device that remembers what a power failure would have left at a certain operation, in the middle of a backend's call.
final class CrashPointDevice: BlockDevice {
    private struct Point {
        var operationsLeft: Int?
        var image: SimulatedDevice?
        var seed: UInt64 = 0
    }

    let inner: SimulatedDevice
    private let point = Mutex(Point())

    init(_ inner: SimulatedDevice) { self.inner = inner }

    /// The next crash comes when `operations` more have been submitted; the one after that is under way then.
    func prepare(after operations: Int, seed: UInt64) {
        point.withLock { $0 = Point(operationsLeft: operations, image: nil, seed: seed) }
    }

    /// What the crash has left: of the prepared moment, if that has come.
    func crashed(seed: UInt64) -> SimulatedDevice {
        point.withLock { $0.image } ?? inner.crashed(seed: seed)
    }

    fileprivate func submitted() {
        point.withLock { point in
            guard let left = point.operationsLeft else { return }
            point.operationsLeft = left > 0 ? left - 1 : nil
            if left == 0 { point.image = inner.crashed(seed: point.seed) }
        }
    }

    var geometry: DeviceGeometry { inner.geometry }

    func grow(to byteCount: Int) throws(DeviceError) { try inner.grow(to: byteCount) }

    func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue {
        CrashPointQueue(self, try inner.makeQueue(depth: depth, wake: wake))
    }
}

private final class CrashPointQueue: DeviceQueue {
    private let device: CrashPointDevice
    private let inner: any DeviceQueue

    init(_ device: CrashPointDevice, _ inner: any DeviceQueue) {
        self.device = device
        self.inner = inner
    }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        try inner.submit(operation, tag: tag)
        device.submitted()
    }

    func poll(_ receive: (DeviceCompletion) -> Void) { inner.poll(receive) }

    func wait() { inner.wait() }
}
