// When passes of expiry and eviction run and what follows from them, and when a walk that removes what was truncated is
// tried again. Ticked once a second by one thread; the passes run on the reactors. Invariants:
// 1. At most one pass of a namespace is under way.
// 2. A threshold of eviction is in the store of system metadata before any record is evicted by it.
// 3. A threshold of before (another process, a command) strikes only what was updated before it was set.
package import Base

/// How full a namespace is, as eviction sees it.
package struct EvictionFigures: Sendable, BitwiseCopyable {
    /// Of the backend's capacity in percent, 0 if it has none.
    package var usedPercent: Double = 0
    /// Bytes of the index.
    package var indexBytes: UInt64 = 0

    package init() {}

    /// Which threshold is passed, with its value; nil if none is.
    func breach(_ settings: LiveNamespaceSettings) -> String? {
        guard !settings.disablesEviction else { return nil }
        let usedLimit = settings.evictUsedPercent
        if usedLimit > 0, usedPercent >= Double(usedLimit) {
            return "data used is \(Int(usedPercent)) %, evict-used-pct is \(usedLimit)"
        }
        let indexLimit = settings.evictIndexesMemoryPercent
        if indexLimit > 0, settings.indexesMemoryBudget > 0 {
            let percent = Double(indexBytes) * 100 / Double(settings.indexesMemoryBudget)
            if percent >= Double(indexLimit) {
                return "the index takes \(Int(percent)) % of indexes-memory-budget, evict-indexes-memory-pct is"
                    + " \(indexLimit)"
            }
        }
        return nil
    }
}

/// See the invariants above. The control thread only.
package final class UpkeepControl {
    private let namespace: Namespace
    /// Stores the threshold of eviction as system metadata, and says so later, or at once, on the same thread; false: it
    /// could not, so nothing is evicted.
    private let storesEvictVoidTime: (UInt32, @escaping (Bool) -> Void) -> Void
    /// That is being done: no pass begins.
    private var isStoring = false
    private let log: (String) -> Void
    private var pass: Pass?
    private var lastPeriodSeconds: UInt64
    private var lastHistogramSeconds: UInt64?
    /// Of the records that the last pass has seen.
    private var voidTimes: (low: UInt32, high: UInt32)?
    private var voidTimesSeconds: UInt64 = 0
    /// What is older than this is looked at again before histograms are scaled by it.
    private static let voidTimesFreshSeconds: UInt64 = 60
    /// Looks closer at the bucket of those that die first: so often in a row.
    private var refinements = 0
    private static let refinementsMax = 8

    private struct Pass {
        let number: UInt64
        let plan: UpkeepPlan
        let begun: Instant
    }

    /// `now` is the time of the start: the first period begins there.
    package init(
        _ namespace: Namespace, now: TurnTime,
        storesEvictVoidTime: @escaping (UInt32, @escaping (Bool) -> Void) -> Void = { $1(true) },
        log: @escaping (String) -> Void
    ) {
        self.namespace = namespace
        self.storesEvictVoidTime = storesEvictVoidTime
        self.log = log
        lastPeriodSeconds = now.monotonic.nanoseconds / 1_000_000_000
    }

    /// Ends the pass that is over, and begins the one that is due. True: a pass was asked for, wake the reactors.
    @discardableResult
    package func tick(_ now: TurnTime, _ figures: EvictionFigures) -> Bool {
        let truncates = namespace.truncateBoard
        let ordered = (namespace.upkeep.board.ordered, truncates.ordered)
        look(now, figures)
        // A keyed backend has refused to remove records.
        if truncates.figures.failed > 0, truncates.isEnded(ordered.1) { namespace.sweepTruncated() }
        return (namespace.upkeep.board.ordered, truncates.ordered) != ordered
    }

    private func look(_ now: TurnTime, _ figures: EvictionFigures) {
        let settings = namespace.live.current.pointee
        let breach = settings.nsupPeriodSeconds > 0 ? figures.breach(settings) : nil
        namespace.upkeep.report.isHighWaterBreached = breach != nil
        if let pass {
            guard namespace.upkeep.board.isEnded(pass.number) else { return }
            self.pass = nil
            end(pass, now, settings, breach)
        }
        if pass == nil, !isStoring { beginIfDue(now, settings, breach) }
    }

    private func beginIfDue(_ now: TurnTime, _ settings: LiveNamespaceSettings, _ breach: String?) {
        let seconds = now.monotonic.nanoseconds / 1_000_000_000
        let period = UInt64(settings.nsupPeriodSeconds)
        let isDue = period > 0 && seconds >= lastPeriodSeconds + period
        let isHistogramDue = settings.nsupHistogramPeriodSeconds > 0
            && lastHistogramSeconds.map { seconds >= $0 + UInt64(settings.nsupHistogramPeriodSeconds) } ?? true
        guard isDue || isHistogramDue else { return }
        if isDue { lastPeriodSeconds = seconds }
        var plan = UpkeepPlan()
        plan.deletesExpired = period > 0
        if let breach {
            refinements = 0
            plan.evictionScale = evictionScale(voidTimes, settings, now)
            if voidTimes == nil { log("eviction is due: \(breach); looking at void-times first") }
        }
        // A pass that only learns how long records live comes first; the histograms follow at once.
        if isHistogramDue, let voidTimes, seconds <= voidTimesSeconds + UpkeepControl.voidTimesFreshSeconds {
            lastHistogramSeconds = seconds
            plan.histogramScale = HistogramScale(
                now: now.wall.seconds, highestVoidTime: voidTimes.high, recordSizeMax: settings.recordSizeMax,
                setCount: namespace.sets.count, reactorCount: namespace.upkeep.board.reactorCount)
        }
        // What a command, another node or an earlier process has decided about eviction.
        let threshold = namespace.upkeep.threshold
        if threshold.isPending, period > 0, !settings.disablesEviction {
            namespace.upkeep.thresholdTaken()
            if threshold.voidTime > now.wall.seconds {
                plan.evictBelow = threshold.voidTime
                plan.evictUpdatedUpTo = threshold.setAt
            }
        }
        begin(plan, now)
    }

    private func evictionScale(
        _ range: (low: UInt32, high: UInt32)?, _ settings: LiveNamespaceSettings, _ now: TurnTime
    ) -> VoidTimeScale? {
        guard let range, range.high > 0 else { return nil }
        let count = VoidTimeScale.bucketCount(
            asked: Int(settings.evictHistogramBuckets), reactorCount: namespace.upkeep.board.reactorCount)
        return VoidTimeScale(low: max(range.low, now.wall.seconds), high: range.high &+ 1, count: count)
    }

    private func begin(_ plan: UpkeepPlan, _ now: TurnTime) {
        pass = Pass(
            number: namespace.upkeep.order(plan), plan: plan, begun: now.monotonic)
    }

    // ---- The end of a pass ----

    private func end(_ pass: Pass, _ now: TurnTime, _ settings: LiveNamespaceSettings, _ breach: String?) {
        let findings = namespace.upkeep.collect()
        if pass.plan.evictBelow > 0, findings.failed > 0 { namespace.upkeep.evictAgain() }
        voidTimes = (findings.lowestVoidTime, findings.highestVoidTime)
        voidTimesSeconds = now.monotonic.nanoseconds / 1_000_000_000
        report(pass, findings, now)
        guard let breach, pass.plan.evictBelow == 0 else { return }
        guard let scale = pass.plan.evictionScale else {
            // The next pass of this period can count, for now it is known what.
            if let scale = evictionScale(voidTimes, settings, now) { return count(scale, now) }
            return log("eviction: \(breach), but no record can expire")
        }
        switch EvictionChoice.choose(findings.evictionCounts, scale, tenthsPercent: settings.evictTenthsPercent) {
        case .below(let voidTime, let count): evict(voidTime, count, breach, now)
        case .closer(let low, let high):
            guard refinements < UpkeepControl.refinementsMax else { return }
            refinements += 1
            count(VoidTimeScale(low: low, high: high, count: scale.count), now)
        case .nothing: log("eviction: \(breach), but no record that may be evicted can expire")
        case .tooManyAtOnce(let voidTime, let count):
            log("eviction: \(breach), but the \(count) records that would be the first to go all expire in the second"
                + " \(voidTime), and they are more than half of all that can: nothing is evicted")
        }
    }

    private func count(_ scale: VoidTimeScale, _ now: TurnTime) {
        var plan = UpkeepPlan()
        plan.evictionScale = scale
        begin(plan, now)
    }

    private func evict(_ voidTime: UInt32, _ count: UInt64, _ breach: String, _ now: TurnTime) {
        isStoring = true
        storesEvictVoidTime(voidTime) { [weak self] isStored in self?.stored(isStored, voidTime, count, breach, now) }
    }

    private func stored(_ isStored: Bool, _ voidTime: UInt32, _ count: UInt64, _ breach: String, _ now: TurnTime) {
        isStoring = false
        guard isStored else {
            return log("eviction: \(breach), but its threshold could not be stored: nothing is evicted")
        }
        namespace.upkeep.setThreshold(voidTime, at: now.wall.milliseconds, isPending: false)
        let timeToLive = voidTime > now.wall.seconds ? voidTime - now.wall.seconds : 0
        log("eviction: \(breach); about \(count) records with less than \(timeToLive) s to live go")
        var plan = UpkeepPlan()
        plan.evictBelow = voidTime
        begin(plan, now)
    }

    private func report(_ pass: Pass, _ findings: UpkeepFindings, _ now: TurnTime) {
        // A reactor reads the clock once a turn: its last turn may have begun before the order.
        let milliseconds = namespace.upkeep.board.endedAt.nanoseconds(since: pass.begun) / 1_000_000
        let deleted = findings.expired + findings.evicted
        var report = namespace.upkeep.report
        report.nonExpirable = findings.nonExpirable
        report.longerLives = UInt64(namespace.longerLives?.count(at: now.wall.seconds) ?? 0)
        report.cycleSeconds = milliseconds / 1000
        report.cycleDeletedHundredths = findings.records > 0 ? deleted * 10_000 / findings.records : 0
        // Unless the threshold was taken back meanwhile.
        if pass.plan.evictBelow > 0, namespace.upkeep.evictVoidTime > 0 {
            report.evictVoidTime = pass.plan.evictBelow
            report.evictTimeToLive = pass.plan.evictBelow > now.wall.seconds ? pass.plan.evictBelow - now.wall.seconds : 0
        }
        if let histograms = findings.histograms { report.histograms = histograms }
        namespace.upkeep.report = report
        log("nsup: deleted \(findings.expired) expired and \(findings.evicted) evicted of \(findings.records) records,"
            + " \(findings.nonExpirable) never expire, in \(milliseconds / 1000).\(milliseconds % 1000 / 100) s")
    }
}
