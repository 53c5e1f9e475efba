// Numbers that say in which order images were written. Invariants:
// 1. A number is given once, over all sessions: each session begins at the floor that the one before had.
// 2. No image has a number as high as the floor, and the floor lasts before it is counted on.
internal import CBase

/// See the invariants above. Any thread.
package final class ImageOrders: @unchecked Sendable {
    /// Numbers that one floor allows.
    package static let step: UInt64 = 1 << 32
    /// Word 0: the next number; word 8: the floor.
    private let words: UnsafeMutablePointer<UInt64>
    private let raise: @Sendable (_ floor: UInt64) -> Void

    /// Goes on from `next`; `raise` makes a higher floor last, on any thread, without blocking.
    package init(next: UInt64, floor: UInt64, raise: @escaping @Sendable (UInt64) -> Void) {
        self.raise = raise
        words = .allocate(capacity: 16)
        words.initialize(repeating: 0, count: 16)
        words[0] = next
        words[8] = floor
    }

    deinit { words.deallocate() }

    /// The number that comes next.
    package var next: UInt64 { apus_load_acquire_u64(words) }

    /// A number of the caller's own.
    func take() -> UInt64 {
        let number = apus_fetch_add_u64(words, 1)
        if number >= apus_load_acquire_u64(words + 8) {
            let floor = number + ImageOrders.step
            raise(floor)
            var known = apus_load_acquire_u64(words + 8)
            while known < floor, !apus_compare_exchange_u64(words + 8, known, floor) {
                known = apus_load_acquire_u64(words + 8)
            }
        }
        return number
    }
}
