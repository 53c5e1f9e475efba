// What the tests need: a directory of their own, queues with buffers, commands of the system.
import Device
import Glibc
import Synchronization
import SystemDevice

/// A directory that is removed with this object.
final class Scratch {
    let path: String

    init(in parent: String = "/tmp") throws {
        var template = Array("\(parent)/apus-device-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw DeviceError.failed(errno: errno) }
        path = String(cString: made)
    }

    deinit { _ = run("rm -rf '\(path)'") }

    func file(_ name: String = "data") -> String { "\(path)/\(name)" }

    /// A file of so many zero bytes.
    func makeFile(_ name: String = "data", byteCount: Int) throws -> String {
        let descriptor = creat(file(name), 0o600)
        guard descriptor >= 0, ftruncate(descriptor, off_t(byteCount)) == 0 else { throw DeviceError.failed(errno: errno) }
        close(descriptor)
        return file(name)
    }
}

/// Runs a command; its output without the last line's end, nil if it failed.
func run(_ command: String) -> String? {
    guard let pipe = popen(command, "r") else { return nil }
    var output: [UInt8] = []
    while case let byte = getc(pipe), byte >= 0 { output.append(UInt8(byte)) }
    guard pclose(pipe) == 0 else { return nil }
    if output.last == 10 { output.removeLast() }
    return String(decoding: output, as: UTF8.self)
}

/// What an opening comes to: its sentence, nil if it went well.
func refusal(_ request: DeviceRequest) -> DeviceOpenError? {
    do throws(DeviceOpenError) {
        _ = try SystemDevices().open(request)
        return nil
    } catch {
        return error
    }
}

func openFile(
    _ path: String, _ byteCount: Int = 0, _ carrier: SystemDevices.Carrier = .automatic, throughPageCache: Bool = false
) throws -> SystemDevice {
    let request = DeviceRequest(
        path: path, isBlockDevice: false, fileByteCount: byteCount, readsThroughPageCache: throughPageCache)
    guard let device = try SystemDevices(carrier: carrier).open(request) as? SystemDevice else {
        throw DeviceError.invalid("no device of the system")
    }
    return device
}

/// Buffers that go with this object.
final class KeptBuffers {
    var all: [UnsafeMutableRawBufferPointer] = []
    deinit { for buffer in all { buffer.deallocate() } }
}

/// A queue with buffers.
final class Driver {
    let queue: any DeviceQueue
    private(set) var completions: [DeviceCompletion] = []
    private var nextTag: UInt64 = 0
    // Members go in the order in which they are declared: the queue first.

    init(_ queue: any DeviceQueue) { self.queue = queue }

    convenience init(_ device: SystemDevice, depth: Int = 64) throws {
        try self.init(device.makeQueue(depth: depth) {})
    }

    /// The buffers go after the queue, which may have transfers under way.
    private let kept = KeptBuffers()

    func buffer(_ bytes: [UInt8]) -> UnsafeMutableRawBufferPointer {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 4096)
        buffer.copyBytes(from: bytes)
        kept.all.append(buffer)
        return buffer
    }

    @discardableResult
    func submit(_ operation: DeviceOperation) throws -> UInt64 {
        nextTag += 1
        try queue.submit(operation, tag: nextTag)
        return nextTag
    }

    func poll() { queue.poll { completions.append($0) } }

    /// Waits until the operation has ended.
    func finish(_ tag: UInt64) -> DeviceCompletion.Outcome {
        while true {
            if let completion = completions.first(where: { $0.tag == tag }) { return completion.outcome }
            queue.wait()
            poll()
        }
    }

    func write(_ bytes: [UInt8], at offset: Int, durable: Bool = false) throws -> DeviceCompletion.Outcome {
        finish(try submit(.write(UnsafeRawBufferPointer(buffer(bytes)), offset: offset, durable: durable)))
    }

    func read(at offset: Int, _ byteCount: Int) throws -> (outcome: DeviceCompletion.Outcome, bytes: [UInt8]) {
        let buffer = buffer(filled(0, byteCount))
        let outcome = finish(try submit(.read(buffer, offset: offset)))
        return (outcome, Array(buffer))
    }
}

func filled(_ byte: UInt8, _ count: Int = 4096) -> [UInt8] { [UInt8](repeating: byte, count: count) }

/// A counter that a wake closure may hold.
final class KeptCount: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .relaxed) }
    func add() { count.wrappingAdd(1, ordering: .relaxed) }
}
