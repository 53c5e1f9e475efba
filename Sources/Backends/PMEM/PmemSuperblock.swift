// What stands at the front of each file of persistent memory. Little-endian, 512 bytes, in two places of 4096 bytes that are
// written in turn; of two that prove themselves the one with the higher version counts.
//
//     0  u64  magic "APUSPMEM"         8  u32  format, 1             12 u32  CRC32C of bytes 0 to 11 and 16 to 511
//     16 u64  version of this superblock
//     24 u64  identity of the set of files
//     32 u32  slot of this file        36 u32  slots of the set
//     40 u64  bytes of a block         48 u64  bytes of the head     56 u64  bytes of the file
//     64 u64  order floor: no image has, or will get before it is raised, a number as high as this; that of slot 0 counts
//     72 u64  first order: images with lower numbers do not count
//     80 u64  session key (`KeptMemory`); 0 for none
//     88 u32  1: the file is joining; 0: it has joined
//     92 u32  byte count of the identity (MediumIdentity) that follows
//     96      identity
//
// A line of 64 bytes reaches the medium whole, a superblock may not. So a place is written in three steps, each of which
// lasts before the next: the magic "APUSMAKE", everything else, the magic that counts. A file that has the former in its
// first place and nothing in its second was never finished.
//
// A file is a member of its set if it has joined, or if another member's superblock counts its slot: so a set is made, and
// grows, in one step. The metadata of the namespace (`KeptValues`) stands behind the superblocks of slot 0.
internal import Base
internal import CBase
internal import Storage

/// See the top of the file.
struct PmemSuperblock: Equatable {
    static let format = 1
    static let byteCount = 512
    static let placeSize = 4096
    static let copies = 2
    private static let magic: UInt64 = 0x4D45_4D50_5355_5041
    private static let makingMagic: UInt64 = 0x454B_414D_5355_5041
    private static let textPlace = 96

    var version: UInt64
    var setIdentity: UInt64
    var slot: Int
    var slotCount: Int
    var blockSize: Int
    var headSize: Int
    var fileByteCount: Int
    var orderFloor: UInt64
    var firstOrder: UInt64
    var sessionKey: UInt64
    var isJoining: Bool
    var identity: MediumIdentity

    /// Whether the identity of such a namespace fits.
    static func holds(_ identity: MediumIdentity) -> Bool { identity.encoded.count <= byteCount - textPlace }

    /// Its bytes.
    var encoded: [UInt8] {
        let text = identity.encoded
        precondition(text.count <= PmemSuperblock.byteCount - PmemSuperblock.textPlace)
        var all = [UInt8](repeating: 0, count: PmemSuperblock.byteCount)
        all.withUnsafeMutableBytes { view in
            guard let bytes = view.baseAddress else { return }
            bytes.storeLittleEndian(PmemSuperblock.magic)
            bytes.storeLittleEndian(UInt32(PmemSuperblock.format), at: 8)
            bytes.storeLittleEndian(version, at: 16)
            bytes.storeLittleEndian(setIdentity, at: 24)
            bytes.storeLittleEndian(UInt32(slot), at: 32)
            bytes.storeLittleEndian(UInt32(slotCount), at: 36)
            bytes.storeLittleEndian(UInt64(blockSize), at: 40)
            bytes.storeLittleEndian(UInt64(headSize), at: 48)
            bytes.storeLittleEndian(UInt64(fileByteCount), at: 56)
            bytes.storeLittleEndian(orderFloor, at: 64)
            bytes.storeLittleEndian(firstOrder, at: 72)
            bytes.storeLittleEndian(sessionKey, at: 80)
            bytes.storeLittleEndian(UInt32(isJoining ? 1 : 0), at: 88)
            bytes.storeLittleEndian(UInt32(text.count), at: 92)
            text.withUnsafeBytes {
                (bytes + PmemSuperblock.textPlace).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
            }
            bytes.storeLittleEndian(PmemSuperblock.checksum(bytes), at: 12)
        }
        return all
    }

    private static func checksum(_ bytes: UnsafeRawPointer) -> UInt32 {
        let front = crc32c(UnsafeRawBufferPointer(start: bytes, count: 12))
        return crc32c(UnsafeRawBufferPointer(start: bytes + 16, count: byteCount - 16), seed: front)
    }

    /// Whether the bytes of a place are, or were, a superblock.
    static func isMarked(_ bytes: UnsafeRawPointer) -> Bool {
        if bytes.littleEndian(UInt64.self) == magic || isBegun(bytes) { return true }
        return UnsafeRawBufferPointer(start: bytes + textPlace, count: 12).elementsEqual("apus-medium=".utf8)
    }

    /// Whether somebody has begun to write a superblock to a place, and not ended.
    static func isBegun(_ bytes: UnsafeRawPointer) -> Bool { bytes.littleEndian(UInt64.self) == makingMagic }

    /// Writes it to a place; it lasts when this returns, and does not count before.
    func store(_ region: any MemoryRegion, at place: Int) {
        let bytes = region.base + place
        let magicSize = MemoryLayout<UInt64>.size
        apus_store_release_u64(bytes, PmemSuperblock.makingMagic.littleEndian)
        region.persist(offset: place, byteCount: magicSize)
        encoded.withUnsafeBytes {
            (bytes + magicSize).copyMemory(from: $0.baseAddress! + magicSize, byteCount: $0.count - magicSize)
        }
        region.persist(offset: place, byteCount: PmemSuperblock.byteCount)
        apus_store_release_u64(bytes, PmemSuperblock.magic.littleEndian)
        region.persist(offset: place, byteCount: magicSize)
    }

    /// The superblock at `bytes`; nil if there is none that proves itself.
    /// - Throws: `medium` if it is of a newer format, or its identity cannot be read.
    init?(_ bytes: UnsafeRawPointer) throws(StorageError) {
        guard bytes.littleEndian(UInt64.self) == PmemSuperblock.magic,
            bytes.littleEndian(UInt32.self, at: 12) == PmemSuperblock.checksum(bytes)
        else { return nil }
        let format = Int(bytes.littleEndian(UInt32.self, at: 8))
        guard format == PmemSuperblock.format else {
            throw .medium("it has format \(format) of storage-engine pmem, this Apus reads \(PmemSuperblock.format): use a"
                + " newer Apus")
        }
        func number(_ place: Int) -> Int { Int(clamping: bytes.littleEndian(UInt64.self, at: place)) }
        version = bytes.littleEndian(UInt64.self, at: 16)
        setIdentity = bytes.littleEndian(UInt64.self, at: 24)
        slot = Int(bytes.littleEndian(UInt32.self, at: 32))
        slotCount = Int(bytes.littleEndian(UInt32.self, at: 36))
        (blockSize, headSize, fileByteCount) = (number(40), number(48), number(56))
        orderFloor = bytes.littleEndian(UInt64.self, at: 64)
        firstOrder = bytes.littleEndian(UInt64.self, at: 72)
        sessionKey = bytes.littleEndian(UInt64.self, at: 80)
        isJoining = bytes.littleEndian(UInt32.self, at: 88) == 1
        let length = Int(bytes.littleEndian(UInt32.self, at: 92))
        guard length <= PmemSuperblock.byteCount - PmemSuperblock.textPlace, slot < slotCount else { return nil }
        let text = UnsafeRawBufferPointer(start: bytes + PmemSuperblock.textPlace, count: length)
        identity = try MediumIdentity(parsing: Array(text))
    }

    init(
        setIdentity: UInt64, identity: MediumIdentity, shape: PmemShape, version: UInt64, orderFloor: UInt64,
        firstOrder: UInt64, sessionKey: UInt64
    ) {
        self.version = version
        self.setIdentity = setIdentity
        self.identity = identity
        self.orderFloor = orderFloor
        self.firstOrder = firstOrder
        self.sessionKey = sessionKey
        (slot, slotCount, fileByteCount, isJoining) = (0, 1, 0, false)
        (blockSize, headSize) = (shape.blockSize, shape.headSize)
    }

    /// Bytes of a head that a namespace's values may take.
    static func valuesByteCount(_ shape: PmemShape) -> Int { shape.headSize - copies * placeSize }
    static var valuesOffset: Int { copies * placeSize }
}

/// One file as the control plane uses it. Under the lock of the control plane.
final class PmemControl {
    let path: String
    let region: any MemoryRegion
    let unlock: @Sendable () -> Void
    private(set) var superblock: PmemSuperblock
    /// Which of the two places holds `superblock`.
    private var copy: Int

    init(path: String, _ file: PmemFile, _ superblock: PmemSuperblock, copy: Int) {
        self.path = path
        region = file.region
        unlock = file.unlock
        self.superblock = superblock
        self.copy = copy
    }

    /// Writes the superblock with what `change` changes over the older of the two. It lasts when this returns.
    func rewrite(_ change: (inout PmemSuperblock) -> Void) {
        superblock.version += 1
        change(&superblock)
        copy = PmemSuperblock.copies - 1 - copy
        superblock.store(region, at: copy * PmemSuperblock.placeSize)
    }
}
