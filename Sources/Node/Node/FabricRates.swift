// How fast the fabric is used, by what for: from counters, over the last interval of the ticker.
internal import Base
internal import Membership
internal import Synchronization

/// Bytes per second. Written by the control thread, read by any.
final class FabricRates: Sendable {
    private struct Interval {
        var traffic = FabricTraffic()
        var end: Instant?
        var rates = FabricTraffic()
    }
    private let interval = Mutex(Interval())

    /// What was sent and received in a second of the last interval; 0 before the first has ended.
    var rates: FabricTraffic { interval.withLock { $0.rates } }

    /// An interval ends, with this since the start.
    func sample(_ traffic: FabricTraffic, at now: Instant) {
        interval.withLock { interval in
            defer { (interval.traffic, interval.end) = (traffic, now) }
            guard let begin = interval.end else { return }
            let nanoseconds = max(now.nanoseconds(since: begin), 1)
            func rate(_ counter: KeyPath<FabricTraffic, UInt64>) -> UInt64 {
                let bytes = traffic[keyPath: counter] &- interval.traffic[keyPath: counter]
                return UInt64(Double(bytes) * 1e9 / Double(nanoseconds))
            }
            interval.rates.controlSent = rate(\.controlSent)
            interval.rates.controlReceived = rate(\.controlReceived)
            interval.rates.metadataSent = rate(\.metadataSent)
            interval.rates.metadataReceived = rate(\.metadataReceived)
        }
    }
}
