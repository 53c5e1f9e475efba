import Base
import Storage
import Synchronization
import Testing

/// A backend that answers late as chance has it, and knows at every moment which images are live.
final class FakeBackend: Backend, @unchecked Sendable {
    var images: [UInt64: [UInt8]] = [:]
    var nextLocation: UInt64 = 1
    var random: SeededRandom
    /// Of a hundred operations so many answer late.
    var latePercent = 50
    /// Of a hundred appends so many fail.
    var failPercent = 0
    /// Every operation is refused with `overloaded`.
    var refusesAll = false
    /// The next read that ends late ends with `corrupt`.
    var corruptNext = false
    var shards: [FakeShard] = []
    /// Reads that were asked for.
    var readCount = 0

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        let shard = FakeShard(self)
        shards.append(shard)
        return shard
    }
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {}
    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { [] }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {}
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { [] }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {}
    var statistics: BackendStatistics { BackendStatistics() }
    var compaction: (any Compacting)? { nil }
    func close() throws(StorageError) {}
}

final class FakeShard: BackendShard {
    private enum Late {
        case placed(UInt64)
        case read([UInt8])
        case committed
        case failed(StorageError)
    }
    private unowned let backend: FakeBackend
    private var late: [(Storage.Tag, Late)] = []

    init(_ backend: FakeBackend) { self.backend = backend }

    var lateCount: Int { late.count }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Storage.Tag
    ) throws(StorageError) -> AppendAnswer {
        if backend.refusesAll { throw .overloaded }
        if backend.chance(backend.failPercent) {
            guard backend.chance(50) else { throw .device(errno: 5, operation: "append") }
            late.append((tag, .failed(.outOfSpace)))
            return .pending
        }
        let location = backend.nextLocation
        backend.nextLocation += 1
        backend.images[location] = Array(image)
        guard backend.chance(backend.latePercent) else { return .placed(Location(rawValue: location)) }
        late.append((tag, .placed(location)))
        return .pending
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Storage.Tag) throws(StorageError) -> ReadAnswer {
        backend.readCount += 1
        if backend.refusesAll { throw .overloaded }
        guard let image = backend.images[location.rawValue] else {
            Issue.record("read of an image that is not there")
            throw .corrupt(location)
        }
        if backend.chance(backend.latePercent) {
            late.append((tag, .read(image)))
            return .pending
        }
        lent = .allocate(byteCount: image.count, alignment: 16)
        lent!.copyBytes(from: image)
        return .here(UnsafeRawBufferPointer(lent!))
    }
    private var lent: UnsafeMutableRawBufferPointer?

    func prefetch(at location: Location, byteCount: Int) {}

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        guard let image = backend.images.removeValue(forKey: location.rawValue) else {
            Issue.record("an image released twice")
            return
        }
        #expect(image.count <= byteCount && Envelope.digest(at: Array(image).withUnsafeBytes { $0.baseAddress! }) == digest)
    }

    func commit(_ digest: Digest, tag: Storage.Tag) throws(StorageError) -> DoneAnswer {
        guard backend.chance(backend.latePercent) else { return .done }
        late.append((tag, .committed))
        return .pending
    }

    func poll(_ receive: (borrowing Completion) -> Void) {
        let ready = late.shuffled(using: &backend.random)
        late = []
        for (tag, result) in ready {
            guard backend.chance(70) else {
                late.append((tag, result))
                continue
            }
            switch result {
            case .placed(let location): receive(Completion(tag: tag, result: .placed(Location(rawValue: location))))
            case .read where backend.corruptNext:
                backend.corruptNext = false
                receive(Completion(tag: tag, result: .failed(.corrupt(Location(rawValue: 0)))))
            case .read(let image):
                image.withUnsafeBytes { receive(Completion(tag: tag, result: .read($0))) }
            case .committed: receive(Completion(tag: tag, result: .done))
            case .failed(let error): receive(Completion(tag: tag, result: .failed(error)))
            }
        }
    }

    func turnEnded(sleeping: Bool) {}
}
