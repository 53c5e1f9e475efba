import Base
import Memory
import Storage
import TestSupport
import Testing

/// The index as the backend sees it: which location is live.
private final class Arbiter: LivenessArbiter {
    var live: [Digest: (location: Location, image: [UInt8])] = [:]
    func prefetch(_ digest: Digest, stage: Int) {}
    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard live[digest]?.location == from else { return false }
        live[digest]?.location = to
        return true
    }
    func isLive(_ digest: Digest, at location: Location) -> Bool { live[digest]?.location == location }
}

private struct World {
    let backend: any Backend
    let compaction: any Compacting
    var shards: [any BackendShard] = []
    let arbiter = Arbiter()
    var random: SeededRandom

    init(dataSize: Int, shards count: Int, seed: UInt64, livePercent: Int = 95) throws {
        random = SeededRandom(seed: seed)
        backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test",
            settings: BackendSettings([("data-size", "\(dataSize)"), ("defrag-lwm-pct", "\(livePercent)")]),
            agreement: Agreement(backend: "memory", format: 1, capabilities: .volatile), log: { _ in }))
        compaction = backend.compaction!
        for number in 0..<count { shards.append(try backend.makeShard(ShardRequest(index: number, count: count, wake: {}))) }
        turn()
    }

    func turn() {
        for shard in shards {
            shard.turnEnded(sleeping: false)
            shard.poll { _ in Issue.record("memory never answers late") }
        }
    }

    mutating func image(_ digest: Digest, payload: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Envelope.byteCount + payload)
        for place in stride(from: Envelope.byteCount, to: bytes.count, by: 61) {
            bytes[place] = UInt8.random(in: 0...255, using: &random)
        }
        bytes.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
        return bytes + [UInt8](repeating: 0, count: (16 - bytes.count % 16) % 16)
    }

    /// Writes a record as the engine would; false if there is no space.
    mutating func write(_ digest: Digest, payload: Int) throws -> Bool {
        let shard = shards.randomElement(using: &random)!
        let image = image(digest, payload: payload)
        do throws(StorageError) {
            let answer = try Block(image).view.withAnswer { (bytes) throws(StorageError) in
                try shard.append(digest, bytes, stream: .fresh, tag: Tag(rawValue: 0))
            }
            guard case .placed(let location) = answer else { return false }
            if let old = arbiter.live[digest] { shard.release(digest, at: old.location, byteCount: old.image.count) }
            arbiter.live[digest] = (location, image)
            return true
        } catch {
            #expect(error == .outOfSpace)
            return false
        }
    }

    mutating func delete(_ digest: Digest) {
        guard let old = arbiter.live.removeValue(forKey: digest) else { return }
        shards.randomElement(using: &random)!.release(digest, at: old.location, byteCount: old.image.count)
    }

    mutating func compact() throws {
        let shard = shards.randomElement(using: &random)!
        let wanted = compaction.wantedBytes
        if wanted > 0 { _ = try compaction.compact(on: shard, byteBudget: wanted, arbiter: arbiter) }
    }

    mutating func expectAllReadable() throws {
        for (digest, record) in arbiter.live {
            let shard = shards.randomElement(using: &random)!
            let answer = try shard.read(digest, at: record.location, byteCount: record.image.count, tag: Tag(rawValue: 0))
            guard case .here(let bytes) = answer else {
                Issue.record("memory answers at once")
                continue
            }
            #expect(Array(bytes) == record.image)
        }
    }

    var liveBytes: Int { arbiter.live.values.reduce(0) { $0 + $1.image.count } }
}

extension UnsafeRawBufferPointer {
    fileprivate func withAnswer<T>(_ body: (UnsafeRawBufferPointer) throws(StorageError) -> T) throws(StorageError) -> T {
        try body(self)
    }
}

@Suite struct MemoryTests {
    /// Writes, deletes and compactions of chance on several shards: every live image reads back as written.
    @Test func randomHistoriesKeepEveryImage() throws {
        var random = SeededRandom(seed: runSeed("MemoryTests"))
        try forAWhile(2) {
            var world = try World(dataSize: 48 << 20, shards: [1, 3].randomElement(using: &random)!, seed: random.next())
            let digests = (0..<400).map { _ in Digest.random(&random) }
            for step in 0..<8000 {
                let digest = digests.randomElement(using: &random)!
                switch Int.random(in: 0..<20, using: &random) {
                case 0: world.delete(digest)
                case 1: _ = try world.write(digest, payload: Int.random(in: 0..<200_000, using: &random))
                case 2 where step % 10 == 0:
                    _ = try world.write(digest, payload: Int.random(in: 1_000_000..<3_000_000, using: &random))
                default: _ = try world.write(digest, payload: Int.random(in: 0..<4000, using: &random))
                }
                if step % 3 == 0 { try world.compact() }
                if step % 7 == 0 { world.turn() }
            }
            try world.expectAllReadable()
            #expect(Int(world.backend.statistics.usedBytes) == world.liveBytes)
            for digest in digests { world.delete(digest) }
            #expect(world.backend.statistics.usedBytes == 0)
        }
    }

    /// Overwritten ten times over with other sizes: compaction holds what is taken near what lives.
    @Test func garbageStaysSmall() throws {
        var world = try World(dataSize: 512 << 20, shards: 2, seed: runSeed("garbage"))
        let digests = (0..<40_000).map { _ in Digest.random(&world.random) }
        for _ in 0..<10 {
            for digest in digests {
                #expect(try world.write(digest, payload: Int.random(in: 400..<1600, using: &world.random)))
                if world.random.next() % 4 == 0 { try world.compact() }
                if world.random.next() % 64 == 0 { world.turn() }
            }
        }
        for _ in 0..<20_000 where world.compaction.wantedBytes > 0 {
            try world.compact()
            world.turn()
        }
        let allocated = Int(world.backend.statistics.allocatedBytes)
        #expect(allocated < world.liveBytes * 125 / 100, "\(allocated) bytes for \(world.liveBytes) live ones")
        try world.expectAllReadable()
    }

    @Test func memoryIsGivenBackWhenDataShrinks() throws {
        var world = try World(dataSize: 256 << 20, shards: 1, seed: 5)
        let digests = (0..<100).map { _ in Digest.random(&world.random) }
        for digest in digests { #expect(try world.write(digest, payload: 900_000)) }
        #expect(world.backend.statistics.allocatedBytes > 90 << 20)
        for digest in digests { world.delete(digest) }
        world.turn()
        #expect(try world.write(digests[0], payload: 900_000))
        #expect(world.backend.statistics.allocatedBytes < 16 << 20)
    }

    @Test func fullMemoryRefusesAndRecovers() throws {
        var world = try World(dataSize: 24 << 20, shards: 1, seed: 6)
        var written: [Digest] = []
        for _ in 0..<100 {
            let digest = Digest.random(&world.random)
            if try world.write(digest, payload: 500_000) { written.append(digest) }
        }
        #expect(written.count > 20 && written.count < 48)
        try world.expectAllReadable()
        for digest in written { world.delete(digest) }
        for _ in 0..<3 { world.turn() }
        for _ in 0..<20 { #expect(try world.write(Digest.random(&world.random), payload: 500_000)) }
    }

    /// What was lent stays as it is until every shard has passed a turn, although the image was released.
    @Test func lentBytesOutliveTheirRelease() throws {
        var world = try World(dataSize: 24 << 20, shards: 2, seed: 7)
        let digest = Digest.random(&world.random)
        #expect(try world.write(digest, payload: 1_500_000))
        let record = world.arbiter.live[digest]!
        guard case .here(let lent) = try world.shards[1].read(
            digest, at: record.location, byteCount: record.image.count, tag: Tag(rawValue: 0))
        else { return }
        world.delete(digest)
        // The other shard turns; this one is still in the turn in which it borrowed.
        world.shards[0].turnEnded(sleeping: false)
        world.shards[0].poll { _ in }
        for _ in 0..<9 { _ = try world.write(Digest.random(&world.random), payload: 1_500_000) }
        #expect(Array(lent) == record.image)
        world.turn()
        #expect(try world.write(Digest.random(&world.random), payload: 1_500_000), "now the space is free")
    }

    @Test func aSpanTakesSeveralBlocks() throws {
        var world = try World(dataSize: 64 << 20, shards: 1, seed: 8)
        let digest = Digest.random(&world.random)
        for payload in [8 << 20 - Envelope.byteCount, 1 << 20 - Envelope.byteCount, 1 << 20, 5_000_000] {
            #expect(try world.write(digest, payload: payload))
            try world.expectAllReadable()
            world.turn()
        }
        world.delete(digest)
        world.turn()
        #expect(world.backend.statistics.usedBytes == 0)
    }

    /// The ends of blocks that no image fits into are no garbage: compaction of full blocks would go on for ever.
    @Test func largeImagesAreNotMovedForNothing() throws {
        for payload in [600_000, 350_000, 1_200_000] {
            var world = try World(dataSize: 256 << 20, shards: 1, seed: 9)
            for _ in 0..<60 { #expect(try world.write(Digest.random(&world.random), payload: payload)) }
            for _ in 0..<2000 where world.compaction.wantedBytes > 0 {
                try world.compact()
                world.turn()
            }
            #expect(world.compaction.wantedBytes == 0 && world.backend.statistics.movedImages == 0, "\(payload)")
        }
    }

    /// A high threshold leaves garbage; nobody asks for it again and again.
    @Test func garbageBelowTheThresholdIsLeftAlone() throws {
        var world = try World(dataSize: 256 << 20, shards: 1, seed: 10, livePercent: 50)
        let digests = (0..<40_000).map { _ in Digest.random(&world.random) }
        for digest in digests { #expect(try world.write(digest, payload: 1000)) }
        for digest in digests[..<13_000].shuffled(using: &world.random) { _ = try world.write(digest, payload: 1000) }
        for _ in 0..<20_000 where world.compaction.wantedBytes > 0 {
            try world.compact()
            world.turn()
        }
        #expect(world.compaction.wantedBytes == 0)
        try world.expectAllReadable()
    }

    @Test func tooSmallForItsShardsIsRefused() throws {
        let error = #expect(throws: StorageError.self) { _ = try World(dataSize: 16 << 20, shards: 8, seed: 11) }
        guard case .settings(let text) = error else { return }
        #expect(text.contains("36M") && text.contains("8 service-threads"))
    }
}
