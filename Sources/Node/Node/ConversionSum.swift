internal import Base
internal import Storage

/// What a pass has seen: records, bytes, and a sum over (digest, checksum of the image) that does not depend on the order.
struct ConversionSum: Equatable {
    private(set) var records = 0
    private(set) var bytes = 0
    private(set) var value: UInt64 = 0

    /// Counts a whole image whose checksum is known to fit.
    mutating func add(_ digest: Digest, _ image: UnsafeRawBufferPointer) {
        records += 1
        bytes += image.count
        let checksum = UInt64(image.baseAddress!.littleEndian(UInt32.self, at: 4))
        value &+= ConversionSum.mixed(digest.low ^ ConversionSum.mixed(digest.middle ^ UInt64(digest.high) << 32 ^ checksum))
    }

    /// Spreads every bit over all, so that differences of two records do not cancel out (the finaliser of SplitMix64).
    private static func mixed(_ bits: UInt64) -> UInt64 {
        var bits = bits &+ 0x9E37_79B9_7F4A_7C15
        bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
        return bits ^ bits >> 31
    }

    /// 16 hexadecimal digits.
    var checksum: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// The image of `digest` that `bytes` begin with; nil if they are not what was written.
    static func image(in bytes: UnsafeRawBufferPointer, of digest: Digest) -> UnsafeRawBufferPointer? {
        guard bytes.count >= Envelope.byteCount, let base = bytes.baseAddress else { return nil }
        let byteCount = Envelope.byteCount(at: base)
        guard byteCount <= bytes.count else { return nil }
        let image = UnsafeRawBufferPointer(rebasing: bytes[..<byteCount])
        return Envelope.fits(image, digest: digest) && Envelope.checksumFits(image) ? image : nil
    }
}
