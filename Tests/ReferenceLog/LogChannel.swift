// Buffers and blocking device operations of the reference log.
internal import Base
internal import Device
internal import Storage

/// Memory that a device can read into and write from; zero at first. It lives as long as somebody refers to it.
final class LogBuffer {
    let bytes: UnsafeMutableRawBufferPointer

    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { bytes.deallocate() }

    func view(_ range: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[range]) }
}

/// A queue for operations that are waited for. One thread at a time.
final class LogChannel {
    /// Polls without an answer after which the device is taken for dead.
    private static let pollsMax = 1_000_000
    private let queue: any DeviceQueue

    init(_ device: any BlockDevice) throws(StorageError) {
        do throws(DeviceError) { queue = try device.makeQueue(depth: 1) {} } catch {
            throw LogChannel.storageError(error, "open a queue")
        }
    }

    static func storageError(_ error: DeviceError, _ operation: String) -> StorageError {
        switch error {
        case .queueFull: .overloaded
        case .invalid(let reason): .device(errno: 22, operation: "\(operation): \(reason)")
        case .noSpace: .device(errno: DeviceErrno.noSpace, operation: operation)
        case .failed(let errno): .device(errno: errno, operation: operation)
        }
    }

    func read(_ offset: Int, _ byteCount: Int, _ operation: String) throws(StorageError) -> LogBuffer {
        let buffer = LogBuffer(byteCount: byteCount)
        try run(.read(buffer.bytes, offset: offset), operation)
        return buffer
    }

    /// Durable when it returns.
    func write(_ buffer: LogBuffer, _ offset: Int, _ operation: String) throws(StorageError) {
        try run(.write(UnsafeRawBufferPointer(buffer.bytes), offset: offset, durable: true), operation)
    }

    /// Makes everything last that was written before, by whomever.
    func flush(_ operation: String) throws(StorageError) { try run(.flush, operation) }

    private func run(_ operation: DeviceOperation, _ name: String) throws(StorageError) {
        do throws(DeviceError) { try queue.submit(operation, tag: 0) } catch { throw LogChannel.storageError(error, name) }
        for _ in 0..<LogChannel.pollsMax {
            var outcome: DeviceCompletion.Outcome?
            queue.poll { outcome = $0.outcome }
            switch outcome {
            case .done?: return
            case .failed(let errno)?: throw .device(errno: errno, operation: name)
            case nil: queue.wait()
            }
        }
        throw .device(errno: DeviceErrno.inputOutput, operation: "\(name): the device does not answer")
    }
}
