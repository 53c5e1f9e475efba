// The arithmetic of eviction: how many records die when, and below which void-time enough of them do.
internal import Base

/// Where the buckets of a histogram of void-times lie: `count` buckets of `width` seconds from `low` on. What is below
/// belongs to the first bucket, what is above to the last.
package struct VoidTimeScale: Sendable, BitwiseCopyable, Equatable {
    /// Seconds since 2010.
    package let low: UInt32
    /// Seconds of a bucket, at least 1.
    package let width: UInt32
    package let count: Int

    /// As many buckets as wanted, as narrow as whole seconds allow, so that `high` belongs to the last one at most.
    package init(low: UInt32, high: UInt32, count: Int) {
        precondition(count > 0)
        self.low = low
        width = UInt32(clamping: UInt64(high > low ? high - low : 0) / UInt64(count) + 1)
        self.count = count
    }

    /// The bucket of a void-time.
    @inline(__always)
    package func place(_ voidTime: UInt32) -> Int {
        voidTime <= low ? 0 : min(Int((voidTime - low) / width), count - 1)
    }

    /// The first void-time above a bucket.
    package func end(_ place: Int) -> UInt32 { UInt32(clamping: UInt64(low) + UInt64(place + 1) * UInt64(width)) }
}

extension VoidTimeScale {
    /// Four bytes for each bucket, once for each reactor and twice for the sum: 64 MiB together.
    private static let wordsMax = 1 << 24

    /// How many buckets a pass of so many reactors has, if so many are asked for.
    package static func bucketCount(asked: Int, reactorCount: Int) -> Int {
        max(min(asked, wordsMax / (reactorCount + 2)), 100)
    }
}

/// What a histogram says about eviction.
package enum EvictionChoice: Sendable, Equatable {
    /// Records with lower void-times are to go; there are about so many.
    case below(UInt32, count: UInt64)
    /// Those that die first are too many in one bucket: look closer, at void-times of this range.
    case closer(low: UInt32, high: UInt32)
    /// No record can expire.
    case nothing
    /// More than half of all that can expire dies in the same second: evicting them would be a catastrophe, not relief.
    case tooManyAtOnce(UInt32, count: UInt64)

    /// The void-time below which `tenthsPercent` of the records die, or as many as whole buckets below that hold.
    /// `counts` are those of `scale`, over all reactors.
    package static func choose(_ counts: [UInt64], _ scale: VoidTimeScale, tenthsPercent: UInt32) -> EvictionChoice {
        precondition(counts.count == scale.count)
        let total = counts.reduce(0, +)
        guard total > 0 else { return .nothing }
        let wanted = min(max(total.multipliedReportingOverflow(by: UInt64(tenthsPercent)).partialValue / 1000, 1), total)
        var taken: UInt64 = 0
        for place in 0..<scale.count where counts[place] > 0 {
            guard taken + counts[place] > wanted else {
                taken += counts[place]
                if taken == total { return .below(scale.end(place), count: taken) }
                continue
            }
            if taken > 0 { return .below(firstUntaken(place, scale), count: taken) }
            return alone(place, counts[place], total, scale)
        }
        return .below(scale.end(scale.count - 1), count: taken)
    }

    private static func firstUntaken(_ place: Int, _ scale: VoidTimeScale) -> UInt32 {
        place == 0 ? scale.low : scale.end(place - 1)
    }

    /// The first bucket with records in it holds more than are wanted.
    private static func alone(_ place: Int, _ count: UInt64, _ total: UInt64, _ scale: VoidTimeScale) -> EvictionChoice {
        if scale.width > 1, scale.count > 1 {
            // One second more: what dies later must not share the last bucket that is looked at.
            return .closer(low: firstUntaken(place, scale), high: scale.end(place))
        }
        guard count <= total / 2 else { return .tooManyAtOnce(firstUntaken(place, scale), count: count) }
        return .below(scale.end(place), count: count)
    }
}

/// Counts of void-times on one reactor, which fills them under partition locks; before and after the pass they are the
/// control thread's.
final class VoidTimeCounts: @unchecked Sendable {
    let scale: VoidTimeScale
    private let counts: UnsafeMutablePointer<UInt32>

    init(_ scale: VoidTimeScale) {
        self.scale = scale
        counts = .allocate(capacity: scale.count)
        counts.initialize(repeating: 0, count: scale.count)
    }

    deinit { counts.deallocate() }

    @inline(__always)
    func add(_ voidTime: UInt32) { counts[scale.place(voidTime)] &+= 1 }

    /// All of them, added to `sum`.
    func add(to sum: inout [UInt64]) {
        precondition(sum.count == scale.count)
        sum.withUnsafeMutableBufferPointer { sum in
            for place in 0..<scale.count { sum[place] &+= UInt64(counts[place]) }
        }
    }
}
