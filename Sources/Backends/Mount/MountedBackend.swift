internal import Storage

/// A backend with the directory that is its own: the lock lasts until it is closed. Forwards everything.
final class MountedBackend: Backend {
    private let inner: any Backend
    private let directory: MediumDirectory

    init(_ inner: any Backend, _ directory: MediumDirectory) {
        self.inner = inner
        self.directory = directory
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { try inner.makeShard(request) }
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        try inner.scan(segment: segment, of: count, visit)
    }
    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try inner.loadNamespaceBlob() }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) { try inner.storeNamespaceBlob(bytes) }
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { try inner.loadPartitionMetadata() }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try inner.storePartitionMetadata(metadata)
    }
    var statistics: BackendStatistics { inner.statistics }
    var compaction: (any Compacting)? { inner.compaction }
    var locating: (any Locating)? { inner.locating }
    var resizing: (any Resizing)? { inner.resizing }
    var adjusting: (any Adjusting)? { inner.adjusting }
    var warmStart: (any WarmStarting)? { inner.warmStart }
    func close() throws(StorageError) {
        defer { directory.close() }
        try inner.close()
    }
}
