// When memory that one thread has given up can no longer be in use by another. Invariants:
// 1. A member that is in a turn has written down the epoch in which the turn began; one that sleeps has written
//    `asleep`.
// 2. What was retired in epoch e is out of everybody's reach as soon as `oldest` is at least e.
internal import CBase

/// Epochs of threads that work in turns and hold on to shared things within a turn only. Any thread, except that a
/// member's turns are told by its own.
package final class TurnEpochs: @unchecked Sendable {
    /// Most members.
    package static let membersMax = 1024
    private static let asleep = UInt64.max
    private static let wordsPerLine = 8
    // Line 0: epoch; line 1: how many members there are; then a line for each member.
    private let words: UnsafeMutablePointer<UInt64>

    /// Nobody is a member.
    package init() {
        let count = (2 + TurnEpochs.membersMax) * TurnEpochs.wordsPerLine
        words = .allocate(capacity: count)
        words.initialize(repeating: TurnEpochs.asleep, count: count)
        words[0] = 1
        words[TurnEpochs.wordsPerLine] = 0
    }

    deinit { words.deallocate() }

    private func line(_ member: Int) -> UnsafeMutablePointer<UInt64> { words + (2 + member) * TurnEpochs.wordsPerLine }

    /// A new member, asleep; nil if there are `membersMax`.
    package func join() -> Int? {
        let number = Int(apus_fetch_add_u64(words + TurnEpochs.wordsPerLine, 1))
        guard number < TurnEpochs.membersMax else {
            apus_fetch_add_u64(words + TurnEpochs.wordsPerLine, 0 &- 1)
            return nil
        }
        return number
    }

    /// The member begins a turn: it sees nothing that was retired before.
    @inline(__always)
    package func turnBegan(_ member: Int) {
        apus_store_release_u64(line(member), apus_load_acquire_u64(words))
        apus_fence()
    }

    /// The member waits for events and holds nothing.
    package func fellAsleep(_ member: Int) { apus_store_release_u64(line(member), TurnEpochs.asleep) }

    /// Something is out of use from now on; the epoch to compare with `oldest`.
    package func retire() -> UInt64 { apus_fetch_add_u64(words, 1) + 1 }

    /// The epoch in which the oldest turn that is not over began.
    package var oldest: UInt64 {
        apus_fence()
        var oldest = TurnEpochs.asleep
        let count = min(Int(apus_load_acquire_u64(words + TurnEpochs.wordsPerLine)), TurnEpochs.membersMax)
        for member in 0..<count {
            oldest = min(oldest, apus_load_acquire_u64(line(member)))
        }
        return oldest
    }
}
