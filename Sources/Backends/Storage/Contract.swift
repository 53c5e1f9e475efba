// The storage contract, version 1 in the making. Two planes: the data plane never blocks and is called on one
// reactor only; the control plane may block and is never called on a reactor.
public import Base

/// The data plane: one object per reactor, called on that reactor's thread only and never re-entered. Every
/// call returns at once. What one shard appended, every other shard can read and release at once.
public protocol BackendShard: AnyObject {
    /// Stores `image`, an envelope (`Envelope`) with its payload; the bytes are copied before the call
    /// returns.
    /// - Throws: `outOfSpace`, `overloaded`, `tooLarge`, `device`.
    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer

    /// The image of `byteCount` bytes at `location`, as appended. A keyed backend may give the newest image
    /// of `digest`.
    /// - Throws: `device`, `corrupt`, `overloaded`.
    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer

    /// Starts fetching what a `read` of this location will touch. A hint: may do nothing, changes nothing.
    func prefetch(at location: Location, byteCount: Int)

    /// The index no longer points at this image. Its space may be reused once every shard has ended the turn
    /// it is in.
    func release(_ digest: Digest, at location: Location, byteCount: Int)

    /// Makes what this shard appended so far durable, as far as the backend promises
    /// (`Capabilities.durableAtCommit`).
    /// - Throws: `device`, `overloaded`.
    func commit(tag: Tag) throws(StorageError) -> CommitAnswer

    /// Hands over the operations that have ended since. Called once at the start of every turn; never blocks.
    func poll(_ receive: (borrowing Completion) -> Void)

    /// The reactor has ended a turn: nothing lent to it is used any more. `sleeping` is true if it now waits
    /// for events, and then it counts as having passed every turn until its next `poll`.
    func turnEnded(sleeping: Bool)
}

/// The control plane: one object per namespace. May block; never called on a reactor, except `statistics`.
public protocol Backend: AnyObject, Sendable {
    /// The shard of reactor `index` of `count`. Called once for each, before the namespace serves.
    /// - Throws: `device`, `closed`.
    func makeShard(index: Int, of count: Int) throws(StorageError) -> any BackendShard

    /// Visits what the medium holds, for a cold start: part `segment` of `count`, each on a helper thread of
    /// its own. The order of two images of one digest is told by `ScannedImage.sequence`, the higher one is
    /// newer. The bytes are lent for the call.
    /// - Throws: `device`, `closed`.
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError)

    /// The namespace's blob as last stored; empty if there is none.
    func loadNamespaceBlob() throws(StorageError) -> [UInt8]

    /// Replaces the namespace's blob, at most 1 MiB, durable when the call returns.
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError)

    /// Metadata of all partitions as last stored, by partition number; empty if there is none.
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]]

    /// Replaces the metadata of all partitions, each at most 256 bytes, in one step that is atomic and
    /// durable when the call returns.
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError)

    /// Figures of now. Any thread; never blocks.
    var statistics: BackendStatistics { get }

    /// The object that compacts, if this backend needs it.
    var compaction: (any Compacting)? { get }

    /// Writes out what is under way and lets the medium go. Nothing is called afterwards.
    func close() throws(StorageError)
}

/// One image met by a scan.
public struct ScannedImage {
    /// Whose it is.
    public let digest: Digest
    /// Where it is.
    public let location: Location
    /// Envelope and payload, lent for the call.
    public let image: UnsafeRawBufferPointer
    /// Order of writing by this backend; images that compaction moved keep theirs.
    public let sequence: UInt64

    /// Joins the parts.
    public init(digest: Digest, location: Location, image: UnsafeRawBufferPointer, sequence: UInt64) {
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
    /// Older than what the index has: its space is free.
    case stale
    /// Stop scanning.
    case stop
}

/// Facet: a backend that must move live images to win space back. The engine runs it as a job, on reactors.
public protocol Compacting: AnyObject {
    /// How many bytes the next call to `compact` should look at: 0 if there is nothing to do, more the
    /// further space has fallen behind. While requests come in, compaction gets a tenth of the reactors' time;
    /// from `CompactionUrgency.pressingBytes` on, half of it. Cheap; any thread.
    var wantedBytes: Int { get }

    /// Moves at most about `byteBudget` bytes through `shard`, asking `arbiter` for each image. Called on the
    /// reactor that owns `shard`; several reactors may be inside at once, on different blocks.
    /// - Returns: bytes looked at; 0 if there was nothing to do.
    func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int
}

/// When compaction stops being polite.
public enum CompactionUrgency {
    /// A backend whose `wantedBytes` is so much falls behind its writers, who have to pay now.
    public static let pressingBytes = 128 << 10
}

/// The engine's side of compaction: the engine owns liveness, the backend owns space.
public protocol LivenessArbiter: AnyObject {
    /// Starts fetching what a question about `digest` will touch: stage 0 first, stage 1 when that should have arrived. A
    /// hint: compaction asks about many images in a row, and each answer alone would be two cache misses.
    func prefetch(_ digest: Digest, stage: Int)

    /// Points the index entry of `digest` at `to`, if and only if it still says `from`. False: the image is
    /// dead, and the copy at `to` is the backend's to take back.
    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool

    /// Whether the index entry of `digest` says `location` now. A hint that saves the copy of a dead image.
    func isLive(_ digest: Digest, at location: Location) -> Bool
}
