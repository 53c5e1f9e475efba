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
    private var stopped: [Bool]
    /// Wall clock less monotonic clock at the last tick, in milliseconds.
    private var clockDistance: Int64

    init(state: NodeState) {
        self.state = state
        lastLine = SystemClock.now().monotonic
        stopped = state.servingNamespaces.map { _ in false }
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
        state.controlJobs.run()
        let time = SystemClock.now()
        watchClock(time)
        let now = time.monotonic
        let memory = SystemMemory.now()
        for (number, namespace) in state.servingNamespaces.enumerated() {
            watch(number, namespace, memory)
        }
        let fatal = state.servingNamespaces.compactMap { namespace in
            namespace.statistics.fatal.map { "namespace \(namespace.settings.name): \($0)" }
        }
        let intervalSeconds = UInt64(max(state.live.current.pointee.tickerIntervalSeconds, 1))
        guard now.nanoseconds(since: lastLine) >= intervalSeconds * 1_000_000_000 else { return fatal.first }
        lastLine = now
        state.latencies.sample(state.servingNamespaces, nanoseconds: now.nanoseconds)
        for namespace in state.servingNamespaces { state.log.info(.info, line(namespace)) }
        let network = state.reactors.totals()
        state.log.info(.info, "node: client-connections \(network.clientConnections) opened \(network.opened)"
            + " closed \(network.closed) memory-free-pct \(memory.freePercent)"
            + " rss-kbytes \(memory.residentKilobytes)")
        return fatal.first
    }

    /// Raises or lowers stop-writes and says which threshold it was.
    private mutating func watch(_ number: Int, _ namespace: Namespace, _ memory: SystemMemory) {
        let name = namespace.settings.name
        let reason = StopWrites.reason(
            namespace.live.current.pointee, namespace.statistics, indexBytes: namespace.index.usedBytes,
            indexHasRoom: namespace.index.growAhead(), memory)
        namespace.overflow = reason != nil ? .creates : .none
        guard stopped[number] != (reason != nil) else { return }
        stopped[number] = reason != nil
        if let reason {
            state.log.warning(.namespace, "{\(name)} stop-writes: \(reason); writes answer 8, deletes go on")
        } else {
            state.log.info(.namespace, "{\(name)} stop-writes is over")
        }
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

/// The thresholds behind `stop_writes`.
enum StopWrites {
    /// Which threshold is passed, in words with its value; nil if none is.
    static func reason(
        _ settings: LiveNamespaceSettings, _ figures: BackendStatistics, indexBytes: UInt64, indexHasRoom: Bool,
        _ memory: SystemMemory
    ) -> String? {
        guard indexHasRoom else { return "the mount of the index is full; make it larger, or delete records" }
        let usedPercent = UInt64(settings.stopWritesUsedPercent)
        let availablePercent = UInt64(settings.stopWritesAvailablePercent)
        if figures.totalBytes > 0, usedPercent > 0 {
            let used = figures.usedBytes * 100 / figures.totalBytes
            if used >= usedPercent { return "data used is \(used) %, stop-writes-used-pct is \(usedPercent)" }
            let available = figures.availableBytes * 100 / figures.totalBytes
            if available < availablePercent {
                return "data available is \(available) %, stop-writes-avail-pct is \(availablePercent)"
            }
        }
        if settings.indexesMemoryBudget > 0, indexBytes > settings.indexesMemoryBudget {
            return "the index takes \(indexBytes) bytes, indexes-memory-budget is \(settings.indexesMemoryBudget)"
        }
        if settings.indexMountsBudget > 0, indexBytes > settings.indexMountsBudget {
            return "the index takes \(indexBytes) bytes, mounts-budget is \(settings.indexMountsBudget)"
        }
        let systemPercent = UInt64(settings.stopWritesSystemMemoryPercent)
        if systemPercent > 0, memory.totalKilobytes > 0, 100 - memory.freePercent > systemPercent {
            return "the machine's memory is \(100 - memory.freePercent) % used, stop-writes-sys-memory-pct is"
                + " \(systemPercent)"
        }
        return nil
    }
}
