// What a reactor counts, and the wish that it stop. Written by its own thread (`load` and `stop` by others
// too), read by any.
internal import Base
internal import CBase

/// Words that several threads see. Any thread.
final class ReactorGauges: @unchecked Sendable {
    private enum Word: Int, CaseIterable { case load, loadAdmin, opened, closed, reaped, refused, busy, turns, stop }
    private let words: UnsafeMutablePointer<UInt64>

    init() {
        precondition(Word.load.rawValue == 0 && Word.loadAdmin.rawValue == 1, "kinds of connections come first")
        words = .allocate(capacity: Word.allCases.count)
        words.initialize(repeating: 0, count: Word.allCases.count)
    }

    deinit { words.deallocate() }

    private func value(_ word: Word) -> UInt64 { apus_load_relaxed_u64(words + word.rawValue) }

    private func add(_ word: Word, _ amount: UInt64) {
        let address = words + word.rawValue
        apus_store_relaxed_u64(address, apus_load_relaxed_u64(address) &+ amount)
    }

    /// Connections given to this reactor and not closed yet.
    var load: Int { load(0) + load(1) }
    /// Those of one kind.
    func load(_ kind: UInt8) -> Int { Int(truncatingIfNeeded: apus_load_relaxed_u64(words + Int(kind))) }

    func assigned(_ kind: UInt8) { _ = apus_fetch_add_u64(words + Int(kind), 1) }
    func opened() { add(.opened, 1) }
    func closed(_ kind: UInt8) {
        _ = apus_fetch_add_u64(words + Int(kind), UInt64.max)
        add(.closed, 1)
    }
    func reaped() { add(.reaped, 1) }
    func refused() { add(.refused, 1) }
    func turnBegan() { add(.turns, 1) }
    func busy(_ begun: Instant, until ended: Instant) { add(.busy, ended.nanoseconds(since: begun)) }

    func askToStop() { apus_store_release_u64(words + Word.stop.rawValue, 1) }
    var isStopAsked: Bool { apus_load_acquire_u64(words + Word.stop.rawValue) != 0 }

    func snapshot() -> ReactorCounters {
        var counters = ReactorCounters()
        counters.connections = [load(0), load(1)]
        counters.opened = value(.opened)
        counters.closed = value(.closed)
        counters.reaped = value(.reaped)
        counters.refused = value(.refused)
        counters.busyNanoseconds = value(.busy)
        counters.turns = value(.turns)
        return counters
    }
}
