// Memory that outlives the process: histories that end anywhere, and what the next process makes of it.
import Base
import Memory
import Storage
import TestSupport
import Testing

private struct Entry {
    var location: Location
    let image: [UInt8]
}

/// One process after another over the same simulated memory; the test keeps the index.
private final class KeptWorld: LivenessArbiter {
    private let memory: SimulatedMemory
    private let backend: any Backend
    private var shards: [any BackendShard] = []
    private(set) var index: [Digest: Entry] = [:]
    private(set) var warnings: [String] = []
    var random: SeededRandom
    private(set) var left: (memory: SimulatedMemory, index: [Digest: Entry])?
    private var storesLeft = -1
    private var isPower = false

    init(
        _ memory: SimulatedMemory, index: [Digest: Entry], seed: UInt64, dataSize: Int = 24 << 20, isServing: Bool = true
    ) throws {
        self.memory = memory
        self.index = index
        random = SeededRandom(seed: seed)
        let lines = Lines()
        backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test",
            settings: BackendSettings([("data-size", "\(dataSize)"), ("defrag-lwm-pct", "95")]),
            agreement: Agreement(backend: "memory", format: 1, capabilities: .volatile), memory: memory,
            log: { _ in }, warn: { lines.add($0) }))
        warnings = lines.all
        for one in memory.regions { one.region.beforePersist = { [weak self] in self?.countDown() } }
        if isServing { try serve() }
    }

    /// Goes on from the index, if there is something to go on from; then shards are made.
    func serve() throws {
        if let warm = backend.warmStart {
            for entry in index.values { #expect(warm.adopt(entry.location, byteCount: entry.image.count)) }
            try warm.finish()
        }
        try memory.complete()
        for number in 0..<2 { shards.append(try backend.makeShard(ShardRequest(index: number, count: 2, wake: {}))) }
        turn()
    }

    var isWarm: Bool { backend.warmStart != nil }
    var warmStart: (any WarmStarting)? { backend.warmStart }
    var statistics: BackendStatistics { backend.statistics }
    func region(_ name: String) -> SimulatedRegion? { memory.regions.first { $0.name == name }?.region }

    func turn() {
        for shard in shards {
            shard.turnEnded(sleeping: false)
            shard.poll { _ in }
        }
    }

    // ---- The end ----

    /// Dies when so many more persists have begun.
    func schedule(after persists: Int, isPower: Bool) { (storesLeft, self.isPower) = (persists, isPower) }

    private func countDown() {
        if storesLeft == 0, left == nil { die(isPower: isPower) }
        storesLeft -= 1
    }

    func die(isPower: Bool) {
        left = (isPower ? memory.afterPowerFailure(seed: random.next()) : memory.afterKill(), index)
    }

    // ---- Operations ----

    @discardableResult
    func write(_ digest: Digest, payload: Int) throws -> Bool {
        var bytes = [UInt8](repeating: 0, count: Envelope.byteCount + payload)
        for place in stride(from: Envelope.byteCount, to: bytes.count, by: 53) {
            bytes[place] = UInt8.random(in: 0...255, using: &random)
        }
        bytes.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
        let shard = shards.randomElement(using: &random)!
        do {
            let answer = try bytes.withUnsafeBytes {
                try shard.append(digest, $0, stream: .fresh, tag: Tag(rawValue: 0))
            }
            guard case .placed(let location) = answer else { return false }
            let before = index[digest]
            index[digest] = Entry(location: location, image: bytes)
            if let before { shard.release(digest, at: before.location, byteCount: before.image.count) }
            return true
        } catch StorageError.outOfSpace { return false }
    }

    func delete(_ digest: Digest) {
        guard let before = index.removeValue(forKey: digest) else { return }
        shards.randomElement(using: &random)!.release(digest, at: before.location, byteCount: before.image.count)
    }

    func compact() throws {
        guard let compaction = backend.compaction, compaction.wantedBytes > 0 else { return }
        let shard = shards.randomElement(using: &random)!
        do throws(StorageError) {
            _ = try compaction.compact(on: shard, byteBudget: compaction.wantedBytes, arbiter: self)
        } catch {
            #expect(error == .outOfSpace)
        }
    }

    func prefetch(_ digest: Digest, stage: Int) {}
    func isLive(_ digest: Digest, at location: Location) -> Bool { index[digest]?.location == location }
    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard isLive(digest, at: from) else { return false }
        index[digest]?.location = to
        return true
    }

    func store(blob: [UInt8], partitions: [[UInt8]]) throws {
        try backend.storeNamespaceBlob(blob)
        try backend.storePartitionMetadata(partitions)
    }

    func metadata() throws -> (blob: [UInt8], partitions: [[UInt8]]) {
        (try backend.loadNamespaceBlob(), try backend.loadPartitionMetadata())
    }

    func expectAllReadable() throws {
        for (digest, entry) in index {
            let answer = try shards[0].read(
                digest, at: entry.location, byteCount: entry.image.count, tag: Tag(rawValue: 0))
            guard case .here(let bytes) = answer else { continue }
            #expect(bytes.elementsEqual(entry.image))
        }
        let bytes = index.values.reduce(0) { $0 + Envelope.storedByteCount($1.image.count) }
        #expect(Int(backend.statistics.usedBytes) == bytes)
    }
}

private final class Lines: @unchecked Sendable {
    private(set) var all: [String] = []
    func add(_ line: String) { all.append(line) }
}

@Suite(.serialized) struct KeptMemoryTests {
    /// Processes that are killed between any two operations, and machines that lose power at any persist: every record that
    /// the index points at is there, and the space of all else comes back.
    @Test func anyEndKeepsEveryRecord() throws {
        var random = SeededRandom(seed: runSeed("anyEndKeepsEveryRecord"))
        var moved: UInt64 = 0
        try forAWhile(3, until: moved > 0) {
            let isPersistent = Bool.random(using: &random)
            let digests = (0..<60).map { _ in Digest.random(&random) }
            var world = try KeptWorld(
                SimulatedMemory(isPersistent: isPersistent, seed: random.next()), index: [:], seed: random.next())
            #expect(!world.isWarm)
            for _ in 0..<3 {
                world.schedule(after: Int.random(in: 0..<800, using: &random), isPower: isPersistent)
                for step in 0..<900 where world.left == nil {
                    let digest = digests.randomElement(using: &random)!
                    switch Int.random(in: 0..<16, using: &random) {
                    case 0: world.delete(digest)
                    case 1 where step % 4 == 0:
                        try world.write(digest, payload: Int.random(in: 1_000_000..<2_500_000, using: &random))
                    case 2..<6: try world.compact()
                    case 6: world.turn()
                    default: try world.write(digest, payload: Int.random(in: 0..<60_000, using: &random))
                    }
                }
                if world.left == nil { world.die(isPower: isPersistent) }
                moved += world.statistics.movedImages
                let left = try #require(world.left)
                world = try KeptWorld(left.memory, index: left.index, seed: random.next())
                #expect(world.isWarm)
                try world.expectAllReadable()
            }
            for digest in digests { world.delete(digest) }
            #expect(world.statistics.usedBytes == 0)
        }
        #expect(moved > 0)
    }

    /// After a kill in the middle of a store, metadata is what it was before or after it.
    @Test func metadataIsOldOrNew() throws {
        var random = SeededRandom(seed: runSeed("metadataIsOldOrNew"))
        var world = try KeptWorld(
            SimulatedMemory(isPersistent: true, seed: random.next()), index: [:], seed: random.next())
        var blob: [UInt8] = []
        var partitions: [[UInt8]] = []
        for round in 0..<16 {
            let newBlob = [UInt8](repeating: UInt8(round), count: [0, 1, 5000, 1 << 20].randomElement(using: &random)!)
            let newPartitions = (0..<4096).map { [UInt8(round), UInt8($0 & 0xFF)] }
            world.schedule(after: Int.random(in: 0..<3, using: &random), isPower: true)
            try world.store(blob: newBlob, partitions: newPartitions)
            if world.left == nil { world.die(isPower: true) }
            world = try KeptWorld(try #require(world.left).memory, index: [:], seed: random.next())
            let found = try world.metadata()
            #expect(found.blob == blob || found.blob == newBlob)
            #expect(found.partitions == partitions || found.partitions == newPartitions)
            (blob, partitions) = found
        }
    }

    /// Memory is backed as it is needed. Where the medium is full, appends are refused, and compaction has room still.
    @Test func fullMediumRefusesAndRecovers() throws {
        let memory = SimulatedMemory(isPersistent: false, seed: runSeed("fullMedium"))
        memory.prepare = { name, region in if name == "data" { region.room = 40 << 20 } }
        let world = try KeptWorld(memory, index: [:], seed: 3, dataSize: 96 << 20)
        let data = try #require(world.region("data"))
        #expect(data.backedByteCount < 40 << 20)
        let digests = (0..<400).map { _ in Digest.random(&world.random) }
        var written: [Digest] = []
        for digest in digests where try world.write(digest, payload: 100_000) {
            written.append(digest)
            world.turn()
        }
        #expect(data.backedByteCount == 40 << 20)
        #expect(written.count > 250 && written.count < 380)
        #expect(world.statistics.availableBytes == 0 && world.statistics.pressure == .full)
        #expect(world.statistics.totalBytes == 96 << 20)
        for digest in written where world.random.next() % 2 == 0 { world.delete(digest) }
        for _ in 0..<2000 {
            try world.compact()
            world.turn()
        }
        try world.expectAllReadable()
        for _ in 0..<30 { #expect(try world.write(Digest.random(&world.random), payload: 100_000)) }
        // The medium has become larger.
        data.room = 96 << 20
        for _ in 0..<200 { #expect(try world.write(Digest.random(&world.random), payload: 100_000)) }
        try world.expectAllReadable()
    }

    @Test func noRoomForTheLeastIsRefused() throws {
        let memory = SimulatedMemory(isPersistent: false, seed: 1)
        memory.prepare = { name, region in if name == "data" { region.room = 4 << 20 } }
        let error = #expect(throws: StorageError.self) { _ = try KeptWorld(memory, index: [:], seed: 3) }
        guard case .settings(let text) = error else { return }
        #expect(text.contains("no room in shmem for the 12 MB that 2 service-threads need"))
    }

    /// The setting may change from process to process; what is kept stays.
    @Test func dataSizeMayChange() throws {
        var random = SeededRandom(seed: runSeed("dataSizeMayChange"))
        var world = try KeptWorld(
            SimulatedMemory(isPersistent: false, seed: random.next()), index: [:], seed: random.next(), dataSize: 24 << 20)
        for size in [48 << 20, 32 << 20, 24 << 20] {
            while try world.write(Digest.random(&random), payload: 400_000) { world.turn() }
            world.die(isPower: false)
            let left = try #require(world.left)
            world = try KeptWorld(left.memory, index: left.index, seed: random.next(), dataSize: size)
            #expect(world.isWarm)
            try world.expectAllReadable()
            #expect(world.statistics.totalBytes == 48 << 20)
            #expect((size < 48 << 20) == world.warnings.contains { $0.contains("data-size was \(48 << 20)") })
        }
    }

    /// Locations that cannot be, images over each other, another's memory: the node is told to start cold.
    @Test func indexThatDoesNotFitIsRefused() throws {
        let seed = runSeed("indexThatDoesNotFit")
        let first = try KeptWorld(SimulatedMemory(isPersistent: false, seed: seed), index: [:], seed: seed)
        var random = SeededRandom(seed: seed)
        for _ in 0..<10 { try first.write(Digest.random(&random), payload: 1000) }
        first.die(isPower: false)
        let left = try #require(first.left)
        func start() throws -> any WarmStarting {
            try #require(try KeptWorld(left.memory.afterKill(), index: [:], seed: 1, isServing: false).warmStart)
        }
        let units = UInt64(1 << 16)
        for (location, byteCount) in [(units * 24, 100), (units - 1, 100), (0, 40 << 20), (0, 10), (1 << 43, 100)] {
            #expect(try !start().adopt(Location(rawValue: location), byteCount: byteCount))
        }
        let overlapping = try start()
        #expect(overlapping.adopt(Location(rawValue: 0), byteCount: 3 << 20))
        #expect(overlapping.adopt(Location(rawValue: units), byteCount: 100))
        #expect(throws: StorageError.self) { try overlapping.finish() }
        let foreign = try #require(first.region("metadata"))
        foreign.base.storeBytes(of: 7, as: UInt8.self)
        first.die(isPower: false)
        let again = try KeptWorld(left.memory, index: [:], seed: 1, isServing: false)
        #expect(try #require(again.warmStart).adopt(Location(rawValue: 0), byteCount: 100))
    }
}
