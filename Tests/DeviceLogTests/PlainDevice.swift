// A device without latency, faults or crashes: bytes in memory, for models of many writes.
import Device

/// One thread.
final class PlainDevice: BlockDevice, @unchecked Sendable {
    private let bytes: UnsafeMutableRawBufferPointer
    let geometry: DeviceGeometry

    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        geometry = DeviceGeometry(sectorSize: 512, byteCount: byteCount, atomicWriteSize: 512)
    }

    deinit { bytes.deallocate() }

    func grow(to byteCount: Int) throws(DeviceError) { throw .noSpace }

    func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue {
        PlainQueue(self)
    }

    fileprivate func perform(_ operation: DeviceOperation) -> Int {
        switch operation {
        case .read(let target, let offset):
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + target.count]))
            return target.count
        case .write(let source, let offset, _):
            UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + source.count]).copyMemory(from: source)
            return source.count
        case .flush: return 0
        case .discard(_, let byteCount): return byteCount
        }
    }
}

/// Everything is done at once, and known at the next poll.
private final class PlainQueue: DeviceQueue {
    private let device: PlainDevice
    private var ended: [DeviceCompletion] = []
    init(_ device: PlainDevice) { self.device = device }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        ended.append(DeviceCompletion(tag: tag, outcome: .done(byteCount: device.perform(operation))))
    }

    func poll(_ receive: (DeviceCompletion) -> Void) {
        let now = ended
        ended = []
        for completion in now { receive(completion) }
    }

    func wait() {}
}

/// Opens one such device, whatever the path.
struct PlainOpener: DeviceOpener {
    let device: PlainDevice

    func open(_ request: DeviceRequest) throws(DeviceOpenError) -> any BlockDevice { device }
}
