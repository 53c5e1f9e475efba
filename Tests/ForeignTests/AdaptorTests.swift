// A working plugin through the adaptor, and what becomes of one that does not keep the contract.
import Base
import CBackend
import Foreign
import Storage
import Synchronization
import TestSupport
import Testing

/// Lines of the node's log.
private final class Log: Sendable {
    private let all = Mutex<[String]>([])
    var lines: [String] { all.withLock { $0 } }
    func add(_ line: String) { all.withLock { $0.append(line) } }
}

/// An open namespace of the test plugin.
private struct World {
    let store = TestStore()
    let log = Log()
    var backend: (any Backend)?
    var shards: [any BackendShard] = []

    init(
        shards count: Int = 1, _ change: (inout apus_backend) -> Void = { _ in }, wake: @escaping @Sendable () -> Void = {}
    ) throws {
        let descriptor = try FakeLoader().load(change)
        let request = OpenRequest(
            namespace: "test", settings: BackendSettings([("cache-size", "1048576"), ("mode", "lazy"), ("hosts", "a"),
                ("hosts", "b")]),
            agreement: Agreement(backend: "test-plugin", format: 3, capabilities: descriptor.capabilities),
            directory: "/data/test", storedFormat: 2, log: { [log] in log.add($0) })
        let box = TestStore.Box()
        box.store = store
        let backend = try TestStore.$current.withValue(box) { try descriptor.open(request) }
        self.backend = backend
        for index in 0..<count {
            shards.append(try backend.makeShard(ShardRequest(index: index, count: count, wake: wake)))
        }
    }

    var shard: any BackendShard { shards[0] }

    /// What poll hands over, as words.
    func polled(_ shard: (any BackendShard)? = nil) -> [String] {
        var words: [String] = []
        (shard ?? self.shard).poll { words.append("\($0.tag.rawValue) \(describe($0.result))") }
        return words
    }
}

private func describe(_ result: Completion.Result) -> String {
    switch result {
    case .placed(let location): "placed \(location.rawValue)"
    case .read(let bytes): "read \(bytes.count)"
    case .absent: "absent"
    case .done: "done"
    case .failed(let error): "\(error)"
    }
}

private func image(_ digest: Digest, _ size: Int, _ fill: UInt8 = 1) -> [UInt8] {
    var bytes = [UInt8](repeating: fill, count: Envelope.byteCount + size)
    bytes.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
    return bytes
}

private let digest = Digest(low: 0x0807_0605_0403_0201, middle: 0x100F_0E0D_0C0B_0A09, high: 0x1413_1211)
private func tag(_ number: UInt64) -> Storage.Tag { Storage.Tag(rawValue: number) }

extension BackendShard {
    fileprivate func place(_ digest: Digest, _ bytes: [UInt8], _ tag: UInt64 = 1) throws -> AppendAnswer {
        let block = Block(bytes)
        return try append(digest, block.view, stream: .fresh, tag: Storage.Tag(rawValue: tag))
    }
    fileprivate func get(_ digest: Digest, _ tag: UInt64 = 1) throws -> [UInt8]? {
        guard case .here(let bytes) = try read(digest, at: Location(rawValue: 1), byteCount: 48,
            tag: Storage.Tag(rawValue: tag)) else {
            return nil
        }
        return Array(bytes)
    }
}

/// The error that `body` ends with.
private func failure(_ body: () throws -> Void) -> StorageError? {
    do { try body() } catch { return error as? StorageError }
    return nil
}

@Test func openGetsWhatTheNodeSays() throws {
    let world = try World()
    #expect(world.store.openedWith == [
        "test", "/data/test", "3", "7", "2", "cache-size=1048576", "mode=lazy", "hosts=a", "hosts=b",
    ])
    world.store.logger?("opened \u{e9}")
    #expect(world.log.lines == ["opened \u{e9}"])
}

@Test func imagesComeBackAndGo() throws {
    let world = try World(shards: 2)
    let bytes = image(digest, 17)
    guard case .placed(let location) = try world.shards[0].place(digest, bytes) else { throw StorageError.closed }
    #expect(location == Location(rawValue: 1))
    #expect(try world.shards[1].get(digest) == bytes)
    #expect(world.store.images.keys.first == digest, "the 20 bytes arrive in order")
    guard case .done = try world.shard.commit(digest, tag: tag(2)) else { throw StorageError.closed }
    #expect(world.backend?.statistics.usedBytes == UInt64(bytes.count))
    #expect(world.backend?.statistics.details.map { "\($0.name)=\($0.value)" } == ["readers=17"])
    guard case .done = try world.shard.remove(digest, at: location, tag: tag(3)) else { throw StorageError.closed }
    guard case .absent = try world.shard.read(digest, at: location, byteCount: 64,
        tag: tag(4)) else { throw StorageError.closed }
    world.shard.prefetch(at: location, byteCount: 64)
    world.shard.release(digest, at: location, byteCount: 64)
    world.shard.turnEnded(sleeping: true)
    world.store.pressure = APUS_PRESSURE_HIGH
    #expect(world.shard.pressure == .high)
    #expect(world.log.lines.isEmpty)
}

@Test func lateAnswersComeBackOnceUnderTheirOwnTags() throws {
    let seed = runSeed("lateAnswers")
    var random = SeededRandom(seed: seed)
    let world = try World()
    world.store.isLate = true
    var expected: [String] = []
    for number in 0..<400 as Range<UInt64> {
        let digest = Digest(low: random.next() % 50, middle: 0, high: 0)
        let name = random.next()
        switch random.next() % 4 {
        case 0:
            guard case .pending = try world.shard.place(digest, image(digest, Int(number)),
                name) else { throw StorageError.closed }
            expected.append("\(name) placed \(world.store.lastLocation)")
        case 1:
            let there = world.store.images[digest]?.bytes.count
            guard case .pending = try world.shard.read(digest, at: Location(rawValue: 1), byteCount: 48,
                tag: tag(name)) else {
                throw StorageError.closed
            }
            expected.append("\(name) " + (there.map { "read \($0)" } ?? "absent"))
        case 2:
            guard case .pending = try world.shard.remove(digest, at: Location(rawValue: 1), tag: tag(name)) else {
                throw StorageError.closed
            }
            expected.append("\(name) done")
        default:
            guard case .pending = try world.shard.commit(digest, tag: tag(name)) else { throw StorageError.closed }
            expected.append("\(name) done")
        }
    }
    world.store.ready.shuffle(using: &random)
    #expect(world.polled().sorted() == expected.sorted(), "APUS_SEED=\(seed)")
    #expect(world.polled().isEmpty)
    #expect(world.log.lines.isEmpty)
}

@Test func whatReceiveStartsDoesNotReenterThePlugin() throws {
    let world = try World()
    world.store.isLate = true
    _ = try world.shard.place(digest, image(digest, 16), 1)
    var ended: [UInt64] = []
    world.shard.poll { completion in
        ended.append(completion.tag.rawValue)
        _ = try? world.shard.place(digest, image(digest, 32), 2)
    }
    #expect(ended == [1])
    #expect(!world.store.reentered)
    #expect(world.polled() == ["2 placed 2"])
}

private let errors: [(Answer, StorageError)] = [
    (Answer(status: APUS_OUT_OF_SPACE), .outOfSpace),
    (Answer(status: APUS_OVERLOADED), .overloaded),
    (Answer(status: APUS_TOO_LARGE, limit: 77), .tooLarge(limitBytes: 77)),
    (Answer(status: APUS_TOO_LARGE, limit: .max), .tooLarge(limitBytes: .max)),
    (Answer(status: APUS_DEVICE, number: 5, text: "write\npage"), .device(errno: 5, operation: "write page")),
    (Answer(status: APUS_CLOSED), .closed),
    (Answer(status: APUS_SETTINGS, text: "no"), .settings("no")),
    (Answer(status: APUS_MEDIUM, text: String(repeating: "m", count: 500)), .medium(String(repeating: "m", count: 240))),
    (Answer(status: APUS_UNSUPPORTED, text: "that"), .unsupported("that")),
]

@Test func everyErrorArrivesFromEverySlot() throws {
    let world = try World()
    let shard = world.shard
    let backend = try #require(world.backend)
    let place = Location(rawValue: 5)
    let calls: [() throws -> Void] = [
        { _ = try shard.place(digest, image(digest, 16)) }, { _ = try shard.get(digest) },
        { _ = try shard.remove(digest, at: place, tag: tag(1)) }, { _ = try shard.commit(digest, tag: tag(1)) },
        { try backend.scan(segment: 0, of: 1) { _ in .live } }, { _ = try backend.loadNamespaceBlob() },
        { try backend.storeNamespaceBlob([1]) }, { _ = try backend.loadPartitionMetadata() },
        { try backend.storePartitionMetadata([[1]]) },
        { _ = try backend.makeShard(ShardRequest(index: 1, count: 2, wake: {})) },
    ]
    for (answer, expected) in errors {
        for call in calls {
            world.store.next = answer
            #expect(failure(call) == expected)
        }
        world.store.ready = []
    }
    world.store.next = Answer(status: APUS_CORRUPT)
    #expect(failure { _ = try shard.read(digest, at: place, byteCount: 64, tag: tag(1)) } == .corrupt(place))
    #expect(world.log.lines.isEmpty)
}

@Test func everyErrorArrivesLate() throws {
    let world = try World()
    world.store.isLate = true
    for (answer, expected) in errors {
        _ = try world.shard.commit(digest, tag: tag(9))
        world.store.ready[0].status = answer.status
        world.store.ready[0].error = apus_error(answer)
        #expect(world.polled() == ["9 \(expected)"])
    }
    _ = try world.shard.read(digest, at: Location(rawValue: 7), byteCount: 48, tag: tag(3))
    world.store.ready[0].status = APUS_CORRUPT
    #expect(world.polled() == ["3 \(StorageError.corrupt(Location(rawValue: 7)))"])
}

@Test func sizesBeyondTheLimitsNeverReachThePlugin() throws {
    let world = try World()
    let backend = try #require(world.backend)
    let limit = 1 << 20
    _ = try world.shard.place(digest, image(digest, limit - Envelope.byteCount))
    #expect(failure { _ = try world.shard.place(digest, image(digest, limit)) } == .tooLarge(limitBytes: limit))
    #expect(failure { _ = try world.shard.place(digest, []) } != nil)
    #expect(failure { try backend.storeNamespaceBlob([UInt8](repeating: 0, count: limit
        + 1)) } == .tooLarge(limitBytes: limit))
    #expect(failure { try backend.storePartitionMetadata([[UInt8](repeating: 0,
        count: 257)]) } == .tooLarge(limitBytes: 256))
    #expect(failure { try backend.storePartitionMetadata([[UInt8]](repeating: [],
        count: 4097)) } == .tooLarge(limitBytes: 4096))
    #expect(world.store.images.count == 1 && world.store.blob.isEmpty && world.store.metadata.isEmpty)
}

@Test func blobAndMetadataAreKept() throws {
    let world = try World()
    let backend = try #require(world.backend)
    #expect(try backend.loadNamespaceBlob().isEmpty)
    #expect(try backend.loadPartitionMetadata().isEmpty)
    let blob = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    try backend.storeNamespaceBlob(blob)
    #expect(try backend.loadNamespaceBlob() == blob)
    let metadata = (0..<4096).map { [UInt8](repeating: UInt8(truncatingIfNeeded: $0), count: $0 % 257) }
    try backend.storePartitionMetadata(metadata)
    #expect(try backend.loadPartitionMetadata() == metadata)
    try backend.storePartitionMetadata([])
    try backend.storeNamespaceBlob([])
    #expect(try backend.loadPartitionMetadata().isEmpty)
}

// ---- Scans ----

private func digests(_ count: Int) -> [Digest] {
    (0..<count).map { Digest(low: UInt64($0), middle: 7, high: 7) }
}

@Test func scansVisitEveryImageAndCarryTheDecision() throws {
    let world = try World()
    let backend = try #require(world.backend)
    let all = digests(20)
    for digest in all { _ = try world.shard.place(digest, image(digest, 20)) }
    var seen: [Digest] = []
    for segment in 0..<3 {
        try backend.scan(segment: segment, of: 3) { scanned in
            #expect(scanned.image.count == Envelope.byteCount + 20 && scanned.location.rawValue == scanned.digest.low + 1)
            seen.append(scanned.digest)
            return scanned.digest.low % 2 == 0 ? .stale : .replaces(Location(rawValue: 3), byteCount: 64)
        }
    }
    #expect(seen.sorted() == all.sorted())
    #expect(world.store.images.count == 10)
    #expect(world.store.events.filter { $0 == "decision \(APUS_REPLACES)" }.count == 10)
    world.store.goesOnAfterStop = true
    var visits = 0
    try backend.scan(segment: 0, of: 1) { _ in
        visits += 1
        return .stop
    }
    #expect(visits == 1)
    #expect(world.log.lines.filter { $0.contains("scan went on after APUS_STOP") }.count == 1)
}

@Test func damagedImagesAreSkippedAndLogged() throws {
    let world = try World()
    let backend = try #require(world.backend)
    let all = digests(6)
    for digest in all { _ = try world.shard.place(digest, image(digest, 20)) }
    world.store.images[all[0]]!.bytes[Envelope.byteCount + 19] ^= 1
    world.store.images[all[1]]!.bytes[13] ^= 1
    world.store.images[all[2]]!.bytes.removeLast()
    world.store.images[all[3]]!.bytes = [1, 2, 3]
    world.store.images[all[4]]!.bytes += [0, 0, 0]
    var seen: [Digest] = []
    try backend.scan(segment: 0, of: 1) { scanned in
        seen.append(scanned.digest)
        return .stale
    }
    #expect(seen == [all[5]], "an image is exactly as long as its envelope says")
    #expect(world.log.lines == ["plugin 'test-plugin': a scan skipped 5 damaged images"])
    #expect(world.store.images.count == 5, "what is damaged stays for whoever looks into it")
}

// ---- Breaches ----

/// The sentence of a breach as error and, once, in the log.
private func expectBreach(_ world: World, _ text: String, _ body: () throws -> Void) {
    for _ in 0..<2 {
        let error = failure(body)
        guard case .unsupported(let sentence) = error else {
            Issue.record("\(text): \(String(describing: error))")
            continue
        }
        #expect(sentence.contains("broke the contract") && sentence.contains(text))
    }
    #expect(world.log.lines.filter { $0.contains(text) }.count == 1, "\(world.log.lines)")
}

@Test func answersThatAreNotAllowedBecomeErrors() throws {
    let world = try World()
    for status in [3, 99, -10, Int32.min] {
        expectBreach(world, "append answered \(status)") {
            world.store.next = Answer(status: status)
            _ = try world.shard.place(digest, image(digest, 16))
        }
    }
    expectBreach(world, "commit answered 2") {
        world.store.next = Answer(status: APUS_ABSENT)
        _ = try world.shard.commit(digest, tag: tag(1))
    }
    world.store.wideLocation = true
    expectBreach(world, "append gave a location of more than 40 bits") { _ = try world.shard.place(digest,
        image(digest, 16)) }
    world.store.lendsNothing = true
    expectBreach(world, "read gave an image of 0 bytes") { _ = try world.shard.get(digest) }
    world.store.lendsNothing = false
    world.store.lendsTooMuch = true
    expectBreach(world, "read gave an image of 1099511627776 bytes") { _ = try world.shard.get(digest) }
}

@Test func pendingThatCannotEndIsAnError() throws {
    let deaf = try World { $0.poll = nil }
    deaf.store.isLate = true
    expectBreach(deaf, "append answered APUS_PENDING") { _ = try deaf.shard.place(digest, image(digest, 16)) }
    #expect(deaf.polled().isEmpty)
    let volatile = try World { $0.capabilities = APUS_VOLATILE | APUS_KEYED }
    volatile.store.isLate = true
    expectBreach(volatile, "read answered APUS_PENDING") { _ = try volatile.shard.get(digest) }
    #expect(volatile.polled().isEmpty)
    #expect(volatile.log.lines.contains { $0.contains("poll gave a tag that is not under way") })
}

@Test func completionsThatBelongToNothingAreDropped() throws {
    let world = try World()
    world.store.isLate = true
    _ = try world.shard.place(digest, image(digest, 16), 11)
    let first = world.store.ready[0]
    world.store.ready.append(first)
    var made = apus_completion()
    made.tag = 0xDEAD_BEEF_0000_0000
    world.store.ready.append(made)
    made.tag = .max
    world.store.ready.append(made)
    #expect(world.polled() == ["11 placed 1"])
    #expect(world.log.lines.filter { $0.contains("a tag that is not under way") }.count == 1)
    // The slot of the ended operation is used again: the old ticket must not end the new operation.
    _ = try world.shard.commit(digest, tag: tag(12))
    var late = first
    late.status = APUS_CLOSED
    world.store.ready.insert(late, at: 0)
    #expect(world.polled() == ["12 done"])
}

@Test func completionsThatMakeNoSenseFailTheirOperation() throws {
    let world = try World()
    world.store.isLate = true
    _ = try world.shard.place(digest, image(digest, 16), 1)
    world.store.ready[0].location = 1 << 50
    #expect(world.polled().first?.contains("location of more than 40 bits") == true)
    _ = try world.shard.read(digest, at: Location(rawValue: 1), byteCount: 48, tag: tag(2))
    world.store.ready[0].image = apus_bytes(bytes: nil, size: 48)
    #expect(world.polled().first?.contains("gave an image of 48 bytes, or none") == true)
    _ = try world.shard.commit(digest, tag: tag(3))
    world.store.ready[0].status = APUS_PENDING
    #expect(world.polled().first?.contains("answered 1") == true)
    _ = try world.shard.commit(digest, tag: tag(4))
    world.store.gaveTooManyCompletions = true
    #expect(world.polled() == ["4 done"])
    #expect(world.log.lines.contains { $0.contains("poll filled 17 of 16") })
}

@Test func controlPlaneBreachesAreErrors() throws {
    let shardless = failure { _ = try World { $0.make_shard = { _, _, _, _ in APUS_DONE } } }
    #expect(shardless?.text.contains("make_shard gave no handle") == true)
    let noHandle = try FakeLoader().load { $0.open = { _, _, _ in APUS_DONE } }
    let request = OpenRequest(
        namespace: "n", settings: BackendSettings([]),
            agreement: Agreement(backend: "b", format: 1, capabilities: []), log: { _ in })
    #expect(failure { _ = try noHandle.open(request) }.map(\.text)?.contains("open gave no handle") == true)
    let large = try World()
    let backend = try #require(large.backend)
    large.store.blob = [UInt8](repeating: 1, count: 1 << 20 + 1)
    expectBreach(large, "load_blob gave more") { _ = try backend.loadNamespaceBlob() }
    large.store.metadata = [[UInt8](repeating: 1, count: 257)]
    expectBreach(large, "load_metadata gave more") { _ = try backend.loadPartitionMetadata() }
    large.store.pressure = 3
    #expect(large.shard.pressure == .none)
    #expect(large.log.lines.contains { $0.contains("pressure is 3") })
}

// ---- Ends ----

@Test func shardsEndBeforeTheBackendCloses() throws {
    let world = try World(shards: 2)
    try world.backend?.close()
    #expect(world.store.events == ["shard 0 of 2", "shard 1 of 2", "end", "end", "close"])
    #expect(failure { try world.backend?.close() } == .closed)
    #expect(failure { _ = try world.shard.place(digest, image(digest, 16)) } == .closed)
    #expect(failure { _ = try world.backend?.loadNamespaceBlob() } == .closed)
    #expect(world.backend?.statistics.totalBytes == 0)
    world.shard.turnEnded(sleeping: false)
    #expect(world.polled().isEmpty && world.store.events.count == 5)
}

@Test func closeWaitsForStatistics() async throws {
    let world = try World()
    let backend = try #require(world.backend)
    world.store.figuresTake = 200_000
    let asked = world.store.figuresAsked
    let asking = Task.detached { backend.statistics.totalBytes }
    while !asked.isSet { await Task.yield() }
    try backend.close()
    #expect(world.store.events == ["shard 0 of 1", "figures", "end", "close"])
    #expect(await asking.value == 1 << 30)
    #expect(backend.statistics.totalBytes == 0)
}

@Test func aBackendThatIsLetGoClosesThePlugin() throws {
    var world = try World(shards: 2)
    world.store.next = Answer(status: APUS_DEVICE, number: 5, text: "flush")
    world.backend = nil
    #expect(world.store.events.suffix(3) == ["end", "end", "close"])
    #expect(world.log.lines == ["plugin 'test-plugin': flush failed with error 5"])
    #expect(failure { _ = try world.shard.get(digest) } == .closed)
}

@Test func aFailedOpenSaysWhy() throws {
    let store = TestStore()
    store.next = Answer(status: APUS_MEDIUM, text: "it is somebody else's")
    let box = TestStore.Box()
    box.store = store
    let descriptor = try FakeLoader().load { _ in }
    let request = OpenRequest(
        namespace: "n", settings: BackendSettings([]),
            agreement: Agreement(backend: "b", format: 1, capabilities: []), log: { _ in })
    let error = failure { try TestStore.$current.withValue(box) { _ = try descriptor.open(request) } }
    #expect(error == .medium("it is somebody else's"))
    #expect(store.events.isEmpty)
}

@Test func wakeReachesTheNode() throws {
    let log = Log()
    let world = try World(shards: 2, wake: { log.add("wake") })
    world.store.shards[1].wake()
    #expect(log.lines == ["wake"])
}
