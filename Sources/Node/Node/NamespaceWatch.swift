// What is watched about a namespace once a second on the control thread: how full it is, and passes of expiry and eviction.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Index
internal import Logging
internal import Metadata
internal import Reactor
internal import Storage

/// The watch over one namespace. Control thread.
final class NamespaceWatch {
    private let namespace: Namespace
    private let state: NodeState
    private let upkeep: UpkeepControl
    private var capacity = CapacityWatch()

    init(_ namespace: Namespace, _ state: NodeState, now: TurnTime) {
        self.namespace = namespace
        self.state = state
        let name = namespace.settings.name
        upkeep = UpkeepControl(
            namespace, now: now,
            storesEvictVoidTime: { voidTime, done in
                let waiting = ControlCallback(done)
                state.changeEvictVoidTime(voidTime, of: namespace) { answer in
                    if case .refused(let reason) = answer { state.log.warning(.smd, "{\(name)} \(reason)") }
                    _ = state.controlJobs.add {
                        waiting.call(answer == .done)
                        state.wakeReactors()
                    }
                }
            },
            log: { state.log.info(.nsup, "{\(name)} \($0)") })
    }

    /// Raises or lowers what is refused, and says why; ends and begins passes.
    func tick(_ now: TurnTime, _ memory: SystemMemory) {
        let statistics = namespace.statistics
        var figures = CapacityFigures()
        figures.usedPercent = NamespaceWatch.percent(statistics.usedBytes, of: statistics.totalBytes)
        figures.availablePercent = NamespaceWatch.percent(statistics.availableBytes, of: statistics.totalBytes)
        if memory.totalKilobytes > 0 {
            figures.systemMemoryPercent = NamespaceWatch.percent(memory.availableKilobytes, of: memory.totalKilobytes)
                .map { 100 - $0 }
        }
        figures.indexBytes = namespace.index.usedBytes
        figures.indexHasRoom = namespace.index.growAhead()
        let messages = capacity.tick(
            seconds: now.monotonic.nanoseconds / 1_000_000_000, figures, namespace.live.current.pointee)
        namespace.overflow = capacity.overflow
        namespace.overflowReasons.set(writes: capacity.stopWritesReason, updates: capacity.stopUpdatesReason)
        for message in messages {
            let text = "{\(namespace.settings.name)} \(message.text)"
            if message.isWarning { state.log.warning(.namespace, text) } else { state.log.info(.namespace, text) }
        }
        var eviction = EvictionFigures()
        eviction.usedPercent = figures.usedPercent ?? 0
        eviction.indexBytes = figures.indexBytes
        // A pass takes what this node serves: while it is not known what that is, none begins.
        guard state.cluster.snapshot?.phase == .open else { return }
        if upkeep.tick(now, eviction) { state.wakeReactors() }
    }

    private static func percent(_ part: UInt64, of whole: UInt64) -> Double? {
        whole > 0 ? Double(part) * 100 / Double(whole) : nil
    }
}

extension NodeState {
    /// Changes the threshold of eviction, 0 for none; see `change`. Any thread.
    func changeEvictVoidTime(
        _ voidTime: UInt32, of namespace: Namespace, _ done: @escaping @Sendable (MetadataAnswer) -> Void
    ) {
        let value = voidTime > 0 ? "\(voidTime)" : nil
        change([MetadataChange(.evict, namespace.metadataKey(), .value(value))], of: namespace, done)
    }
}

/// Something that the control thread waits for, on its way through other threads, which do not touch it.
private final class ControlCallback: @unchecked Sendable {
    /// Control thread.
    let call: (Bool) -> Void
    init(_ call: @escaping (Bool) -> Void) { self.call = call }
}
