import Base
import Glibc
import Mount
import Storage
import Synchronization
import TestSupport
import Testing

/// Plain blocking calls over a dictionary. Each shard notes on which thread it was called.
final class BlockingBackend: Backend {
    struct State {
        var images: [Digest: [UInt8]] = [:]
        var threads: [Int: Set<UInt>] = [:]
        var committed: [Digest] = []
        var closed = 0
    }
    let state = Mutex(State())
    let versions = VersionCounter()
    let gate = Mutex(())
    let pressure = Mutex(Pressure.none)
    init(_ directory: String) { precondition(directory.isEmpty || access(directory, W_OK) == 0) }
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        BlockingShard(self, request.index)
    }
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {}
    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { [] }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {}
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { [] }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {}
    var statistics: BackendStatistics { BackendStatistics() }
    func close() throws(StorageError) { state.withLock { $0.closed += 1 } }
}

private final class BlockingShard: BackendShard {
    private let backend: BlockingBackend
    private let index: Int
    private var lent: [UnsafeMutableRawBufferPointer] = []
    /// Appends that answer with the next poll, as a group commit would.
    private var late: [(Storage.Tag, Location)] = []

    init(_ backend: BlockingBackend, _ index: Int) {
        self.backend = backend
        self.index = index
    }

    private func enter() {
        backend.gate.withLock { _ in }
        backend.state.withLock { _ = $0.threads[index, default: []].insert(UInt(pthread_self())) }
    }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Storage.Tag
    ) throws(StorageError) -> AppendAnswer {
        enter()
        guard image.count < 5000 else { throw .tooLarge(limitBytes: 5000) }
        backend.state.withLock { $0.images[digest] = Array(image) }
        let version = backend.versions.next()
        guard image.count % 2 == 0 else { return .placed(version) }
        late.append((tag, version))
        return .pending
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Storage.Tag) throws(StorageError) -> ReadAnswer {
        enter()
        guard let image = backend.state.withLock({ $0.images[digest] }) else { return .absent }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: image.count, alignment: 8)
        bytes.copyBytes(from: image)
        lent.append(bytes)
        return .here(UnsafeRawBufferPointer(bytes))
    }

    func remove(_ digest: Digest, at location: Location, tag: Storage.Tag) throws(StorageError) -> DoneAnswer {
        enter()
        backend.state.withLock { $0.images[digest] = nil }
        return .done
    }

    func commit(_ digest: Digest, tag: Storage.Tag) throws(StorageError) -> DoneAnswer {
        enter()
        #expect(late.isEmpty, "appends of a round are polled before its commits")
        backend.state.withLock { $0.committed.append(digest) }
        return .done
    }

    var pressure: Pressure { backend.pressure.withLock { $0 } }

    func poll(_ receive: (borrowing Completion) -> Void) {
        for (tag, version) in late { receive(Completion(tag: tag, result: .placed(version))) }
        late = []
    }

    func turnEnded(sleeping: Bool) {
        for bytes in lent {
            bytes.initializeMemory(as: UInt8.self, repeating: 0xDD)
            bytes.deallocate()
        }
        lent = []
    }
}

/// Looks at what a thread has to do, 100 us apart: a busy machine may not let it run for seconds.
private let triesMax = 300_000

/// The wrapper: plain blocking calls on threads of their own, late answers outside.
@Suite struct ThreadedTests {
    /// A reactor's side, run by hand.
    private final class Side {
        let shard: any BackendShard
        var ended: [UInt64: Outcome] = [:]
        enum Outcome: Equatable { case placed, read([UInt8]), absent, done, failed(StorageError) }

        init(_ backend: any Backend, _ index: Int, of count: Int) throws {
            final class Bell: Sendable { let rung = Mutex(0) }
            let bell = Bell()
            shard = try backend.makeShard(ShardRequest(index: index, count: count, wake: { bell.rung.withLock { $0 += 1 } }))
            rings = { bell.rung.withLock { $0 } }
        }
        let rings: () -> Int

        func turn(sleeping: Bool = false) {
            shard.turnEnded(sleeping: sleeping)
            shard.poll { completion in
                let tag = completion.tag.rawValue
                #expect(ended[tag] == nil, "each operation ends once")
                switch completion.result {
                case .placed: ended[tag] = .placed
                case .read(let bytes): ended[tag] = .read(Array(bytes))
                case .absent: ended[tag] = .absent
                case .done: ended[tag] = .done
                case .failed(let error): ended[tag] = .failed(error)
                }
            }
        }

        func wait(_ tag: UInt64) -> Outcome? {
            for _ in 0..<triesMax where ended[tag] == nil {
                turn()
                if ended[tag] == nil { usleep(100) }
            }
            return ended.removeValue(forKey: tag)
        }
    }

    private func image(_ digest: Digest, _ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: UInt8(count % 251), count: max(count, Envelope.byteCount))
        bytes.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
        return bytes
    }

    @Test func everythingAnswersLateAndRight() throws {
        var random = SeededRandom(seed: runSeed("ThreadedTests"))
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 3, queueMax: 4096)
        let sides = try (0..<2).map { try Side(backend, $0, of: 2) }
        let digests = (0..<40).map { _ in Digest.random(&random) }
        var model: [Digest: [UInt8]] = [:]
        var tag: UInt64 = 1
        for step in 0..<3000 {
            let side = sides[step % 2]
            let digest = digests.randomElement(using: &random)!
            let name = Storage.Tag(rawValue: tag)
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1, 2:
                var bytes = image(digest, Int.random(in: 40...600, using: &random))
                let answer = try bytes.withUnsafeBytes { try side.shard.append(digest, $0, stream: .fresh, tag: name) }
                guard case .pending = answer else { preconditionFailure("a wrapped backend answers late") }
                model[digest] = bytes
                bytes = []
                #expect(side.wait(tag) == .placed)
            case 3:
                _ = try side.shard.remove(digest, at: Location(rawValue: 1), tag: name)
                model[digest] = nil
                #expect(side.wait(tag) == .done)
            case 4:
                _ = try side.shard.commit(digest, tag: name)
                #expect(side.wait(tag) == .done)
            default:
                _ = try side.shard.read(digest, at: Location(rawValue: 1), byteCount: 64, tag: name)
                #expect(side.wait(tag) == model[digest].map { .read($0) } ?? .absent)
            }
            tag += 1
        }
        inner.state.withLock { state in
            #expect(state.threads.count == 3 && state.threads.values.allSatisfy { $0.count == 1 },
                "a shard stays on its thread")
            #expect(!state.threads.values.contains { $0.contains(UInt(pthread_self())) })
            #expect(!state.committed.isEmpty)
        }
        try backend.close()
        #expect(inner.state.withLock { $0.closed } == 1)
    }

    @Test func hundredsUnderWayComeBackOnceEach() throws {
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 2, queueMax: 4096)
        let side = try Side(backend, 0, of: 1)
        for number in 0..<500 {
            let digest = Digest(low: UInt64(number), middle: 0, high: UInt32(number) << 8)
            let bytes = image(digest, 64 + number)
            _ = try bytes.withUnsafeBytes { try side.shard.append(digest, $0, stream: .fresh,
                tag: Tag(rawValue: UInt64(number))) }
        }
        for number in 0..<500 { #expect(side.wait(UInt64(number)) == .placed) }
        for number in 0..<500 {
            let digest = Digest(low: UInt64(number), middle: 0, high: UInt32(number) << 8)
            _ = try side.shard.read(digest, at: Location(rawValue: 1), byteCount: 64, tag: Tag(rawValue: UInt64(number)))
        }
        for number in 0..<500 {
            let digest = Digest(low: UInt64(number), middle: 0, high: UInt32(number) << 8)
            #expect(side.wait(UInt64(number)) == .read(image(digest, 64 + number)))
        }
        try backend.close()
    }

    /// A full queue refuses, a long one presses; errors of the inner shard arrive as they are.
    @Test func pressureAndErrors() throws {
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 1, queueMax: 64)
        let side = try Side(backend, 0, of: 1)
        let digest = Digest(low: 1, middle: 2, high: 3)
        let small = image(digest, 100)
        func append(_ tag: Int, _ bytes: [UInt8]) throws {
            _ = try bytes.withUnsafeBytes { try side.shard.append(digest, $0, stream: .fresh,
                tag: Tag(rawValue: UInt64(tag))) }
        }
        try inner.gate.withLock { _ in
            for tag in 0..<48 {
                #expect(side.shard.pressure == .none)
                try append(tag, small)
            }
            #expect(side.shard.pressure == .high)
            for tag in 48..<64 { try append(tag, small) }
            #expect(side.shard.pressure == .full && backend.statistics.pressure == .full)
            #expect(throws: StorageError.overloaded) { try append(64, small) }
            _ = try side.shard.commit(digest, tag: Tag(rawValue: 65))
            side.turn()
        }
        for tag in 0..<64 { #expect(side.wait(UInt64(tag)) == .placed) }
        #expect(side.wait(65) == .done)
        side.turn()
        #expect(side.shard.pressure == .none && backend.statistics.pressure == .none)
        try append(66, image(digest, 6000))
        #expect(side.wait(66) == .failed(.tooLarge(limitBytes: 5000)))
        try backend.close()
    }

    /// A reactor that sleeps is woken when something has ended, also if that was just before it fell asleep.
    @Test func sleepersAreWoken() throws {
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 1, queueMax: 64)
        let side = try Side(backend, 0, of: 1)
        let digest = Digest(low: 1, middle: 2, high: 3)
        for round in 0..<200 {
            let before = side.rings()
            _ = try side.shard.read(digest, at: Location(rawValue: 1), byteCount: 64, tag: Tag(rawValue: UInt64(round)))
            side.shard.turnEnded(sleeping: true)
            if round % 2 == 0 { usleep(UInt32(round)) }
            for _ in 0..<triesMax where side.rings() == before { usleep(100) }
            #expect(side.rings() > before)
            #expect(side.wait(UInt64(round)) == .absent)
        }
        try backend.close()
    }

    /// What was started before the end is done before the end.
    @Test func closeFinishesWhatIsUnderWay() throws {
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 2, queueMax: 4096)
        let side = try Side(backend, 0, of: 1)
        for number in 0..<300 {
            let digest = Digest(low: UInt64(number), middle: 0, high: UInt32(number) << 8)
            let bytes = image(digest, 101)
            _ = try bytes.withUnsafeBytes { try side.shard.append(digest, $0, stream: .fresh,
                tag: Tag(rawValue: UInt64(number))) }
        }
        side.shard.turnEnded(sleeping: false)
        try backend.close()
        #expect(inner.state.withLock { $0.images.count } == 300)
    }

    /// Pressure that ends while nobody posts anything is noticed: writers wait for it.
    @Test func pressureEndsByItself() throws {
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 2, queueMax: 64)
        let side = try Side(backend, 0, of: 1)
        let digest = Digest(low: 1, middle: 2, high: 3)
        inner.pressure.withLock { $0 = .high }
        _ = try side.shard.read(digest, at: Location(rawValue: 1), byteCount: 64, tag: Tag(rawValue: 1))
        #expect(side.wait(1) == .absent && side.shard.pressure == .high)
        inner.pressure.withLock { $0 = .none }
        for _ in 0..<triesMax where side.shard.pressure != .none { usleep(100) }
        #expect(side.shard.pressure == .none)
        try backend.close()
    }

    /// Many large images under way are too much before the operations are.
    @Test func bytesUnderWayAreBounded() throws {
        let inner = BlockingBackend("")
        let backend = try ThreadedBackend(inner, threads: 1, queueMax: 100_000)
        let side = try Side(backend, 0, of: 1)
        let digest = Digest(low: 1, middle: 2, high: 3)
        let large = image(digest, 8 << 20)
        var count = 0
        try inner.gate.withLock { _ in
            while count < 100, side.shard.pressure == .none {
                _ = try large.withUnsafeBytes { try side.shard.append(digest, $0, stream: .fresh,
                    tag: Tag(rawValue: UInt64(count))) }
                count += 1
            }
            side.turn()
        }
        #expect(count == 9, "half of 128 MiB")
        for tag in 0..<count { #expect(side.wait(UInt64(tag)) == .failed(.tooLarge(limitBytes: 5000))) }
        #expect(side.shard.pressure == .none)
        try backend.close()
    }
}
