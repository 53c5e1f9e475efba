// What the reactors and everybody else share about the passes of one kind over a namespace. Invariants:
// 1. A pass is asked for by raising `ordered`; each reactor begins it once, and ends it after its last partition and the
//    last change that it has made. What is ordered while a pass runs is one more pass, however often it was ordered.
// 2. Each reactor writes to its own line only; nobody waits for anybody.
package import Base
internal import CBase

/// What a pass has come to, on one reactor or on all.
package struct SweepFigures: Sendable, BitwiseCopyable, Equatable {
    /// Entries that were looked at.
    package var seen: UInt64 = 0
    /// Those that something was to be done about.
    package var matched: UInt64 = 0
    /// Those that something was done about.
    package var changed: UInt64 = 0
    /// Those that it failed for: another pass is needed.
    package var failed: UInt64 = 0

    package init() {}
}

/// See the invariants above. Any thread reads; `order` by anyone; the rest by the reactor whose line it is.
package final class SweepBoard: @unchecked Sendable {
    /// Reactors that take part.
    package let reactorCount: Int
    private static let lineWords = 8
    private enum Word: Int { case begun, ended, endedAt, seen, matched, changed, failed }
    // Line 0: ordered; then a line for each reactor.
    private let words: UnsafeMutablePointer<UInt64>

    package init(reactorCount: Int) {
        self.reactorCount = reactorCount
        let count = (1 + reactorCount) * SweepBoard.lineWords
        words = UnsafeMutableRawPointer.allocate(byteCount: count * 8, alignment: 64)
            .bindMemory(to: UInt64.self, capacity: count)
        words.initialize(repeating: 0, count: count)
    }

    deinit { words.deallocate() }

    private func word(_ reactor: Int, _ word: Word) -> UnsafeMutablePointer<UInt64> {
        words + (1 + reactor) * SweepBoard.lineWords + word.rawValue
    }

    /// Asks for a pass; its number. What was stored before is seen by whoever begins it.
    @discardableResult
    package func order() -> UInt64 { apus_fetch_add_u64(words, 1) + 1 }

    /// Number of the pass that was asked for last, 0 for none.
    package var ordered: UInt64 { apus_load_acquire_u64(words) }

    /// Whether every reactor has ended `pass` or a later one.
    package func isEnded(_ pass: UInt64) -> Bool {
        (0..<reactorCount).allSatisfy { apus_load_acquire_u64(word($0, .ended)) >= pass }
    }

    /// Whether every reactor has begun `pass` or a later one.
    package func isBegun(_ pass: UInt64) -> Bool {
        (0..<reactorCount).allSatisfy { apus_load_acquire_u64(word($0, .begun)) >= pass }
    }

    /// What the pass at hand, or the last one, has come to, over all reactors.
    package var figures: SweepFigures {
        var sum = SweepFigures()
        for reactor in 0..<reactorCount {
            sum.seen += apus_load_relaxed_u64(word(reactor, .seen))
            sum.matched += apus_load_relaxed_u64(word(reactor, .matched))
            sum.changed += apus_load_relaxed_u64(word(reactor, .changed))
            sum.failed += apus_load_relaxed_u64(word(reactor, .failed))
        }
        return sum
    }

    func begin(_ reactor: Int, pass: UInt64) {
        show(reactor, SweepFigures())
        apus_store_release_u64(word(reactor, .begun), pass)
    }

    func end(_ reactor: Int, pass: UInt64, at now: TurnTime) {
        apus_store_relaxed_u64(word(reactor, .endedAt), now.monotonic.nanoseconds)
        apus_store_release_u64(word(reactor, .ended), pass)
    }

    /// When the last reactor has ended the pass that has ended last.
    package var endedAt: Instant {
        Instant(nanoseconds: (0..<reactorCount).reduce(0) { max($0, apus_load_relaxed_u64(word($1, .endedAt))) })
    }

    func show(_ reactor: Int, _ figures: SweepFigures) {
        apus_store_relaxed_u64(word(reactor, .seen), figures.seen)
        apus_store_relaxed_u64(word(reactor, .matched), figures.matched)
        apus_store_relaxed_u64(word(reactor, .changed), figures.changed)
        apus_store_relaxed_u64(word(reactor, .failed), figures.failed)
    }
}
