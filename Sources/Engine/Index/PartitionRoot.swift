// Where the buckets of a partition are. A root lies in the bucket arena:
//
//     0   u64  level (upper half), split (lower half): the partition has 4 * 2^level + split buckets
//     8   u32  segments: number of the first 64-byte line of each
//
// Segment 0 holds buckets 0 to 3. Each doubling of the bucket count adds four segments, so that memory grows
// in steps of a quarter of a doubling.
internal import Base
internal import CBase

package enum Root {
    static let byteCount = 384
    package static let segmentsMax = 81
    static let firstBuckets = 4
    /// Level of a partition that has all its segments.
    static let levelMax = 20

    /// The bits of a digest that choose its bucket, most significant first: high half of byte 1, then bytes 2
    /// to 7. Descending order of these 52 bits (at the top of the word) is descending byte order of digests.
    @inline(__always)
    static func sortKey(_ digest: Digest) -> UInt64 {
        let bigEndian = digest.low.byteSwapped
        return (bigEndian >> 52 & 0xF) << 60 | (bigEndian << 16) >> 4
    }

    /// The sort key of an entry.
    @inline(__always)
    static func sortKey(_ entry: UnsafePointer<IndexEntry>) -> UInt64 {
        // w2 has (high half of byte 1) | byte 2 << 4 in its top 12 bits; w3 begins with byte 3.
        let top = entry.pointee.w2 >> 52
        return (top & 0xF) << 60 | (top >> 4) << 52 | (entry.pointee.w3.byteSwapped >> 24) << 12
    }

    /// The bucket of a sort key in a partition that has `4 * 2^level + split` buckets.
    @inline(__always)
    static func bucket(_ sortKey: UInt64, _ state: UInt64) -> Int {
        let shift = (state >> 32) + 2
        let split = state & 0xFFFF_FFFF
        let reversed = apus_reverse_bits(sortKey)
        let wide = reversed & (2 << shift - 1)
        return Int(wide < 1 << shift + split ? wide : reversed & (1 << shift - 1))
    }

    /// How many buckets a state stands for.
    static func bucketCount(_ state: UInt64) -> Int { firstBuckets << Int(state >> 32) + Int(state & 0xFFFF_FFFF) }

    /// Segment of a bucket and its place in there.
    @inline(__always)
    static func segment(_ bucket: Int) -> (number: Int, place: Int) {
        guard bucket >= firstBuckets else { return (0, bucket) }
        let doubling = 61 - bucket.leadingZeroBitCount
        return (1 + 4 * doubling + (bucket >> doubling & 3), bucket & (1 << doubling - 1))
    }

    /// How many buckets a segment holds.
    static func buckets(inSegment number: Int) -> Int { number == 0 ? firstBuckets : 1 << ((number - 1) / 4) }
}
