// The control plane: opening, scanning, metadata, figures.
internal import Base
internal import CRocksDB
internal import Storage

/// One namespace in one database. Several threads use it; calls may block, `statistics` never does.
final class RocksBackend: Backend {
    private let database: RocksDatabase
    private let versions = VersionCounter()
    private let dataSize: Int
    private let log: @Sendable (String) -> Void

    private static let blobKey = "namespace-blob"
    private static let metadataKey = "partition-metadata"

    init(_ request: OpenRequest) throws(StorageError) {
        dataSize = Int(request.settings.number("data-size") ?? 0)
        log = request.log
        database = try RocksDatabase(request.directory, request.settings, log: request.log)
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        RocksShard(database, versions, dataSize: dataSize, wake: request.wake)
    }

    func close() throws(StorageError) {
        defer { database.close() }
        try database.syncAll()
    }

    /// The capacity is `data-size`, or what the file system has for this database; then RocksDB need not count live bytes,
    /// and the node has the sum from its index.
    var statistics: BackendStatistics {
        let now = database.figuresOfNow
        var figures = BackendStatistics()
        figures.allocatedBytes = now.allocatedBytes
        figures.pressure = now.isWriteDelayed ? .high : .none
        figures.totalBytes = now.capacityBytes
        figures.availableBytes = now.availableBytes
        guard dataSize > 0 else { return figures }
        figures.totalBytes = UInt64(dataSize)
        figures.usedBytes = UInt64(max(database.liveBytes, 0))
        figures.availableBytes = min(
            figures.totalBytes - min(figures.usedBytes, figures.totalBytes), now.availableBytes)
        return figures
    }

    // ---- Scan: digests in order, each segment a range of their first two bytes ----

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        precondition(segment >= 0 && segment < count)
        let iterator = database.iterator()
        defer { rocksdb_iter_destroy(iterator) }
        let first = ((segment << 16) + count - 1) / count
        let start = [UInt8(first >> 8 & 0xFF), UInt8(first & 0xFF)]
        guard first < 1 << 16 else { return }
        start.withUnsafeBytes {
            rocksdb_iter_seek(iterator, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
        }
        while rocksdb_iter_valid(iterator) != 0 {
            let key = RocksBackend.part(iterator, rocksdb_iter_key)
            guard ((Int(key[0]) << 8 | Int(key[1])) * count) >> 16 == segment else { break }
            if key.count == Digest.byteCount {
                let image = RocksBackend.part(iterator, rocksdb_iter_value)
                guard try show(Digest(key.baseAddress!), image, visit) else { break }
            }
            rocksdb_iter_next(iterator)
        }
        var text: UnsafeMutablePointer<CChar>?
        rocksdb_iter_get_error(iterator, &text)
        if text != nil { throw RocksStatus.error(text, "scan") }
    }

    /// Key or value under the iterator.
    private static func part(
        _ iterator: OpaquePointer, _ get: (OpaquePointer?, UnsafeMutablePointer<Int>?) -> UnsafePointer<CChar>?
    ) -> UnsafeRawBufferPointer {
        var count = 0
        let start = get(iterator, &count)
        return UnsafeRawBufferPointer(start: start, count: count)
    }

    /// Shows one image. False: stop.
    private func show(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) -> Bool {
        guard Envelope.fits(image, digest: digest) else {
            log("rocksdb: the image of \(digest) is damaged, it is left out")
            return true
        }
        switch visit(ScannedImage(digest: digest, location: versions.next(), image: image, sequence: 0)) {
        case .live, .replaces: return true
        case .stop: return false
        case .stale:
            try database.delete(digest, ifStill: image)
            return true
        }
    }

    // ---- Metadata ----

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try database.value(RocksBackend.blobKey) }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try StoredMetadata.check(blob: bytes)
        try database.store(RocksBackend.blobKey, bytes)
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        StoredMetadata.decode(partitions: try database.value(RocksBackend.metadataKey))
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try StoredMetadata.check(partitions: metadata)
        try database.store(RocksBackend.metadataKey, StoredMetadata.encode(partitions: metadata))
    }
}
