/// The identity of a record: 20 bytes, the RIPEMD-160 of set name, key particle type and key bytes. Held as
/// three integers in memory order, so comparing and copying cost a few registers and never allocate.
public struct Digest: Hashable, Sendable, BitwiseCopyable {
    /// Number of bytes of a digest on the wire and in an image.
    public static let byteCount = 20

    /// Bytes 0 to 7 in memory order, read as a little-endian integer.
    public let low: UInt64
    /// Bytes 8 to 15 in memory order, read as a little-endian integer.
    public let middle: UInt64
    /// Bytes 16 to 19 in memory order, read as a little-endian integer.
    public let high: UInt32

    /// Makes a digest of its three parts.
    @inlinable
    public init(low: UInt64, middle: UInt64, high: UInt32) {
        self.low = low
        self.middle = middle
        self.high = high
    }

    /// Reads 20 bytes at `bytes`, which need no alignment.
    @inlinable
    public init(_ bytes: UnsafeRawPointer) {
        low = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        middle = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        high = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
    }

    /// Writes the 20 bytes to `bytes`, which need no alignment.
    @inlinable
    public func store(to bytes: UnsafeMutableRawPointer) {
        bytes.storeBytes(of: low.littleEndian, as: UInt64.self)
        bytes.storeBytes(of: middle.littleEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: high.littleEndian, toByteOffset: 16, as: UInt32.self)
    }

    /// The partition of the record, 0 to 4095: the first two bytes, little-endian, modulo 4096.
    @inlinable
    public var partition: PartitionID { PartitionID(UInt16(truncatingIfNeeded: low) & 0x0FFF) }

    /// The byte at `position`, 0 to 19.
    @inlinable
    public subscript(position: Int) -> UInt8 {
        switch position {
        case 0..<8: UInt8(truncatingIfNeeded: low >> (8 * UInt64(position)))
        case 8..<16: UInt8(truncatingIfNeeded: middle >> (8 * UInt64(position - 8)))
        default: UInt8(truncatingIfNeeded: high >> (8 * UInt32(position - 16)))
        }
    }
}

extension Digest: Comparable {
    /// Byte order, first byte first: the order in which queries walk a partition, backwards.
    @inlinable
    public static func < (left: Digest, right: Digest) -> Bool {
        if left.low != right.low { return left.low.byteSwapped < right.low.byteSwapped }
        if left.middle != right.middle { return left.middle.byteSwapped < right.middle.byteSwapped }
        return left.high.byteSwapped < right.high.byteSwapped
    }
}

extension Digest: CustomStringConvertible {
    /// 40 lower-case hexadecimal digits.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: (0..<Digest.byteCount).flatMap { position in
            [digits[Int(self[position] >> 4)], digits[Int(self[position] & 15)]]
        }, as: UTF8.self)
    }
}

extension Digest {
    /// Reads what `description` writes, in either case; nil for anything else.
    public init?(hexadecimal text: String) {
        let digits = text.utf8.compactMap { Character(Unicode.Scalar($0)).hexDigitValue.map { UInt8($0) } }
        guard text.utf8.count == 2 * Digest.byteCount, digits.count == text.utf8.count else { return nil }
        let bytes = stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
        self = bytes.withUnsafeBytes { Digest($0.baseAddress!) }
    }
}

/// One of the 4096 partitions of a namespace.
public struct PartitionID: Hashable, Sendable, BitwiseCopyable {
    /// How many partitions every namespace has.
    public static let count = 4096

    /// 0 to 4095.
    public let number: UInt16

    /// Wraps a number, which must be below 4096.
    @inlinable
    public init(_ number: UInt16) {
        precondition(number < 4096)
        self.number = number
    }
}
