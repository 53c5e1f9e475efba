// Info commands and statistics about expiry, eviction and overflow.
internal import Base
internal import Engine
internal import Index
internal import Logging
internal import Metadata
internal import Reactor
internal import Wire

extension InfoService {
    static let upkeepCommands: [String: Command] = [
        "histogram": { service, request in service.histogram(request) }
    ]

    /// These change system metadata: the control thread answers them.
    static let evictionCommands: [String: LateCommand] = [
        "eviction-reset": { service, request, answer in service.resetEviction(request, answer) }
    ]

    /// `histogram:namespace=NS;type=ttl|object-size|object-size-linear[;set=SET]`, as the last pass has counted.
    private func histogram(_ request: InfoRequest) -> String {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return problem }
        guard let kind = request["type"].flatMap({ HistogramKind(rawValue: $0) }) else {
            return InfoError.text(4, "unknown hist name")
        }
        var set: UInt16?
        if let name = request.bytes("set") {
            guard let id = namespace.existingID(name) else { return "hist-unavailable" }
            set = id
        }
        guard let histograms = namespace.upkeep.report.histograms, set.map({ histograms.holds(set: $0) }) ?? true else {
            return "hist-unavailable"
        }
        return histograms.text(kind, set: set)
    }

    /// `eviction-reset:namespace=NS[;ttl=SECONDS]`: the threshold of eviction is taken back, or becomes that many seconds
    /// from now. What has been evicted does not come back.
    private func resetEviction(_ request: InfoRequest, _ answer: @escaping @Sendable (String) -> Void) {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return answer(problem) }
        var voidTime: UInt32 = 0
        if let text = request["ttl"] {
            guard let seconds = UInt32(text), seconds <= Limits.timeToLiveSecondsMax else {
                return answer(InfoError.text(4, "bad 'ttl': seconds, at most \(Limits.timeToLiveSecondsMax)"))
            }
            voidTime = SystemClock.now().wall.seconds + seconds
        }
        state.changeEvictVoidTime(voidTime, of: namespace) { [log = state.log, voidTime] outcome in
            if outcome == .done {
                log.info(.nsup, "{\(namespace.settings.name)} eviction-reset: the threshold of eviction is"
                    + (voidTime == 0 ? " gone" : " \(voidTime) s since 2010"))
            }
            answer(InfoService.text(outcome))
        }
    }
}

extension NamespaceStatistics {
    /// Expiry, eviction and overflow.
    static func upkeep(_ namespace: Namespace) -> [(String, String)] {
        let report = namespace.upkeep.report
        let reasons = namespace.overflowReasons.all
        let budget = namespace.live.current.pointee.indexesMemoryBudget
        let hundredths = report.cycleDeletedHundredths
        return [
            ("stop_writes", "\(namespace.overflow >= .creates)"), ("stop_writes_reason", reasons.writes),
            ("stop_updates", "\(namespace.overflow >= .updates)"), ("stop_updates_reason", reasons.updates),
            ("hwm_breached", "\(report.isHighWaterBreached)"), ("non_expirable_objects", "\(report.nonExpirable)"),
            ("nsup_cycle_duration", "\(report.cycleSeconds)"),
            ("nsup_cycle_deleted_pct", "\(hundredths / 100).\(hundredths % 100 / 10)\(hundredths % 10)"),
            ("evict_void_time", "\(report.evictVoidTime)"), ("evict_ttl", "\(report.evictTimeToLive)"),
            ("smd_evict_void_time", "\(namespace.upkeep.evictVoidTime)"),
            ("longer_lives", "\(report.longerLives)"),
            ("indexes_memory_used_pct", "\(budget > 0 ? namespace.index.usedBytes * 100 / budget : 0)"),
        ]
    }
}
