// Memory that write blocks are filled in, and stay in for a while after they were written. Invariants:
// 1. A buffer is free, in use (its block is open, or has groups that are not written), cached, or retired.
// 2. The line of a block names its buffer from the moment the block is opened until the buffer is retired.
// 3. A retired buffer is free only when every shard has passed a turn since: until then somebody may still copy from it.
// 4. Buffers are moved between these states under `lock`; their bytes and counters belong to the stream that fills them.
// 5. In kept memory (BufferMemory.swift) only `usableCount` buffers, from the front on, are in any of these states; more are
//    backed when free ones run short (`backMore`), and until then the cache leaves `spareMin` to writing.
// 6. A buffer is *settled* `settledAfter` blocks after it was cached: a warm start need not look at it. Of a log in memory
//    (`isResident`) a buffer that leaves the cache stays until its block is dead.
internal import Base
internal import CBase
internal import Storage

/// What is known of one buffer.
struct WriteBuffer: BitwiseCopyable {
    /// Whose block is in it: slot of the device, number of the block.
    var device = 0
    var block = 0
    /// Groups that were sealed and are not written yet. Under the device's lock.
    var unwrittenGroups = 0
    /// Nothing is appended to it any more. Under the device's lock.
    var isWhole = false
    var retiredEpoch: UInt64 = 0
}

/// See the invariants above. Any thread.
final class WriteBuffers: @unchecked Sendable {
    let count: Int
    let blockSize: Int
    let groupsPerBlock: Int
    let memory: BufferMemory
    private let base: UnsafeMutableRawPointer
    private let table: UnsafeMutablePointer<WriteBuffer>
    /// For each place where a group can begin: units that are reserved there and not copied yet, once the group is sealed;
    /// before, units copied.
    private let counters: UnsafeMutablePointer<UInt32>
    private let epochs: TurnEpochs
    private let lockWord: UnsafeMutablePointer<UInt32>
    private let cachedMax: Int
    private let spareMin: Int
    private var free: [Int] = []
    /// Oldest first.
    private var cached: [Int] = []
    private var retired: [Int] = []
    private var usableCount = 0
    /// Blocks that are cached later until whatever was on its way into the index is there.
    private static let settledAfter = 8
    let isResident: Bool
    /// Of a log in memory: buffers that fresh images leave to moved ones, so that defragmentation can make room.
    let reserve: Int
    /// 1 if no more could be backed when somebody tried last. Beside the lock; read without it as a hint.
    private var fullWord: UnsafeMutablePointer<UInt32> { lockWord + 1 }

    /// Nothing can be taken before `start`.
    init(
        _ memory: BufferMemory, count: Int, cachedMax: Int, spareMin: Int, reserve: Int, blockSize: Int, flushUnit: Int,
        isResident: Bool, epochs: TurnEpochs
    ) {
        precondition(count > cachedMax + spareMin)
        self.memory = memory
        base = memory.base
        self.count = count
        self.blockSize = blockSize
        self.cachedMax = cachedMax
        self.spareMin = spareMin
        self.reserve = reserve
        self.epochs = epochs
        self.isResident = isResident
        groupsPerBlock = blockSize / flushUnit
        table = .allocate(capacity: count)
        table.initialize(repeating: WriteBuffer(), count: count)
        // Those of a buffer are set when it is taken: of many buffers they are much memory, which is not touched before.
        counters = .allocate(capacity: count * groupsPerBlock)
        lockWord = .allocate(capacity: 2)
        lockWord.initialize(repeating: 0, count: 2)
        cached.reserveCapacity(cachedMax + 1)
        retired.reserveCapacity(cachedMax + 1)
    }

    deinit {
        table.deallocate()
        counters.deallocate()
        lockWord.deallocate()
    }

    /// Buffers can be taken: as many as are backed. What an earlier process has left in them is forgotten, but for blocks
    /// that stay: of each the buffer, slot and block.
    func start(keeping kept: [(buffer: Int, device: Int, block: Int)] = []) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        usableCount = min(memory.backedCount, count)
        var isKept = [Bool](repeating: false, count: usableCount)
        for one in kept {
            isKept[one.buffer] = true
            table[one.buffer] = WriteBuffer(device: one.device, block: one.block)
            memory.set(one.buffer, .settled)
        }
        memory.clear { $0 < usableCount && isKept[$0] }
        free = (0..<usableCount).reversed().filter { !isKept[$0] }
    }

    /// Backs one more buffer if free ones are short. False: all are backed, or there is no room now. Takes milliseconds; not
    /// under a lock.
    func backMore() -> Bool {
        apus_lock(lockWord)
        let wanted = usableCount + 1
        let isWanted = free.count + retired.count <= spareMin
        apus_unlock(lockWord)
        guard wanted <= count else { return false }
        return isWanted ? back(wanted) : true
    }

    private func back(_ wanted: Int) -> Bool {
        let isBacked = memory.back(wanted)
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        apus_store_release_u32(fullWord, isBacked ? 0 : 1)
        // Another thread may have been here meanwhile.
        guard isBacked, usableCount < wanted else { return isBacked }
        usableCount = wanted
        free.append(wanted - 1)
        return true
    }

    /// Of a log in memory that has no more of it: how many blocks can be filled now, and how many soon; nil if only the
    /// device limits them.
    var roomWhenFull: (now: Int, soon: Int)? {
        guard isResident, apus_load_acquire_u32(fullWord) == 1 else { return nil }
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        if !retired.isEmpty { recycle() }
        return (free.count, free.count + retired.count)
    }

    // ---- Blocks that are loaded ----

    /// A buffer for a block that is read at a start; backs one if need be. May block.
    /// - Throws: `settings` if there is no memory for it.
    func takeForLoad(device: Int, block: Int) throws(StorageError) -> Int {
        while true {
            if let buffer = take(device: device, block: block) { return buffer }
            apus_lock(lockWord)
            let wanted = usableCount + 1
            apus_unlock(lockWord)
            guard wanted <= count, back(wanted) else {
                throw BufferMemory.isFull(memory.name ?? "memory", byteCount: (count - usableCount) * blockSize)
            }
        }
    }

    /// The whole block was copied into its buffer, and lies on the device as well.
    func loaded(_ buffer: Int, sequence: UInt64) {
        memory.persist(buffer, offset: 0, byteCount: blockSize)
        begin(buffer, sequence: sequence)
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        memory.set(buffer, .settled)
    }

    // ---- Use ----

    @inline(__always)
    func bytes(_ buffer: Int) -> UnsafeMutableRawPointer { base + buffer * blockSize }

    @inline(__always)
    subscript(buffer: Int) -> WriteBuffer {
        get { table[buffer] }
        _modify { yield &table[buffer] }
    }

    @inline(__always)
    func counter(_ buffer: Int, group: Int) -> UnsafeMutablePointer<UInt32> { counters + buffer * groupsPerBlock + group }

    /// A buffer for a new block, if that leaves `reserve` others; nil if all are taken.
    func take(device: Int, block: Int, leaving reserve: Int = 0) -> Int? {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        if free.count <= spareMin { recycle() }
        guard free.count > reserve else { return nil }
        guard let buffer = free.popLast() else { return nil }
        table[buffer] = WriteBuffer(device: device, block: block)
        (counters + buffer * groupsPerBlock).update(repeating: 0, count: groupsPerBlock)
        return buffer
    }

    private func recycle() {
        let oldest = epochs.oldest
        retired.removeAll { buffer in
            guard table[buffer].retiredEpoch <= oldest else { return false }
            free.append(buffer)
            return true
        }
    }

    /// A buffer that was taken is for this use of its block.
    func begin(_ buffer: Int, sequence: UInt64) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        memory.begin(buffer, slot: table[buffer].device, block: table[buffer].block, sequence: sequence)
    }

    /// The cache has to leave buffers to writing: not all could be backed yet.
    private var isShort: Bool { !isResident && usableCount < count && free.count + retired.count < spareMin }

    /// All of the buffer is written. It stays for reads; `forget` is called for each buffer that has to make room.
    func cache(_ buffer: Int, forget: (_ buffer: Int) -> Void) {
        // Group headers and padding as well: defragmentation of a log in memory reads them here.
        if isResident { memory.persist(buffer, offset: 0, byteCount: blockSize) }
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        memory.set(buffer, .written)
        cached.append(buffer)
        if cached.count > WriteBuffers.settledAfter {
            memory.set(cached[cached.count - 1 - WriteBuffers.settledAfter], .settled)
        }
        while cached.count > cachedMax || (isShort && !cached.isEmpty) {
            let oldest = cached.removeFirst()
            if isResident {
                memory.set(oldest, .settled)
            } else {
                forget(oldest)
                retire(oldest)
            }
        }
    }

    /// The block in this buffer is dead: the buffer is worth nothing. It was cached, or is already on its way out.
    func discard(_ buffer: Int) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        let place = cached.firstIndex(of: buffer)
        if let place { cached.remove(at: place) }
        if place != nil || isResident { retire(buffer) }
    }

    private func retire(_ buffer: Int) {
        table[buffer].retiredEpoch = epochs.retire()
        retired.append(buffer)
    }
}
