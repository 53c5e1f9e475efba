// A memory namespace whose blocks outlive the process. Two regions: "data" holds the blocks; "metadata" begins with
//
//     0  u32  magic "AMEM"     4  u32  CRC32C of bytes 8 to 15
//     8  u32  format, 1        12 u32  bytes of a block       16 u64  data-size, which changes in one store
//
// and holds the namespace's values from byte 4096 on (`KeptValues`). Which blocks are in use is not kept: the index says it.
// There are no devices that a session could be out of step with: any key means that there is something to go on from.
internal import BlockStore
internal import Base
internal import CBase
internal import Storage
internal import Synchronization

/// See the top of the file. Any thread, once it is made.
final class MemoryKept: Sendable {
    private static let headSize = 4096
    private static let headerSize = 24
    private static let checkedBytes = 8..<16
    private static let blockSize = 1 << 20
    private static let dataSizeMax: UInt64 = 1 << 47
    private static let magic: UInt32 = 0x4D45_4D41
    private static let format: UInt32 = 1
    private static let seed: UInt32 = 0x4150_5553

    /// Bytes that may be used: what was asked for, or what is kept if that is more.
    let dataSize: UInt64
    let data: any MemoryRegion
    /// Why it cannot be gone on from; nil if it can, or if there is nothing to go on from.
    let problem: String?
    /// What the operator calls it.
    let medium: String
    private let values: Mutex<KeptValues>

    /// Goes on from `memory`, or begins anew in it.
    /// - Throws: `settings`, `device`.
    init(_ memory: any KeptMemory, _ asked: UInt64, _ request: OpenRequest, isWarm: Bool) throws(StorageError) {
        medium = memory.name
        if !isWarm { try memory.startCold(because: "its memory holds no records to go on from") }
        // There is no device that must not mistake it for another session's.
        try memory.beginSession(1)
        try memory.sessionBegan()
        let region = try memory.region("metadata", capacity: MemoryKept.headSize + KeptValues.byteCount)
        guard region.grow(to: MemoryKept.headSize) else {
            throw .settings("there is no room in \(memory.name): enlarge it, or take index-type heap")
        }
        let known = isWarm ? MemoryKept.load(region) : nil
        problem = isWarm && known == nil ? "the memory of the namespace holds no data of storage-engine memory" : nil
        dataSize = max(asked, known ?? 0)
        if let known, known > asked {
            request.warn("namespace \(request.namespace): data-size was \(known) when its memory was made: it stays so until"
                + " a start without that memory")
        }
        data = try memory.region("data", capacity: Int(dataSize))
        MemoryKept.store(dataSize, region, isNew: known == nil)
        values = Mutex(
            KeptValues(
                region, offset: MemoryKept.headSize, byteCount: KeptValues.byteCount, seed: MemoryKept.seed))
    }

    private static func checksum(_ bytes: UnsafeRawPointer) -> UInt32 {
        crc32c(UnsafeRawBufferPointer(start: bytes + checkedBytes.lowerBound, count: checkedBytes.count), seed: seed)
    }

    /// The data-size of what is kept; nil if it is something else.
    private static func load(_ region: any MemoryRegion) -> UInt64? {
        let bytes = UnsafeRawPointer(region.base)
        let dataSize = bytes.littleEndian(UInt64.self, at: 16)
        guard bytes.littleEndian(UInt32.self) == magic, bytes.littleEndian(UInt32.self, at: 4) == checksum(bytes),
            bytes.littleEndian(UInt32.self, at: 8) == format, bytes.littleEndian(UInt32.self, at: 12) == blockSize,
            dataSize <= dataSizeMax
        else { return nil }
        return dataSize
    }

    /// Nobody looks at a new header before the node has called `complete`.
    private static func store(_ dataSize: UInt64, _ region: any MemoryRegion, isNew: Bool) {
        let bytes = region.base
        if isNew {
            bytes.storeLittleEndian(magic)
            bytes.storeLittleEndian(format, at: 8)
            bytes.storeLittleEndian(UInt32(blockSize), at: 12)
            bytes.storeLittleEndian(checksum(bytes), at: 4)
        }
        apus_store_release_u64(bytes + 16, dataSize.littleEndian)
        region.persist(offset: 0, byteCount: headerSize)
    }

    func load(_ kind: KeptValues.Kind) -> [UInt8] { values.withLock { $0[kind] } }

    func store(_ kind: KeptValues.Kind, _ value: [UInt8]) throws(StorageError) {
        try values.withLock { (values) throws(StorageError) in try values.store(kind, value) }
    }
}

/// The start from memory. Any of several threads.
final class MemoryWarmStart: WarmStarting {
    private let adoption: BlockAdoption
    private let problem: String?

    init(_ adoption: BlockAdoption, _ problem: String?) {
        self.adoption = adoption
        self.problem = problem
    }

    func adopt(_ location: Location, byteCount: Int) -> Bool {
        problem == nil && adoption.adopt(location, byteCount: byteCount)
    }

    func finish() throws(StorageError) {
        if let problem { throw .medium(problem) }
        try adoption.finish()
    }
}
