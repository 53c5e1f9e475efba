// A queue with buffers: what the tests need to drive a device in a line.
import Base
import Device
import Synchronization

final class Driver {
    let device: SimulatedDevice
    let queue: any DeviceQueue
    private(set) var completions: [DeviceCompletion] = []
    private var buffers: [UnsafeMutableRawBufferPointer] = []
    private var nextTag: UInt64 = 0

    init(_ device: SimulatedDevice, depth: Int = 64) throws {
        self.device = device
        queue = try device.makeQueue(depth: depth) {}
    }

    deinit { for buffer in buffers { buffer.deallocate() } }

    /// A buffer that lives as long as this object.
    func buffer(_ bytes: [UInt8]) -> UnsafeMutableRawBufferPointer {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 4096)
        buffer.copyBytes(from: bytes)
        buffers.append(buffer)
        return buffer
    }

    @discardableResult
    func submit(_ operation: DeviceOperation) throws -> UInt64 {
        nextTag += 1
        try queue.submit(operation, tag: nextTag)
        return nextTag
    }

    @discardableResult
    func submitWrite(_ bytes: [UInt8], at offset: Int, durable: Bool = false) throws -> UInt64 {
        try submit(.write(UnsafeRawBufferPointer(buffer(bytes)), offset: offset, durable: durable))
    }

    func poll() { queue.poll { completions.append($0) } }

    /// Polls until the operation has ended.
    func finish(_ tag: UInt64) -> DeviceCompletion.Outcome {
        for _ in 0..<1000 {
            if let completion = completions.first(where: { $0.tag == tag }) { return completion.outcome }
            poll()
        }
        return .failed(errno: -1)
    }

    func write(_ bytes: [UInt8], at offset: Int, durable: Bool = false) throws -> DeviceCompletion.Outcome {
        finish(try submitWrite(bytes, at: offset, durable: durable))
    }

    func flush() throws -> DeviceCompletion.Outcome { finish(try submit(.flush)) }

    func read(at offset: Int, _ byteCount: Int) throws -> (outcome: DeviceCompletion.Outcome, bytes: [UInt8]) {
        let buffer = buffer([UInt8](repeating: 0, count: byteCount))
        let outcome = finish(try submit(.read(buffer, offset: offset)))
        return (outcome, Array(buffer))
    }
}

/// A device of 64 KiB and a driver for it.
func makeDriver(
    seed: UInt64, sectorSize: Int = 512, atomicWriteSize: Int = 512, byteCount: Int = 64 << 10
) throws -> Driver {
    try Driver(SimulatedDevice(
        byteCount: byteCount, sectorSize: sectorSize, atomicWriteSize: atomicWriteSize, seed: seed))
}

func filled(_ byte: UInt8, _ count: Int = 512) -> [UInt8] { [UInt8](repeating: byte, count: count) }

extension DeviceCompletion.Outcome {
    static let inputOutput = DeviceCompletion.Outcome.failed(errno: DeviceErrno.inputOutput)
    static let noSpace = DeviceCompletion.Outcome.failed(errno: DeviceErrno.noSpace)
}

/// A counter that a wake closure may hold.
final class KeptCount: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .relaxed) }
    func add() { count.wrappingAdd(1, ordering: .relaxed) }
}
