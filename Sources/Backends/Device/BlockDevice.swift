// The seam under device backends: a run of sectors on a raw device or in a file, behind queues of operations that never
// block. The real one works over io_uring; `SimulatedDevice` is its twin. What a backend may rely on, and no more:
//
// 1. An operation is under way from `submit` until `poll` hands over its completion, exactly once, in any order.
// 2. An operation is done as a whole or has failed. What a failed write leaves in its range is any mixture of old and new
//    bytes, in pieces of `atomicWriteSize`.
// 3. A completed write is seen by every read submitted later, from any queue. Operations on the same bytes that are
//    under way together may take effect in any order.
// 4. A write lasts if it was submitted as durable and has completed, or if a flush that was submitted after its completion
//    has completed. After a power failure any piece of any other write may be there or not; of several writes
//    to the same piece, each is only there if those before it are.
// 5. A piece is `atomicWriteSize` bytes at a multiple of that: it is never torn.

/// Shape of a device.
public struct DeviceGeometry: Sendable, Equatable {
    /// Offsets, byte counts and buffer addresses are multiples of this: 512 or 4096 bytes.
    public let sectorSize: Int
    /// Size in bytes, whole sectors. Grows by `BlockDevice.grow` only.
    public var byteCount: Int
    /// Bytes that reach the medium whole or not at all: 512 or 4096.
    public let atomicWriteSize: Int

    /// Joins the figures.
    public init(sectorSize: Int, byteCount: Int, atomicWriteSize: Int) {
        precondition(sectorSize == 512 || sectorSize == 4096, "a sector has 512 or 4096 bytes")
        precondition(atomicWriteSize == 512 || atomicWriteSize == 4096, "a piece has 512 or 4096 bytes")
        precondition(byteCount > 0 && byteCount % sectorSize == 0, "a device has whole sectors")
        self.sectorSize = sectorSize
        self.byteCount = byteCount
        self.atomicWriteSize = atomicWriteSize
    }
}

/// Why a device did not accept something. What goes wrong later comes with the completion.
public enum DeviceError: Error, Hashable, Sendable {
    /// As much is under way on this queue as it has room for: poll, then submit again.
    case queueFull
    /// Not within the device, or not in whole sectors; says what.
    case invalid(String)
    /// The medium under the device has no room to grow.
    case noSpace
    /// The system refused; carries errno.
    case failed(errno: Int32)
}

/// Numbers of errors as Linux counts them: this module makes no system calls.
public enum DeviceErrno {
    /// EIO: the medium failed.
    public static let inputOutput: Int32 = 5
    /// ENODEV: there is no such device.
    public static let noDevice: Int32 = 19
    /// ENOSPC: no room under the device.
    public static let noSpace: Int32 = 28
}

extension DeviceError {
    /// The nearest errno.
    public var errno: Int32 {
        switch self {
        case .queueFull: 11
        case .invalid: 22
        case .noSpace: DeviceErrno.noSpace
        case .failed(let errno): errno
        }
    }
}

/// What a queue is asked to do. A buffer begins at a multiple of the sector size, is as long as the transfer, stays the
/// caller's, and is neither changed (write) nor looked at (read) nor freed before the completion.
public enum DeviceOperation {
    /// Fills the buffer from `offset` bytes on.
    case read(UnsafeMutableRawBufferPointer, offset: Int)
    /// Stores the buffer from `offset` bytes on; `durable`: it lasts when it completes.
    case write(
        UnsafeRawBufferPointer, offset: Int, durable: Bool)
    /// Makes every write last that had completed, on any queue, when this was submitted.
    case flush
    /// The bytes are wanted no more: from now until they are written they read as zero or as they were, sector by sector.
    case discard(offset: Int, byteCount: Int)
}

/// The end of an operation.
public struct DeviceCompletion: Hashable, Sendable {
    /// What it was submitted with.
    public let tag: UInt64
    /// What it came to.
    public let outcome: Outcome

    /// Done as a whole, or not.
    public enum Outcome: Hashable, Sendable {
        /// All of it; how many bytes were read, written or discarded (0 for a flush).
        case done(byteCount: Int)
        /// The errno of what went wrong.
        case failed(errno: Int32)
    }

    /// Joins the parts.
    public init(tag: UInt64, outcome: Outcome) {
        self.tag = tag
        self.outcome = outcome
    }
}

/// A way to a device: one for each thread that uses it, used by one thread at a time. Letting it go gives up what is under
/// way: a write then may or may not take effect, its buffer is not needed any more.
public protocol DeviceQueue: AnyObject {
    /// Starts an operation; never blocks. `tag` comes back with its completion.
    /// - Throws: `queueFull`, `invalid`; nothing was started then.
    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError)

    /// Starts what has been submitted since the last call, all of it at once; without it an operation need not begin before
    /// the next `poll` or `wait`.
    func kick()

    /// Hands over what has completed since; never blocks. `receive` may submit.
    func poll(_ receive: (DeviceCompletion) -> Void)

    /// The owner has ended a turn. If it is `sleeping`, it polls again only when it is woken: completions from now on, and
    /// those that nobody has polled yet, call its `DeviceWake`. Else it polls soon and need not be woken. Kicks.
    func turnEnded(sleeping: Bool)

    /// This memory, a sector's multiple from a sector's multiple on, will be used for many transfers: a chance to
    /// prepare it. It stays valid as long as the queue. A hint.
    func prepare(_ memory: UnsafeMutableRawBufferPointer)

    /// Waits until `poll` has something to hand over, or a moment has passed. For control planes, never on a reactor.
    func wait()
}

extension DeviceQueue {
    /// What is submitted begins at once.
    public func kick() {}
    /// Wakes its owner whether it sleeps or not.
    public func turnEnded(sleeping: Bool) {}
    /// Prepares nothing.
    public func prepare(_ memory: UnsafeMutableRawBufferPointer) {}
}

/// How the owner of a queue is woken.
public struct DeviceWake: Sendable {
    /// Any thread; cheap if called often.
    public let call: @Sendable () -> Void
    /// A descriptor of the system (an eventfd) that does the same when it is signalled; -1 if there is none.
    public let descriptor: Int32

    /// Joins the ways.
    public init(descriptor: Int32 = -1, call: @escaping @Sendable () -> Void) {
        self.call = call
        self.descriptor = descriptor
    }
}

/// What is to be opened as a device.
public struct DeviceRequest: Sendable {
    /// A raw device, or a file.
    public let path: String
    /// It must be a block device (true), or a file, which is made if it is missing.
    public let isBlockDevice: Bool
    /// Size of a file that is made; an existing smaller one grows to it. 0 takes an existing file as it is.
    public let fileByteCount: Int
    /// Reads may come from the system's page cache (`read-page-cache`).
    public let readsThroughPageCache: Bool
    /// Only to be looked at: nothing is made, locked or written.
    public let isLookedAt: Bool

    /// Joins the wishes.
    public init(
        path: String, isBlockDevice: Bool, fileByteCount: Int = 0, readsThroughPageCache: Bool = false,
        isLookedAt: Bool = false
    ) {
        self.path = path
        self.isBlockDevice = isBlockDevice
        self.fileByteCount = fileByteCount
        self.readsThroughPageCache = readsThroughPageCache
        self.isLookedAt = isLookedAt
    }
}

/// Why something cannot be opened as a device: a sentence that an operator can act on, without the path.
public struct DeviceOpenError: Error, Hashable, Sendable {
    /// Begins in lower case, ends without a full stop.
    public let sentence: String
    /// Nothing is at the path, or it cannot be reached: the device is missing rather than wrong.
    public let isMissing: Bool

    /// Wraps the sentence.
    public init(_ sentence: String, isMissing: Bool = false) {
        self.sentence = sentence
        self.isMissing = isMissing
    }
}

/// Opens devices: the real ones of a machine, or simulated ones. Any thread but a reactor's; may block.
public protocol DeviceOpener: Sendable {
    /// Opens one; unless it is only looked at, no other process, and no other path to the same device, can open it then.
    func open(_ request: DeviceRequest) throws(DeviceOpenError) -> any BlockDevice

    /// One queue for each of these devices, all for one thread: they may share what is under them, so that one system call
    /// starts and ends what is under way on all. `kick`, `poll`, `wait` and `turnEnded` of the first do for all what the
    /// others' would. Each has at most `depth` operations under way.
    /// - Throws: `failed`.
    func makeQueues(
        _ devices: [any BlockDevice], depth: Int, wake: DeviceWake
    ) throws(DeviceError) -> [any DeviceQueue]

    /// What an operator should know of how devices are worked with here, a sentence each; known once queues were made.
    var notes: [String] { get }
}

extension DeviceOpener {
    /// Queues that share nothing; the first polls for all.
    public func makeQueues(
        _ devices: [any BlockDevice], depth: Int, wake: DeviceWake
    ) throws(DeviceError) -> [any DeviceQueue] {
        var queues: [any DeviceQueue] = []
        for device in devices { queues.append(try device.makeQueue(depth: depth, wake: wake.call)) }
        guard let first = queues.first else { return [] }
        return [JoinedQueue(first, Array(queues.dropFirst()))] + queues.dropFirst()
    }

    /// Nothing.
    public var notes: [String] { [] }
}

/// The first of several queues of one thread: does for all what it is asked to do.
private final class JoinedQueue: DeviceQueue {
    private let first: any DeviceQueue
    private let others: [any DeviceQueue]

    init(_ first: any DeviceQueue, _ others: [any DeviceQueue]) {
        self.first = first
        self.others = others
    }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) { try first.submit(operation, tag: tag) }

    func kick() {
        first.kick()
        for queue in others { queue.kick() }
    }

    func poll(_ receive: (DeviceCompletion) -> Void) {
        first.poll(receive)
        for queue in others { queue.poll(receive) }
    }

    func turnEnded(sleeping: Bool) {
        first.turnEnded(sleeping: sleeping)
        for queue in others { queue.turnEnded(sleeping: sleeping) }
    }

    func wait() { first.wait() }

    func prepare(_ memory: UnsafeMutableRawBufferPointer) {
        first.prepare(memory)
        for queue in others { queue.prepare(memory) }
    }
}

/// A device: opened by whoever makes it, closed when the last reference to it and its queues goes. Any thread.
public protocol BlockDevice: AnyObject, Sendable {
    /// What it looks like now.
    var geometry: DeviceGeometry { get }

    /// What an operator should know of it: a sentence without its path.
    var note: String? { get }

    /// Makes the device larger; new bytes read as zero. May block. The new size lasts when the call returns.
    /// - Throws: `noSpace`, `failed`, `invalid` if it would shrink or end within a sector.
    func grow(to byteCount: Int) throws(DeviceError)

    /// A queue for at most `depth` operations under way. `wake` is called, on any thread, when one has completed and
    /// its queue should be polled, even if the owner of the queue sleeps; it is cheap.
    /// - Throws: `failed`.
    func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue
}

extension BlockDevice {
    /// Nothing.
    public var note: String? { nil }
}

extension DeviceGeometry {
    /// Why a transfer of `byteCount` bytes at `offset` is not possible; nil if it is.
    public func problem(offset: Int, byteCount: Int) -> String? {
        if offset % sectorSize != 0 || byteCount % sectorSize != 0 {
            return "\(byteCount) bytes at \(offset) are not whole sectors of \(sectorSize)"
        }
        if offset < 0 || byteCount <= 0 || offset > self.byteCount - byteCount {
            return "\(byteCount) bytes at \(offset) are not within \(self.byteCount)"
        }
        return nil
    }
}
