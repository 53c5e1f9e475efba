// The two clocks of one simulated machine. Invariants:
// 1. The monotonic clock never goes back; it may run a little fast or slow, and stands while the machine is suspended.
// 2. The wall clock may be anywhere and may step.
internal import Base

/// Clocks of one machine. They survive its processes.
struct NodeClock {
    /// What the monotonic clock showed at virtual time 0.
    private var offset: UInt64
    /// Parts in a million that it runs fast (or slow, below 0).
    private let drift: Int64
    private var wallOffsetMilliseconds: Int64
    /// Virtual time at which the machine was suspended. Nobody reads the clock until it goes on.
    private var stoodSince: UInt64?
    /// 2026-01-01, in milliseconds since 2010.
    private static let wallBegin: Int64 = 504_921_600_000

    init(offset: UInt64, driftPartsPerMillion drift: Int, wallOffsetMilliseconds: Int64) {
        self.offset = offset
        self.drift = Int64(drift)
        self.wallOffsetMilliseconds = wallOffsetMilliseconds
    }

    func monotonic(_ virtual: UInt64) -> UInt64 {
        UInt64(Int64(offset) + Int64(virtual) + Int64(virtual / 1000) * drift / 1000)
    }

    func reading(_ virtual: UInt64) -> TurnTime {
        let wall = NodeClock.wallBegin + Int64(virtual / 1_000_000) + wallOffsetMilliseconds
        return TurnTime(
            monotonic: Instant(nanoseconds: monotonic(virtual)),
            wall: RecordTime(milliseconds: UInt64(max(0, wall))))
    }

    /// The first virtual time at which the monotonic clock shows `deadline` or more; nil if that is out of reach.
    func virtual(_ deadline: Instant) -> UInt64? {
        guard deadline.nanoseconds < 1 << 62 else { return nil }
        guard deadline.nanoseconds > offset else { return 0 }
        let local = deadline.nanoseconds - offset
        var virtual = UInt64(Int64(local) - Int64(local / 1000) * drift / (1000 + drift / 1000))
        // The quotient is rounded: a few steps lead to the first moment that is not too early.
        while monotonic(virtual) < deadline.nanoseconds {
            virtual += max(1, (deadline.nanoseconds - monotonic(virtual)) / 2)
        }
        return virtual
    }

    mutating func stepWall(milliseconds: Int64) { wallOffsetMilliseconds += milliseconds }

    /// The machine is suspended at this virtual time.
    mutating func stands(at virtual: UInt64) { stoodSince = virtual }

    /// It goes on, perhaps earlier than was planned: the monotonic clock shows what it showed when it stood still.
    mutating func goesOn(at virtual: UInt64) {
        guard let since = stoodSince else { return }
        offset -= monotonic(virtual) - monotonic(since)
        stoodSince = nil
    }
}
