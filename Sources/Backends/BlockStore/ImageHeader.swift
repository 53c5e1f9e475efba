// What stands in front of each image in persistent memory: 16 bytes, little-endian.
//
//     0  u32  check: CRC32C, seeded with the identity of the set, of the length, the order, the location of the image, and
//             the first 8 bytes of its envelope
//     4  u32  length of the image in units of 16 bytes; bit 31: it was released
//     8  u64  order of writing: never used twice; an image that compaction has moved keeps it
//
// The check proves that an image was begun here, and what its envelope says of itself; the checksum in the envelope proves
// that all of it has arrived. Bit 31 is in no check, so that one store releases an image for good: it may still be read
// then, for the header is none of its bytes.
internal import Base
internal import CBase
internal import Storage

/// See the top of the file.
package struct ImageHeader {
    /// Bytes; one unit.
    package static let byteCount = 16
    private static let releasedBit: UInt32 = 1 << 31

    package let order: UInt64
    /// Units of the image, without this header.
    package let units: Int
    package let isReleased: Bool

    private static func check(
        _ units: UInt32, _ order: UInt64, _ location: UInt64, _ envelope: UnsafeRawPointer, seed: UInt32
    ) -> UInt32 {
        let head = envelope.loadUnaligned(as: UInt64.self)
        let words = (UInt64(units).littleEndian, order.littleEndian, location.littleEndian, head)
        return withUnsafeBytes(of: words) { apus_crc32c(seed, $0.baseAddress, $0.count) }
    }

    /// Writes the header of the image at `location`, whose envelope stands behind `place` already.
    static func store(at place: UnsafeMutableRawPointer, units: Int, order: UInt64, location: UInt64, seed: UInt32) {
        let length = UInt32(units)
        place.storeLittleEndian(check(length, order, location, place + byteCount, seed: seed))
        place.storeLittleEndian(order, at: 8)
        apus_store_release_u32(place + 4, length.littleEndian)
    }

    /// The header at `place`, if an image of at most `unitsMax` units was begun behind it.
    init?(_ place: UnsafeRawPointer, location: UInt64, seed: UInt32, unitsMax: Int) {
        let word = UInt32(littleEndian: apus_load_acquire_u32(place + 4))
        let length = word & ~ImageHeader.releasedBit
        guard length > 1, Int(length) <= unitsMax, ImageHeader.isEnvelope(place + ImageHeader.byteCount, units: Int(length))
        else { return nil }
        order = place.littleEndian(UInt64.self, at: 8)
        let check = ImageHeader.check(length, order, location, place + ImageHeader.byteCount, seed: seed)
        guard place.littleEndian(UInt32.self) == check else { return nil }
        units = Int(length)
        isReleased = word != length
    }

    /// Whether an envelope of so many units may begin here. Most bytes of chance are told from one without a checksum.
    private static func isEnvelope(_ place: UnsafeRawPointer, units: Int) -> Bool {
        place.littleEndian(UInt32.self) >> 28 == UInt32(Envelope.format)
            && Envelope.storedByteCount(Envelope.byteCount(at: place)) == units * BlockSpace.unitSize
    }

    /// The image behind `place` was released.
    static func release(at place: UnsafeMutableRawPointer) {
        let word = UInt32(littleEndian: apus_load_acquire_u32(place + 4))
        apus_store_release_u32(place + 4, (word | releasedBit).littleEndian)
    }
}
