// Stands between engine and log: tells the model what the engine does, and holds the engine to its promises.
import Base
import Storage

/// Single-threaded, like everything in these tests.
final class WatchedBackend: Backend, @unchecked Sendable {
    let inner: any Backend
    let model: CrashModel
    /// Canary: writers release the place that they have seen, not the one that the index holds.
    let releasesWhatWasSeen: Bool
    /// Where a writer that comes now would have seen the record, and where the write that is under way has put it.
    fileprivate var seen: [Digest: Location] = [:]
    fileprivate var placed: [Digest: Location] = [:]
    private let watchedCompaction: (any Compacting)?

    init(_ inner: any Backend, _ model: CrashModel, releasesWhatWasSeen: Bool) {
        self.inner = inner
        self.model = model
        self.releasesWhatWasSeen = releasesWhatWasSeen
        watchedCompaction = inner.compaction.map { WatchedCompaction($0, model) }
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        WatchedShard(try inner.makeShard(request), self)
    }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        try inner.scan(segment: segment, of: count) { scanned in
            model.visiting(scanned)
            return visit(scanned)
        }
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try inner.loadNamespaceBlob() }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) { try inner.storeNamespaceBlob(bytes) }
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { try inner.loadPartitionMetadata() }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) { try inner.storePartitionMetadata(metadata) }
    var statistics: BackendStatistics { inner.statistics }
    var compaction: (any Compacting)? { watchedCompaction }
    func close() throws(StorageError) { try inner.close() }
}

private final class WatchedShard: BackendShard {
    let inner: any BackendShard
    private let backend: WatchedBackend

    init(_ inner: any BackendShard, _ backend: WatchedBackend) {
        self.inner = inner
        self.backend = backend
    }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Storage.Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        // Before it happens: power may fail inside, and the image may be there then.
        backend.model.appending(digest, image)
        do throws(StorageError) {
            let answer = try inner.append(digest, image, stream: stream, tag: tag)
            guard case .placed(let location) = answer else { preconditionFailure("a log places at once") }
            if backend.releasesWhatWasSeen {
                let isNew = !backend.model.isHeld(digest)
                if isNew { backend.seen[digest] = location } else { backend.placed[digest] = location }
            }
            backend.model.placed(digest, location)
            return answer
        } catch {
            backend.model.appendRefused(digest)
            throw error
        }
    }

    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        if backend.releasesWhatWasSeen { backend.seen[digest] = location }
        return try inner.read(digest, at: location, byteCount: byteCount, tag: tag)
    }

    func prefetch(at location: Location, byteCount: Int) { inner.prefetch(at: location, byteCount: byteCount) }

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        var location = location
        // Without power nobody would notice before the log's own assertion does.
        if backend.releasesWhatWasSeen, !backend.model.isDead() {
            location = backend.seen[digest] ?? location
            backend.seen[digest] = backend.placed.removeValue(forKey: digest)
        }
        // A wrong release would be the end of the log, by an assertion of its own: the model has it on record instead.
        if backend.model.releasing(digest, location) { inner.release(digest, at: location, byteCount: byteCount) }
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer { try inner.commit(digest, tag: tag) }
    func poll(_ receive: (borrowing Completion) -> Void) { inner.poll(receive) }
    func turnEnded(sleeping: Bool) { inner.turnEnded(sleeping: sleeping) }
    var wantsTurns: Bool { inner.wantsTurns }
    var pressure: Pressure { inner.pressure }
}

private final class WatchedCompaction: Compacting, @unchecked Sendable {
    private let inner: any Compacting
    private let model: CrashModel

    init(_ inner: any Compacting, _ model: CrashModel) {
        self.inner = inner
        self.model = model
    }

    var wantedBytes: Int { inner.wantedBytes }

    func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int {
        guard let shard = shard as? WatchedShard else { preconditionFailure("a shard of another backend") }
        return try inner.compact(on: shard.inner, byteBudget: byteBudget, arbiter: WatchedArbiter(arbiter, model))
    }
}

private final class WatchedArbiter: LivenessArbiter {
    private let inner: any LivenessArbiter
    private let model: CrashModel

    init(_ inner: any LivenessArbiter, _ model: CrashModel) {
        self.inner = inner
        self.model = model
    }

    func prefetch(_ digest: Digest, stage: Int) { inner.prefetch(digest, stage: stage) }
    func isLive(_ digest: Digest, at location: Location) -> Bool { inner.isLive(digest, at: location) }

    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard inner.relocate(digest, from: from, to: to) else { return false }
        model.relocated(digest, from: from, to: to)
        return true
    }
}
