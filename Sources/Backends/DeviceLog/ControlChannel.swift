// Operations on one device that are waited for: opening, metadata, closing. Never on a reactor.
internal import Device
internal import Storage

/// Memory that a device can read into and write from; zero at first. It lives as long as somebody refers to it.
final class DeviceMemory {
    /// Sectors have at most so many bytes.
    private static let alignment = 4096
    let bytes: UnsafeMutableRawBufferPointer

    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: DeviceMemory.alignment)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { bytes.deallocate() }

    var base: UnsafeMutableRawPointer { bytes.baseAddress! }
    var view: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }
}

/// A queue with one operation under way. One thread at a time.
final class ControlChannel {
    /// So often an operation is tried.
    private static let attemptsMax = 3
    /// Polls without an answer after which the device is taken for dead; on a real device each waits for some milliseconds.
    private static let pollsMax = 20_000
    let path: String
    private let queue: any DeviceQueue

    init(_ device: any BlockDevice, path: String) throws(StorageError) {
        self.path = path
        do throws(DeviceError) { queue = try device.makeQueue(depth: 1) {} } catch {
            throw .device(errno: error.errno, operation: "make a queue for \(path)")
        }
    }

    /// Fills `buffer`.
    /// - Throws: `device`.
    func read(_ offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(StorageError) {
        try run(.read(buffer, offset: offset), "read \(buffer.count) bytes at \(offset) of \(path)")
    }

    /// Memory of its own with what stands there.
    /// - Throws: `device`.
    func read(_ offset: Int, byteCount: Int) throws(StorageError) -> DeviceMemory {
        let memory = DeviceMemory(byteCount: byteCount)
        try read(offset, into: memory.bytes)
        return memory
    }

    /// Durable when it returns.
    /// - Throws: `device`.
    func write(_ bytes: UnsafeRawBufferPointer, _ offset: Int) throws(StorageError) {
        try run(.write(bytes, offset: offset, durable: true), "write \(bytes.count) bytes at \(offset) of \(path)")
    }

    /// Makes everything last that was written before, by whomever.
    /// - Throws: `device`.
    func flush() throws(StorageError) { try run(.flush, "flush \(path)") }

    private func run(_ operation: DeviceOperation, _ name: @autoclosure () -> String) throws(StorageError) {
        var errno = DeviceErrno.inputOutput
        for _ in 0..<ControlChannel.attemptsMax {
            do throws(DeviceError) { try queue.submit(operation, tag: 0) } catch {
                throw .device(errno: error.errno, operation: "\(name()): \(error)")
            }
            guard let outcome = waitForEnd() else {
                throw .device(errno: errno, operation: "\(name()): the device does not answer")
            }
            guard case .failed(let number) = outcome else { return }
            errno = number
        }
        throw .device(errno: errno, operation: name())
    }

    private func waitForEnd() -> DeviceCompletion.Outcome? {
        for _ in 0..<ControlChannel.pollsMax {
            var outcome: DeviceCompletion.Outcome?
            queue.poll { outcome = $0.outcome }
            if let outcome { return outcome }
            queue.wait()
        }
        return nil
    }
}
