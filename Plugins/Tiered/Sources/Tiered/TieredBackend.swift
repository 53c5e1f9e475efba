// The control plane: everything is the backend's below; this one only keeps the cache from remembering what is gone.
internal import Base
internal import Storage

/// Memory over the backend that `cold` has picked, which belongs to this one. Several threads; blocks where that one does.
final class TieredBackend: Backend {
    private let cold: any Backend
    private let cache: HotCache

    init(_ request: OpenRequest) throws(StorageError) {
        guard let hotSize = request.settings.number("hot-size") else { throw .settings("hot-size must be given") }
        cold = try request.openPart(Tiered.coldSetting)
        cache = HotCache(byteCountMax: Int(hotSize))
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        TieredShard(try cold.makeShard(request), cache)
    }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        try cold.scan(segment: segment, of: count) { image in
            let decision = visit(image)
            switch decision {
            case .stale: cache.drop(image.digest)
            case .replaces(let location, _): cache.drop(image.digest, at: location)
            case .live, .stop: break
            }
            return decision
        }
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try cold.loadNamespaceBlob() }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) { try cold.storeNamespaceBlob(bytes) }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { try cold.loadPartitionMetadata() }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try cold.storePartitionMetadata(metadata)
    }

    var statistics: BackendStatistics {
        var figures = cold.statistics
        let hot = cache.figures
        figures.details += [
            ("hot-bytes", "\(hot.byteCount)"), ("hot-hits", "\(hot.hits)"), ("hot-misses", "\(hot.misses)"),
        ]
        return figures
    }

    var compaction: (any Compacting)? { cold.compaction.map { TieredCompaction($0, cache) } }

    func close() throws(StorageError) { try cold.close() }
}

/// The compaction of the backend below; the cache forgets images that move.
final class TieredCompaction: Compacting {
    private let cold: any Compacting
    private let cache: HotCache

    init(_ cold: any Compacting, _ cache: HotCache) {
        self.cold = cold
        self.cache = cache
    }

    var wantedBytes: Int { cold.wantedBytes }

    func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int {
        guard let shard = shard as? TieredShard else { preconditionFailure("a shard of another backend") }
        return try cold.compact(on: shard.cold, byteBudget: byteBudget, arbiter: TieredArbiter(arbiter, cache))
    }
}

/// The engine's arbiter, but what moves leaves the cache.
private final class TieredArbiter: LivenessArbiter {
    private let engine: any LivenessArbiter
    private let cache: HotCache

    init(_ engine: any LivenessArbiter, _ cache: HotCache) {
        self.engine = engine
        self.cache = cache
    }

    func prefetch(_ digest: Digest, stage: Int) { engine.prefetch(digest, stage: stage) }

    /// The new location may have been another image's of this digest: that one goes before anybody can ask for it.
    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        cache.drop(digest, at: to)
        let isMoved = engine.relocate(digest, from: from, to: to)
        if isMoved { cache.drop(digest, at: from) }
        return isMoved
    }

    func isLive(_ digest: Digest, at location: Location) -> Bool { engine.isLive(digest, at: location) }
}
