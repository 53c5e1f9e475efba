// The histograms that the info command `histogram` shows, for the namespace and each of its sets, filled by a pass.
internal import Base
internal import Index

/// Which histogram.
package enum HistogramKind: String, CaseIterable, Sendable {
    /// Seconds left to live.
    case timeToLive = "ttl"
    /// Bytes of records, powers of two.
    case objectSize = "object-size"
    /// Bytes of records, buckets of one width.
    case objectSizeLinear = "object-size-linear"

    /// How many buckets it has.
    var bucketCount: Int {
        switch self {
        case .timeToLive: 100
        case .objectSize: 25
        case .objectSizeLinear: 1024
        }
    }
}

/// What one pass counts into: the same for all reactors.
package struct HistogramScale: Sendable, BitwiseCopyable, Equatable {
    package let timeToLive: VoidTimeScale
    /// Bytes of a bucket of `objectSizeLinear`.
    package let sizeWidth: Int
    /// The set with the highest number that is counted by itself.
    package let setCount: Int

    /// Times to live from `now` to `highestVoidTime`, sizes up to `recordSizeMax`.
    package init(now: UInt32, highestVoidTime: UInt32, recordSizeMax: Int, setCount: Int) {
        timeToLive = VoidTimeScale(low: now, high: highestVoidTime, count: HistogramKind.timeToLive.bucketCount)
        let count = HistogramKind.objectSizeLinear.bucketCount
        sizeWidth = max((recordSizeMax + count - 1) / count, 1)
        self.setCount = setCount
    }

    static let wordsPerSet = HistogramKind.allCases.reduce(0) { $0 + $1.bucketCount }

    static func offset(_ kind: HistogramKind) -> Int {
        switch kind {
        case .timeToLive: 0
        case .objectSize: HistogramKind.timeToLive.bucketCount
        case .objectSizeLinear: HistogramKind.timeToLive.bucketCount + HistogramKind.objectSize.bucketCount
        }
    }

    /// Bucket of the powers of two: [0, 1), [1, 2), [2, 4) and so on.
    static func power(_ bytes: Int) -> Int {
        min(Int.bitWidth - bytes.leadingZeroBitCount, HistogramKind.objectSize.bucketCount - 1)
    }
}

/// Counts of one pass: on one reactor while it fills them, over all when it is over.
package final class RecordHistograms: @unchecked Sendable {
    package let scale: HistogramScale
    // For each set, and before them for records without one: the buckets of all kinds.
    private let words: UnsafeMutablePointer<UInt32>
    private let wordCount: Int

    init(_ scale: HistogramScale) {
        self.scale = scale
        wordCount = (scale.setCount + 1) * HistogramScale.wordsPerSet
        words = .allocate(capacity: wordCount)
        words.initialize(repeating: 0, count: wordCount)
    }

    deinit { words.deallocate() }

    /// Counts one record. Records of sets that were made since are left out.
    @inline(__always)
    func add(_ entry: UnsafePointer<IndexEntry>) {
        let set = Int(entry.pointee.setID)
        guard set <= scale.setCount else { return }
        let row = words + set * HistogramScale.wordsPerSet
        let voidTime = entry.pointee.voidTime
        if voidTime > 0 { row[scale.timeToLive.place(voidTime)] &+= 1 }
        let bytes = entry.pointee.byteCount
        row[HistogramScale.offset(.objectSize) + HistogramScale.power(bytes)] &+= 1
        let linear = min(bytes / scale.sizeWidth, HistogramKind.objectSizeLinear.bucketCount - 1)
        row[HistogramScale.offset(.objectSizeLinear) + linear] &+= 1
    }

    /// Adds what another reactor has counted.
    func add(_ other: RecordHistograms) {
        precondition(scale == other.scale)
        for place in 0..<wordCount { words[place] &+= other.words[place] }
    }

    /// The counts of a set, or of the whole namespace without one.
    package func counts(_ kind: HistogramKind, set: UInt16?) -> [UInt64] {
        let sets = set.map { Int($0)...Int($0) } ?? 0...scale.setCount
        var sum = [UInt64](repeating: 0, count: kind.bucketCount)
        for set in sets where set <= scale.setCount {
            let row = words + set * HistogramScale.wordsPerSet + HistogramScale.offset(kind)
            for place in 0..<kind.bucketCount { sum[place] += UInt64(row[place]) }
        }
        return sum
    }

    /// As the info command prints it.
    package func text(_ kind: HistogramKind, set: UInt16?) -> String {
        let counts = counts(kind, set: set)
        let list = counts.map { "\($0)" }.joined(separator: ",")
        switch kind {
        case .timeToLive:
            let width = UInt64(scale.timeToLive.width)
            return "units=seconds:hist-width=\(width * UInt64(counts.count)):bucket-width=\(width):buckets=\(list)"
        case .objectSizeLinear:
            return "units=bytes:hist-width=\(scale.sizeWidth * counts.count):bucket-width=\(scale.sizeWidth):buckets=\(list)"
        case .objectSize:
            let buckets = counts.indices.filter { counts[$0] > 0 }.map { place in
                let low = place == 0 ? 0 : 1 << (place - 1)
                let high = place == counts.count - 1 ? "inf" : RecordHistograms.short(1 << place)
                return "[\(RecordHistograms.short(low))-\(high))=\(counts[place])"
            }
            return (["units=bytes"] + buckets).joined(separator: ":")
        }
    }

    /// A power of two with the letter that makes it short.
    private static func short(_ bytes: Int) -> String {
        var number = bytes
        var letter = 0
        while number >= 1024, letter < 6 {
            number /= 1024
            letter += 1
        }
        return "\(number)" + ["", "K", "M", "G", "T", "P", "E"][letter]
    }
}
