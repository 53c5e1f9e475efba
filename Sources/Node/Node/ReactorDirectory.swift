internal import Assembly
internal import Base
internal import Engine
internal import Reactor

/// The reactors of a node. Filled before they start, read by any thread afterwards.
final class ReactorDirectory: @unchecked Sendable {
    private var entries: [(reactor: Reactor, shell: ReactorShell)] = []

    /// Sums over all reactors.
    struct Totals {
        var clientConnections = 0
        var adminConnections = 0
        var opened: UInt64 = 0
        var closed: UInt64 = 0
        var reaped: UInt64 = 0
        var refused: UInt64 = 0
        var infoCompleted: UInt64 = 0
        var malformed: UInt64 = 0
        var early: UInt64 = 0
    }

    /// Before the threads start.
    func add(_ reactor: Reactor, _ shell: ReactorShell) { entries.append((reactor, shell)) }

    var all: [Reactor] { entries.map(\.reactor) }
    var shells: [ReactorShell] { entries.map(\.shell) }

    /// What batches have come to, one for each reactor; none before the node serves.
    var batchCounters: [BatchCounters] { entries.compactMap { $0.shell.batchCounters } }

    /// Posts a letter to the reactor of that number. Any thread.
    func post(_ number: Int, _ letter: UnsafeMutablePointer<Letter>) { entries[number].reactor.mailbox.post(letter) }

    /// Adds up what the reactors count; a snapshot a moment old.
    func totals() -> Totals {
        var totals = Totals()
        for (reactor, shell) in entries {
            let counters = reactor.counters
            totals.clientConnections += counters.connections[Int(ConnectionKind.service)]
            totals.adminConnections += counters.connections[Int(ConnectionKind.admin)]
            totals.opened += counters.opened
            totals.closed += counters.closed
            totals.reaped += counters.reaped
            totals.refused += counters.refused
            totals.infoCompleted += shell.info.completed
            totals.malformed += shell.executor.malformedRequests
            totals.early += shell.refusedRequests
        }
        return totals
    }

    /// Connections and busy share of each reactor, as statistics.
    func busyStatistics() -> [(String, String)] {
        entries.enumerated().flatMap { number, entry in
            let counters = entry.reactor.counters
            return [
                ("reactor[\(number)].connections", "\(counters.connections.reduce(0, +))"),
                ("reactor[\(number)].busy_ms", "\(counters.busyNanoseconds / 1_000_000)"),
                ("reactor[\(number)].turns", "\(counters.turns)"),
            ]
        }
    }
}
