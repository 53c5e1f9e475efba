import Base
import Storage
import Testing

/// A keyed backend that answers late as chance has it, and takes effect at some moment before it answers.
final class FakeKeyedBackend: Backend, @unchecked Sendable {
    var images: [Digest: [UInt8]] = [:]
    var random: SeededRandom
    var latePercent = 50
    var failPercent = 0
    /// Every operation is refused with `overloaded`.
    var refusesAll = false
    var pressure = Pressure.none
    /// Commits fail.
    var failsCommits = false
    private(set) var history: [String] = []
    private let versions = VersionCounter()

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    func note(_ text: String) { history.append(text) }
    func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    func nextVersion() -> Location { versions.next() }
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { FakeKeyedShard(self) }
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        for (digest, image) in images.sorted(by: { $0.key < $1.key }) {
            let decision = image.withUnsafeBytes {
                visit(ScannedImage(digest: digest, location: nextVersion(), image: $0, sequence: 0))
            }
            if case .stale = decision { images[digest] = nil }
        }
    }
    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { [] }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {}
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { [] }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {}
    var statistics: BackendStatistics { BackendStatistics() }
    func close() throws(StorageError) {}
}

final class FakeKeyedShard: BackendShard {
    private struct Late {
        let tag: Storage.Tag
        let digest: Digest
        let effect: (() -> Void)?
        let result: Outcome
    }
    private enum Outcome { case placed(Location), read([UInt8]?), done, failed(StorageError) }
    private unowned let backend: FakeKeyedBackend
    private var late: [Late] = []
    private var lent: [UnsafeMutableRawBufferPointer] = []

    init(_ backend: FakeKeyedBackend) { self.backend = backend }

    var pressure: Pressure { backend.pressure }

    /// True: fails later; throws: fails now.
    private func fails(_ tag: Storage.Tag, _ digest: Digest, _ what: String) throws(StorageError) -> Bool {
        if backend.refusesAll { throw .overloaded }
        guard backend.chance(backend.failPercent) else { return false }
        guard backend.chance(50) else { throw .device(errno: 5, operation: what) }
        late.append(Late(tag: tag, digest: digest, effect: nil, result: .failed(.outOfSpace)))
        return true
    }

    /// Takes effect now or with the answer. True: the answer comes later.
    private func put(_ tag: Storage.Tag, _ digest: Digest, _ result: Outcome, _ effect: @escaping () -> Void) -> Bool {
        #expect(!late.contains { $0.digest == digest && $0.effect != nil }, "one change of a digest at a time")
        guard backend.chance(backend.latePercent) else {
            effect()
            return false
        }
        let isEarly = backend.chance(50)
        if isEarly { effect() }
        late.append(Late(tag: tag, digest: digest, effect: isEarly ? {} : effect, result: result))
        return true
    }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Storage.Tag
    ) throws(StorageError) -> AppendAnswer {
        if try fails(tag, digest, "append") { return .pending }
        let location = backend.nextVersion()
        let bytes = Array(image)
        return put(tag, digest, .placed(location)) { [backend] in backend.images[digest] = bytes }
            ? .pending : .placed(location)
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Storage.Tag) throws(StorageError) -> ReadAnswer {
        if try fails(tag, digest, "read") { return .pending }
        let image = backend.images[digest]
        if backend.chance(backend.latePercent) {
            late.append(Late(tag: tag, digest: digest, effect: nil, result: .read(image)))
            return .pending
        }
        return image.map { .here(lend($0)) } ?? .absent
    }

    private func lend(_ image: [UInt8]) -> UnsafeRawBufferPointer {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: image.count, alignment: 16)
        bytes.copyBytes(from: image)
        lent.append(bytes)
        return UnsafeRawBufferPointer(bytes)
    }

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        Issue.record("a keyed backend is told by append and remove")
    }

    func remove(_ digest: Digest, at location: Location, tag: Storage.Tag) throws(StorageError) -> DoneAnswer {
        if try fails(tag, digest, "remove") { return .pending }
        backend.note("remove")
        return put(tag, digest, .done) { [backend] in backend.images[digest] = nil } ? .pending : .done
    }

    func commit(_ digest: Digest, tag: Storage.Tag) throws(StorageError) -> DoneAnswer {
        backend.note("commit")
        if backend.failsCommits { throw .device(errno: 5, operation: "sync") }
        guard backend.chance(backend.latePercent) else { return .done }
        late.append(Late(tag: tag, digest: digest, effect: nil, result: .done))
        return .pending
    }

    func poll(_ receive: (borrowing Completion) -> Void) {
        let ready = late.shuffled(using: &backend.random)
        late = []
        for one in ready {
            guard backend.chance(70) else {
                late.append(one)
                continue
            }
            one.effect?()
            switch one.result {
            case .placed(let location): receive(Completion(tag: one.tag, result: .placed(location)))
            case .read(let image):
                receive(Completion(tag: one.tag, result: image.map { .read(lend($0)) } ?? .absent))
            case .done: receive(Completion(tag: one.tag, result: .done))
            case .failed(let error): receive(Completion(tag: one.tag, result: .failed(error)))
            }
        }
    }

    func turnEnded(sleeping: Bool) {
        for bytes in lent {
            bytes.initializeMemory(as: UInt8.self, repeating: 0xDD)
            bytes.deallocate()
        }
        lent = []
    }
}
