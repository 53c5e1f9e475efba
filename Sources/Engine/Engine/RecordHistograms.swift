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
    /// Four bytes each, of all reactors together: 64 MiB.
    private static let wordsMax = 1 << 24

    /// Times to live from `now` to `highestVoidTime`, sizes up to `recordSizeMax`. So many sets are counted by themselves,
    /// or as many as there is memory for: 7,300 on one reactor, 440 on each of 32.
    package init(now: UInt32, highestVoidTime: UInt32, recordSizeMax: Int, setCount: Int, reactorCount: Int = 1) {
        timeToLive = VoidTimeScale(low: now, high: highestVoidTime, count: HistogramKind.timeToLive.bucketCount)
        let count = HistogramKind.objectSizeLinear.bucketCount
        sizeWidth = max((recordSizeMax + count - 1) / count, 1)
        let rowsMax = HistogramScale.wordsMax / (reactorCount + 1) / HistogramScale.wordsPerSet
        self.setCount = min(setCount, max(rowsMax - 2, 0))
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

/// Counts of one pass: on one reactor while it fills them, over all when it is over. Made, added up and given back by the
/// control thread, so that no reactor waits for memory.
package final class RecordHistograms: @unchecked Sendable {
    package let scale: HistogramScale
    // The buckets of all kinds for records without a set, for each set, and for all records of sets with higher numbers.
    private let words: UnsafeMutablePointer<UInt32>
    private let wordCount: Int
    /// Over all sets, when the pass is over.
    private var totals = [UInt64](repeating: 0, count: HistogramScale.wordsPerSet)

    init(_ scale: HistogramScale) {
        self.scale = scale
        wordCount = (scale.setCount + 2) * HistogramScale.wordsPerSet
        words = .allocate(capacity: wordCount)
        words.initialize(repeating: 0, count: wordCount)
    }

    deinit { words.deallocate() }

    /// Counts one record. Sets that were made since share the last row.
    @inline(__always)
    func add(_ entry: UnsafePointer<IndexEntry>) {
        let row = words + min(Int(entry.pointee.setID), scale.setCount + 1) * HistogramScale.wordsPerSet
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

    /// All reactors are added: sums up what the whole namespace has. Once, before anybody reads.
    func complete() {
        totals.withUnsafeMutableBufferPointer { totals in
            for first in stride(from: 0, to: wordCount, by: HistogramScale.wordsPerSet) {
                for place in 0..<HistogramScale.wordsPerSet { totals[place] &+= UInt64(words[first + place]) }
            }
        }
    }

    /// Whether the set was counted by itself: it was there when the pass began, and there was memory for it.
    package func holds(set: UInt16) -> Bool { Int(set) <= scale.setCount }

    /// The counts of a set, or of the whole namespace without one. Zeros for a set that it does not hold.
    package func counts(_ kind: HistogramKind, set: UInt16?) -> [UInt64] {
        let offset = HistogramScale.offset(kind)
        guard let set else { return Array(totals[offset..<offset + kind.bucketCount]) }
        guard holds(set: set) else { return [UInt64](repeating: 0, count: kind.bucketCount) }
        let row = words + Int(set) * HistogramScale.wordsPerSet + offset
        return (0..<kind.bucketCount).map { UInt64(row[$0]) }
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
