// What the reference log writes on its device, little-endian. Format 1:
//
//     superblock   4096 bytes: u32 magic, u32 CRC of what follows, u32 format, u32 block size, u64 size of a metadata area
//     areas        two for the namespace blob, two for the partition metadata
//     blocks       a sector of its own with u32 magic, u32 CRC of what follows, u64 generation, zeros; then
//                  groups, one behind the other, each beginning with a sector
//
// A group is what one durable write brings: 64 bytes of header, entries, zeros up to the next sector.
//
//     0  u32 magic      4 u32 CRC of bytes 8 to 63     8 u64 generation of the block    16 u64 number of the group
//     24 u64 offset on the device    32 u32 bytes used, header included    36 u32 CRC of the entries    40 24 zeros
//
// An entry is an image, or a note that an image was released: 32 bytes of header, and an image's envelope and payload,
// padded to 16.
//
//     0  u32 magic of its kind       4 u32 CRC of bytes 8 to 31      8 u32 bytes of the image, 0 for a note
//     12 u32 0    16 u64 sequence of the image    24 u64 generation of the block
//
// Groups are numbered through and written one at a time: what is on the medium is a beginning of the log, except that
// the last group may be torn. What has not the generation of its block is left from an earlier life. The header of a
// block has a sector of its own because wiping it must not hurt a group: the wipe itself may be torn.
//
// A block that was wiped begins with a mark, 64 bytes: u32 magic, u32 CRC of what follows, u64 the next sequence, u64
// the next group, zeros. Without it a log of which nothing is left would give the same numbers again, and take what an
// earlier life left for its own.
internal import Base
internal import Device
internal import Storage

enum LogFormat {
    static let number = 1
    static let superblockSize = 4096
    static let blockHeaderSize = 16
    static let groupHeaderSize = 64
    static let entryHeaderSize = 32
    static let superblockMagic: UInt32 = 0x3147_4C52
    static let blockMagic: UInt32 = 0x4B42_4C52
    static let groupMagic: UInt32 = 0x5052_4752
    static let imageMagic: UInt32 = 0x474D_4952
    static let noteMagic: UInt32 = 0x4554_4F52
    static let wipedMagic: UInt32 = 0x4445_5057
    static let areaMagic: UInt32 = 0x4145_5241
    static let areaHeaderSize = 32
    static let blobSizeMax = 1 << 20
    static let partitionMetadataSizeMax = 256

    /// Checksum of the bytes from 8 on, as it stands at 4.
    static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        crc32c(UnsafeRawBufferPointer(rebasing: bytes[8...]))
    }

    static func isSealed(_ bytes: UnsafeRawBufferPointer, _ magic: UInt32) -> Bool {
        let base = bytes.baseAddress!
        return base.littleEndian(UInt32.self) == magic && base.littleEndian(UInt32.self, at: 4) == checksum(bytes)
    }

    static func seal(_ bytes: UnsafeMutableRawBufferPointer, _ magic: UInt32) {
        bytes.baseAddress!.storeLittleEndian(magic)
        bytes.baseAddress!.storeLittleEndian(checksum(UnsafeRawBufferPointer(bytes)), at: 4)
    }
}

/// What stands where a block or a torn group was wiped.
struct WipeMark {
    let nextSequence: UInt64
    let nextGroup: UInt64

    init(nextSequence: UInt64, nextGroup: UInt64) {
        self.nextSequence = nextSequence
        self.nextGroup = nextGroup
    }

    /// Reads the mark at the start of `bytes`; nil if there is none.
    init?(_ bytes: UnsafeRawBufferPointer) {
        let mark = UnsafeRawBufferPointer(rebasing: bytes[..<LogFormat.groupHeaderSize])
        guard LogFormat.isSealed(mark, LogFormat.wipedMagic), let base = mark.baseAddress else { return nil }
        self.init(nextSequence: base.littleEndian(UInt64.self, at: 8), nextGroup: base.littleEndian(UInt64.self, at: 16))
    }

    /// A sector that begins with the mark.
    func sector(_ sectorSize: Int) -> LogBuffer {
        let sector = LogBuffer(byteCount: sectorSize)
        let mark = UnsafeMutableRawBufferPointer(rebasing: sector.bytes[..<LogFormat.groupHeaderSize])
        mark.baseAddress!.storeLittleEndian(nextSequence, at: 8)
        mark.baseAddress!.storeLittleEndian(nextGroup, at: 16)
        LogFormat.seal(mark, LogFormat.wipedMagic)
        return sector
    }
}

/// Where things are on a device.
struct LogLayout {
    let sectorSize: Int
    let areaSize: Int
    let blockSize: Int
    let blockCount: Int
    let firstBlock: Int

    init(_ geometry: DeviceGeometry, areaSize: Int, blockSize: Int) {
        precondition(blockSize >= 8 * geometry.sectorSize && blockSize % geometry.sectorSize == 0)
        sectorSize = geometry.sectorSize
        self.areaSize = areaSize
        self.blockSize = blockSize
        let areasEnd = LogFormat.superblockSize + 4 * areaSize
        firstBlock = (areasEnd + blockSize - 1) / blockSize * blockSize
        blockCount = max(0, (geometry.byteCount - firstBlock) / blockSize)
    }

    /// Room for all the metadata the contract allows, but on a small device a thirty-second of it.
    static func areaSize(_ geometry: DeviceGeometry) -> Int {
        let full = LogFormat.blobSizeMax + (64 << 10)
        let size = geometry.byteCount >= 8 * full ? full : geometry.byteCount / 32
        return max(4096, size / 4096 * 4096)
    }

    /// Bytes of entries that fit into a block in one group.
    var blockRoom: Int { blockSize - sectorSize - LogFormat.groupHeaderSize }

    /// An image and its header fit into a block, with room to spare.
    static func imageSizeMax(blockSize: Int) -> Int { blockSize / 4 * 3 }
    var imageSizeMax: Int { LogLayout.imageSizeMax(blockSize: blockSize) }

    func offset(ofBlock number: Int) -> Int { firstBlock + number * blockSize }

    func block(at offset: Int) -> Int? {
        let number = (offset - firstBlock) / blockSize
        return offset >= firstBlock && number < blockCount ? number : nil
    }

    func padded(_ byteCount: Int) -> Int { (byteCount + sectorSize - 1) / sectorSize * sectorSize }
}

/// The header of a group.
struct GroupHeader {
    let generation: UInt64
    let number: UInt64
    let offset: Int
    let byteCount: Int
    let entriesChecksum: UInt32

    init(generation: UInt64, number: UInt64, offset: Int, byteCount: Int, entriesChecksum: UInt32) {
        self.generation = generation
        self.number = number
        self.offset = offset
        self.byteCount = byteCount
        self.entriesChecksum = entriesChecksum
    }

    /// Reads the header at the start of `bytes`; nil if there is none that belongs at `offset`.
    init?(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        guard bytes.count >= LogFormat.groupHeaderSize,
            LogFormat.isSealed(UnsafeRawBufferPointer(rebasing: bytes[..<LogFormat.groupHeaderSize]), LogFormat.groupMagic)
        else { return nil }
        let base = bytes.baseAddress!
        self.init(
            generation: base.littleEndian(UInt64.self, at: 8), number: base.littleEndian(UInt64.self, at: 16),
            offset: Int(base.littleEndian(UInt64.self, at: 24)), byteCount: Int(base.littleEndian(UInt32.self, at: 32)),
            entriesChecksum: base.littleEndian(UInt32.self, at: 36))
        guard self.offset == offset, byteCount >= LogFormat.groupHeaderSize, byteCount <= bytes.count else { return nil }
    }

    func write(to bytes: UnsafeMutableRawBufferPointer) {
        let base = bytes.baseAddress!
        base.storeLittleEndian(generation, at: 8)
        base.storeLittleEndian(number, at: 16)
        base.storeLittleEndian(UInt64(offset), at: 24)
        base.storeLittleEndian(UInt32(byteCount), at: 32)
        base.storeLittleEndian(entriesChecksum, at: 36)
        LogFormat.seal(UnsafeMutableRawBufferPointer(rebasing: bytes[..<LogFormat.groupHeaderSize]), LogFormat.groupMagic)
    }
}

/// The header of an entry.
struct EntryHeader {
    let isNote: Bool
    let byteCount: Int
    let sequence: UInt64

    init(isNote: Bool, byteCount: Int, sequence: UInt64) {
        self.isNote = isNote
        self.byteCount = byteCount
        self.sequence = sequence
    }

    /// Reads the header at the start of `bytes`; nil if there is none of that generation.
    init?(_ bytes: UnsafeRawBufferPointer, generation: UInt64, checking: Bool) {
        guard bytes.count >= LogFormat.entryHeaderSize, let base = bytes.baseAddress else { return nil }
        let magic = base.littleEndian(UInt32.self)
        guard magic == LogFormat.imageMagic || magic == LogFormat.noteMagic,
            base.littleEndian(UInt64.self, at: 24) == generation,
            !checking || LogFormat.isSealed(UnsafeRawBufferPointer(rebasing: bytes[..<LogFormat.entryHeaderSize]), magic)
        else { return nil }
        self.init(
            isNote: magic == LogFormat.noteMagic, byteCount: Int(base.littleEndian(UInt32.self, at: 8)),
            sequence: base.littleEndian(UInt64.self, at: 16))
        guard storedByteCount <= bytes.count else { return nil }
    }

    /// With header and padding.
    var storedByteCount: Int { LogFormat.entryHeaderSize + Envelope.storedByteCount(byteCount) }

    func write(to bytes: UnsafeMutableRawBufferPointer, generation: UInt64) {
        let base = bytes.baseAddress!
        base.storeLittleEndian(UInt32(byteCount), at: 8)
        base.storeLittleEndian(UInt32(0), at: 12)
        base.storeLittleEndian(sequence, at: 16)
        base.storeLittleEndian(generation, at: 24)
        LogFormat.seal(
            UnsafeMutableRawBufferPointer(rebasing: bytes[..<LogFormat.entryHeaderSize]),
            isNote ? LogFormat.noteMagic : LogFormat.imageMagic)
    }
}
