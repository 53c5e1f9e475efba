// The superblock, and blobs in pairs of areas. An area, in one durable write: u32 magic, u32 CRC of what follows, u64
// number, u32 byte count of the blob, 12 zeros, the blob. The one with the higher number that is whole counts; the
// other one is written next.
internal import Base
internal import Device
internal import Storage

enum LogSuperblock {
    /// Reads the superblock, or writes one on a device that has none.
    static func open(
        _ device: any BlockDevice, _ channel: LogChannel, blockSize: Int
    ) throws(StorageError) -> LogLayout {
        let buffer = try channel.read(0, LogFormat.superblockSize, "read the superblock")
        if buffer.bytes.allSatisfy({ $0 == 0 }) { return try format(device, channel, buffer, blockSize) }
        let base = UnsafeRawPointer(buffer.bytes.baseAddress!)
        guard LogFormat.isSealed(UnsafeRawBufferPointer(buffer.bytes), LogFormat.superblockMagic),
            base.littleEndian(UInt32.self, at: 8) == LogFormat.number,
            base.littleEndian(UInt32.self, at: 12) == blockSize
        else {
            throw .medium(
                "it does not begin with the superblock of a reference log of format \(LogFormat.number)"
                    + " with blocks of \(blockSize) bytes")
        }
        return LogLayout(
            device.geometry, areaSize: Int(base.littleEndian(UInt64.self, at: 16)), blockSize: blockSize)
    }

    private static func format(
        _ device: any BlockDevice, _ channel: LogChannel, _ buffer: LogBuffer, _ blockSize: Int
    ) throws(StorageError) -> LogLayout {
        let layout = LogLayout(device.geometry, areaSize: LogLayout.areaSize(device.geometry), blockSize: blockSize)
        guard layout.blockCount >= 8 else {
            throw .settings("the device is too small: it has room for \(layout.blockCount) blocks")
        }
        let base = buffer.bytes.baseAddress!
        base.storeLittleEndian(UInt32(LogFormat.number), at: 8)
        base.storeLittleEndian(UInt32(blockSize), at: 12)
        base.storeLittleEndian(UInt64(layout.areaSize), at: 16)
        LogFormat.seal(buffer.bytes, LogFormat.superblockMagic)
        try channel.write(buffer, 0, "write the superblock")
        return layout
    }
}

/// One thread at a time.
final class LogMetadata {
    enum Kind: Int { case namespaceBlob = 0, partitions = 1 }
    private let channel: LogChannel
    private let layout: LogLayout
    private let isWrittenInPlace: Bool
    private var blobs: [[UInt8]] = [[], []]
    /// The number, and which of its two areas, of each blob that counts.
    private var numbers: [UInt64] = [0, 0]
    private var current = [1, 1]

    init(_ channel: LogChannel, _ layout: LogLayout, isWrittenInPlace: Bool) throws(StorageError) {
        self.channel = channel
        self.layout = layout
        self.isWrittenInPlace = isWrittenInPlace
        for kind in 0..<2 {
            for area in 0..<2 {
                guard let (number, blob) = try loadArea(kind, area), number > numbers[kind] else { continue }
                numbers[kind] = number
                current[kind] = area
                blobs[kind] = blob
            }
        }
    }

    private func offset(_ kind: Int, _ area: Int) -> Int {
        LogFormat.superblockSize + (2 * kind + area) * layout.areaSize
    }

    private func loadArea(_ kind: Int, _ area: Int) throws(StorageError) -> (UInt64, [UInt8])? {
        let header = try channel.read(offset(kind, area), 4096, "read metadata")
        let base = UnsafeRawPointer(header.bytes.baseAddress!)
        guard base.littleEndian(UInt32.self) == LogFormat.areaMagic else { return nil }
        let byteCount = Int(base.littleEndian(UInt32.self, at: 16))
        guard byteCount <= layout.areaSize - LogFormat.areaHeaderSize else { return nil }
        let whole = try channel.read(
            offset(kind, area), layout.padded(LogFormat.areaHeaderSize + byteCount), "read metadata")
        let bytes = whole.view(0..<(LogFormat.areaHeaderSize + byteCount))
        guard LogFormat.isSealed(bytes, LogFormat.areaMagic) else { return nil }
        return (base.littleEndian(UInt64.self, at: 8), Array(bytes[LogFormat.areaHeaderSize...]))
    }

    func load(_ kind: Kind) -> [UInt8] { blobs[kind.rawValue] }

    /// A write that failed may have arrived: its number is never used again.
    func store(_ kind: Kind, _ blob: [UInt8]) throws(StorageError) {
        let kind = kind.rawValue
        let byteCount = LogFormat.areaHeaderSize + blob.count
        guard byteCount <= layout.areaSize else { throw .outOfSpace }
        numbers[kind] += 1
        let buffer = LogBuffer(byteCount: layout.padded(byteCount))
        let base = buffer.bytes.baseAddress!
        base.storeLittleEndian(numbers[kind], at: 8)
        base.storeLittleEndian(UInt32(blob.count), at: 16)
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[LogFormat.areaHeaderSize...]).copyBytes(from: blob)
        LogFormat.seal(UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<byteCount]), LogFormat.areaMagic)
        let area = isWrittenInPlace ? 0 : 1 - current[kind]
        try channel.write(buffer, offset(kind, area), "write metadata")
        current[kind] = area
        blobs[kind] = blob
    }

    /// Each with two bytes of length in front.
    static func join(_ parts: [[UInt8]]) -> [UInt8] {
        parts.flatMap { [UInt8($0.count & 0xFF), UInt8($0.count >> 8)] + $0 }
    }

    static func split(_ bytes: [UInt8]) -> [[UInt8]] {
        var parts: [[UInt8]] = []
        var place = 0
        while place + 2 <= bytes.count {
            let end = place + 2 + Int(bytes[place]) + Int(bytes[place + 1]) << 8
            parts.append(Array(bytes[(place + 2)..<end]))
            place = end
        }
        return parts
    }
}
