internal import CBase
internal import Engine

/// The latency histograms of the last ticker interval: the difference of two samples. Sampled by the control
/// thread, read by any.
final class LatencyHistory: @unchecked Sendable {
    /// One histogram over one interval: counts by bucket, and the interval's length.
    struct Interval: Sendable {
        var counts: [UInt64]
        var seconds: Double
    }
    private struct Sample {
        var totals: [String: [UInt64]]
        var nanoseconds: UInt64
    }
    private let word: UnsafeMutablePointer<UInt32>
    private var previous: Sample?
    private var intervals: [String: Interval] = [:]

    init() {
        word = .allocate(capacity: 1)
        word.initialize(to: 0)
    }

    deinit { word.deallocate() }

    static func name(_ namespace: Namespace, _ kind: LatencyKind) -> String { "{\(namespace.settings.name)}-\(kind.text)" }
    /// The histogram of whole batches.
    static let batchIndex = "batch-index"

    /// Takes a sample; what came since the last one is what `interval` answers from now on.
    func sample(_ namespaces: [Namespace], batches: [BatchCounters], nanoseconds: UInt64) {
        var totals: [String: [UInt64]] = [:]
        totals[LatencyHistory.batchIndex] = (0..<ShardCounters.latencyBuckets).map { bucket in
            batches.reduce(0) { $0 + $1.latencyCount(bucket: bucket) }
        }
        for namespace in namespaces {
            for kind in LatencyKind.allCases {
                totals[LatencyHistory.name(namespace, kind)] = (0..<ShardCounters.latencyBuckets).map { bucket in
                    namespace.counters.reduce(0) { $0 + $1.latencyCount(kind, bucket: bucket) }
                }
            }
        }
        apus_lock(word)
        defer { apus_unlock(word) }
        if let previous {
            let seconds = Double(nanoseconds - previous.nanoseconds) / 1e9
            intervals = totals.mapValues { Interval(counts: $0, seconds: seconds) }
            for (name, old) in previous.totals {
                guard let now = intervals[name]?.counts else { continue }
                intervals[name]?.counts = zip(now, old).map { $0 &- $1 }
            }
        }
        previous = Sample(totals: totals, nanoseconds: nanoseconds)
    }

    /// The last interval of a histogram; nil before the second sample.
    func interval(_ name: String) -> Interval? {
        apus_lock(word)
        defer { apus_unlock(word) }
        return intervals[name]
    }

    /// As `latencies:` prints it: operations per second, then the share in percent above 2^0 ... 2^16 units.
    static func text(_ interval: Interval, microseconds: Bool) -> String {
        let total = interval.counts.reduce(0, +)
        guard total > 0, interval.seconds > 0 else { return "" }
        let shares = (0...16).map { exponent -> String in
            // A millisecond is 2^10 of the buckets' microseconds, 2.4 % too much: the same rounding for every
            // threshold.
            let bucket = exponent + 1 + (microseconds ? 0 : 10)
            let above = interval.counts.dropFirst(bucket).reduce(0, +)
            return fixed(Double(above) * 100 / Double(total), digits: 2)
        }
        let unit = microseconds ? "usec" : "msec"
        return "\(unit),\(fixed(Double(total) / interval.seconds, digits: 1)),\(shares.joined(separator: ","))"
    }
}

/// A number with a fixed count of decimal digits, rounded half up; no Foundation here.
func fixed(_ value: Double, digits: Int) -> String {
    let scale = (0..<digits).reduce(1.0) { product, _ in product * 10 }
    let scaled = UInt64(value * scale + 0.5)
    guard digits > 0 else { return "\(scaled)" }
    let whole = scaled / UInt64(scale)
    let part = "\(scaled % UInt64(scale))"
    return "\(whole)." + String(repeating: "0", count: digits - part.count) + part
}
