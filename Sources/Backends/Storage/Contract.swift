// The storage contract, version 1. Two planes: the data plane never blocks and is called on one reactor only; the
// control plane may block and is never called on a reactor. A backend that cannot keep the first promise says
// `blocking`: then the node runs its shards on threads of their own, and "reactor" below reads "storage thread".
//
// Two kinds of backends. An *addressed* one (a log, an arena) gives each image a location of its own and is told by
// `release` which images nobody wants any more. A *keyed* one (an LSM tree, a B-tree, a directory;
// `Capabilities.keyed`) keeps one image for each digest: `append` replaces it, `remove` deletes it, the location is
// only a version, and `release` is never called.
//
// What the engine promises: it never has two appends or removes of one digest under way at a time, it starts none
// before the one before has answered, and it never asks for a location that no `append` or `scan` of this backend has
// given it.
public import Base

/// The data plane: one object for each reactor, called on that reactor's thread only and not re-entered, except from the
/// `receive` of `poll`. Every call returns at once. What one shard appended, every other shard can read, release and remove
/// at once.
///
/// After a crash a backend may have lost whatever `commit` did not confirm, wholly or in part, image by image; it
/// never gives bytes that were not appended for that digest. An image that a commit has confirmed is there until its
/// successor or its deletion is durable: a `release` of the older image right after its successor was placed must not
/// lose both. What one start has not shown no later start brings back.
public protocol BackendShard: AnyObject {
    /// Stores `image`, an envelope (`Envelope`) with its payload, as long as the envelope says and at most
    /// `BackendLimits.imageSizeMax` bytes. The bytes are copied before the call returns. `pending` ends with `placed`
    /// or `failed`; the image is visible to readers from then on at the latest.
    /// - Throws: `outOfSpace`, `overloaded`, `tooLarge`, `device`. Nothing has changed then, nor if it ends with `failed`: a
    /// keyed backend still has the image before. Only after a `device` that came late it may be either.
    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer

    /// The image at `location`, as appended, perhaps with more bytes behind it; `byteCount` is what it was appended
    /// with, rounded up to whole units of 16. The bytes need no alignment; they are lent until the end of this turn,
    /// and belong to the backend. While a read is under way, and until the turn in which it ended is over, its
    /// location is not used for another image, even if it is released. A keyed backend may give a newer image of
    /// `digest`. `pending` ends with `read`, `absent` or `failed`.
    /// - Throws: `device`, `corrupt`, `overloaded`.
    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer

    /// Starts fetching what a `read` of this location will touch. A hint: may do nothing, changes nothing.
    func prefetch(at location: Location, byteCount: Int)

    /// Addressed backends: the index no longer points at this image. Its space may be reused once every shard has ended
    /// the turn it is in. Cannot fail. It need not last: after a crash a `scan` may show the image again, unless the
    /// backend promises `deletesLast`.
    func release(_ digest: Digest, at location: Location, byteCount: Int)

    /// Keyed backends: deletes the image of `digest`; it is no error if there is none. `pending` ends with `done` or
    /// `failed`.
    /// - Throws: `device`, `overloaded`, `outOfSpace`. The image is still there then.
    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer

    /// Makes durable what this shard has appended, released and removed of `digest` so far, as far as the backend promises
    /// (`durableAtCommit`); more may become durable with it. `pending` ends with `done` or `failed`; after a failure it is
    /// unknown what lasts.
    /// - Throws: `device`, `overloaded`.
    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer

    /// Hands over the operations that have ended since, each once, in any order. Called at least once in every turn in
    /// which operations are under way. `receive` may call the shard again, for whatever comes next, but not `poll`: hold no
    /// lock that those calls take, and do not walk a list that they change.
    func poll(_ receive: (borrowing Completion) -> Void)

    /// The reactor has ended a turn: nothing lent to it is used any more. `sleeping` is true if it may now wait for long;
    /// a shard that has operations under way calls `ShardRequest.wake` when one has ended meanwhile.
    func turnEnded(sleeping: Bool)

    /// Whether something has to be done within milliseconds though nothing may come: asked when the reactor goes to
    /// sleep; turns follow at least every 10 ms as long as it is true.
    var wantsTurns: Bool { get }

    /// How close this shard is to refusing work. Asked before every write of a backend that is not volatile: cheap.
    var pressure: Pressure { get }
}

extension BackendShard {
    /// Fetches nothing.
    public func prefetch(at location: Location, byteCount: Int) {}
    /// A keyed backend has nothing to release.
    public func release(_ digest: Digest, at location: Location, byteCount: Int) {}
    /// An addressed backend is told by `release`.
    public func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        throw .unsupported("remove: the backend is not keyed")
    }
    /// Everything was answered at once.
    public func poll(_ receive: (borrowing Completion) -> Void) {}
    /// Lends nothing that a turn's end would take back.
    public func turnEnded(sleeping: Bool) {}
    /// Acts only when it is called.
    public var wantsTurns: Bool { false }
    /// Never pressed.
    public var pressure: Pressure { .none }
}

/// What a shard is made with.
public struct ShardRequest: Sendable {
    /// Which shard, from 0.
    public let index: Int
    /// How many there will be.
    public let count: Int
    /// Has the shard polled soon, also if its reactor sleeps. Any thread; cheap if called often.
    public let wake: @Sendable () -> Void
    /// An eventfd that does the same when it is signalled: for completions that the system reports; -1 if there is none.
    public let wakeDescriptor: Int32
    /// A clock that never goes back, in milliseconds. Any thread; cheap.
    public let milliseconds: @Sendable () -> UInt64

    /// Joins the parts. Without a clock, time stands still.
    public init(
        index: Int, count: Int, wakeDescriptor: Int32 = -1, milliseconds: @escaping @Sendable () -> UInt64 = { 0 },
        wake: @escaping @Sendable () -> Void
    ) {
        self.index = index
        self.count = count
        self.wake = wake
        self.wakeDescriptor = wakeDescriptor
        self.milliseconds = milliseconds
    }
}

/// The control plane: one object for each namespace. May block; never called on a reactor, except `statistics`. Calls
/// come from several threads, but only `scan` overlaps with others.
public protocol Backend: AnyObject, Sendable {
    /// One shard of the data plane. Called once for each, before the namespace serves; before or after a cold start's scan.
    /// Nothing is called on a shard after `close`.
    /// - Throws: `device`, `closed`, `settings`.
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard

    /// Visits what the medium holds: part `segment` of `count`, each on a thread of its own. Every image that is
    /// there during the whole scan of all segments is visited exactly once; images that come or go meanwhile may be.
    /// Images that were overwritten or released may be visited too if the backend is addressed and does not promise
    /// `deletesLast`; of several images of one digest the one with the highest `ScannedImage.sequence` is the newest.
    /// Damaged images are skipped and logged, never visited. A volatile backend visits nothing.
    ///
    /// At a cold start the decisions tell an addressed backend what lives; `stale` and `replaces` are releases, and
    /// the next commit of that digest covers them. Later scans are told `live` for every image, or by a keyed
    /// backend's node also `stale`, which deletes an image if it is still the one that was visited.
    /// - Throws: `device`, `closed`.
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError)

    /// The namespace's blob as last stored; empty if there is none.
    /// - Throws: `device`, `closed`.
    func loadNamespaceBlob() throws(StorageError) -> [UInt8]

    /// Replaces the namespace's blob, at most 1 MiB: after a crash it is the old or the new one; durable when the call
    /// returns if the backend is durable at all.
    /// - Throws: `device`, `outOfSpace`, `tooLarge`, `closed`.
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError)

    /// Metadata of all partitions as last stored, by partition number; empty if there is none.
    /// - Throws: `device`, `closed`.
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]]

    /// Replaces the metadata of all partitions, each at most 256 bytes, in one step: after a crash all are old or all are
    /// new; durable when the call returns if the backend is durable at all.
    /// - Throws: `device`, `outOfSpace`, `tooLarge`, `closed`.
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError)

    /// Figures of now. Any thread, reactors too; never blocks.
    var statistics: BackendStatistics { get }

    /// Facet: the object that compacts, if this backend needs it.
    var compaction: (any Compacting)? { get }

    /// Facet: says where images lie.
    var locating: (any Locating)? { get }

    /// Facet: makes the medium larger while it serves.
    var resizing: (any Resizing)? { get }

    /// Facet: takes other settings while it serves.
    var adjusting: (any Adjusting)? { get }

    /// Facet: set if this opening goes on from the memory that it was given; nil is a cold start.
    var warmStart: (any WarmStarting)? { get }

    /// Writes out what is under way and lets the medium go. Everything that was placed is there at the next start. Nothing
    /// is called afterwards.
    /// - Throws: `device`: something may be lost.
    func close() throws(StorageError)
}

extension Backend {
    /// Needs no compaction, or does its own.
    public var compaction: (any Compacting)? { nil }
    /// Cannot say.
    public var locating: (any Locating)? { nil }
    /// Has no size, or a fixed one.
    public var resizing: (any Resizing)? { nil }
    /// Its settings stay as they are.
    public var adjusting: (any Adjusting)? { nil }
    /// Starts cold.
    public var warmStart: (any WarmStarting)? { nil }
}

/// One image met by a scan.
public struct ScannedImage {
    /// Whose it is.
    public let digest: Digest
    /// Where it is, or its version.
    public let location: Location
    /// Envelope and payload, lent for the call.
    public let image: UnsafeRawBufferPointer
    /// Order of writing by this backend; images that compaction moved keep theirs. A keyed backend may say 0.
    public let sequence: UInt64
    /// Whose image will be visited a few visits later, if the backend knows: a hint, to start fetching.
    public let ahead: Digest?

    /// Joins the parts.
    public init(
        digest: Digest, location: Location, image: UnsafeRawBufferPointer, sequence: UInt64, ahead: Digest? = nil
    ) {
        self.ahead = ahead
        self.digest = digest
        self.location = location
        self.image = image
        self.sequence = sequence
    }
}

/// What the engine says to a scanned image.
public enum ScanDecision: Sendable {
    /// The index points at it now.
    case live
    /// The index points at it now, and no longer at the image of `byteCount` bytes at `location`, which an earlier visit
    /// was told to be live.
    case replaces(Location, byteCount: Int)
    /// Nobody wants it: its space is free, a keyed backend deletes it.
    case stale
    /// Stop scanning.
    case stop
}
