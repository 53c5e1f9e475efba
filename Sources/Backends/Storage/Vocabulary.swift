// The words of the storage contract. A backend author imports this module and Base, nothing else of Apus.
internal import Synchronization

/// Where a backend keeps one image: 44 bits that only the backend understands. The index stores it; the
/// engine compares it for equality and nothing else. *Addressed* backends give each image a location of its
/// own; for *keyed* ones it is a version.
public struct Location: Hashable, Sendable, BitwiseCopyable {
    /// How many bits the index has room for.
    public static let bitCount = 44

    /// The bits, below 2^44.
    public let rawValue: UInt64

    /// Wraps the bits; more than 44 is a programming error of the backend.
    @inlinable
    public init(rawValue: UInt64) {
        precondition(rawValue >> 44 == 0, "a Location has 44 bits")
        self.rawValue = rawValue
    }
}

/// The caller's name for an operation under way; comes back in its `Completion`.
public struct Tag: Hashable, Sendable, BitwiseCopyable {
    /// Meaningless to the backend.
    public let rawValue: UInt64

    /// Wraps the bits.
    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// Which stream an image belongs to. A log keeps them apart, so that long-lived images gather in blocks of
/// their own.
public enum Stream: UInt8, Sendable, BitwiseCopyable {
    /// Written by a client, a replica or a migration.
    case fresh
    /// Moved by the backend's own compaction.
    case moved
    /// Says that a record was deleted: written like fresh ones, and let in where there is no room for those, so that
    /// deletes can make room.
    case deleted
}

/// What can go wrong in a backend. A value, never a trap: the engine turns it into a result code and a log
/// line.
public enum StorageError: Error, Hashable, Sendable {
    /// No room for another image; the client gets 8.
    case outOfSpace
    /// Too much is under way; the client gets 18.
    case overloaded
    /// The image exceeds what the backend can hold in one piece; the client gets 13.
    case tooLarge(limitBytes: Int)
    /// What is stored there is not what was written; the client gets 1, never 2.
    case corrupt(Location)
    /// The medium failed; carries errno and what was being done, for the log.
    case device(errno: Int32, operation: String)
    /// The backend was closed.
    case closed
    /// The settings do not make sense; one sentence for the operator.
    case settings(String)
    /// The medium holds something else than what was asked for; one sentence for the operator.
    case medium(String)
    /// The backend cannot do this and does not say that it can.
    case unsupported(String)
}

/// Answer of `BackendShard.append`.
public enum AppendAnswer: Sendable, BitwiseCopyable {
    /// Stored (in memory at least) and readable by every shard at this location.
    case placed(Location)
    /// Comes by `poll` with the location or an error; the engine publishes then, not before.
    case pending
}

/// Answer of `BackendShard.read`.
public enum ReadAnswer {
    /// The image, lent until the end of this reactor turn.
    case here(UnsafeRawBufferPointer)
    /// There is nothing of this digest. Right after a concurrent delete that is the truth; otherwise the engine counts the
    /// record as damaged.
    case absent
    /// Comes by `poll`.
    case pending
}

/// Answer of `BackendShard.commit` and `BackendShard.remove`.
public enum DoneAnswer: Sendable, BitwiseCopyable {
    /// It is done.
    case done
    /// Comes by `poll`.
    case pending
}

/// The end of an operation that answered `pending`.
public struct Completion {
    /// What the operation was started with.
    public let tag: Tag
    /// What it came to.
    public let result: Result

    /// Outcome by kind of operation.
    public enum Result {
        /// An append: where the image is now.
        case placed(Location)
        /// A read: the image, lent until the end of this reactor turn.
        case read(UnsafeRawBufferPointer)
        /// A read: there is nothing of this digest.
        case absent
        /// A commit or a remove.
        case done
        /// Any of them.
        case failed(StorageError)
    }

    /// Joins tag and result.
    @inlinable
    public init(tag: Tag, result: Result) {
        self.tag = tag
        self.result = result
    }
}

/// Promises of a backend, each a bit. The conformance kit holds a backend to every bit it sets.
public struct Capabilities: OptionSet, Sendable {
    /// The bits.
    public let rawValue: UInt32
    /// Wraps the bits.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// What `commit` has confirmed survives a crash of process and machine.
    public static let durableAtCommit = Capabilities(rawValue: 1 << 0)
    /// A released or removed image never comes back in a later `scan`: not after `close`, and if the backend is also durable
    /// at commit, not after a crash once a commit has covered it.
    public static let deletesLast = Capabilities(rawValue: 1 << 1)
    /// Keeps one image per digest; a location is a version (LSM trees, B-trees).
    public static let keyed = Capabilities(rawValue: 1 << 2)
    /// Its calls may block; the node runs them on `storage-threads`, one shard each, never on a reactor. Only for keyed
    /// backends: on threads of its own an addressed one could not be told of releases and compaction in order.
    public static let blocking = Capabilities(rawValue: 1 << 3)
    /// Everything lives in ordinary memory: reads answer `here` and appends `placed`, never `pending`; images
    /// are read without checking the checksum, and are gone with the process.
    public static let volatile = Capabilities(rawValue: 1 << 4)
    /// Reserved for backends that index themselves.
    public static let selfIndexed = Capabilities(rawValue: 1 << 31)
}

/// What a backend can hold.
public struct BackendLimits: Sendable, Equatable {
    /// Largest image in bytes, envelope included.
    public var imageSizeMax: Int
    /// How many bits of `Location` it uses, at most 44.
    public var locationBits: Int
    /// Smallest unit in bytes that reaches the medium whole or not at all; 0 if nothing is promised.
    public var atomicWriteSize: Int

    /// Joins the figures.
    public init(imageSizeMax: Int, locationBits: Int, atomicWriteSize: Int) {
        self.imageSizeMax = imageSizeMax
        self.locationBits = locationBits
        self.atomicWriteSize = atomicWriteSize
    }
}

/// How close a backend is to its limits. The engine lets writers wait from `high` on, for a bounded time; what the
/// backend then still refuses with `overloaded` answers 18.
public enum Pressure: UInt8, Sendable, Comparable {
    /// Nothing to report.
    case none
    /// Writers should slow down.
    case high
    /// New operations are refused.
    case full

    /// Less pressing first.
    public static func < (left: Pressure, right: Pressure) -> Bool { left.rawValue < right.rawValue }
}

/// Figures of a whole backend, for `namespace/<ns>` and the engine's thresholds. Gathered on any thread;
/// never blocks.
public struct BackendStatistics: Sendable {
    /// Configured capacity in bytes; 0 if there is none.
    public var totalBytes: UInt64 = 0
    /// Bytes of live images, each rounded to its unit. A keyed backend that does not count them says 0: the node
    /// knows the sum from its index.
    public var usedBytes: UInt64 = 0
    /// Bytes that could be appended before space runs out, whole free blocks only.
    public var availableBytes: UInt64 = 0
    /// Bytes taken from the medium or memory, garbage included.
    public var allocatedBytes: UInt64 = 0
    /// Images that compaction has moved since start.
    public var movedImages: UInt64 = 0
    /// Blocks that compaction has emptied since start.
    public var compactedBlocks: UInt64 = 0
    /// How pressed it is now.
    public var pressure: Pressure = .none
    /// Bytes of the medium that the cold start has read so far, and that it has to read in all; 0 if the backend cannot say.
    public var scanDoneBytes: UInt64 = 0
    /// See `scanDoneBytes`.
    public var scanTotalBytes: UInt64 = 0
    /// Devices, blocks or the like that could not be read, wholly or in part: records may be missing.
    public var lostPlaces: UInt64 = 0
    /// Set if the node has to stop, by the backend's settings: why, for the log.
    public var fatal: String?
    /// Figures of the backend's own, shown in `namespace/<ns>` under `backend.<name>`; names that begin with
    /// `storage-engine.` as they are.
    public var details: [(name: String, value: String)] = []

    /// All zero.
    public init() {}
}

/// Versions for keyed backends: each call gives a location that was not given before in this process. Any thread.
public final class VersionCounter: Sendable {
    private let last = Atomic<UInt64>(0)

    /// Starts at 1.
    public init() {}

    /// The next version.
    public func next() -> Location {
        Location(rawValue: last.wrappingAdd(1, ordering: .relaxed).newValue & (1 << UInt64(Location.bitCount) - 1))
    }
}

extension StorageError {
    /// For logs and messages: what happened, in words.
    public var text: String {
        switch self {
        case .outOfSpace: "out of space"
        case .overloaded: "too much is under way"
        case .tooLarge(let limit): "larger than \(limit) bytes"
        case .corrupt(let location): "what is stored at location \(location.rawValue) is not what was written"
        case .device(let errno, let operation): "\(operation) failed with error \(errno)"
        case .closed: "the backend is closed"
        case .settings(let sentence), .medium(let sentence): sentence
        case .unsupported(let what): "not supported: \(what)"
        }
    }
}
