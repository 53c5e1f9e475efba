// What one shard has under way on the devices, and the memory of its reads.
internal import Base
internal import Device
internal import Storage

/// One operation of a shard on a device.
struct ShardOperation: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable { case free, read, write, flush, victim }
    var kind = Kind.free
    /// Its device was given up, and whoever waited for it was told: the end of the operation only frees its memory.
    var isOrphan = false
    var device = 0
    var startedMilliseconds: UInt64 = 0
    // Reads.
    var tag = Tag(rawValue: 0)
    var block = 0
    var unit = 0
    var byteCount = 0
    /// Where the image begins in the memory of the read.
    var skip = 0
    var memory = ReadMemory(base: nil, byteCount: 0, slot: -1)
    // Writes.
    var write: GroupWrite?
    var nextFree = -1
}

/// Operations by number; the number is the tag that the device gets. Shard's thread only.
struct OperationTable {
    private var operations: ContiguousArray<ShardOperation> = []
    private var firstFree = -1
    private(set) var underWay = 0

    mutating func add(_ operation: ShardOperation) -> UInt64 {
        underWay += 1
        guard firstFree >= 0 else {
            operations.append(operation)
            return UInt64(operations.count - 1)
        }
        let number = firstFree
        firstFree = operations[number].nextFree
        operations[number] = operation
        return UInt64(number)
    }

    mutating func take(_ number: UInt64) -> ShardOperation {
        let operation = operations[Int(number)]
        precondition(operation.kind != .free, "an operation has ended twice")
        operations[Int(number)] = ShardOperation()
        operations[Int(number)].nextFree = firstFree
        firstFree = Int(number)
        underWay -= 1
        return operation
    }

    /// Calls `body` with each operation that is under way.
    mutating func forEach(_ body: (inout ShardOperation) -> Void) {
        for number in operations.indices where operations[number].kind != .free { body(&operations[number]) }
    }
}

/// Memory that a read fills, from a sector's multiple on.
struct ReadMemory: BitwiseCopyable {
    let base: UnsafeMutableRawPointer?
    let byteCount: Int
    /// Which slot of the pool; -1 for memory of its own.
    let slot: Int
}

/// Memory for reads of one shard: slots for small ones, prepared for the device; larger ones get their own.
final class ReadPool {
    static let slotSize = 8 << 10
    private static let slotCount = 512
    private static let alignment = 4096
    let region: UnsafeMutableRawBufferPointer
    private var free: [Int]

    init() {
        region = .allocate(byteCount: ReadPool.slotSize * ReadPool.slotCount, alignment: ReadPool.alignment)
        free = (0..<ReadPool.slotCount).reversed()
    }

    deinit { region.deallocate() }

    func take(_ byteCount: Int) -> ReadMemory {
        if byteCount <= ReadPool.slotSize, let slot = free.popLast() {
            return ReadMemory(base: region.baseAddress! + slot * ReadPool.slotSize, byteCount: byteCount, slot: slot)
        }
        let own = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: ReadPool.alignment)
        return ReadMemory(base: own, byteCount: byteCount, slot: -1)
    }

    func giveBack(_ memory: ReadMemory) {
        if memory.slot >= 0 { free.append(memory.slot) } else { memory.base?.deallocate() }
    }
}

/// Copies of images that are lent for one turn.
struct LentMemory {
    private static let chunkSize = 256 << 10
    /// Bytes that are lent in one turn at most; later reads wait for the next.
    static let turnMax = 16 << 20
    private let chunk: UnsafeMutableRawPointer
    private var used = 0
    private var large: [UnsafeMutableRawPointer] = []
    private var lent = 0

    init() { chunk = .allocate(byteCount: LentMemory.chunkSize, alignment: 64) }

    /// Memory until the end of the turn; nil if this turn has lent enough.
    mutating func take(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        let rounded = (byteCount + 63) & ~63
        guard lent == 0 || lent + rounded <= LentMemory.turnMax else { return nil }
        lent += rounded
        if used + rounded <= LentMemory.chunkSize {
            defer { used += rounded }
            return chunk + used
        }
        let own = UnsafeMutableRawPointer.allocate(byteCount: rounded, alignment: 64)
        large.append(own)
        return own
    }

    mutating func endTurn() {
        used = 0
        lent = 0
        guard !large.isEmpty else { return }
        for memory in large { memory.deallocate() }
        large.removeAll(keepingCapacity: true)
    }

    func release() {
        for memory in large { memory.deallocate() }
        chunk.deallocate()
    }
}
