/// When and under whom a write was made: regime (24 bits; counts the takeovers of a partition along its line)
/// and 40 bits of the view key under which its acting master took office. (epoch, last update, generation) is
/// the name of a write: equal names mean equal bytes. A single node writes epochs too, under a view of its
/// own.
public struct Epoch: Hashable, Sendable, BitwiseCopyable {
    /// Regime in the upper 24 bits, view key in the lower 40.
    public let rawValue: UInt64

    /// Wraps the 64 bits as they are stored.
    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Joins a regime and the lower 40 bits of a view key.
    @inlinable
    public init(regime: UInt32, viewKey: UInt64) {
        rawValue = UInt64(regime & 0xFF_FFFF) << 40 | viewKey & 0xFF_FFFF_FFFF
    }

    /// The takeover count, 24 bits.
    @inlinable
    public var regime: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 40) }

    /// The lower 40 bits of the view key.
    @inlinable
    public var viewKey: UInt64 { rawValue & 0xFF_FFFF_FFFF }
}
