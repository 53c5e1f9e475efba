// A log in kept memory with an index in one hand, and the moment it dies. Invariants:
// 1. What a process leaves - devices, memory, index - is taken at one moment: when an operation was just submitted to a
//    device, when something is about to be persisted, or between two calls.
// 2. The index outlives its process whatever happens: it is not what is tested here.
import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport

/// What an index says of a number.
struct WarmRecord {
    struct Image {
        let location: Location
        let version: Int
        let byteCount: Int
    }
    /// What is published.
    var live: Image?
    /// Appended and not published yet.
    var pending: Image?
    var pendingSteps = 0
    var lastVersion = 0
    /// It was deleted since everything was committed: whatever was appended since need not last, and nothing else has to.
    var wasDeleted = false
    /// Versions that were published at some time.
    var published: Set<Int> = []
}

/// The index.
final class WarmIndex: LivenessArbiter {
    var records: [WarmRecord]
    init(_ records: [WarmRecord]) { self.records = records }

    static func digest(_ number: Int) -> Digest {
        Digest(low: UInt64(number), middle: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, high: 7)
    }

    func prefetch(_ digest: Digest, stage: Int) {}

    func isLive(_ digest: Digest, at location: Location) -> Bool {
        let record = records[Int(digest.low)]
        return record.live?.location == location && record.pending == nil
    }

    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard let live = records[Int(digest.low)].live, live.location == from else { return false }
        records[Int(digest.low)].live = WarmRecord.Image(location: to, version: live.version, byteCount: live.byteCount)
        return true
    }

    /// Bytes of what is published, in whole units.
    var liveByteCount: Int {
        records.reduce(0) { $0 + LogFormat.units($1.live?.byteCount ?? 0) * LogFormat.unitSize }
    }
}

/// What a process that died has left.
struct Remains {
    let opener: SimulatedOpener
    let memory: SimulatedMemory
    let records: [WarmRecord]
}

/// How a log of a history looks.
struct WarmPlan {
    var shape = TestLog.smallShape
    var deviceCount = 1
    var isPersistent = false
    var numbers = 60
    var imageSizeMax = 300
    var settings: [(name: String, value: String)] = []
    var isResident = false
    /// Completed writes need not last in a power failure.
    var isSyncDisabled = false

    init() { shape.blocksMax = 64 }

    static func random(_ random: inout SeededRandom, canary: LogCanary? = nil) -> WarmPlan {
        var plan = WarmPlan()
        plan.isPersistent = Bool.random(using: &random)
        plan.deviceCount = Int.random(in: 1...2, using: &random)
        plan.shape.blockSize = [4 << 10, 8 << 10].randomElement(using: &random)!
        plan.shape.canary = canary
        plan.imageSizeMax = [150, 400, 1500].randomElement(using: &random)!
        let liveSize = plan.deviceCount * 24 * plan.shape.blockSize * Int.random(in: 20...45, using: &random) / 100
        plan.numbers = max(4, liveSize / (plan.imageSizeMax / 2 + 60))
        plan.settings = [("post-write-cache", "\(16 * plan.shape.blockSize)")]
        if Bool.random(using: &random) { plan.settings.append(("flush-max-ms", "5")) }
        plan.isResident = Int.random(in: 0..<3, using: &random) == 0
        plan.isSyncDisabled = Int.random(in: 0..<4, using: &random) == 0
        return plan
    }

    var names: [String] { TestLog.names(deviceCount) }
    var byteCount: Int { shape.headSize + 24 * shape.blockSize }

    /// Before there was any process.
    func begin(seed: UInt64) -> Remains {
        Remains(
            opener: SimulatedOpener(count: deviceCount, byteCount: byteCount, seed: seed),
            memory: SimulatedMemory(isPersistent: isPersistent, seed: seed),
            records: Array(repeating: WarmRecord(), count: numbers))
    }

    func open(
        _ opener: SimulatedOpener, _ memory: SimulatedMemory?, _ lines: LogLines, seed: UInt64
    ) throws(StorageError) -> DeviceLogBackend {
        let small = [
            ("flush-size", "1024"), ("max-write-cache", "\(16 * shape.blockSize)"),
            ("post-write-cache", "\(2 * shape.blockSize)"), ("defrag-free-target-pct", "40"),
        ].map { (name: $0.0, value: $0.1) }
        let descriptor = DeviceLog.descriptor(
            opener: opener, entropy: { seed }, shape: shape, isResident: isResident)
        let sync = (name: "disable-odsync", value: isSyncDisabled ? "true" : "false")
        let all = small + [sync] + settings + names.map { (name: "device", value: $0) }
        return try DeviceLogOpening.open(descriptor, all, lines, memory: memory) as! DeviceLogBackend
    }
}

/// When a process dies, and what it leaves. One thread.
private final class Death: @unchecked Sendable {
    var eventsLeft: Int?
    var take: (() -> Remains)?
    var remains: Remains?

    func event() {
        guard let left = eventsLeft, remains == nil else { return }
        eventsLeft = left - 1
        if left == 0 { remains = take?() }
    }
}

/// See the invariants above.
final class WarmLog {
    let plan: WarmPlan
    let opener: SimulatedOpener
    let memory: SimulatedMemory
    let index: WarmIndex
    let backend: DeviceLogBackend
    let lines = LogLines()
    private let clock = TestClock()
    private var shards: [LogShard] = []
    private let death = Death()
    private let image: UnsafeMutableRawBufferPointer
    private var random: SeededRandom

    /// The next process; it dies when `eventsLeft` things more have happened.
    init(_ plan: WarmPlan, _ remains: Remains, eventsLeft: Int? = nil, seed: UInt64) throws {
        self.plan = plan
        (opener, memory, index) = (remains.opener, remains.memory, WarmIndex(remains.records))
        random = SeededRandom(seed: seed)
        image = .allocate(byteCount: plan.imageSizeMax + 64, alignment: 16)
        death.eventsLeft = eventsLeft
        let (death, opener, memory, index) = (death, opener, memory, index)
        let crashSeed = random.next()
        let isPowerFailure = plan.isPersistent && crashSeed % 3 > 0
        death.take = {
            Remains(
                opener: opener.crashed(seed: crashSeed),
                memory: isPowerFailure ? memory.afterPowerFailure(seed: crashSeed) : memory.afterKill(),
                records: index.records)
        }
        opener.watch { death.event() }
        let before = memory.prepare
        memory.prepare = { name, region in
            before?(name, region)
            region.beforePersist = { death.event() }
        }
        backend = try plan.open(opener, memory, lines, seed: random.next())
        try start()
        let clock = clock
        for number in 0..<2 {
            let request = ShardRequest(index: number, count: 2, milliseconds: { clock.now }) {}
            shards.append(try backend.makeShard(request) as! LogShard)
        }
    }

    deinit {
        death.take = nil
        image.deallocate()
    }

    /// As the node does it.
    private func start() throws {
        if let warm = backend.warmStart {
            for place in index.records.indices {
                // What was on its way is forgotten with its process.
                index.records[place].pending = nil
                guard let live = index.records[place].live else { continue }
                guard warm.adopt(live.location, byteCount: LogFormat.units(live.byteCount) * LogFormat.unitSize) else {
                    throw StorageError.medium("number \(place) at \(live.location.rawValue) is not adopted")
                }
            }
            try warm.finish()
        } else if backend.progress.isCold {
            let before = index.records
            index.records = try WarmLog.coldStart(backend, count: plan.numbers)
            for (number, old) in before.enumerated() {
                index.records[number].published = old.published
                index.records[number].lastVersion = old.lastVersion
            }
        }
        try memory.complete()
    }

    var isWarm: Bool { backend.warmStart != nil }
    /// What it has left, if it is dead.
    var remains: Remains? { death.remains }

    /// Dies now, on the same devices: writes that were under way arrive or not, completed ones are there.
    func kill() -> Remains {
        // What is under way ends with the queues, before anybody else opens the devices.
        shards = []
        return Remains(opener: opener, memory: memory.afterKill(), records: index.records)
    }

    private func publishAll() { for number in index.records.indices { publish(number) } }

    func close() throws {
        publishAll()
        try backend.close()
        memory.close(isClean: true)
    }

    /// What the newest images of a cold start say.
    static func coldStart(_ backend: DeviceLogBackend, count: Int) throws(StorageError) -> [WarmRecord] {
        var records = Array(repeating: WarmRecord(), count: count)
        var orders = [UInt64](repeating: 0, count: count)
        try backend.scan(segment: 0, of: 1) { scanned in
            let number = Int(scanned.digest.low)
            let version = Int(scanned.image.baseAddress!.littleEndian(UInt32.self, at: Envelope.byteCount))
            let old = records[number].live
            guard old == nil || scanned.sequence > orders[number] else { return .stale }
            orders[number] = scanned.sequence
            records[number].live = WarmRecord.Image(
                location: scanned.location, version: version, byteCount: scanned.image.count)
            records[number].lastVersion = version
            return old.map { .replaces($0.location, byteCount: $0.byteCount) } ?? .live
        }
        return records
    }

    // ---- History ----

    private func make(_ number: Int, _ version: Int) -> UnsafeRawBufferPointer {
        let count = Envelope.byteCount + 8 + (number * 37 + version * 101) % (plan.imageSizeMax - Envelope.byteCount - 8)
        let base = image.baseAddress!
        (base + Envelope.byteCount).initializeMemory(
            as: UInt8.self, repeating: UInt8(truncatingIfNeeded: number &* 31 &+ version), count: count - Envelope.byteCount)
        base.storeLittleEndian(UInt32(version), at: Envelope.byteCount)
        base.storeLittleEndian(UInt32(number), at: Envelope.byteCount + 4)
        let whole = UnsafeMutableRawBufferPointer(rebasing: image[..<count])
        Envelope.seal(whole, digest: WarmIndex.digest(number))
        return UnsafeRawBufferPointer(whole)
    }

    /// Appends the next version of a number; false if the log has no room now.
    func append(_ number: Int, patience: Int = 300) throws(StorageError) -> Bool {
        let version = index.records[number].lastVersion + 1
        for _ in 0..<patience {
            do throws(StorageError) {
                let bytes = make(number, version)
                let answer = try shards[number % 2].append(
                    WarmIndex.digest(number), bytes, stream: .fresh, tag: Tag(rawValue: 1))
                guard case .placed(let location) = answer else { preconditionFailure("the device log places at once") }
                index.records[number].lastVersion = version
                index.records[number].pending = WarmRecord.Image(
                    location: location, version: version, byteCount: bytes.count)
                index.records[number].pendingSteps = 0
                return true
            } catch {
                guard error == .overloaded else { throw error }
                // What was appended is in the index some turns later, whatever it waited for.
                publishAll()
                turn()
            }
        }
        return false
    }

    func publish(_ number: Int) {
        let record = index.records[number]
        guard let new = record.pending else { return }
        index.records[number].pending = nil
        index.records[number].live = new
        index.records[number].published.insert(new.version)
        if let old = record.live { release(number, old) }
    }

    private func release(_ number: Int, _ old: WarmRecord.Image) {
        shards[0].release(WarmIndex.digest(number), at: old.location, byteCount: old.byteCount)
    }

    func delete(_ number: Int) {
        guard let live = index.records[number].live else { return }
        index.records[number].live = nil
        index.records[number].wasDeleted = true
        release(number, live)
    }

    func turn() {
        clock.advance(1)
        for shard in shards {
            shard.poll { _ in }
            do throws(StorageError) {
                if backend.core.buffers.count > 0, backend.compaction!.wantedBytes > 0 {
                    _ = try backend.compaction!.compact(on: shard, byteBudget: 4096, arbiter: index)
                }
            } catch { preconditionFailure("defragmentation: \(error.text)") }
            shard.turnEnded(sleeping: Int.random(in: 0..<4, using: &random) == 0)
        }
    }

    /// - Throws: `overloaded` if nobody answers.
    func commit(_ number: Int) throws(StorageError) {
        let committer = number % 2
        guard case .pending = try shards[committer].commit(WarmIndex.digest(number), tag: Tag(rawValue: 2)) else { return }
        var failure: StorageError?
        var isDone = false
        for _ in 0..<10_000 where !isDone {
            clock.advance(1)
            for (place, shard) in shards.enumerated() {
                shard.poll { completion in
                    guard place == committer else { return }
                    isDone = true
                    if case .failed(let error) = completion.result { failure = error }
                }
                shard.turnEnded(sleeping: false)
            }
        }
        if let failure { throw failure }
        if !isDone { throw .overloaded }
    }

    /// Makes everything last that is published; the versions, 0 for none.
    func commitAll() throws(StorageError) -> [Int] {
        publishAll()
        for number in index.records.indices {
            try commit(number)
            index.records[number].wasDeleted = false
        }
        return index.records.map { $0.live?.version ?? 0 }
    }

    /// One thing of chance. An image is published before so much else is written that its block leaves the memory.
    func step() throws(StorageError) {
        for number in index.records.indices where index.records[number].pending != nil {
            index.records[number].pendingSteps += 1
            guard index.records[number].pendingSteps > Int.random(in: 0..<4, using: &random) else { continue }
            publish(number)
        }
        let number = Int.random(in: 0..<plan.numbers, using: &random)
        guard index.records[number].pending == nil else { return turn() }
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<70:
            guard try append(number) else { return }
            if Int.random(in: 0..<3, using: &random) > 0 { publish(number) }
        case 70..<75: delete(number)
        case 75..<80: try commit(number)
        default: turn()
        }
    }

    // ---- What has to be true ----

    /// Whether a published image is read as it was appended.
    func isRight(_ number: Int) -> Bool {
        guard let live = index.records[number].live else { return true }
        let right = make(number, live.version)
        guard right.count == live.byteCount else { return false }
        func equals(_ bytes: UnsafeRawBufferPointer) -> Bool { bytes.prefix(right.count).elementsEqual(right) }
        var answer: Bool?
        do throws(StorageError) {
            let read = try shards[0].read(
                WarmIndex.digest(number), at: live.location, byteCount: right.count, tag: Tag(rawValue: 3))
            if case .here(let bytes) = read { answer = equals(bytes) }
        } catch { return false }
        for _ in 0..<1000 where answer == nil {
            shards[0].poll { if case .read(let bytes) = $0.result { answer = equals(bytes) } else { answer = false } }
            shards[0].turnEnded(sleeping: false)
        }
        shards[0].turnEnded(sleeping: false)
        return answer ?? false
    }

    /// What is wrong with this log, and with a later cold start of devices that lose power now; empty if nothing is.
    func problems(coldSeed: UInt64) throws -> [String] {
        var problems = index.records.indices.filter { !isRight($0) }.map { "number \($0) is not read as it was written" }
        if backend.statistics.usedBytes != UInt64(index.liveByteCount) {
            problems.append("\(backend.statistics.usedBytes) bytes are used, \(index.liveByteCount) live")
        }
        return try problems + WarmLog.coldProblems(plan, opener.crashed(seed: coldSeed), index.records)
    }

    /// Numbers of which a cold start shows something older than `committed`, or that it does not show.
    static func lost(_ plan: WarmPlan, _ left: Remains, committed: [Int]) throws -> [Int] {
        let backend = try plan.open(left.opener, nil, LogLines(), seed: 1)
        let found = try coldStart(backend, count: plan.numbers)
        return left.records.indices.filter { number in
            let record = left.records[number]
            guard committed[number] > 0, !record.wasDeleted else { return false }
            return !(committed[number]...max(committed[number], record.lastVersion))
                .contains(found[number].live?.version ?? 0)
        }
    }

    /// What is wrong with a cold start of these devices, on which `records` last.
    static func coldProblems(_ plan: WarmPlan, _ opener: SimulatedOpener, _ records: [WarmRecord]) throws -> [String] {
        let lines = LogLines()
        let backend = try plan.open(opener, nil, lines, seed: 1)
        let found = try coldStart(backend, count: records.count)
        var problems: [String] = []
        for (number, (record, shown)) in zip(records, found).enumerated() {
            let version = shown.live?.version
            // A delete need not last, but what was never published stays away.
            let isRight = record.live.map { $0.version == version } ?? version.map { record.published.contains($0) } ?? true
            if !isRight {
                problems.append("number \(number) is version \(version ?? -1) after a cold start, not"
                    + " \(record.live?.version ?? -1)")
            }
        }
        let isDamaged = backend.statistics.details.contains {
            ($0.name.hasSuffix("damaged_blocks") || $0.name.hasSuffix("damaged_images")) && $0.value != "0"
        }
        if isDamaged { problems.append("a cold start counts damage: \(lines.all)") }
        return problems
    }
}
