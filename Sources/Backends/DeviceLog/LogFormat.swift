// What a log device holds, format 1 (docs/formats.md, "Device log"). Little-endian; a unit is 16 bytes.
//
// The head of the device: superblocks and metadata (Superblock.swift, LogMetadata.swift). Behind it, blocks. A block is
// written in groups, front to back; each begins at a multiple of the flush unit:
//
//     group header, 2 units
//       0  u32  kind 10 in the top 4 bits, length of the group in units, header included, in the low 24
//       4  u32  CRC32C of bytes 8 to 31
//       8  u64  sequence of the block
//       16 u32  number of the block    20 u32  unit of the block where the group begins
//       24 u32  identity of the device set    28 u8 stream (0 fresh, 1 moved)    29 3 bytes of 0
//     run header, 1 unit, in moved groups only: what follows was first written in another block
//       0  u32  kind 11, length of the run in units, this header included
//       4  u32  CRC32C of bytes 0 to 3 and 8 to 15, stamped
//       8  u64  sequence of that block
//     skip header, 1 unit: what a start from kept memory (WarmStart.swift) has left out
//       0  u32  kind 12, length in units, this header included: nothing in them counts, whatever it looks like
//       4  u32  CRC32C of bytes 0 to 3 and 8 to 15, stamped        8  u64  0
//     images: envelope and payload, from a whole unit on; the checksum in the envelope is stamped
//     zeros up to a multiple of the flush unit
//
// A stamp is mixed into a checksum and depends on the block's sequence and on the place in it: what an earlier use of the
// block has left behind, or a write that went elsewhere, fits no checksum. Sequences are never used twice. Everything can be
// found again behind a damaged place: images, run and group headers begin at whole units and prove themselves.
internal import Base
internal import CBase
internal import Storage

enum LogFormat {
    /// Number of the format of a log device.
    static let number = 1
    static let unitSize = Limits.imageUnitSize
    static let groupKind: UInt32 = 10
    static let runKind: UInt32 = 11
    static let skipKind: UInt32 = 12
    static let groupHeaderUnits = 2
    static let runHeaderUnits = 1
    static let skipHeaderUnits = 1
    private static let lengthMask: UInt32 = 0xFF_FFFF

    /// Whole units that `byteCount` bytes take.
    @inline(__always)
    static func units(_ byteCount: Int) -> Int { (byteCount + unitSize - 1) / unitSize }

    static func kind(at bytes: UnsafeRawPointer) -> UInt32 { bytes.littleEndian(UInt32.self) >> 28 }

    static func lengthUnits(at bytes: UnsafeRawPointer) -> Int { Int(bytes.littleEndian(UInt32.self) & lengthMask) }

    /// What is mixed into checksums at `unit` of the block with that sequence. Of one place, never the same for two
    /// sequences less than 2^32 apart.
    @inline(__always)
    static func stamp(sequence: UInt64, unit: Int) -> UInt32 {
        UInt32(truncatingIfNeeded: sequence) &* 0x9E37_79B1 &+ UInt32(truncatingIfNeeded: unit) &* 0x85EB_CA6B
    }

    /// Puts the stamp into, or takes it out of, the checksum of the envelope at `image`.
    @inline(__always)
    static func toggleStamp(_ image: UnsafeMutableRawPointer, sequence: UInt64, unit: Int) {
        let check = UnsafeRawPointer(image).littleEndian(UInt32.self, at: 4)
        image.storeLittleEndian(check ^ stamp(sequence: sequence, unit: unit), at: 4)
    }

    // ---- Order of writing ----

    /// Order of an image for the cold start: that of its block, then that of its place. What was moved counts as the last
    /// of the block it was first written in: it lived when that block was closed.
    static func order(sequence: UInt64, unit: Int, isMoved: Bool) -> UInt64 {
        sequence << 20 | (isMoved ? 0xF_FFFF : UInt64(unit))
    }

    // ---- Headers ----

    static func writeGroup(_ header: GroupHeader, to bytes: UnsafeMutableRawPointer) {
        bytes.storeLittleEndian(groupKind << 28 | UInt32(header.units))
        bytes.storeLittleEndian(header.sequence, at: 8)
        bytes.storeLittleEndian(UInt32(header.block), at: 16)
        bytes.storeLittleEndian(UInt32(header.unit), at: 20)
        bytes.storeLittleEndian(header.identity, at: 24)
        bytes.storeLittleEndian(UInt32(header.stream), at: 28)
        bytes.storeLittleEndian(groupCheck(bytes), at: 4)
    }

    private static func groupCheck(_ bytes: UnsafeRawPointer) -> UInt32 {
        apus_crc32c(apus_crc32c(0, bytes, 4), bytes + 8, 24)
    }

    /// The group header at `bytes`; nil if there is none.
    static func group(at bytes: UnsafeRawPointer) -> GroupHeader? {
        guard kind(at: bytes) == groupKind, bytes.littleEndian(UInt32.self, at: 4) == groupCheck(bytes) else { return nil }
        return GroupHeader(
            units: lengthUnits(at: bytes), sequence: bytes.littleEndian(UInt64.self, at: 8),
            block: Int(bytes.littleEndian(UInt32.self, at: 16)), unit: Int(bytes.littleEndian(UInt32.self, at: 20)),
            identity: bytes.littleEndian(UInt32.self, at: 24), stream: Int(bytes.load(fromByteOffset: 28, as: UInt8.self)))
    }

    static func writeRun(units: Int, origin: UInt64, sequence: UInt64, unit: Int, to bytes: UnsafeMutableRawPointer) {
        writeShort(runKind, units, origin, sequence, unit, to: bytes)
    }

    static func writeSkip(units: Int, sequence: UInt64, unit: Int, to bytes: UnsafeMutableRawPointer) {
        writeShort(skipKind, units, 0, sequence, unit, to: bytes)
    }

    /// A header of one unit.
    private static func writeShort(
        _ kind: UInt32, _ units: Int, _ word: UInt64, _ sequence: UInt64, _ unit: Int, to bytes: UnsafeMutableRawPointer
    ) {
        bytes.storeLittleEndian(kind << 28 | UInt32(units))
        bytes.storeLittleEndian(word, at: 8)
        bytes.storeLittleEndian(shortCheck(bytes) ^ stamp(sequence: sequence, unit: unit), at: 4)
    }

    private static func shortCheck(_ bytes: UnsafeRawPointer) -> UInt32 {
        apus_crc32c(apus_crc32c(0, bytes, 4), bytes + 8, 8)
    }

    private static func isShort(_ kind: UInt32, at bytes: UnsafeRawPointer, _ sequence: UInt64, _ unit: Int) -> Bool {
        self.kind(at: bytes) == kind
            && bytes.littleEndian(UInt32.self, at: 4) == shortCheck(bytes) ^ stamp(sequence: sequence, unit: unit)
    }

    /// The sequence that the run header at `bytes` names; nil if there is none.
    static func runOrigin(at bytes: UnsafeRawPointer, sequence: UInt64, unit: Int) -> UInt64? {
        isShort(runKind, at: bytes, sequence, unit) ? bytes.littleEndian(UInt64.self, at: 8) : nil
    }

    /// How many units the skip header at `bytes` passes over; nil if there is none.
    static func skippedUnits(at bytes: UnsafeRawPointer, sequence: UInt64, unit: Int) -> Int? {
        guard isShort(skipKind, at: bytes, sequence, unit) else { return nil }
        let units = lengthUnits(at: bytes)
        return units >= skipHeaderUnits ? units : nil
    }

    /// Whether what stands at `bytes` begins like an envelope: the right format and no flags that are unknown. Of bytes of
    /// chance, one unit in 256 does: the checksums of all that claim to be images would take minutes for a block.
    static func isEnvelope(at bytes: UnsafeRawPointer) -> Bool {
        bytes.littleEndian(UInt32.self) >> 24 == UInt32(Envelope.format) << 4
    }

    /// Size in bytes of the image whose envelope stands at `bytes`, of which `byteCountMax` can be looked at; nil if no
    /// whole image stands there.
    static func image(at bytes: UnsafeRawPointer, byteCountMax: Int, sequence: UInt64, unit: Int) -> Int? {
        guard isEnvelope(at: bytes) else { return nil }
        let byteCount = Envelope.byteCount(at: bytes)
        guard byteCount >= Envelope.byteCount, byteCount <= byteCountMax else { return nil }
        let check = apus_crc32c(0, bytes + 8, byteCount - 8) ^ stamp(sequence: sequence, unit: unit)
        return bytes.littleEndian(UInt32.self, at: 4) == check ? byteCount : nil
    }
}

/// What stands at the front of a group.
struct GroupHeader {
    let units: Int
    let sequence: UInt64
    let block: Int
    let unit: Int
    let identity: UInt32
    let stream: Int
}

/// Where things are on one device. Sizes in bytes.
struct LogLayout {
    let sectorSize: Int
    /// Groups begin and end at multiples of this.
    let flushUnit: Int
    /// A power of two.
    let blockSize: Int
    /// What the superblocks and the metadata take.
    let headSize: Int
    let unitsPerBlock: Int
    private let blockShift: UInt64

    init(sectorSize: Int, flushUnit: Int, blockSize: Int, headSize: Int) {
        precondition(blockSize.nonzeroBitCount == 1 && flushUnit % sectorSize == 0 && blockSize % flushUnit == 0)
        precondition(headSize % flushUnit == 0)
        self.sectorSize = sectorSize
        self.flushUnit = flushUnit
        self.blockSize = blockSize
        self.headSize = headSize
        unitsPerBlock = blockSize / LogFormat.unitSize
        blockShift = UInt64(unitsPerBlock.trailingZeroBitCount)
    }

    /// Largest image that fits into a block, also when it is moved.
    var imageSizeMax: Int {
        blockSize - (LogFormat.groupHeaderUnits + LogFormat.runHeaderUnits) * LogFormat.unitSize
    }

    func blockCount(deviceByteCount: Int) -> Int { max(0, (deviceByteCount - headSize) / blockSize) }

    func offset(ofBlock block: Int) -> Int { headSize + block * blockSize }

    // A location: 7 bits of device, 37 bits of unit behind the device's head.
    static let deviceShift: UInt64 = 37

    @inline(__always)
    func location(device: Int, block: Int, unit: Int) -> Location {
        Location(rawValue: UInt64(device) << LogLayout.deviceShift | UInt64(block) << blockShift | UInt64(unit))
    }

    @inline(__always)
    static func device(of location: Location) -> Int { Int(location.rawValue >> deviceShift) }

    @inline(__always)
    func block(of location: Location) -> Int {
        Int((location.rawValue & (1 << LogLayout.deviceShift - 1)) >> blockShift)
    }

    @inline(__always)
    func unit(of location: Location) -> Int { Int(location.rawValue & (1 << blockShift - 1)) }

    func padded(_ byteCount: Int) -> Int { (byteCount + flushUnit - 1) / flushUnit * flushUnit }
}
