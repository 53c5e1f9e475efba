/// Requests at a fixed rate: the n-th is due n intervals after the beginning, whatever became of those before it. Latencies
/// count from there: a server that falls behind is not asked less, and what waited for it is not forgotten.
package struct Pace {
    private let intervalNanoseconds: Double
    private let begun: UInt64
    private var taken = 0.0

    /// `operationsPerSecond` is above 0; `begun` is nanoseconds of a clock.
    package init(operationsPerSecond: Double, begun: UInt64) {
        intervalNanoseconds = 1e9 / operationsPerSecond
        self.begun = begun
    }

    /// When the next request is due, nanoseconds of the same clock.
    package var nextNanoseconds: UInt64 { begun + UInt64(taken * intervalNanoseconds) }

    /// When the request that has to go now was due; nil if none has to.
    package mutating func take(_ now: UInt64) -> UInt64? {
        let due = nextNanoseconds
        guard due <= now else { return nil }
        taken += 1
        return due
    }

    /// Nanoseconds until the next one is due.
    package func wait(_ now: UInt64) -> UInt64 { nextNanoseconds > now ? nextNanoseconds - now : 0 }
}
