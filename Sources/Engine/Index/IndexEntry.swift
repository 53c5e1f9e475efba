package import Base

/// What an entry stands for.
package enum RecordKind: UInt8, Sendable, BitwiseCopyable {
    case live, tombstone, raiderTombstone, xdrTombstone, xdrExpiryTombstone, binCemetery
}

/// One index entry: five words, 320 bits. `w0` location 44, size 19 in units of 16 bytes minus one, user key
/// stored 1; `w1` last update 40 in ms since 2010, generation 16, kind 3, came by XDR 1, in a secondary index
/// 1, replication state 2, provisional 1; `w2` void-time 32, set id 12, epoch slot 8, digest 12; `w3`, `w4`
/// digest 128. The other 20 bits of the digest are the partition and the tag.
package struct IndexEntry: BitwiseCopyable, Sendable {
    @usableFromInline var w0: UInt64 = 0
    @usableFromInline var w1: UInt64 = 0
    @usableFromInline var w2: UInt64
    @usableFromInline var w3: UInt64
    @usableFromInline var w4: UInt64

    /// Size in bytes.
    static let byteCount = 40

    /// An entry of a digest with everything else zero.
    @inlinable
    package init(digest: Digest) {
        w2 = IndexEntry.digestBits(digest)
        w3 = digest.low >> 24 | digest.middle << 40
        w4 = digest.middle >> 24 | UInt64(digest.high & 0xFF_FFFF) << 40
    }

    /// The upper 12 bits of `w2`: high half of byte 1, byte 2.
    @usableFromInline
    static func digestBits(_ digest: Digest) -> UInt64 { (digest.low >> 12 & 0xFFF) << 52 }

    /// The 8 bits of the digest that the bucket holds: byte 19.
    static func tag(_ digest: Digest) -> UInt8 { UInt8(truncatingIfNeeded: digest.high >> 24) }

    /// The whole digest again.
    func digest(partition: PartitionID, tag: UInt8) -> Digest {
        Digest(
            low: UInt64(partition.number) | (w2 >> 52) << 12 | w3 << 24,
            middle: w3 >> 40 | w4 << 24, high: UInt32(truncatingIfNeeded: w4 >> 40) | UInt32(tag) << 24)
    }

    @inlinable
    func bits(_ word: UInt64, _ shift: UInt64, _ count: UInt64) -> UInt64 {
        word >> shift & (1 << count - 1)
    }

    @inlinable
    func with(_ word: UInt64, _ shift: UInt64, _ count: UInt64, _ value: UInt64) -> UInt64 {
        precondition(value >> count == 0, "a field of an index entry overflows")
        let mask: UInt64 = (1 << count - 1) << shift
        return word & ~mask | value << shift
    }

    /// Where the backend keeps the image, 44 bits.
    package var location: UInt64 {
        @inlinable get { bits(w0, 0, 44) }
        @inlinable set { w0 = with(w0, 0, 44, newValue) }
    }
    /// Size of the stored image in bytes: a multiple of 16 up to 8 MiB.
    package var byteCount: Int {
        @inlinable get { (Int(bits(w0, 44, 19)) + 1) * Limits.imageUnitSize }
        @inlinable set {
            precondition(newValue > 0 && newValue % Limits.imageUnitSize == 0)
            w0 = with(w0, 44, 19, UInt64(newValue / Limits.imageUnitSize - 1))
        }
    }
    /// The user key is in the image.
    package var isKeyStored: Bool {
        @inlinable get { bits(w0, 63, 1) == 1 }
        @inlinable set { w0 = with(w0, 63, 1, newValue ? 1 : 0) }
    }
    /// Milliseconds since 2010, 40 bits.
    package var lastUpdate: UInt64 {
        @inlinable get { bits(w1, 0, 40) }
        @inlinable set { w1 = with(w1, 0, 40, newValue) }
    }
    package var generation: UInt16 {
        @inlinable get { UInt16(bits(w1, 40, 16)) }
        @inlinable set { w1 = with(w1, 40, 16, UInt64(newValue)) }
    }
    package var kind: RecordKind {
        @inlinable get { RecordKind(rawValue: UInt8(bits(w1, 56, 3))) ?? .live }
        @inlinable set { w1 = with(w1, 56, 3, UInt64(newValue.rawValue)) }
    }
    package var cameByXDR: Bool {
        @inlinable get { bits(w1, 59, 1) == 1 }
        @inlinable set { w1 = with(w1, 59, 1, newValue ? 1 : 0) }
    }
    package var isInSecondaryIndex: Bool {
        @inlinable get { bits(w1, 60, 1) == 1 }
        @inlinable set { w1 = with(w1, 60, 1, newValue ? 1 : 0) }
    }
    package var replicationState: UInt8 {
        @inlinable get { UInt8(bits(w1, 61, 2)) }
        @inlinable set { w1 = with(w1, 61, 2, UInt64(newValue)) }
    }
    package var isProvisional: Bool {
        @inlinable get { bits(w1, 63, 1) == 1 }
        @inlinable set { w1 = with(w1, 63, 1, newValue ? 1 : 0) }
    }
    /// Seconds since 2010, 0 for never.
    package var voidTime: UInt32 {
        @inlinable get { UInt32(bits(w2, 0, 32)) }
        @inlinable set { w2 = with(w2, 0, 32, UInt64(newValue)) }
    }
    /// Local id of the set, 0 for none.
    package var setID: UInt16 {
        @inlinable get { UInt16(bits(w2, 32, 12)) }
        @inlinable set { w2 = with(w2, 32, 12, UInt64(newValue)) }
    }
    /// Place in the partition's table of epochs.
    package var epochSlot: UInt8 {
        @inlinable get { UInt8(bits(w2, 44, 8)) }
        @inlinable set { w2 = with(w2, 44, 8, UInt64(newValue)) }
    }
}

/// An entry with its whole digest.
package struct IndexedRecord: BitwiseCopyable, Sendable {
    package let digest: Digest
    package let entry: IndexEntry

    /// Joins the two; the entry is that of the digest.
    package init(digest: Digest, entry: IndexEntry) {
        self.digest = digest
        self.entry = entry
    }
}
