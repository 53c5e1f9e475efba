// Values of a namespace beside its images (blob, partition metadata), in memory that outlives the process. Each has two
// places, which are written in turn, so that a crash in the middle leaves one whole:
//
//     0  u32  magic "AMTV"          4  u32  CRC32C of bytes 8 to 31 and the value, seeded with the owner's seed
//     8  u64  version               16 u32  byte count of the value     20 u32  kind     24 8 bytes of 0
//     32      value
//
// Invariants: 1. A value is written with a version that was never used before, over the place that does not hold the newest.
// 2. Of two places that prove themselves the one with the higher version counts. 3. What was found lasts before anything
// relies on it.
package import Base
package import Storage

/// See the top of the file. One thread at a time.
package final class KeptValues {
    /// What is kept.
    package enum Kind: Int, CaseIterable, Sendable { case namespaceBlob = 0, partitions = 1 }

    private static let magic: UInt32 = 0x5654_4D41
    private static let headerSize = 32
    private static let copies = 2
    /// Of one place: the largest value, which is that of all partitions, and some room.
    private static let placeSizeMax = (1 << 20) + (64 << 10)
    private let region: any MemoryRegion
    private let offset: Int
    private let placeSize: Int
    private let seed: UInt32
    private var newest: [(copy: Int, version: UInt64, value: [UInt8])]

    /// Bytes of all places.
    package static let byteCount = copies * Kind.allCases.count * placeSizeMax

    /// Reads what is in the `byteCount` bytes of `region` at `offset`; of a region that is backed step by step, as far as it
    /// is.
    package init(_ region: any MemoryRegion, offset: Int, byteCount: Int, seed: UInt32) {
        self.region = region
        self.offset = offset
        self.seed = seed
        placeSize = min(KeptValues.placeSizeMax, byteCount / (KeptValues.copies * Kind.allCases.count)) / 64 * 64
        newest = Kind.allCases.map { _ in (1, 0, []) }
        for kind in Kind.allCases {
            for copy in 0..<KeptValues.copies {
                guard let (version, value) = load(kind, copy), version > newest[kind.rawValue].version else { continue }
                newest[kind.rawValue] = (copy, version, value)
                region.persist(
                    offset: place(kind, copy), byteCount: KeptValues.headerSize + value.count)
            }
        }
    }

    private func place(_ kind: Kind, _ copy: Int) -> Int {
        offset + (KeptValues.copies * kind.rawValue + copy) * placeSize
    }

    private func load(_ kind: Kind, _ copy: Int) -> (version: UInt64, value: [UInt8])? {
        let place = place(kind, copy)
        guard place + KeptValues.headerSize <= region.backedByteCount else { return nil }
        let bytes = UnsafeRawPointer(region.base + place)
        let byteCount = Int(bytes.littleEndian(UInt32.self, at: 16))
        guard bytes.littleEndian(UInt32.self) == KeptValues.magic, KeptValues.headerSize + byteCount <= placeSize,
            place + KeptValues.headerSize + byteCount <= region.backedByteCount,
            bytes.littleEndian(UInt32.self, at: 20) == UInt32(kind.rawValue),
            bytes.littleEndian(UInt32.self, at: 4) == checksum(bytes, byteCount)
        else { return nil }
        let value = UnsafeRawBufferPointer(start: bytes + KeptValues.headerSize, count: byteCount)
        return (bytes.littleEndian(UInt64.self, at: 8), Array(value))
    }

    private func checksum(_ bytes: UnsafeRawPointer, _ byteCount: Int) -> UInt32 {
        crc32c(UnsafeRawBufferPointer(start: bytes + 8, count: KeptValues.headerSize - 8 + byteCount), seed: seed)
    }

    /// The value as last stored; empty if there is none.
    package subscript(kind: Kind) -> [UInt8] { newest[kind.rawValue].value }

    /// Replaces a value. It lasts when this returns.
    /// - Throws: `outOfSpace`: it is the old one still.
    package func store(_ kind: Kind, _ value: [UInt8]) throws(StorageError) {
        let before = newest[kind.rawValue]
        let copy = KeptValues.copies - 1 - before.copy
        let place = place(kind, copy)
        let byteCount = KeptValues.headerSize + value.count
        guard byteCount <= placeSize, region.grow(to: place + byteCount) else { throw .outOfSpace }
        let bytes = region.base + place
        bytes.storeLittleEndian(KeptValues.magic)
        bytes.storeLittleEndian(before.version + 1, at: 8)
        bytes.storeLittleEndian(UInt32(value.count), at: 16)
        bytes.storeLittleEndian(UInt32(kind.rawValue), at: 20)
        bytes.storeLittleEndian(UInt64(0), at: 24)
        value.withUnsafeBytes { source in
            if let from = source.baseAddress {
                (bytes + KeptValues.headerSize).copyMemory(from: from, byteCount: source.count)
            }
        }
        bytes.storeLittleEndian(checksum(bytes, value.count), at: 4)
        region.persist(offset: place, byteCount: byteCount)
        newest[kind.rawValue] = (copy, before.version + 1, value)
    }
}
