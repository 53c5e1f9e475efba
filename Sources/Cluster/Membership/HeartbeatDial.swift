// One stream that this node dials: tried again and again, with back-off, address by address.
internal import Base
internal import Fabric

/// Invariants:
/// 1. A stream is named once; `retryAt` counts only while there is none.
/// 2. `attempts` are those without success in a row. Whether a stream is a success its owner says: that it stands is not
///    enough, the other end may close it when it has read who speaks.
struct Dial: Sendable {
    private(set) var stream: StreamID?
    private(set) var isStanding = false
    /// Of `isStanding`, or of the try.
    private(set) var since = Instant(nanoseconds: 0)
    private(set) var attempts: UInt64 = 0
    private(set) var retryAt = Instant(nanoseconds: 0)
    private var turn = 0

    /// The address to try now, if it is time.
    mutating func begin(_ addresses: [Address], stream: StreamID, now: Instant) -> Address? {
        guard self.stream == nil, retryAt <= now, !addresses.isEmpty else { return nil }
        self.stream = stream
        since = now
        return addresses[turn % addresses.count]
    }

    /// Takes over a stream that stands.
    mutating func adopt(_ stream: StreamID, now: Instant) {
        self.stream = stream
        isStanding = true
        since = now
        attempts = 0
    }

    mutating func stands(now: Instant) {
        isStanding = true
        since = now
    }

    /// Its other end is who it should be.
    mutating func succeeded() { attempts = 0 }

    /// The stream is gone. The first try after a success comes at once.
    mutating func failed(now: Instant, backOff: BackOff, random: inout SeededRandom) {
        let delay = attempts == 0 && isStanding ? 0 : backOff.delay(attempts, random: &random)
        stream = nil
        isStanding = false
        attempts += 1
        turn = (turn + 1) & 0xFFFF
        retryAt = Instant(nanoseconds: now.nanoseconds &+ delay)
    }

    /// From the start, at once.
    mutating func forget(now: Instant) {
        stream = nil
        isStanding = false
        attempts = 0
        retryAt = now
    }
}

/// How long to wait between tries: doubled from `leastMilliseconds` to `mostMilliseconds`, and a quarter more or less by
/// chance, so that nodes that lost each other at one moment do not all come back at one.
struct BackOff: Sendable {
    let leastMilliseconds: UInt64
    let mostMilliseconds: UInt64

    /// Nanoseconds.
    func delay(_ attempts: UInt64, random: inout SeededRandom) -> UInt64 {
        let least = max(leastMilliseconds, 1)
        let milliseconds = max(min(least << min(attempts, 10), mostMilliseconds), 1)
        let base = milliseconds * 1_000_000
        return base - base / 4 + random.next() % (base / 2 + 1)
    }
}
