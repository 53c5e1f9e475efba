// One namespace on a set of devices: what its shards share.
internal import Base
internal import CBase
internal import Device
internal import Storage
internal import Synchronization

/// The set of devices, its buffers and its counters. Any thread.
final class LogCore: @unchecked Sendable {
    let settings: LogSettings
    let shape: LogShape
    let identity: UInt32
    let log: @Sendable (String) -> Void
    let warn: @Sendable (String) -> Void
    let epochs = TurnEpochs()
    let buffers: WriteBuffers
    /// Groups are written without lasting at once (`disable-odsync`).
    let isSyncDisabled: Bool
    let opener: any DeviceOpener
    /// Every block stays in memory.
    let isResident: Bool
    /// An image has to be persisted before its location is given away.
    let persistsImages: Bool
    /// Largest image in bytes.
    let imageSizeMax: Int
    /// By slot; nil where the set has a device that is missing. Set once, before any shard is made.
    private(set) var devices: [LogDevice?] = []
    // Line 0: sequence of the next block; line 1: bytes sealed and not written; line 2: scans under way; line 3: 1
    // when closed; line 4: batches of images that are being moved; line 5: 1 if there are `leftWrites`.
    private let words: UnsafeMutablePointer<UInt64>
    /// What may change while the log is in use: `defrag-lwm-pct`, `flush-max-ms`.
    private let adjusted: UnsafeMutablePointer<UInt64>
    private let mails = Mutex<[ShardMail]>([])
    private let failure = Mutex<String?>(nil)
    private let damageLines = Mutex(0)
    private let leftWrites = Mutex<[GroupWrite]>([])

    /// Blocks that may be open or have unwritten groups in them at a time, beside those of the streams.
    private static let spareBuffers = 6
    /// Buffers beside those of the streams without which nothing can be appended while another is written.
    private static let buffersMin = 2
    /// Blocks that stay in kept memory for a while after they were written, whatever post-write-cache says: an image may be
    /// on its way into the index still, and what was never published must not come back (WarmStart.swift).
    private static let keptCachedMin = 2
    /// Lines of the log about damage, so that a broken device does not fill it.
    private static let damageLinesMax = 100

    init(
        _ settings: LogSettings, identity: UInt32, blockCounts: [Int], opener: any DeviceOpener, memory: (any KeptMemory)?,
        log: @escaping @Sendable (String) -> Void, warn: @escaping @Sendable (String) -> Void
    ) throws(StorageError) {
        self.settings = settings
        shape = settings.shape
        self.identity = identity
        self.opener = opener
        self.log = log
        self.warn = warn
        words = .allocate(capacity: 48)
        words.initialize(repeating: 0, count: 48)
        adjusted = .allocate(capacity: 2)
        adjusted[0] = UInt64(settings.defragLivePercent)
        adjusted[1] = settings.flushMaxMilliseconds
        buffers = try LogCore.makeBuffers(settings, blockCounts, memory, epochs)
        let kept = buffers.memory
        isResident = settings.isResident
        // What leaves such memory has to last: the index may outlive a loss of power.
        isSyncDisabled = settings.isSyncDisabled && !kept.needsPersist
        persistsImages = kept.needsPersist && shape.canary != .publishesUnpersisted
        imageSizeMax = LogLayout(
            sectorSize: shape.flushUnit, flushUnit: shape.flushUnit, blockSize: shape.blockSize, headSize: shape.headSize
        ).imageSizeMax
    }

    deinit {
        words.deallocate()
        adjusted.deallocate()
    }

    /// Other settings from now on. One thread at a time.
    func put(defragLivePercent: Int, flushMaxMilliseconds: UInt64) {
        apus_store_relaxed_u64(adjusted, UInt64(defragLivePercent))
        apus_store_relaxed_u64(adjusted + 1, flushMaxMilliseconds)
    }

    /// `defrag-lwm-pct` in force. Any thread.
    var defragLivePercent: Int { Int(apus_load_relaxed_u64(adjusted)) }

    /// `flush-max-ms` in force. Any thread.
    var flushMaxMilliseconds: UInt64 { apus_load_relaxed_u64(adjusted + 1) }

    /// Of a log in memory there is one for each block, and some for those that are on their way out.
    /// - Throws: `settings` if there are too many, or there is not even memory for what appending needs.
    private static func makeBuffers(
        _ settings: LogSettings, _ blockCounts: [Int], _ memory: (any KeptMemory)?, _ epochs: TurnEpochs
    ) throws(StorageError) -> WriteBuffers {
        let shape = settings.shape
        let blockCount = blockCounts.reduce(0, +)
        var cachedMax = max(settings.postWriteCacheMax / shape.blockSize, memory == nil ? 0 : keptCachedMin)
        if settings.isResident { cachedMax = min(cachedMax, blockCount) }
        let writing = max(2, settings.writeCacheMax / shape.blockSize) + 2 * blockCounts.count
        // Moved images need some of the last ones.
        let reserve = settings.isResident ? blockCounts.count + 1 : 0
        let spareMin = max(spareBuffers, 2 * reserve)
        let count = (settings.isResident ? blockCount : cachedMax + writing) + 2 * spareMin
        guard count <= BufferMemory.buffersMax else {
            let reason = settings.isResident ? "the devices have more write blocks than can be kept in memory"
                : "max-write-cache and post-write-cache ask for too many write blocks"
            throw .settings("\(reason): \(count) of \(shape.blockSize) bytes, at most \(BufferMemory.buffersMax) are"
                + " possible")
        }
        return WriteBuffers(
            try bufferMemory(memory, count: count, settings, deviceCount: blockCounts.count), count: count,
            cachedMax: cachedMax, spareMin: spareMin, reserve: reserve, blockSize: shape.blockSize,
            flushUnit: shape.flushUnit, isResident: settings.isResident, epochs: epochs)
    }

    private static func bufferMemory(
        _ memory: (any KeptMemory)?, count: Int, _ settings: LogSettings, deviceCount: Int
    ) throws(StorageError) -> BufferMemory {
        let blockSize = settings.shape.blockSize
        guard let memory else {
            return try BufferMemory(count: count, blockSize: blockSize, inHugePages: settings.isResident)
        }
        let kept = try BufferMemory(memory, count: count, blockSize: blockSize)
        let least = 2 * deviceCount + buffersMin
        guard kept.back(least) else {
            throw BufferMemory.isFull(memory.name, byteCount: (least - kept.backedCount) * blockSize)
        }
        return kept
    }

    /// Once, before any shard is made.
    func setDevices(_ devices: [LogDevice?]) { self.devices = devices }

    @inline(__always)
    func device(_ slot: Int) -> LogDevice? { slot < devices.count ? devices[slot] : nil }

    var present: [LogDevice] { devices.compactMap { $0 } }

    /// Where images of `digest` go: its own device, or if that is missing or given up, the next. Nil if there is none.
    @inline(__always)
    func home(_ digest: Digest) -> LogDevice? {
        let count = devices.count
        let first = Int(digest.middle % UInt64(count))
        for step in 0..<count {
            let slot = first + step < count ? first + step : first + step - count
            if let device = devices[slot], !device.isFenced { return device }
        }
        return nil
    }

    /// Units that were filled outlive a loss of power from now on, if the memory they are in can: before anybody is told
    /// where they are.
    @inline(__always)
    func persist(_ place: Reserved, units: Int) {
        guard persistsImages else { return }
        buffers.memory.persist(
            place.buffer, offset: place.unit * LogFormat.unitSize, byteCount: units * LogFormat.unitSize)
    }

    /// Of all blocks it is known what lives in them: those in which nothing does are free from now on.
    func settleBlocks() {
        for device in present where !device.isFenced {
            device.locked {
                for block in 0..<device.blockCount { device.settle(block, isFree: device.liveUnits(block) == 0) }
                device.sortFreeBlocks()
            }
        }
    }

    // ---- Words ----

    /// For a new block of a stream; the last bit says which, so that whatever is left of a block tells it.
    func takeSequence(stream: Int) -> UInt64 { apus_fetch_add_u64(words, 2) | UInt64(stream) }
    var nextSequence: UInt64 {
        get { apus_load_acquire_u64(words) }
        set { apus_store_release_u64(words, newValue + newValue % 2) }
    }

    var unwrittenBytes: Int { Int(apus_load_relaxed_u64(words + 8)) }
    func addUnwritten(_ byteCount: Int) { _ = apus_fetch_add_u64(words + 8, UInt64(bitPattern: Int64(byteCount))) }

    /// While somebody scans, nothing is moved: an image could slip past him.
    var hasScans: Bool { apus_load_acquire_u64(words + 16) > 0 }
    /// Waits for batches that are being moved, some 50 us at most: when it returns nothing moves.
    func scanBegan() {
        _ = apus_fetch_add_u64(words + 16, 1)
        apus_fence()
        while apus_load_acquire_u64(words + 32) > 0 { apus_fence() }
    }
    func scanEnded() { _ = apus_fetch_add_u64(words + 16, 0 &- 1) }

    /// A batch of images is going to be moved; false: not now, somebody scans. `endMove` follows in the same turn.
    func beginMove() -> Bool {
        _ = apus_fetch_add_u64(words + 32, 1)
        apus_fence()
        guard hasScans else { return true }
        endMove()
        return false
    }
    func endMove() { _ = apus_fetch_add_u64(words + 32, 0 &- 1) }

    var isClosed: Bool { apus_load_acquire_u64(words + 24) == 1 }
    /// False: it was closed before.
    func close() -> Bool { apus_exchange_u64(words + 24, 1) == 0 }

    // ---- Shards ----

    func addShard(_ mail: ShardMail) -> Int {
        mails.withLock { mails in
            mails.append(mail)
            return mails.count - 1
        }
    }

    /// Tells the shards of committers how it went.
    func tell(_ waiters: [CommitWaiter], _ error: StorageError?) {
        guard !waiters.isEmpty else { return }
        let mails = mails.withLock { $0 }
        for waiter in waiters { mails[waiter.shard].put(waiter.tag, error) }
    }

    // ---- Writes that whoever polls next takes over ----

    private func leave(_ writes: [GroupWrite]) {
        guard !writes.isEmpty else { return }
        leftWrites.withLock { $0 += writes }
        apus_store_release_u64(words + 40, 1)
        for mail in mails.withLock({ $0 }) { mail.wake() }
    }

    var hasLeftWrites: Bool { apus_load_relaxed_u64(words + 40) == 1 }

    func takeLeftWrites() -> [GroupWrite] {
        leftWrites.withLock { writes in
            defer { writes = [] }
            apus_store_release_u64(words + 40, 0)
            return writes
        }
    }

    // ---- Trouble ----

    /// Gives a device up: it is written to no more, what is not in memory cannot be read.
    func fence(_ device: LogDevice, _ reason: String) {
        let waiters: [CommitWaiter]? = device.locked { device.giveUp(reason) ? device.takeWaiters() : nil }
        guard let waiters else { return }
        // What belongs there goes to the others from now on, and must count as newer than anything there: into blocks that
        // are opened after its last one.
        for other in present where other !== device { leave(other.endFreshBlock()) }
        device.figures.set(.isFenced, 1)
        let rest = present.filter { !$0.isFenced }.count
        warn("device \(device.path) is given up: \(reason); \(rest) of \(devices.count) devices are left."
            + " Records on it answer 1 until the node is started again with the device in order")
        if settings.stopsOnFailure { failure.withLock { $0 = "device \(device.path) has failed: \(reason)" } }
        tell(waiters, .device(errno: DeviceErrno.inputOutput, operation: "write to \(device.path)"))
    }

    /// Reads that fail one after the other, with none between that went well, before a device is given up.
    private static let readErrorsMax = 16

    func readFailed(_ device: LogDevice, _ errno: Int32, block: Int, unit: Int) {
        device.figures.add(.readErrors, 1)
        // One bad place that is asked for again and again is no bad device.
        let place = block << 24 | unit
        guard device.figures[.lastBadPlace] != place || device.figures[.readErrorsInARow] == 0 else { return }
        device.figures.set(.lastBadPlace, place)
        device.figures.add(.readErrorsInARow, 1)
        let count = device.figures[.readErrorsInARow]
        if count == 1 { warn("a read from \(device.path) failed with error \(errno)") }
        if count >= LogCore.readErrorsMax { fence(device, "\(count) reads in a row failed, the last with error \(errno)") }
    }

    func wentWell(_ device: LogDevice) {
        if device.figures[.readErrorsInARow] > 0 { device.figures.set(.readErrorsInARow, 0) }
    }

    /// Why the node has to stop, by its settings.
    var fatal: String? { failure.withLock { $0 } }

    /// A line about something damaged, as long as there are not too many of them.
    func logDamage(_ line: @autoclosure () -> String) {
        let number = damageLines.withLock { count in
            count += 1
            return count
        }
        if number < LogCore.damageLinesMax { warn(line()) }
        if number == LogCore.damageLinesMax {
            warn("more damaged places are counted (namespace statistics damaged_blocks, damaged_images), not named")
        }
    }
}

/// What other threads have for a shard. Any thread.
final class ShardMail: Sendable {
    private let ended = Mutex<[(tag: Tag, error: StorageError?)]>([])
    private let isFull = Atomic(false)
    let wake: @Sendable () -> Void

    init(wake: @escaping @Sendable () -> Void) { self.wake = wake }

    /// A commit has ended.
    func put(_ tag: Tag, _ error: StorageError?) {
        ended.withLock { $0.append((tag, error)) }
        if !isFull.exchange(true, ordering: .sequentiallyConsistent) { wake() }
    }

    var isEmpty: Bool { !isFull.load(ordering: .sequentiallyConsistent) }

    /// Everything that has come.
    func take() -> [(tag: Tag, error: StorageError?)] {
        guard isFull.exchange(false, ordering: .sequentiallyConsistent) else { return [] }
        return ended.withLock { ended in
            let taken = ended
            ended.removeAll(keepingCapacity: true)
            return taken
        }
    }
}
