// One device of a log: its blocks and its two streams. Invariants:
// 1. A block is unknown (a cold start has not been there yet), free, open, closed, a victim of defragmentation, or retired.
//    It is closed, and can be emptied, only when everything in it is written.
// 2. `liveUnits` of a block counts the images that were appended and not released. A block is retired when that is 0.
// 3. A retired block is free, and written again, only when every shard has passed a turn since, no read of it is under way,
//    and all groups last that were open or sealed, on either stream, when it was retired: among them are the images
// and moved
//    copies that took the place of its own.
// 4. Fresh images leave the last `reserveBlocks` free blocks to moved ones.
// 5. Streams, free and retired blocks are under `lockWord`; live units, pins and the buffer of a line are atomic.
internal import Base
internal import CBase
internal import Device
internal import Storage

enum BlockState {
    static let unknown: UInt32 = 0
    static let free: UInt32 = 1
    static let open: UInt32 = 2
    static let closed: UInt32 = 3
    static let victim: UInt32 = 4
    static let retired: UInt32 = 5
}

/// What is known of one block.
struct BlockLine: BitwiseCopyable {
    var liveUnits: UInt32 = 0
    var state = BlockState.unknown
    /// Reads of the device under way.
    var pins: UInt32 = 0
    /// Number of the buffer that holds the block, plus 1; 0 if it is on the device only.
    var buffer: UInt32 = 0
    /// Of its last use; 0 if there was none.
    var sequence: UInt64 = 0
    var retiredEpoch: UInt64 = 0
    /// Groups of the two streams that must last before it is used again.
    var neededFresh: UInt64 = 0
    var neededMoved: UInt64 = 0
    /// Live units when defragmentation could not empty it; 0 if it has not tried. Of a closed block.
    var leftUnits: UInt32 = 0
    /// Damage in it has been counted. Of whoever empties it.
    var isKnownDamaged = false
}

/// A shard that waits for groups to last.
struct CommitWaiter {
    let needed: UInt64
    let shard: Int
    let tag: Tag
}

/// A block in which nothing lives.
struct RetiredBlock {
    let number: UInt32
    /// Fresh groups of other devices, by slot, that must last before it is used again; empty if there are none.
    let foreignNeeds: [UInt64]
}

/// See the invariants above. Any thread.
final class LogDevice: @unchecked Sendable {
    /// Place in the device set; part of every location.
    let slot: Int
    let path: String
    let device: any BlockDevice
    let layout: LogLayout
    unowned(unsafe) let core: LogCore
    let lines: UnsafeMutablePointer<BlockLine>
    private let linesByteCount: Int
    let streams: [LogStream]
    let lockWord: UnsafeMutablePointer<UInt32>
    /// Where a later process finds the sequence of each block; nil in ordinary memory.
    private let sequences: (any MemoryRegion)?
    let figures = DeviceFigures()
    let choice = DefragChoice()
    // Under the lock.
    private(set) var blockCount: Int
    private var freeBlocks: [UInt32] = []
    private var retiredBlocks: [RetiredBlock] = []
    private var waiters: [CommitWaiter] = []
    /// By slot: fresh groups of other devices that hold successors of images of this one. Empty unless the set has changed.
    private var foreignNeeds: [UInt64] = []
    /// A flush of the device is under way: so many groups of each stream were written when it began.
    var flushing: [UInt64]?
    /// Why it was given up.
    private(set) var fencedBecause: String?

    /// Most blocks that 37 bits of units can name; of small ones, as many as fit into memory.
    private let blocksMax: Int

    init(
        _ core: LogCore, slot: Int, path: String, _ device: any BlockDevice, _ layout: LogLayout,
        _ memory: (any KeptMemory)?
    ) throws(StorageError) {
        self.core = core
        self.slot = slot
        self.path = path
        self.device = device
        self.layout = layout
        blocksMax = min((1 << Int(LogLayout.deviceShift)) / layout.unitsPerBlock, core.shape.blocksMax)
        sequences = try memory?.region("log-blocks-\(slot)", capacity: blocksMax * LogDevice.sequenceSize)
        // Whole pages.
        linesByteCount = (blocksMax * MemoryLayout<BlockLine>.stride + 4095) & ~4095
        guard let pages = apus_pages_reserve(linesByteCount, false) else {
            throw .settings("no address space for the blocks of \(path): raise the limit (ulimit -v)")
        }
        lines = pages.bindMemory(to: BlockLine.self, capacity: blocksMax)
        lockWord = .allocate(capacity: 16)
        lockWord.initialize(repeating: 0, count: 16)
        streams = (0..<2).map { LogStream(number: $0, layout: layout) }
        blockCount = 0
        blockCount = min(layout.blockCount(deviceByteCount: device.geometry.byteCount), blocksMax)
        guard let memory else { return }
        guard backSequences(blockCount) else {
            throw BufferMemory.isFull(memory.name, byteCount: blockCount * LogDevice.sequenceSize)
        }
        loadSequences()
    }

    deinit {
        apus_pages_release(lines, linesByteCount)
        lockWord.deallocate()
    }

    func locked<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        return try body()
    }

    /// Blocks that only moved images may use: without them defragmentation could not begin.
    var reserveBlocks: Int { max(2, min(blockCount / 64, 8)) }
    var freeCount: Int {
        let count = figures[.freeBlocks]
        return core.isResident ? min(count, memoryBlocks.now) : count
    }
    /// Free, or on the way there.
    var freeSoonCount: Int {
        let retired = figures[.retiredBlocks]
        let count = figures[.freeBlocks] + retired
        return core.isResident ? min(count, memoryBlocks.soon + retired) : count
    }
    /// Of a log in memory: this device's share of the blocks that there is memory for, now and soon.
    private var memoryBlocks: (now: Int, soon: Int) {
        guard let room = core.buffers.roomWhenFull else { return (.max, .max / 2) }
        return (room.now / core.devices.count, room.soon / core.devices.count)
    }
    /// It was given up: nothing is written to it any more. Any thread.
    var isFenced: Bool { figures[.isFenced] != 0 }

    // ---- Sequences ----

    private static let sequenceSize = 8

    /// Has room for the sequences of so many blocks; false if there is none. Not under the lock.
    func backSequences(_ count: Int) -> Bool { sequences?.grow(to: count * LogDevice.sequenceSize) ?? true }

    private func loadSequences() {
        guard let sequences else { return }
        for block in 0..<blockCount {
            lines[block].sequence = apus_load_acquire_u64(sequences.base + block * LogDevice.sequenceSize)
        }
    }

    /// Makes the sequence of a block last.
    func keepSequence(_ block: Int) {
        guard let sequences else { return }
        let offset = block * LogDevice.sequenceSize
        apus_store_release_u64(sequences.base + offset, lines[block].sequence)
        sequences.persist(offset: offset, byteCount: LogDevice.sequenceSize)
    }

    /// Of the last uses of all blocks, as far as they are known.
    var highestSequence: UInt64 { (0..<blockCount).reduce(0) { max($0, lines[$1].sequence) } }

    /// The same for all blocks, at the end of a cold start.
    func keepSequences() {
        guard let sequences, blockCount > 0 else { return }
        for block in 0..<blockCount {
            apus_store_release_u64(sequences.base + block * LogDevice.sequenceSize, lines[block].sequence)
        }
        sequences.persist(offset: 0, byteCount: blockCount * LogDevice.sequenceSize)
    }

    // ---- Live images ----

    @inline(__always)
    private func live(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + MemoryLayout<BlockLine>.offset(of: \.liveUnits)!
    }
    @inline(__always)
    private func state(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + MemoryLayout<BlockLine>.offset(of: \.state)!
    }
    @inline(__always)
    private func pins(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + MemoryLayout<BlockLine>.offset(of: \.pins)!
    }
    @inline(__always)
    private func bufferWord(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + MemoryLayout<BlockLine>.offset(of: \.buffer)!
    }

    func stateNow(_ block: Int) -> UInt32 { apus_load_acquire_u32(state(block)) }
    func liveUnits(_ block: Int) -> Int { Int(apus_load_acquire_u32(live(block))) }

    @inline(__always)
    func addLive(_ block: Int, _ units: Int) {
        _ = apus_fetch_add_u32(live(block), UInt32(units))
        figures.add(.liveUnits, units)
    }

    /// The same for a start from kept memory, which counts the figure afterwards. False: more than a block holds.
    @inline(__always)
    func adoptLive(_ block: Int, _ units: Int) -> Bool {
        let before = apus_fetch_add_u32(live(block), UInt32(units))
        return Int(before) + units <= layout.unitsPerBlock
    }

    /// Images of `units` are wanted no more; the last one out retires a closed block.
    func removeLive(_ block: Int, _ units: Int) {
        figures.add(.liveUnits, -units)
        let before = apus_fetch_add_u32(live(block), 0 &- UInt32(units))
        precondition(before >= UInt32(units), "an image was released twice")
        guard before == UInt32(units) else { return }
        apus_fence()
        if stateNow(block) == BlockState.closed { retire(block, from: BlockState.closed) }
    }

    /// The buffer that holds the block; nil if it is on the device only.
    @inline(__always)
    func buffer(of block: Int) -> Int? {
        let word = apus_load_acquire_u32(bufferWord(block))
        return word == 0 ? nil : Int(word) - 1
    }

    func setBuffer(_ block: Int, _ buffer: Int?) {
        apus_store_release_u32(bufferWord(block), buffer.map { UInt32($0) + 1 } ?? 0)
    }

    func pin(_ block: Int) { _ = apus_fetch_add_u32(pins(block), 1) }
    func unpin(_ block: Int) { _ = apus_fetch_add_u32(pins(block), 0 &- 1) }

    // ---- Free and retired blocks ----

    /// What a cold start, or growth, found out about a block that was unknown. Under the lock.
    func settle(_ block: Int, isFree: Bool) {
        precondition(lines[block].state == BlockState.unknown)
        if isFree {
            lines[block].state = BlockState.free
            freeBlocks.append(UInt32(block))
            figures.add(.freeBlocks, 1)
        } else {
            apus_store_release_u32(state(block), BlockState.closed)
        }
    }

    /// Blocks are taken from the end of the list: the low ones first.
    func sortFreeBlocks() { freeBlocks.sort(by: >) }

    /// The device has become larger: takes its new blocks in. Under the lock.
    func grown() {
        let room = sequences.map { $0.backedByteCount / LogDevice.sequenceSize } ?? .max
        let count = min(layout.blockCount(deviceByteCount: device.geometry.byteCount), blocksMax, room)
        while blockCount < count {
            blockCount += 1
            settle(blockCount - 1, isFree: true)
        }
        sortFreeBlocks()
    }

    private func retire(_ block: Int, from old: UInt32) {
        guard apus_compare_exchange_u32(state(block), old, BlockState.retired) else { return }
        locked {
            lines[block].neededFresh = streams[0].neededCount
            lines[block].neededMoved = streams[1].neededCount
            lines[block].retiredEpoch = core.epochs.retire()
            retiredBlocks.append(RetiredBlock(number: UInt32(block), foreignNeeds: foreignNeeds))
            figures.add(.retiredBlocks, 1)
        }
    }

    /// An image of this device was replaced by one on `other`: blocks retired from now on wait for that one, too.
    func noteForeign(_ other: LogDevice) {
        let needed = other.locked { other.streams[0].neededCount }
        locked {
            if foreignNeeds.isEmpty { foreignNeeds = Array(repeating: 0, count: core.devices.count) }
            foreignNeeds[other.slot] = max(foreignNeeds[other.slot], needed)
        }
    }

    /// Makes free what can be. Under the lock.
    func reclaim() {
        guard !retiredBlocks.isEmpty else { return }
        let oldest = core.epochs.oldest
        retiredBlocks.removeAll { retired in
            let block = Int(retired.number)
            guard lines[block].retiredEpoch <= oldest, apus_load_acquire_u32(pins(block)) == 0,
                isOutlived(retired) || core.shape.canary == .reusesEarly
            else { return false }
            precondition(lines[block].liveUnits == 0)
            if let buffer = buffer(of: block) {
                setBuffer(block, nil)
                core.buffers.discard(buffer)
            }
            lines[block].state = BlockState.free
            freeBlocks.append(retired.number)
            figures.add(.freeBlocks, 1)
            figures.add(.retiredBlocks, -1)
            return true
        }
    }

    /// What took the place of the block's images lasts.
    private func isOutlived(_ retired: RetiredBlock) -> Bool {
        let line = lines[Int(retired.number)]
        guard streams[0].durableCount >= line.neededFresh, streams[1].durableCount >= line.neededMoved else { return false }
        return retired.foreignNeeds.indices.allSatisfy { slot in
            // A device that was given up confirms nothing any more: waiting for it would be for ever.
            guard let other = core.device(slot), !other.isFenced else { return true }
            return other.figures.isDurable(retired.foreignNeeds[slot])
        }
    }

    var hasRetired: Bool { !retiredBlocks.isEmpty }

    /// A free block beyond `reserve` others; nil if there is none. Under the lock.
    func takeFree(reserve: Int) -> Int? {
        reclaim()
        guard freeBlocks.count > reserve, let block = freeBlocks.popLast() else { return nil }
        figures.add(.freeBlocks, -1)
        return Int(block)
    }

    func giveBackFree(_ block: Int) {
        freeBlocks.append(UInt32(block))
        figures.add(.freeBlocks, 1)
    }

    // ---- Defragmentation ----

    /// Claims a closed block. False: it is not closed any more.
    func claimVictim(_ block: Int) -> Bool {
        apus_compare_exchange_u32(state(block), BlockState.closed, BlockState.victim)
    }

    /// Everything in an open block is written, or defragmentation has done with a victim: it is closed, and retired
    /// if nothing lives in it. Not under the lock.
    func closeBlock(_ block: Int) {
        apus_store_release_u32(state(block), BlockState.closed)
        apus_fence()
        if liveUnits(block) == 0 { retire(block, from: BlockState.closed) }
    }

    // ---- Commits ----

    /// Waits until `needed` fresh groups last. Under the lock.
    func wait(_ waiter: CommitWaiter) { waiters.append(waiter) }
    var hasWaiters: Bool { !waiters.isEmpty }

    /// Takes out the waiters whose groups last; all of them if the device was given up. Under the lock.
    func takeWaiters() -> [CommitWaiter] {
        guard !waiters.isEmpty else { return [] }
        let durable = fencedBecause == nil ? streams[0].durableCount : .max
        let ended = waiters.filter { $0.needed <= durable }
        if !ended.isEmpty { waiters.removeAll { $0.needed <= durable } }
        return ended
    }

    /// No block is opened, sealed or confirmed any more. Under the lock.
    var isGivenUp: Bool { fencedBecause != nil }

    /// Gives the device up; what waits for it is written off. False: it was before. Under the lock.
    func giveUp(_ reason: String) -> Bool {
        guard fencedBecause == nil else { return false }
        fencedBecause = reason
        core.addUnwritten(-figures[.unwrittenBytes])
        figures.set(.unwrittenBytes, 0)
        return true
    }
}
