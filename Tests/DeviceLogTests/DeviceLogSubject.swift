import Base
import Device
import DeviceLog
import Storage
import StorageConformance

/// The device log on simulated devices.
final class DeviceLogSubject: ConformanceSubject {
    private let shape: LogShape
    private let byteCount: Int
    private let deviceCount: Int
    private let seed: UInt64
    private let latencyTicksMax: Int
    private let given: [(name: String, value: String)]
    private let isResident: Bool
    private(set) var opener: SimulatedOpener
    /// Lines for the log since the last opening.
    let lines = LogLines()

    init(
        byteCount: Int, blockSize: Int, headSize: Int = 8 << 10, flushUnit: Int = 512, deviceCount: Int = 1, seed: UInt64,
        latencyTicksMax: Int = 3, settings: [(name: String, value: String)] = [], canary: LogCanary? = nil,
        isResident: Bool = false
    ) {
        self.isResident = isResident
        var shape = LogShape()
        shape.blockSize = blockSize
        shape.headSize = headSize
        shape.flushUnit = flushUnit
        shape.canary = canary
        self.shape = shape
        self.byteCount = byteCount
        self.deviceCount = deviceCount
        self.seed = seed
        self.latencyTicksMax = latencyTicksMax
        given = settings
        opener = SimulatedOpener(count: deviceCount, byteCount: byteCount, latencyTicksMax: latencyTicksMax, seed: seed)
    }

    var descriptor: BackendDescriptor { descriptor(opener) }

    private func descriptor(_ opener: SimulatedOpener) -> BackendDescriptor {
        let seed = seed
        return DeviceLog.descriptor(opener: opener, entropy: { seed }, shape: shape, isResident: isResident)
    }

    func make() throws(StorageError) -> any Backend {
        try open(
            SimulatedOpener(count: deviceCount, byteCount: byteCount, latencyTicksMax: latencyTicksMax, seed: seed))
    }

    func makeSmall() throws(StorageError) -> (any Backend)? {
        let small = shape.headSize + 24 * shape.blockSize
        return try open(SimulatedOpener(count: deviceCount, byteCount: small, seed: seed))
    }

    func reopen(after ending: Ending) throws(StorageError) -> any Backend {
        switch ending {
        case .close: try open(opener)
        case .crash(let seed): try open(opener.crashed(seed: seed))
        }
    }

    private func open(_ opener: SimulatedOpener) throws(StorageError) -> any Backend {
        self.opener = opener
        // What was prepared for the session before does not count for this one.
        opener.cancelCrash()
        let paths = (0..<deviceCount).map { (name: "device", value: "d\($0)") }
        let small = [
            ("flush-size", "2048"), ("max-write-cache", "\(16 * shape.blockSize)"),
            ("post-write-cache", "\(2 * shape.blockSize)"),
        ].map { (name: $0.0, value: $0.1) }
        return try DeviceLogOpening.open(descriptor(opener), small + given + paths, lines)
    }

    func injectFault(after operations: Int) -> Bool {
        // Of several devices one fails: which one goes round with the number.
        let device = opener.all[operations % deviceCount]
        device.inject(.failure, operationsFromNow: operations / deviceCount + 1)
        return true
    }

    func endFaults() -> Bool {
        for device in opener.all { device.heal() }
        return opener.all.allSatisfy { $0.fired(.failure) == 0 }
    }

    func prepareCrash(after operations: Int, seed: UInt64) -> Bool {
        opener.prepareCrash(after: operations, seed: seed)
        return true
    }

    func advance() { for device in opener.all { device.advance() } }
}
