// A namespace in persistent memory under a test's hand: the test is the engine, keeps the index, and may die at any persist.
import Base
import BlockStore
import PMEM
import Storage
import TestSupport
import Testing

/// Numbered images: the bytes follow from number, version and size.
enum NumberedImage {
    static func digest(_ number: Int) -> Digest {
        Digest(low: UInt64(number), middle: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, high: 7)
    }

    static func bytes(_ number: Int, version: Int, payload: Int) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(number * 100_000 + version))
        var bytes = [UInt8](repeating: 0, count: Envelope.byteCount + 8 + payload)
        for place in Envelope.byteCount..<bytes.count { bytes[place] = UInt8(truncatingIfNeeded: random.next()) }
        bytes.withUnsafeMutableBytes {
            $0.baseAddress!.storeLittleEndian(UInt64(version), at: Envelope.byteCount)
            Envelope.seal($0, digest: digest(number))
        }
        return bytes
    }

    static func version(_ image: UnsafeRawBufferPointer) -> Int {
        Int(image.baseAddress!.littleEndian(UInt64.self, at: Envelope.byteCount))
    }
}

/// Where the index says that a record is.
struct Entry: Equatable {
    var location: Location
    let version: Int
    let byteCount: Int
}

/// What a process leaves when it dies.
struct Remains {
    let machine: SimulatedPmem
    let memory: SimulatedMemory?
    let index: [Int: Entry]
    /// Digest of the operation that was under way, if there was one.
    let busy: Int?
}

/// What a scan has met.
struct Met: Equatable {
    let number: Int
    let version: Int
    let location: Location
    let order: UInt64
}

/// One thread.
final class PmemWorld {
    enum Death { case kill, power }
    static let fileCount = 2
    let shape: PmemShape
    let machine: SimulatedPmem
    let memory: SimulatedMemory?
    private(set) var backend: any Backend
    private(set) var shards: [any BackendShard] = []
    var index: [Int: Entry] = [:]
    private(set) var busy: Int?
    private(set) var nextVersion = 1
    let lines = LogLines()
    var random: SeededRandom
    /// Set when the hour has come.
    private(set) var remains: Remains?
    private var persistsLeft = -1
    private var death = Death.kill
    /// Called in the middle of a move, behind `relocate`.
    var afterRelocate: ((_ number: Int, _ to: Location) -> Void)?

    static func smallShape(_ canary: BlockCanary? = nil) -> PmemShape {
        var shape = PmemShape()
        shape.blockSize = 2048
        shape.headSize = 16 << 10
        shape.imageSizeMax = 8 << 10
        shape.canary = canary
        return shape
    }

    /// A new namespace, or what a process has left; `index` is what is known of the versions that were given.
    init(
        _ left: Remains, _ shape: PmemShape, seed: UInt64, nextVersion: Int = 1, fileByteCount: Int = 0,
        settings: [(name: String, value: String)] = []
    ) throws {
        self.shape = shape
        machine = left.machine
        memory = left.memory
        random = SeededRandom(seed: seed)
        self.nextVersion = nextVersion
        let files = (0..<PmemWorld.fileCount).map { (name: "file", value: "p\($0)") }
        let size = fileByteCount > 0 ? [(name: "filesize", value: "\(fileByteCount)")] : []
        backend = try PmemTestOpening.open(
            PMEM.descriptor(opener: machine, entropy: { seed }, shape: shape), files + size + settings, lines,
            memory: left.memory)
        machine.beforePersist = { [weak self] in self?.countDown() }
    }

    /// A new namespace that serves.
    convenience init(new seed: UInt64, canary: BlockCanary? = nil, memory: SimulatedMemory?) throws {
        let shape = PmemWorld.smallShape(canary)
        try self.init(
            Remains(machine: SimulatedPmem(seed: seed), memory: memory, index: [:], busy: nil), shape, seed: seed,
            fileByteCount: shape.headSize + 24 * shape.blockSize)
        try serve()
    }

    /// The namespace has started: shards are made.
    func serve() throws {
        try memory?.complete()
        for number in 0..<2 { shards.append(try backend.makeShard(ShardRequest(index: number, count: 2, wake: {}))) }
        turn()
    }

    func turn() {
        for shard in shards {
            shard.turnEnded(sleeping: false)
            shard.poll { _ in }
        }
    }

    // ---- Death ----

    /// The process is to die when so many more persists have begun.
    func schedule(_ death: Death, after persists: Int) {
        self.death = death
        persistsLeft = persists
    }

    private func countDown() {
        if persistsLeft == 0, remains == nil { die(death) }
        persistsLeft -= 1
    }

    /// Now. The object goes on as if nothing had happened; nobody is to look at it any more.
    func die(_ death: Death) {
        let seed = random.next()
        remains = Remains(
            machine: death == .kill ? machine.afterKill(seed: seed) : machine.afterPowerFailure(seed: seed),
            memory: death == .kill ? memory?.afterKill() : memory?.afterPowerFailure(seed: seed), index: index, busy: busy)
    }

    // ---- Operations ----

    /// False if there is no room.
    @discardableResult
    func write(_ number: Int, payload: Int, shard: Int) throws -> Bool {
        busy = number
        defer { busy = nil }
        let version = nextVersion
        nextVersion += 1
        let image = NumberedImage.bytes(number, version: version, payload: payload)
        let answer: AppendAnswer
        do {
            answer = try image.withUnsafeBytes {
                try shards[shard].append(NumberedImage.digest(number), $0, stream: .fresh, tag: Tag(rawValue: 0))
            }
        } catch StorageError.outOfSpace { return false }
        guard case .placed(let location) = answer else {
            Issue.record("persistent memory places at once")
            return false
        }
        // Some writes are given up before they are published.
        if Int.random(in: 0..<12, using: &random) == 0 {
            shards[shard].release(NumberedImage.digest(number), at: location, byteCount: image.count)
            return true
        }
        let before = index[number]
        index[number] = Entry(location: location, version: version, byteCount: image.count)
        if let before {
            shards[shard].release(NumberedImage.digest(number), at: before.location, byteCount: before.byteCount)
        }
        return true
    }

    func delete(_ number: Int, shard: Int) {
        busy = number
        defer { busy = nil }
        guard let before = index.removeValue(forKey: number) else { return }
        shards[shard].release(NumberedImage.digest(number), at: before.location, byteCount: before.byteCount)
    }

    func compact(shard: Int, byteBudget: Int) throws {
        guard let compaction = backend.compaction, compaction.wantedBytes > 0 else { return }
        do {
            _ = try compaction.compact(on: shards[shard], byteBudget: byteBudget, arbiter: WorldArbiter(self))
        } catch StorageError.outOfSpace { return }
    }

    fileprivate func relocate(_ number: Int, _ to: Location) {
        index[number]?.location = to
        afterRelocate?(number, to)
    }

    func step(_ numbers: Int) throws {
        let number = Int.random(in: 0..<numbers, using: &random)
        let shard = Int.random(in: 0..<2, using: &random)
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<3: delete(number, shard: shard)
        case 3..<8: try compact(shard: shard, byteBudget: 1 << Int.random(in: 8...13, using: &random))
        case 8..<10: turn()
        case 10: try write(number, payload: Int.random(in: 2000..<6000, using: &random), shard: shard)
        default: try write(number, payload: Int.random(in: 0..<500, using: &random), shard: shard)
        }
    }

    // ---- Looks ----

    /// Every record is there, byte for byte.
    func expectAllReadable() throws {
        for (number, entry) in index {
            let answer = try shards[number % 2].read(
                NumberedImage.digest(number), at: entry.location, byteCount: entry.byteCount, tag: Tag(rawValue: 0))
            guard case .here(let bytes) = answer else {
                Issue.record("persistent memory reads at once")
                continue
            }
            let wanted = NumberedImage.bytes(
                number, version: entry.version, payload: entry.byteCount - Envelope.byteCount - 8)
            #expect(bytes.elementsEqual(wanted), "record \(number), version \(entry.version)")
        }
    }

    /// Goes on from the index of the process before; false if the backend says that it cannot.
    func warmStart() throws -> Bool {
        guard let warm = backend.warmStart else { return false }
        for (_, entry) in index where !warm.adopt(entry.location, byteCount: entry.byteCount) { return false }
        try warm.finish()
        return true
    }

    /// A cold start; what every visit showed. The newest of each digest is the index now.
    func coldStart(segments: Int) throws -> [Met] {
        var met: [Met] = []
        index = [:]
        for segment in 0..<segments {
            try backend.scan(segment: segment, of: segments) { image in
                let one = Met(
                    number: Int(image.digest.low), version: NumberedImage.version(image.image), location: image.location,
                    order: image.sequence)
                let older = met.filter { $0.number == one.number }.max { $0.order < $1.order }
                met.append(one)
                guard older == nil || one.order > older!.order else { return .stale }
                let before = index[one.number]
                index[one.number] = Entry(location: one.location, version: one.version, byteCount: image.image.count)
                guard let before else { return .live }
                return .replaces(before.location, byteCount: before.byteCount)
            }
        }
        return met
    }
}

/// The index as compaction asks it.
final class WorldArbiter: LivenessArbiter {
    private let world: PmemWorld
    init(_ world: PmemWorld) { self.world = world }
    func prefetch(_ digest: Digest, stage: Int) {}
    func isLive(_ digest: Digest, at location: Location) -> Bool { world.index[Int(digest.low)]?.location == location }
    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard isLive(digest, at: from) else { return false }
        world.relocate(Int(digest.low), to)
        return true
    }
}
