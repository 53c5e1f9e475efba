// What one shard has done. An object of its own: whoever adds up all shards must not keep them.
internal import CBase

/// Changed by its shard only, read by any thread.
final class ShardFigures: @unchecked Sendable {
    enum Figure: Int {
        /// What the shard appended less what it released, headers included: only the sum over all shards means something.
        case liveBytes = 0
        case movedImages
        case compactedBlocks
    }

    private let words: UnsafeMutablePointer<UInt64>

    init() {
        words = .allocate(capacity: 8)
        words.initialize(repeating: 0, count: 8)
    }

    deinit { words.deallocate() }

    @inline(__always)
    func add(_ figure: Figure, _ amount: Int) {
        let word = words + figure.rawValue
        apus_store_relaxed_u64(word, apus_load_relaxed_u64(word) &+ UInt64(bitPattern: Int64(amount)))
    }

    subscript(figure: Figure) -> Int64 { Int64(bitPattern: apus_load_relaxed_u64(words + figure.rawValue)) }
}
