// A node with backends of its own, the way an outsider would add them: `slow` opens after two seconds, `trap` traps
// when it is given an image that says so, `endless` shows damaged images at a cold start until it is told to stop,
// and does not close cleanly. Usage: TestNode CONFIGURATION
import Base
import Builtin
import Glibc
import Memory
import Node
import Storage

/// Another backend's descriptor under a new name.
private func renamed(
    _ name: String, open: @escaping @Sendable (OpenRequest) throws(StorageError) -> any Backend
) -> BackendDescriptor {
    let memory = Memory.descriptor
    return BackendDescriptor(
        name: name, contract: memory.contract, formats: memory.formats, capabilities: memory.capabilities,
        limits: memory.limits, medium: .none, settings: memory.settings, open: open)
}

private final class TrapBackend: Backend {
    private let inner: any Backend
    init(_ inner: any Backend) { self.inner = inner }
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        TrapShard(try inner.makeShard(request))
    }
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
    var compaction: (any Compacting)? { nil }
    func close() throws(StorageError) { try inner.close() }
}

private final class TrapShard: BackendShard {
    private let inner: any BackendShard
    init(_ inner: any BackendShard) { self.inner = inner }
    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        precondition(!image.text.contains("please trap"), "the test asked for it")
        return try inner.append(digest, image, stream: stream, tag: tag)
    }
    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        try inner.read(digest, at: location, byteCount: byteCount, tag: tag)
    }
    func prefetch(at location: Location, byteCount: Int) { inner.prefetch(at: location, byteCount: byteCount) }
    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        inner.release(digest, at: location, byteCount: byteCount)
    }
    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer { try inner.commit(digest, tag: tag) }
    func poll(_ receive: (borrowing Completion) -> Void) { inner.poll(receive) }
    func turnEnded(sleeping: Bool) { inner.turnEnded(sleeping: sleeping) }
}

private final class EndlessBackend: Backend {
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { throw .closed }
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        let rubbish = [UInt8](repeating: 7, count: 64)
        while true {
            usleep(100_000)
            let decision = rubbish.withUnsafeBytes { bytes in
                visit(ScannedImage(
                    digest: Digest(low: 1, middle: 2, high: 3), location: Location(rawValue: 1), image: bytes, sequence: 1))
            }
            if case .stop = decision { return }
        }
    }
    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { [] }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {}
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { [] }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {}
    var statistics: BackendStatistics { BackendStatistics() }
    func close() throws(StorageError) { throw .device(errno: 5, operation: "the last sync") }
}

private let endless = BackendDescriptor(
    name: "endless", contract: .current, formats: 1...1, capabilities: [], limits: Memory.descriptor.limits, medium: .own,
    settings: [], open: { (_) throws(StorageError) -> any Backend in EndlessBackend() })
private let slow = renamed("slow") { (request) throws(StorageError) -> any Backend in
    sleep(2)
    return try Memory.descriptor.open(request)
}
private let trap = renamed("trap") { (request) throws(StorageError) -> any Backend in
    TrapBackend(try Memory.descriptor.open(request))
}

guard CommandLine.arguments.count == 2 else { exit(64) }
exit(Node.run(.file(CommandLine.arguments[1]), backends: Builtin.descriptors + [slow, trap, endless]))
