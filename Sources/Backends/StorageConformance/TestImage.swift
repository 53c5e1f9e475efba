// What the kit appends. The bytes of an image follow from the number of its digest, its version and its size, so that any
// bytes a backend gives back can be told right or wrong without keeping a copy.
internal import Base
internal import Storage

enum TestImage {
    /// Envelope, version, and one word of content.
    static let byteCountMin = Envelope.byteCount + 16
    private static let versionOffset = Envelope.byteCount

    /// A digest of its own for each small number; neighbours are in different partitions.
    static func digest(_ number: Int) -> Digest {
        let high = UInt32(truncatingIfNeeded: number) &* 0x0101
        return Digest(low: mixed(UInt64(number)), middle: mixed(~UInt64(number)), high: high)
    }

    /// The number whose digest this is; nil if there is none.
    static func number(of digest: Digest) -> Int? {
        let number = Int(digest.high / 0x0101)
        return self.digest(number) == digest ? number : nil
    }

    /// Writes the image of `number` at `version` over all of `bytes`.
    static func write(_ number: Int, version: UInt64, to bytes: UnsafeMutableRawBufferPointer) {
        fill(bytes, number, version)
        Envelope.seal(bytes, digest: digest(number))
    }

    /// The image of `number` at `version`, `byteCount` bytes with its envelope.
    static func make(_ number: Int, version: UInt64, byteCount: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        bytes.withUnsafeMutableBytes { write(number, version: version, to: $0) }
        return bytes
    }

    /// The version that an image says it is; nil if it is too short to say.
    static func version(in image: UnsafeRawBufferPointer) -> UInt64? {
        guard image.count >= byteCountMin, let base = image.baseAddress else { return nil }
        return base.littleEndian(UInt64.self, at: versionOffset)
    }

    /// Whether `image` is that of `number` at `version` with `byteCount` bytes; it may have up to a unit's rest behind.
    static func isRight(_ image: UnsafeRawBufferPointer, _ number: Int, version: UInt64, byteCount: Int) -> Bool {
        guard image.count >= byteCount, image.count <= Envelope.storedByteCount(byteCount) else { return false }
        let wanted = make(number, version: version, byteCount: byteCount)
        return wanted.withUnsafeBytes { $0.equals(UnsafeRawBufferPointer(rebasing: image[..<byteCount])) }
    }

    /// Bytes for a blob, from a number.
    static func content(_ salt: UInt64, byteCount: Int) -> [UInt8] {
        var word = mixed(salt)
        return (0..<byteCount).map { place in
            if place % 8 == 0 { word = mixed(word) }
            return UInt8(truncatingIfNeeded: word >> UInt64(place % 8 * 8))
        }
    }

    private static func fill(_ image: UnsafeMutableRawBufferPointer, _ number: Int, _ version: UInt64) {
        guard let base = image.baseAddress else { return }
        base.initializeMemory(as: UInt8.self, repeating: 0, count: Envelope.byteCount)
        var word = mixed(UInt64(number) &* 0x1_0000_0001 &+ version)
        base.storeLittleEndian(version, at: versionOffset)
        var offset = versionOffset + 8
        while offset + 8 <= image.count {
            base.storeLittleEndian(word, at: offset)
            word = word &* 0x5851_F42D_4C95_7F2D &+ 0x1405_7B7E_F767_814F
            offset += 8
        }
        while offset < image.count {
            image[offset] = UInt8(truncatingIfNeeded: word >> UInt64(image.count - offset))
            offset += 1
        }
    }

    /// Spreads a number over 64 bits.
    static func mixed(_ number: UInt64) -> UInt64 {
        var random = SeededRandom(seed: number)
        return random.next()
    }
}
