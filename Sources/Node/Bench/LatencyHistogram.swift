/// Counts of latencies in nanoseconds: buckets of 1/64 of a power of two, so every figure is right to 1.6 %.
/// HdrHistogram's C library would be another shared object that every production node needs for the sake of a
/// benchmark.
struct LatencyHistogram: Sendable {
    private static let subBits: UInt64 = 6
    private var counts = [UInt64](repeating: 0, count: 64 << 6)
    private(set) var total: UInt64 = 0
    private(set) var maximum: UInt64 = 0

    mutating func record(_ nanoseconds: UInt64) {
        counts[LatencyHistogram.bucket(nanoseconds)] += 1
        total += 1
        maximum = max(maximum, nanoseconds)
    }

    mutating func add(_ other: LatencyHistogram) {
        for bucket in counts.indices { counts[bucket] += other.counts[bucket] }
        total += other.total
        maximum = max(maximum, other.maximum)
    }

    /// The latency that `percent` of all are not above.
    func percentile(_ percent: Double) -> UInt64 {
        guard total > 0 else { return 0 }
        let wanted = max(1, UInt64((Double(total) * percent / 100).rounded(.up)))
        var seen: UInt64 = 0
        for bucket in counts.indices {
            seen += counts[bucket]
            if seen >= wanted { return min(LatencyHistogram.upperEnd(bucket), maximum) }
        }
        return maximum
    }

    static func bucket(_ value: UInt64) -> Int {
        guard value >= 1 << subBits else { return Int(value) }
        let exponent = UInt64(63 - value.leadingZeroBitCount) - subBits
        return Int((exponent + 1) << subBits + (value >> exponent) & (1 << subBits - 1))
    }

    static func upperEnd(_ bucket: Int) -> UInt64 {
        let bucket = UInt64(bucket)
        guard bucket >= 1 << subBits else { return bucket }
        let exponent = bucket >> subBits - 1
        return ((1 << subBits | bucket & (1 << subBits - 1)) + 1) << exponent - 1
    }
}
