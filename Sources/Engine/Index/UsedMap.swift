// One bit for each line or entry of an arena: whether somebody owns it. Several threads claim at once. Invariants:
// 1. A bit goes from 0 to 1 once; who has changed it owns what it stands for.
// 2. Numbers come from bytes that may be damaged: one that is too large is refused like one that is owned.
internal import CBase

/// See the invariants above. A view: who made it releases it, once.
struct UsedMap: BitwiseCopyable, @unchecked Sendable {
    /// Bits.
    let count: Int
    private let words: UnsafeMutableRawPointer
    private let byteCount: Int

    /// All bits 0. Nil without address space.
    init?(count: Int) {
        self.count = count
        byteCount = (count / 64 + 1) * 8
        guard let pages = apus_pages_reserve(byteCount, byteCount >= 2 << 20) else { return nil }
        words = pages
    }

    func release() { apus_pages_release(words, byteCount) }

    /// Makes the caller the owner; false if there is one.
    @inline(__always)
    func claim(_ number: Int) -> Bool {
        guard number >= 0, number < count else { return false }
        return claim(1 << UInt64(number & 63), of: number >> 6)
    }

    /// Makes the caller the owner of several neighbours; false if one of them has an owner, and then the others are lost.
    func claim(from first: Int, count wanted: Int) -> Bool {
        guard first >= 0, wanted > 0, first < count, wanted <= count - first else { return false }
        var number = first
        let end = first + wanted
        while number < end {
            let bits = min(64 - number & 63, end - number)
            let mask: UInt64 = (bits == 64 ? .max : 1 << UInt64(bits) - 1) << UInt64(number & 63)
            guard claim(mask, of: number >> 6) else { return false }
            number += bits
        }
        return true
    }

    @inline(__always)
    private func claim(_ mask: UInt64, of word: Int) -> Bool {
        let address = words + 8 * word
        while true {
            let old = apus_load_relaxed_u64(address)
            guard old & mask == 0 else { return false }
            if apus_compare_exchange_u64(address, old, old | mask) { return true }
        }
    }

    private func freeBits(of word: Int) -> UInt64 {
        let valid = count - word * 64
        return ~apus_load_relaxed_u64(words + 8 * word) & (valid < 64 ? 1 << UInt64(valid) - 1 : .max)
    }

    /// How many have no owner.
    var freeCount: Int { (0..<(count + 63) / 64).reduce(0) { $0 + freeBits(of: $1).nonzeroBitCount } }

    /// Calls `visit` with each number that nobody owns, upwards, and how many came before it.
    func forEachFree(_ visit: (_ place: Int, _ number: Int) -> Void) {
        var place = 0
        for word in 0..<(count + 63) / 64 {
            var free = freeBits(of: word)
            while free != 0 {
                visit(place, word * 64 + free.trailingZeroBitCount)
                free &= free - 1
                place += 1
            }
        }
    }
}
