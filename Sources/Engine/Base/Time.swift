/// A point of the monotonic clock in nanoseconds. Orders events and deadlines inside one process; never
/// stored.
public struct Instant: Comparable, Hashable, Sendable, BitwiseCopyable {
    /// Nanoseconds since an arbitrary start of this machine's monotonic clock.
    public var nanoseconds: UInt64

    /// Wraps a count of nanoseconds.
    @inlinable
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Later than all that comes: the deadline of what has none.
    @inlinable
    package static var never: Instant { Instant(nanoseconds: .max) }

    /// Earlier than.
    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }

    /// The instant `milliseconds` later.
    @inlinable
    public func advanced(byMilliseconds milliseconds: UInt64) -> Instant {
        Instant(nanoseconds: nanoseconds &+ milliseconds &* 1_000_000)
    }

    /// Nanoseconds since `earlier`, 0 if that is in the future.
    @inlinable
    public func nanoseconds(since earlier: Instant) -> UInt64 {
        nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0
    }
}

/// Wall-clock time in milliseconds since 2010-01-01 00:00 UTC, the epoch of last-update times. 40 bits are
/// stored.
public struct RecordTime: Comparable, Hashable, Sendable, BitwiseCopyable {
    /// Milliseconds since 2010-01-01 00:00 UTC.
    public var milliseconds: UInt64

    /// Unix time of the epoch, in seconds.
    public static let epochUnixSeconds: UInt64 = 1_262_304_000

    /// Wraps a count of milliseconds since 2010.
    @inlinable
    public init(milliseconds: UInt64) { self.milliseconds = milliseconds }

    /// The latest time that an index entry can hold, in November 2044.
    public static let latestMilliseconds: UInt64 = 1 << 40 - 1

    /// Converts from Unix time; times before 2010 become 0, those that an entry cannot hold the latest it can.
    @inlinable
    public init(unixMilliseconds: UInt64) {
        let epoch = RecordTime.epochUnixSeconds * 1000
        milliseconds = unixMilliseconds > epoch ? min(unixMilliseconds - epoch, RecordTime.latestMilliseconds) : 0
    }

    /// Earlier than.
    @inlinable
    public static func < (left: RecordTime, right: RecordTime) -> Bool { left.milliseconds < right.milliseconds }

    /// Whole seconds since 2010: the unit of void-times.
    @inlinable
    public var seconds: UInt32 { UInt32(truncatingIfNeeded: milliseconds / 1000) }
}

/// The two clocks as one reading, taken once per reactor turn and handed down: nothing below a shell reads a
/// clock.
public struct TurnTime: Sendable, BitwiseCopyable {
    /// Monotonic: deadlines and latencies.
    public var monotonic: Instant
    /// Wall clock: last-update and void-times.
    public var wall: RecordTime

    /// Joins two readings.
    @inlinable
    public init(monotonic: Instant, wall: RecordTime) {
        self.monotonic = monotonic
        self.wall = wall
    }
}
