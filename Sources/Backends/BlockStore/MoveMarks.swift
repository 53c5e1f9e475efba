// Which shards are moving an image now. While one is moved it lies in two places, and after a crash both would be found: a
// commit that has to cover its release waits for the move to end. Invariants:
// 1. A shard's mark is odd from before it asks whether an image lives until one of the two copies is released for good.
// 2. Whoever has released an image looks at the marks behind a fence: a move that begins later finds that it does not live.
internal import Base
internal import CBase

/// See the invariants above. A mark is changed by its own shard only, and read by any thread.
final class MoveMarks: @unchecked Sendable {
    private static let wordsPerLine = 8
    private let words: UnsafeMutablePointer<UInt64>
    /// Shards that were made; they are made before the first of them works.
    private(set) var count = 0

    init() {
        words = .allocate(capacity: TurnEpochs.membersMax * MoveMarks.wordsPerLine)
        words.initialize(repeating: 0, count: TurnEpochs.membersMax * MoveMarks.wordsPerLine)
    }

    /// Number of a new shard.
    func join() -> Int {
        count += 1
        return count - 1
    }

    deinit { words.deallocate() }

    private func word(_ shard: Int) -> UnsafeMutablePointer<UInt64> { words + shard * MoveMarks.wordsPerLine }

    func began(_ shard: Int) {
        apus_store_release_u64(word(shard), apus_load_relaxed_u64(word(shard)) | 1)
        apus_fence()
    }

    func ended(_ shard: Int) { apus_store_release_u64(word(shard), (apus_load_relaxed_u64(word(shard)) | 1) &+ 1) }

    /// The mark of a shard that is moving an image; nil if it is not.
    func current(_ shard: Int) -> UInt64? {
        let mark = apus_load_acquire_u64(word(shard))
        return mark & 1 == 1 ? mark : nil
    }

    /// Whether the move that had this mark is over.
    func isOver(_ shard: Int, _ mark: UInt64) -> Bool { apus_load_acquire_u64(word(shard)) != mark }
}
