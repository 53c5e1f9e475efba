public import Base

/// The envelope around every stored image: 32 bytes that any backend may read, in front of a payload that
/// none may look into (it is compressed and encrypted as the namespace says). Format 1, little-endian:
///
///     0  u32  byte count of envelope and payload
///     4  u32  CRC32C of everything behind this field (bytes 8 to the end)
///     8  u8   format of the envelope, 1
///     9  u8   flags, 0 (bits for compression and encryption come with those)
///     10 u16  0
///     12 20   digest
///
/// A log backend finds its way through a block by it; a keyed backend can ignore it.
public enum Envelope {
    /// Size in bytes.
    public static let byteCount = 32
    /// Format written.
    public static let format: UInt8 = 1

    /// Writes the envelope of an image whose payload already stands behind it; `image` spans both.
    @inlinable
    public static func seal(_ image: UnsafeMutableRawBufferPointer, digest: Digest) {
        precondition(image.count >= byteCount)
        let base = image.baseAddress!
        base.storeLittleEndian(UInt32(truncatingIfNeeded: image.count))
        base.storeLittleEndian(UInt32(format), at: 8)
        digest.store(to: base + 12)
        base.storeLittleEndian(crc32c(UnsafeRawBufferPointer(rebasing: image[8...])), at: 4)
    }

    /// The size an image of `byteCount` bytes is stored and accounted with: whole units.
    @inlinable
    public static func storedByteCount(_ byteCount: Int) -> Int {
        (byteCount + Limits.imageUnitSize - 1) / Limits.imageUnitSize * Limits.imageUnitSize
    }

    /// The byte count that the envelope at `bytes` claims.
    @inlinable
    public static func byteCount(at bytes: UnsafeRawPointer) -> Int { Int(bytes.littleEndian(UInt32.self)) }

    /// The digest in the envelope at `bytes`.
    @inlinable
    public static func digest(at bytes: UnsafeRawPointer) -> Digest { Digest(bytes + 12) }

    /// Whether `image` is a whole envelope of `digest` with payload, of a format that is known. Cheap: no
    /// checksum.
    @inlinable
    public static func fits(_ image: UnsafeRawBufferPointer, digest: Digest) -> Bool {
        guard image.count >= byteCount, let base = image.baseAddress else { return false }
        return byteCount(at: base) == image.count && base.load(fromByteOffset: 8, as: UInt8.self) == format
            && self.digest(at: base) == digest
    }

    /// Whether the stored checksum is that of the bytes; call `fits` first.
    @inlinable
    public static func checksumFits(_ image: UnsafeRawBufferPointer) -> Bool {
        image.baseAddress!.littleEndian(UInt32.self, at: 4) == crc32c(UnsafeRawBufferPointer(rebasing: image[8...]))
    }
}
