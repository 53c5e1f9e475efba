internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Index
internal import Logging
internal import Reactor
internal import Storage

/// What happens once a second on the control thread: thresholds, and every `ticker-interval` a line per
/// namespace.
struct Ticker {
    private let state: NodeState
    private var lastLine: Instant
    private let watches: [NamespaceWatch]
    /// Wall clock less monotonic clock at the last tick, in milliseconds.
    private var clockDistance: Int64

    init(state: NodeState) {
        self.state = state
        lastLine = SystemClock.now().monotonic
        watches = state.servingNamespaces.map { NamespaceWatch($0, state, now: SystemClock.now()) }
        clockDistance = Ticker.distance(SystemClock.now())
    }

    private static func distance(_ time: TurnTime) -> Int64 {
        Int64(time.wall.milliseconds) - Int64(time.monotonic.nanoseconds / 1_000_000)
    }

    /// A wall clock that jumps moves void-times; last-update times never go back.
    private mutating func watchClock(_ time: TurnTime) {
        let distance = Ticker.distance(time)
        let step = distance - clockDistance
        clockDistance = distance
        guard abs(step) > 1000 else { return }
        state.clockSteps += 1
        state.log.warning(.skew, "the wall clock was set by \(step) ms: times to live shift by that; check NTP")
    }

    /// Watches and reports. Why the node has to stop, if it has to.
    mutating func tick() -> String? {
        let time = SystemClock.now()
        watchClock(time)
        let now = time.monotonic
        let memory = SystemMemory.now()
        for watch in watches { watch.tick(time, memory) }
        let fatal = state.servingNamespaces.compactMap { namespace in
            namespace.statistics.fatal.map { "namespace \(namespace.settings.name): \($0)" }
        }
        let intervalSeconds = UInt64(max(state.live.current.pointee.tickerIntervalSeconds, 1))
        guard now.nanoseconds(since: lastLine) >= intervalSeconds * 1_000_000_000 else { return fatal.first }
        lastLine = now
        state.latencies.sample(
            state.servingNamespaces, batches: state.reactors.batchCounters, nanoseconds: now.nanoseconds)
        state.fabricRates.sample(state.cluster.figures.fabricTraffic, at: now)
        for namespace in state.servingNamespaces { state.log.info(.info, line(namespace)) }
        let network = state.reactors.totals()
        state.log.info(.info, "node: client-connections \(network.clientConnections) opened \(network.opened)"
            + " closed \(network.closed) memory-free-pct \(memory.freePercent)"
            + " rss-kbytes \(memory.residentKilobytes)")
        return fatal.first
    }

    private func line(_ namespace: Namespace) -> String {
        let figures = namespace.statistics
        return "{\(namespace.settings.name)} objects \(namespace.objectCount)"
            + " data-used-bytes \(figures.usedBytes) data-allocated-bytes \(figures.allocatedBytes)"
            + " index-used-bytes \(namespace.index.usedBytes)"
            + " reads \(namespace.total(.clientReadSuccess)) writes \(namespace.total(.clientWriteSuccess))"
            + " deletes \(namespace.total(.clientDeleteSuccess)) not-found \(namespace.total(.clientReadNotFound))"
            + " errors \(namespace.total(.clientReadError) + namespace.total(.clientWriteError))"
    }
}
