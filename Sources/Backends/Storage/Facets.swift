// Facets: what only some backends can do. Each is an optional property of `Backend` whose default is nil, so that a
// later version of the contract can add one without breaking a backend.
public import Base

/// Facet: a backend that must move live images to win space back. The engine runs it as a job, on reactors.
public protocol Compacting: AnyObject, Sendable {
    /// How many bytes the next call to `compact` should look at: 0 if there is nothing to do, more the
    /// further space has fallen behind. While requests come in, compaction gets a tenth of the reactors' time;
    /// from `CompactionUrgency.pressingBytes` on, half of it. Cheap; any thread.
    var wantedBytes: Int { get }

    /// Moves at most about `byteBudget` bytes through `shard`, asking `arbiter` for each image. Called on the
    /// reactor that owns `shard`; several reactors may be inside at once, on different blocks.
    /// - Returns: bytes looked at; 0 if there was nothing to do.
    /// - Throws: `outOfSpace`, `device`; the images that were not moved are where they were.
    func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int
}

/// When compaction stops being polite.
public enum CompactionUrgency {
    /// A backend whose `wantedBytes` is so much falls behind its writers, who have to pay now.
    public static let pressingBytes = 128 << 10
}

/// The engine's side of compaction: the engine owns liveness, the backend owns space. Any reactor.
public protocol LivenessArbiter: AnyObject {
    /// Starts fetching what a question about `digest` will touch: stage 0 first, stage 1 when that should have arrived. A
    /// hint: compaction asks about many images in a row, and each answer alone would be two cache misses.
    func prefetch(_ digest: Digest, stage: Int)

    /// Points the index entry of `digest` at `to`, if and only if it still says `from`. False: the image is
    /// dead, and the copy at `to` is the backend's to take back.
    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool

    /// Whether the index entry of `digest` says `location` now, and no write of it is under way. Only such an image may be
    /// moved: then no other image of the digest is waiting to be published, and the order of its images is that of their
    /// appends. One that is passed over because of a write is asked about again later.
    func isLive(_ digest: Digest, at location: Location) -> Bool
}

/// Facet: a backend that can say where on its medium an image lies. Any thread; does not block.
public protocol Locating: AnyObject, Sendable {
    /// What an operator wants to know of a place, in the order to be shown: device, block, offset in bytes. Empty if
    /// there is no such place.
    func place(of location: Location) -> [(name: String, value: String)]
}

/// Facet: a backend of whose settings some may change while it serves (`SettingSchema.isDynamic`). One thread at a time,
/// not a reactor's; may block.
public protocol Adjusting: AnyObject, Sendable {
    /// Takes what has changed. `settings` are all of the backend's, as `OpenRequest.settings`.
    /// - Throws: `settings` with the reason; nothing has changed then.
    func adjust(_ settings: BackendSettings) throws(StorageError)
}

/// Facet: a backend that can be made larger while it serves. May block; any thread but a reactor's.
public protocol Resizing: AnyObject, Sendable {
    /// Files grow to `byteCount` each; raw devices are looked at again, and their new size is taken.
    /// - Returns: what has happened, for the operator.
    /// - Throws: `settings` if there is nothing to grow, `outOfSpace`, `device`; what has grown stays so.
    func grow(to byteCount: UInt64?) throws(StorageError) -> String
}
