// A log in one hand, which keeps the index: numbered images that are overwritten again and again.
import Base
import Device
@testable import DeviceLog
import Storage
import Synchronization

/// An index of numbers, as defragmentation asks it.
final class OverwriteIndex: LivenessArbiter {
    struct Entry {
        var location: Location?
        var version = 0
        var byteCount = 0
        var isClaimed = false
    }
    var entries: [Entry]
    /// Where images were moved from, in order.
    private(set) var movedFrom: [Location] = []
    var notesMoves = false

    init(count: Int) { entries = Array(repeating: Entry(), count: count) }

    static func digest(_ number: Int) -> Digest {
        Digest(low: UInt64(number), middle: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, high: 7)
    }

    func prefetch(_ digest: Digest, stage: Int) {}

    func isLive(_ digest: Digest, at location: Location) -> Bool {
        let entry = entries[Int(digest.low)]
        return entry.location == location && !entry.isClaimed
    }

    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard entries[Int(digest.low)].location == from else { return false }
        entries[Int(digest.low)].location = to
        if notesMoves { movedFrom.append(from) }
        return true
    }
}

/// Time that tests move forward. Any thread.
final class TestClock: Sendable {
    private let milliseconds = Atomic<UInt64>(1)
    var now: UInt64 { milliseconds.load(ordering: .relaxed) }
    func advance(_ count: UInt64) { milliseconds.add(count, ordering: .relaxed) }
}

final class OverwriteLog {
    /// What an image looks like: its size must not change from version to version.
    enum Size {
        case fixed(Int)
        case upTo(Int)
        func byteCount(_ number: Int, _ version: Int) -> Int {
            switch self {
            case .fixed(let count): count
            case .upTo(let most): Envelope.byteCount + 16 + (number * 37 + version * 101) % (most - Envelope.byteCount - 16)
            }
        }
    }

    private let size: Size
    let index: OverwriteIndex
    let clock = TestClock()
    let lines = LogLines()
    let backend: DeviceLogBackend
    let compaction: LogCompaction
    private(set) var shards: [LogShard] = []
    private let image: UnsafeMutableRawBufferPointer
    /// Bytes of the images that were appended.
    private(set) var appendedBytes = 0
    /// Bytes that defragmentation said it looked at.
    private(set) var lookedBytes = 0

    var core: LogCore { backend.core }
    var device: LogDevice { core.present[0] }

    /// `settings` come after small defaults and win.
    init(
        _ opener: any DeviceOpener, _ shape: LogShape, count: Int, size: Size, shardCount: Int = 1,
        settings: [(name: String, value: String)] = [], deviceCount: Int = 1
    ) throws {
        self.size = size
        index = OverwriteIndex(count: count)
        image = .allocate(byteCount: shape.blockSize, alignment: 16)
        let small = [
            ("flush-size", "\(max(4096, shape.blockSize / 4))"), ("max-write-cache", "\(16 * shape.blockSize)"),
            ("post-write-cache", "\(2 * shape.blockSize)"),
        ].map { (name: $0.0, value: $0.1) }
        let descriptor = DeviceLog.descriptor(opener: opener, entropy: { 5 }, shape: shape)
        let paths = (0..<deviceCount).map { (name: "device", value: "d\($0)") }
        let opened = try DeviceLogOpening.open(descriptor, small + settings + paths, lines)
        backend = opened as! DeviceLogBackend
        compaction = LogCompaction(backend.core)
        try coldStart()
        let clock = clock
        for number in 0..<shardCount {
            let request = ShardRequest(index: number, count: shardCount, milliseconds: { clock.now }) {}
            shards.append(try backend.makeShard(request) as! LogShard)
        }
        turn(slices: 0)
    }

    deinit { image.deallocate() }

    /// Lets the newest image of each number live.
    private func coldStart() throws {
        guard backend.progress.isCold else { return }
        var orders = [UInt64](repeating: 0, count: index.entries.count)
        try backend.scan(segment: 0, of: 1) { scanned in
            let number = Int(scanned.digest.low)
            let version = Int(scanned.image.baseAddress!.littleEndian(UInt32.self, at: Envelope.byteCount))
            guard index.entries[number].location == nil || scanned.sequence > orders[number] else { return .stale }
            let old = index.entries[number]
            orders[number] = scanned.sequence
            index.entries[number].location = scanned.location
            index.entries[number].version = version
            index.entries[number].byteCount = scanned.image.count
            guard let before = old.location else { return .live }
            return .replaces(before, byteCount: old.byteCount)
        }
    }

    // ---- Writes and reads ----

    private func make(_ number: Int, _ version: Int) -> Int {
        let count = size.byteCount(number, version)
        let base = image.baseAddress!
        (base + Envelope.byteCount).initializeMemory(
            as: UInt8.self, repeating: UInt8(truncatingIfNeeded: number &* 31 &+ version), count: count - Envelope.byteCount)
        base.storeLittleEndian(UInt32(version), at: Envelope.byteCount)
        base.storeLittleEndian(UInt32(number), at: Envelope.byteCount + 4)
        Envelope.seal(UnsafeMutableRawBufferPointer(rebasing: image[..<count]), digest: OverwriteIndex.digest(number))
        return count
    }

    /// Overwrites a number; turns go by while the log says that it is overloaded.
    /// - Throws: what the log says then.
    func write(_ number: Int, shard: Int = 0, patience: Int = 2000) throws(StorageError) {
        let version = index.entries[number].version + 1
        let count = make(number, version)
        var turnsLeft = patience
        while true {
            do throws(StorageError) {
                let answer = try shards[shard].append(
                    OverwriteIndex.digest(number), UnsafeRawBufferPointer(rebasing: image[..<count]), stream: .fresh,
                    tag: Tag(rawValue: 1))
                guard case .placed(let location) = answer else { preconditionFailure("the device log places at once") }
                appendedBytes += count
                let old = index.entries[number]
                index.entries[number] = OverwriteIndex.Entry(location: location, version: version, byteCount: count)
                if let before = old.location {
                    shards[shard].release(OverwriteIndex.digest(number), at: before, byteCount: old.byteCount)
                }
                return
            } catch {
                guard error == .overloaded, turnsLeft > 0 else { throw error }
                turnsLeft -= 1
                turn()
                clock.advance(1)
            }
        }
    }

    func delete(_ number: Int) {
        let old = index.entries[number]
        guard let location = old.location else { return }
        index.entries[number].location = nil
        shards[0].release(OverwriteIndex.digest(number), at: location, byteCount: old.byteCount)
    }

    /// A turn of every shard, with slices of defragmentation as the engine would run them.
    func turn(slices: Int = 1) {
        for shard in shards {
            shard.poll { _ in }
            for _ in 0..<slices {
                let wanted = compaction.wantedBytes
                guard wanted > 0 else { break }
                do throws(StorageError) {
                    lookedBytes += try compaction.compact(on: shard, byteBudget: wanted, arbiter: index)
                } catch { preconditionFailure("defragmentation: \(error.text)") }
            }
            shard.turnEnded(sleeping: false)
        }
    }

    /// Turns until nothing is left to do; at most `count`.
    func settle(_ count: Int = 300) {
        for _ in 0..<count {
            turn(slices: 4)
            clock.advance(20)
        }
    }

    func commit(_ number: Int) throws(StorageError) -> Bool {
        guard case .pending = try shards[0].commit(OverwriteIndex.digest(number), tag: Tag(rawValue: 2)) else { return true }
        for _ in 0..<2000 {
            var isDone: Bool?
            shards[0].poll { completion in
                if case .done = completion.result { isDone = true } else { isDone = false }
            }
            shards[0].turnEnded(sleeping: false)
            if let isDone { return isDone }
        }
        return false
    }

    /// Whether the number has the bytes of its version.
    func isRight(_ number: Int) -> Bool {
        let entry = index.entries[number]
        guard let location = entry.location else { return true }
        let count = make(number, entry.version)
        guard count == entry.byteCount else { return false }
        func equals(_ bytes: UnsafeRawBufferPointer) -> Bool { bytes.prefix(count).elementsEqual(image.prefix(count)) }
        var answer: Bool?
        do throws(StorageError) {
            let read = try shards[0].read(
                OverwriteIndex.digest(number), at: location, byteCount: count, tag: Tag(rawValue: 3))
            if case .here(let bytes) = read { answer = equals(bytes) }
        } catch { return false }
        for _ in 0..<1000 where answer == nil {
            shards[0].poll { if case .read(let bytes) = $0.result { answer = equals(bytes) } else { answer = false } }
            shards[0].turnEnded(sleeping: false)
        }
        shards[0].turnEnded(sleeping: false)
        return answer ?? false
    }

    /// Numbers that cannot be read as they were written.
    var wrong: [Int] { index.entries.indices.filter { !isRight($0) } }

    /// Live units by the index, of the whole log.
    var liveUnits: Int {
        index.entries.reduce(0) { $0 + ($1.location == nil ? 0 : LogFormat.units($1.byteCount)) }
    }
}
