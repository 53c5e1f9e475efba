public import Base

/// The envelope around every stored image: 28 bytes that any backend may read, in front of a payload that
/// none may look into (it is compressed and encrypted as the namespace says). Format 2, little-endian:
///
///     0  u32  bits 0-23: byte count of envelope and payload
///             bits 24-27: flags, 0 (for compression and encryption, when those come)
///             bits 28-31: format of the envelope, 2
///     4  u32  CRC32C of everything behind this field (bytes 8 to the end)
///     8  20   digest
///     28      payload
///
/// A log backend finds its way through a block by it; a keyed backend can ignore it. What a backend writes among
/// envelopes for itself can begin with a u32 whose top four bits are 10 to 15: no envelope ever will.
public enum Envelope {
    /// Size in bytes.
    public static let byteCount = 28
    /// Most bytes of envelope and payload together.
    public static let imageSizeMax = 1 << 24 - 1
    /// Format written.
    public static let format: UInt8 = 2

    /// The first word of an image of `byteCount` bytes.
    @inlinable
    static func head(_ byteCount: Int) -> UInt32 { UInt32(format) << 28 | UInt32(truncatingIfNeeded: byteCount) }

    /// Writes the envelope of an image whose payload already stands behind it; `image` spans both and has at most
    /// `imageSizeMax` bytes.
    @inlinable
    public static func seal(_ image: UnsafeMutableRawBufferPointer, digest: Digest) {
        precondition(image.count >= byteCount && image.count <= imageSizeMax)
        let base = image.baseAddress!
        base.storeLittleEndian(head(image.count))
        digest.store(to: base + 8)
        base.storeLittleEndian(crc32c(UnsafeRawBufferPointer(rebasing: image[8...])), at: 4)
    }

    /// The size an image of `byteCount` bytes is stored and accounted with: whole units.
    @inlinable
    public static func storedByteCount(_ byteCount: Int) -> Int {
        (byteCount + Limits.imageUnitSize - 1) / Limits.imageUnitSize * Limits.imageUnitSize
    }

    /// The byte count that the envelope at `bytes` claims, whatever its format and flags say.
    @inlinable
    public static func byteCount(at bytes: UnsafeRawPointer) -> Int {
        Int(bytes.littleEndian(UInt32.self)) & imageSizeMax
    }

    /// The digest in the envelope at `bytes`.
    @inlinable
    public static func digest(at bytes: UnsafeRawPointer) -> Digest { Digest(bytes + 8) }

    /// Whether `image` is a whole envelope of `digest` with payload, of a format and with flags that are known.
    /// Cheap: no checksum.
    @inlinable
    public static func fits(_ image: UnsafeRawBufferPointer, digest: Digest) -> Bool {
        guard image.count >= byteCount, image.count <= imageSizeMax, let base = image.baseAddress else { return false }
        return base.littleEndian(UInt32.self) == head(image.count) && self.digest(at: base) == digest
    }

    /// Whether the stored checksum is that of the bytes; call `fits` first.
    @inlinable
    public static func checksumFits(_ image: UnsafeRawBufferPointer) -> Bool {
        image.baseAddress!.littleEndian(UInt32.self, at: 4) == crc32c(UnsafeRawBufferPointer(rebasing: image[8...]))
    }
}
