// Memory that write blocks are filled in, and stay in for a while after they were written. Invariants:
// 1. A buffer is free, in use (its block is open, or has groups that are not written), cached, or retired.
// 2. The line of a block names its buffer from the moment the block is opened until the buffer is retired.
// 3. A retired buffer is free only when every shard has passed a turn since: until then somebody may still copy from it.
// 4. Buffers are moved between these states under `lock`; their bytes and counters belong to the stream that fills them.
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
    private let base: UnsafeMutableRawPointer
    private let table: UnsafeMutablePointer<WriteBuffer>
    /// For each place where a group can begin: units that are reserved there and not copied yet, once the group is sealed;
    /// before, units copied.
    private let counters: UnsafeMutablePointer<UInt32>
    private let epochs: TurnEpochs
    private let lockWord: UnsafeMutablePointer<UInt32>
    private let cachedMax: Int
    private let spareMin: Int
    private var free: [Int]
    /// Oldest first.
    private var cached: [Int] = []
    private var retired: [Int] = []

    init(
        count: Int, cachedMax: Int, spareMin: Int, blockSize: Int, flushUnit: Int, epochs: TurnEpochs
    ) throws(StorageError) {
        precondition(count > cachedMax + spareMin)
        guard let pages = apus_pages_reserve(count * blockSize, false) else {
            throw .settings("no address space for \(count * blockSize >> 20) MB of write buffers: lower max-write-cache or"
                + " post-write-cache, or raise the limit (ulimit -v)")
        }
        base = pages
        self.count = count
        self.blockSize = blockSize
        self.cachedMax = cachedMax
        self.spareMin = spareMin
        self.epochs = epochs
        groupsPerBlock = blockSize / flushUnit
        table = .allocate(capacity: count)
        table.initialize(repeating: WriteBuffer(), count: count)
        counters = .allocate(capacity: count * groupsPerBlock)
        counters.initialize(repeating: 0, count: count * groupsPerBlock)
        lockWord = .allocate(capacity: 1)
        lockWord.initialize(to: 0)
        free = (0..<count).reversed()
        cached.reserveCapacity(count)
        retired.reserveCapacity(count)
    }

    deinit {
        apus_pages_release(base, count * blockSize)
        table.deallocate()
        counters.deallocate()
        lockWord.deallocate()
    }

    @inline(__always)
    func bytes(_ buffer: Int) -> UnsafeMutableRawPointer { base + buffer * blockSize }

    @inline(__always)
    subscript(buffer: Int) -> WriteBuffer {
        get { table[buffer] }
        _modify { yield &table[buffer] }
    }

    @inline(__always)
    func counter(_ buffer: Int, group: Int) -> UnsafeMutablePointer<UInt32> { counters + buffer * groupsPerBlock + group }

    /// A buffer for a new block; nil if all are taken.
    func take(device: Int, block: Int) -> Int? {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        if free.count <= spareMin { recycle() }
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

    /// All of the buffer is written. It stays for reads; `forget` is called for each buffer that has to make room.
    func cache(_ buffer: Int, forget: (_ buffer: Int) -> Void) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        cached.append(buffer)
        while cached.count > cachedMax {
            let oldest = cached.removeFirst()
            forget(oldest)
            retire(oldest)
        }
    }

    /// The block in this buffer is dead: the buffer is worth nothing. It was cached, or is already on its way out.
    func discard(_ buffer: Int) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        guard let place = cached.firstIndex(of: buffer) else { return }
        cached.remove(at: place)
        retire(buffer)
    }

    private func retire(_ buffer: Int) {
        table[buffer].retiredEpoch = epochs.retire()
        retired.append(buffer)
    }
}
