// What stands at the front of each device of a log. Little-endian, 512 bytes, in two places that are written in turn; of two
// that prove themselves the one with the higher version counts.
//
//     0  u64  magic "APUSDLOG"         8  u32  LogFormat.number      12 u32  CRC32C of bytes 0 to 11 and 16 to 511
//     16 u64  version of this superblock
//     24 u64  identity of the device set
//     32 u32  slot of this device      36 u32  slots of the set
//     40 u64  bytes of a write block   48 u64  bytes of the head     56 u64  bytes of the flush unit
//     64 u64  bytes of the device
//     72 u64  sequence floor: no block has, or will get from this session, a sequence as high as this
//     80 u64  first sequence: blocks with lower ones hold nothing
//     88 u32  1: the device is joining; 0: it has joined
//     92 u32  byte count of the identity (MediumIdentity) that follows
//     96      identity, up to byte 503
//     504 u64 session key: ties the device to memory that outlives the process (KeptMemory); 0 for none, and in what older
//             versions wrote
//
// A device is a member of its set if it has joined, or if another member's superblock counts its slot: so a set is made, and
// grows, in one step.
internal import Base
internal import Device
internal import Storage

/// See the top of the file.
struct Superblock {
    static let byteCount = 512
    static let magic: UInt64 = 0x474F_4C44_5355_5041
    private static let textPlace = 96
    private static let keyPlace = 504

    var version: UInt64
    let setIdentity: UInt64
    var slot: Int
    var slotCount: Int
    var blockSize: Int
    var headSize: Int
    var flushUnit: Int
    var deviceByteCount: Int
    var sequenceFloor: UInt64
    var firstSequence: UInt64
    var isJoining: Bool
    var identity: MediumIdentity
    var sessionKey: UInt64

    /// Whether the identity of such a namespace fits.
    static func holds(_ identity: MediumIdentity) -> Bool { identity.encoded.count <= keyPlace - textPlace }

    /// Writes it to `bytes`, which hold zeros.
    func encode(to bytes: UnsafeMutableRawPointer) {
        let text = identity.encoded
        precondition(text.count <= Superblock.keyPlace - Superblock.textPlace)
        bytes.storeLittleEndian(Superblock.magic)
        bytes.storeLittleEndian(UInt32(LogFormat.number), at: 8)
        bytes.storeLittleEndian(version, at: 16)
        bytes.storeLittleEndian(setIdentity, at: 24)
        bytes.storeLittleEndian(UInt32(slot), at: 32)
        bytes.storeLittleEndian(UInt32(slotCount), at: 36)
        bytes.storeLittleEndian(UInt64(blockSize), at: 40)
        bytes.storeLittleEndian(UInt64(headSize), at: 48)
        bytes.storeLittleEndian(UInt64(flushUnit), at: 56)
        bytes.storeLittleEndian(UInt64(deviceByteCount), at: 64)
        bytes.storeLittleEndian(sequenceFloor, at: 72)
        bytes.storeLittleEndian(firstSequence, at: 80)
        bytes.storeLittleEndian(UInt32(isJoining ? 1 : 0), at: 88)
        bytes.storeLittleEndian(UInt32(text.count), at: 92)
        text.withUnsafeBytes { (bytes + Superblock.textPlace).copyMemory(from: $0.baseAddress!, byteCount: text.count) }
        bytes.storeLittleEndian(sessionKey, at: Superblock.keyPlace)
        bytes.storeLittleEndian(Superblock.checksum(bytes), at: 12)
    }

    private static func checksum(_ bytes: UnsafeRawPointer) -> UInt32 {
        let front = crc32c(UnsafeRawBufferPointer(start: bytes, count: 12))
        return crc32c(UnsafeRawBufferPointer(start: bytes + 16, count: byteCount - 16), seed: front)
    }

    /// Whether the bytes of a place are, or were, a superblock.
    static func isMarked(_ bytes: UnsafeRawPointer) -> Bool {
        if bytes.littleEndian(UInt64.self) == magic { return true }
        let text = UnsafeRawBufferPointer(start: bytes + textPlace, count: 12)
        return text.elementsEqual("apus-medium=".utf8)
    }

    /// The superblock at `bytes`; nil if there is none that proves itself.
    /// - Throws: `medium` if it is of a newer format, or its identity cannot be read.
    init?(_ bytes: UnsafeRawPointer) throws(StorageError) {
        guard bytes.littleEndian(UInt64.self) == Superblock.magic,
            bytes.littleEndian(UInt32.self, at: 12) == Superblock.checksum(bytes)
        else { return nil }
        let format = Int(bytes.littleEndian(UInt32.self, at: 8))
        guard format == LogFormat.number else {
            throw .medium("it has format \(format) of a device log, this Apus reads \(LogFormat.number): use a newer Apus")
        }
        func number(_ place: Int) -> Int { Int(clamping: bytes.littleEndian(UInt64.self, at: place)) }
        version = bytes.littleEndian(UInt64.self, at: 16)
        setIdentity = bytes.littleEndian(UInt64.self, at: 24)
        slot = Int(bytes.littleEndian(UInt32.self, at: 32))
        slotCount = Int(bytes.littleEndian(UInt32.self, at: 36))
        (blockSize, headSize, flushUnit, deviceByteCount) = (number(40), number(48), number(56), number(64))
        sequenceFloor = bytes.littleEndian(UInt64.self, at: 72)
        firstSequence = bytes.littleEndian(UInt64.self, at: 80)
        isJoining = bytes.littleEndian(UInt32.self, at: 88) == 1
        let length = Int(bytes.littleEndian(UInt32.self, at: 92))
        guard length <= Superblock.byteCount - Superblock.textPlace, slot < slotCount else { return nil }
        let text = UnsafeRawBufferPointer(start: bytes + Superblock.textPlace, count: length)
        identity = try MediumIdentity(parsing: Array(text))
        // An older version had this place for the identity, too.
        let hasKey = length <= Superblock.keyPlace - Superblock.textPlace
        sessionKey = hasKey ? bytes.littleEndian(UInt64.self, at: Superblock.keyPlace) : 0
    }

    init(
        setIdentity: UInt64, identity: MediumIdentity, shape: LogShape, version: UInt64, sequenceFloor: UInt64,
        firstSequence: UInt64
    ) {
        self.version = version
        self.setIdentity = setIdentity
        self.identity = identity
        self.sequenceFloor = sequenceFloor
        self.firstSequence = firstSequence
        (slot, slotCount, deviceByteCount, isJoining, sessionKey) = (0, 1, 0, false, 0)
        (blockSize, headSize, flushUnit) = (shape.blockSize, shape.headSize, shape.flushUnit)
    }
}

/// Where things are in the head of a device.
struct HeadLayout {
    /// Largest value of metadata, with its header: 1 MiB and 64 KiB.
    private static let areaSizeMax = (1 << 20) + (64 << 10)
    /// Heads of so many bytes give each superblock a piece of its own that is not torn on any device.
    private static let wideHeadSize = 64 << 10
    private static let widePlaceSize = 4096
    static let copies = 2

    /// Bytes of each place for a superblock.
    let placeSize: Int
    /// Bytes of each place for a value of metadata.
    let areaSize: Int

    init(_ shape: LogShape) {
        placeSize = shape.headSize >= HeadLayout.wideHeadSize
            ? max(HeadLayout.widePlaceSize, shape.flushUnit) : shape.flushUnit
        let left = (shape.headSize - HeadLayout.copies * placeSize) / (HeadLayout.copies * LogMetadata.Kind.allCases.count)
        areaSize = min(HeadLayout.areaSizeMax, left) / shape.flushUnit * shape.flushUnit
        precondition(placeSize >= Superblock.byteCount && areaSize > 0, "the head is too small")
    }

    func superblockOffset(_ copy: Int) -> Int { copy * placeSize }

    func areaOffset(_ kind: LogMetadata.Kind, _ copy: Int) -> Int {
        HeadLayout.copies * placeSize + (HeadLayout.copies * kind.rawValue + copy) * areaSize
    }
}

/// One device as the control plane uses it. Under the lock of the backend's control plane.
final class DeviceControl {
    let path: String
    /// Place in the configuration.
    let order: Int
    let device: any BlockDevice
    let channel: ControlChannel
    let head: HeadLayout
    private(set) var superblock: Superblock
    /// Which of the two places holds `superblock`.
    private var copy: Int

    init(
        _ found: FoundDevice, _ device: any BlockDevice, _ channel: ControlChannel, _ head: HeadLayout,
        _ superblock: Superblock
    ) {
        path = found.path
        order = found.order
        self.device = device
        self.channel = channel
        self.head = head
        self.superblock = superblock
        copy = found.copy
    }

    var slot: Int { superblock.slot }

    /// Writes a superblock over the older of the two. Durable when it returns.
    /// - Throws: `device`; the one before is still there then, or the new one is.
    func write(_ new: Superblock) throws(StorageError) {
        let memory = DeviceMemory(byteCount: head.placeSize)
        new.encode(to: memory.base)
        try channel.write(memory.view, head.superblockOffset(HeadLayout.copies - 1 - copy))
        copy = HeadLayout.copies - 1 - copy
        superblock = new
    }

    /// The same with the next version and what `change` changes.
    /// - Throws: `device`.
    func rewrite(_ change: (inout Superblock) -> Void) throws(StorageError) {
        var new = superblock
        new.version += 1
        change(&new)
        try write(new)
    }
}
