// Where write buffers lie: in ordinary memory, or in memory that a later process may find (`OpenRequest.memory`). What is
// kept there, little-endian:
//
//     region "log-table"      0  u64 magic   8 u64 bytes of a block   16 u64 buffers that there ever were room for
//                             64 for each buffer: u64 state in the top 8 bits (0 free, 1 in use, 2 written, 3 settled),
//                                slot of the device in the next 8, block in the low 32; u64 sequence of the block
//     region "log-buffers"    the buffers, one behind the other
//     region "log-blocks-N"   of the device in slot N, for each block: u64 sequence of its last use (LogDevice.swift)
//
// Invariants:
// 1. An entry that is not free names a block and its sequence, whenever the process dies: the first word is 0 while the
//    second one changes, and both lie in one line. It lasts before the block's first location is given out.
// 2. An entry counts only if its sequence is that which "log-blocks-N" has of the block: else it is of an earlier use of the
//    block, or of one in which nothing was placed yet.
// 3. "Written" says that everything in the buffer lasts on the device, "settled" that, besides, nothing of it is on its way
//    into the index. If one of them is lost in a power failure, it costs a write.
// 4. Buffers are backed from the front on; only backed ones are touched.
internal import Base
internal import CBase
internal import Storage

/// What is kept of a buffer.
struct KeptEntry {
    enum State: UInt64 { case inUse = 1, written = 2, settled = 3 }
    let state: State
    let slot: Int
    let block: Int
    let sequence: UInt64
}

/// See the invariants above. The table is changed under the lock of `WriteBuffers`; all else on any thread.
final class BufferMemory: @unchecked Sendable {
    /// The word of a stream has 16 bits for the buffer.
    static let buffersMax = 65_535
    private static let magic: UInt64 = 0x3146_5542_474F_4C44
    private static let headerSize = 64
    private static let entrySize = 16

    let base: UnsafeMutableRawPointer
    let needsPersist: Bool
    /// What the operator calls where it lies; nil for ordinary memory.
    let name: String?
    private let blockSize: Int
    private let pagesByteCount: Int
    private let table: (any MemoryRegion)?
    private let region: (any MemoryRegion)?
    /// Entries that there are; those an earlier process has left among them.
    private let entryCount: Int
    /// Why what is there cannot be gone on from; nil if it can, or if there is nothing.
    let problem: String?

    /// Ordinary memory for `count` buffers, in huge pages if possible and wished for.
    init(count: Int, blockSize: Int, inHugePages: Bool) throws(StorageError) {
        guard let pages = apus_pages_reserve(count * blockSize, inHugePages) else {
            throw .settings("no address space for \(count * blockSize >> 20) MB of write buffers: lower max-write-cache or"
                + " post-write-cache, or raise the limit (ulimit -v)")
        }
        base = pages
        (needsPersist, name, table, region, entryCount, problem) = (false, nil, nil, nil, 0, nil)
        self.blockSize = blockSize
        pagesByteCount = count * blockSize
    }

    /// Room for `count` buffers in `memory`, and for those that are in it.
    /// - Throws: `settings` if there is no room for so much as the table, `device`.
    init(_ memory: any KeptMemory, count: Int, blockSize: Int) throws(StorageError) {
        let table = try memory.region(
            "log-table", capacity: BufferMemory.headerSize + BufferMemory.buffersMax * BufferMemory.entrySize)
        var before = 0
        var problem: String?
        if table.backedByteCount >= BufferMemory.headerSize, table.base.load(as: UInt64.self) != 0 {
            before = Int(clamping: table.base.load(fromByteOffset: 16, as: UInt64.self))
            if table.base.load(as: UInt64.self) != BufferMemory.magic || before > BufferMemory.buffersMax
                || table.base.load(fromByteOffset: 8, as: UInt64.self) != UInt64(blockSize) {
                problem = "the table of write buffers in \(memory.name) is damaged"
                before = 0
            }
        }
        entryCount = max(before, count)
        guard table.grow(to: BufferMemory.headerSize + entryCount * BufferMemory.entrySize) else {
            throw BufferMemory.isFull(memory.name, byteCount: entryCount * BufferMemory.entrySize)
        }
        let region = try memory.region("log-buffers", capacity: entryCount * blockSize)
        (base, needsPersist, name) = (region.base, region.needsPersist, memory.name)
        (self.table, self.region, self.blockSize, self.problem) = (table, region, blockSize, problem)
        pagesByteCount = 0
        guard problem == nil else { return }
        table.base.storeBytes(of: UInt64(blockSize), toByteOffset: 8, as: UInt64.self)
        apus_store_release_u64(table.base + 16, UInt64(entryCount))
        apus_store_release_u64(table.base, BufferMemory.magic)
        table.persist(offset: 0, byteCount: BufferMemory.headerSize)
    }

    deinit { if pagesByteCount > 0 { apus_pages_release(base, pagesByteCount) } }

    static func isFull(_ name: String, byteCount: Int) -> StorageError {
        let megabytes = (byteCount + (1 << 20) - 1) >> 20
        return .settings("the \(name) of the index is full: \(megabytes) MB more are needed for write buffers."
            + " Make it larger, lower max-write-cache and post-write-cache of the namespaces in it, or use index-type heap")
    }

    // ---- Memory ----

    /// Buffers, from the front on, that may be touched.
    var backedCount: Int { region.map { $0.backedByteCount / blockSize } ?? pagesByteCount / blockSize }

    /// Has the first `count` buffers backed. False: there is no room. May take milliseconds for each.
    func back(_ count: Int) -> Bool { region?.grow(to: count * blockSize) ?? true }

    /// Makes bytes of a buffer last before whatever is stored later.
    @inline(__always)
    func persist(_ buffer: Int, offset: Int, byteCount: Int) {
        guard needsPersist else { return }
        region?.persist(offset: buffer * blockSize + offset, byteCount: byteCount)
    }

    // ---- The table ----

    private func place(_ buffer: Int) -> Int { BufferMemory.headerSize + buffer * BufferMemory.entrySize }

    /// The buffer was taken for this use of the block.
    func begin(_ buffer: Int, slot: Int, block: Int, sequence: UInt64) {
        guard let table else { return }
        let offset = place(buffer)
        apus_store_release_u64(table.base + offset, 0)
        apus_store_release_u64(table.base + offset + 8, sequence)
        let place = UInt64(slot) << 48 | UInt64(block)
        apus_store_release_u64(table.base + offset, KeptEntry.State.inUse.rawValue << 56 | place)
        table.persist(offset: offset, byteCount: BufferMemory.entrySize)
    }

    /// The buffer, which is not free, has come to this.
    func set(_ buffer: Int, _ state: KeptEntry.State) {
        guard let table else { return }
        let word = apus_load_relaxed_u64(table.base + place(buffer))
        apus_store_release_u64(table.base + place(buffer), word & (1 << 56 - 1) | state.rawValue << 56)
    }

    /// What is kept of each buffer, those that are free left out.
    var entries: [(buffer: Int, entry: KeptEntry)] {
        guard let table, problem == nil else { return [] }
        return (0..<min(entryCount, backedCount)).compactMap { buffer in
            let word = apus_load_acquire_u64(table.base + place(buffer))
            guard let state = KeptEntry.State(rawValue: word >> 56) else { return nil }
            return (
                buffer,
                KeptEntry(
                    state: state, slot: Int(word >> 48 & 0xFF), block: Int(word & 0xFFFF_FFFF),
                    sequence: apus_load_relaxed_u64(table.base + place(buffer) + 8))
            )
        }
    }

    /// Every buffer but those that stay is free; lasts when it returns.
    func clear(except stays: (Int) -> Bool) {
        guard let table else { return }
        for buffer in 0..<entryCount where !stays(buffer) { apus_store_release_u64(table.base + place(buffer), 0) }
        table.persist(offset: BufferMemory.headerSize, byteCount: entryCount * BufferMemory.entrySize)
    }
}
