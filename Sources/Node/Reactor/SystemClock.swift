package import Base
internal import CReactor

/// The clocks of this machine. Shells read them; everything below gets the time as an argument.
package enum SystemClock {
    /// Both clocks now.
    package static func now() -> TurnTime {
        TurnTime(
            monotonic: monotonic(), wall: RecordTime(unixMilliseconds: apus_wall_nanoseconds() / 1_000_000))
    }

    /// The monotonic clock now.
    package static func monotonic() -> Instant { Instant(nanoseconds: apus_monotonic_nanoseconds()) }
}
