// What a namespace's passes of expiry and eviction share: what the next pass is to do, and what the last one has found.
// Invariants:
// 1. `plan` changes only while no pass is under way: all reactors see the same one throughout a pass.
// 2. Reactors hand their findings in once, before they end a pass; whoever sees the pass ended sees all of them.
// 3. What a reactor counts into is made before a pass and given back after it by the thread that orders passes: megabytes
//    are neither asked for, nor zeroed, nor added up on a reactor.
internal import Base
internal import Synchronization

/// What one pass is to do.
package struct UpkeepPlan: Sendable {
    /// Deletes what has expired; otherwise the pass only looks.
    package var deletesExpired = true
    /// Records with a lower void-time are evicted, 0 for none.
    package var evictBelow: UInt32 = 0
    /// Of those only what was updated at this time or before, in milliseconds since 2010.
    package var evictUpdatedUpTo: UInt64 = .max
    /// Counts void-times to choose a threshold of eviction.
    package var evictionScale: VoidTimeScale?
    /// Counts what the info command `histogram` shows.
    package var histogramScale: HistogramScale?

    package init() {}
}

/// What a pass has found, on one reactor or on all.
package struct UpkeepFindings: Sendable {
    /// Live records that were looked at.
    package var records: UInt64 = 0
    /// Those of them that never expire.
    package var nonExpirable: UInt64 = 0
    package var expired: UInt64 = 0
    package var evicted: UInt64 = 0
    /// Records that were to be deleted, and whose delete has failed.
    package var failed: UInt64 = 0
    /// Of those that have not expired; 0 if there are none.
    package var lowestVoidTime: UInt32 = 0
    package var highestVoidTime: UInt32 = 0
    /// By the plan's `evictionScale`.
    package var evictionCounts: [UInt64] = []
    /// By the plan's `histogramScale`.
    package var histograms: RecordHistograms?

    package init() {}

    mutating func add(_ other: UpkeepFindings) {
        records += other.records
        nonExpirable += other.nonExpirable
        expired += other.expired
        evicted += other.evicted
        failed += other.failed
        if other.lowestVoidTime > 0 {
            lowestVoidTime = lowestVoidTime == 0 ? other.lowestVoidTime : min(lowestVoidTime, other.lowestVoidTime)
        }
        highestVoidTime = max(highestVoidTime, other.highestVoidTime)
    }
}

/// What `namespace/<ns>` says about expiry and eviction.
package struct UpkeepReport: Sendable {
    /// `non_expirable_objects`, by the last pass.
    package var nonExpirable: UInt64 = 0
    /// `nsup_cycle_duration`: seconds of the last pass.
    package var cycleSeconds: UInt64 = 0
    /// `nsup_cycle_deleted_pct`, in hundredths.
    package var cycleDeletedHundredths: UInt64 = 0
    /// `evict_void_time`: the last threshold that this node has evicted by.
    package var evictVoidTime: UInt32 = 0
    /// `evict_ttl`: how many seconds from then that was.
    package var evictTimeToLive: UInt32 = 0
    /// `hwm_breached`: a threshold of eviction is passed.
    package var isHighWaterBreached = false
    /// `longer_lives`: marks of older versions that would outlive a later one, by the last pass.
    package var longerLives: UInt64 = 0
    /// What the last pass that counted them has found; nil before.
    package var histograms: RecordHistograms?

    package init() {}
}

/// A threshold of eviction: records with a lower void-time are not wanted on any node.
package struct EvictionThreshold: Sendable, BitwiseCopyable, Equatable {
    /// Seconds since 2010, 0 for none.
    package var voidTime: UInt32 = 0
    /// In milliseconds since 2010: what is updated later is not meant.
    package var setAt: UInt64 = 0
    /// Whether a pass has to evict by it still.
    package var isPending = false
}

/// What one reactor counts into during a pass.
struct UpkeepTally: Sendable {
    let voidTimes: VoidTimeCounts?
    let histograms: RecordHistograms?
}

/// See the invariants above.
package final class Upkeep: @unchecked Sendable {
    /// The passes. Whoever orders one sets `plan` before.
    package let board: SweepBoard
    private let planned = Mutex((plan: UpkeepPlan(), tallies: [UpkeepTally]()))
    private let found = Mutex(UpkeepFindings())
    private let reported = Mutex(UpkeepReport())
    private let evictionThreshold = Mutex(EvictionThreshold())

    init(reactorCount: Int) { board = SweepBoard(reactorCount: reactorCount) }

    // ---- The threshold of eviction ----

    /// In force is the one that was set last. Any thread.
    package var threshold: EvictionThreshold { evictionThreshold.withLock { $0 } }

    /// `smd_evict_void_time`: seconds since 2010, 0 for none. Any thread.
    package var evictVoidTime: UInt32 { threshold.voidTime }

    /// Puts a threshold in force that was set at `time` (milliseconds since 2010), 0 for none. `isPending`: the next pass is
    /// to evict by it. The control thread, or a start.
    package func setThreshold(_ voidTime: UInt32, at time: UInt64, isPending: Bool) {
        evictionThreshold.withLock { $0 = EvictionThreshold(voidTime: voidTime, setAt: time, isPending: isPending) }
        guard voidTime == 0 else { return }
        reported.withLock { ($0.evictVoidTime, $0.evictTimeToLive) = (0, 0) }
    }

    /// Records that the threshold has meant may be there again, or still: the next pass is to evict by it.
    package func evictAgain() { evictionThreshold.withLock { $0.isPending = true } }

    /// A pass evicts by the threshold.
    func thresholdTaken() { evictionThreshold.withLock { $0.isPending = false } }

    /// What statistics and `histogram` tell. Any thread.
    package var report: UpkeepReport {
        get { reported.withLock { $0 } }
        set { reported.withLock { $0 = newValue } }
    }

    // ---- Passes ----

    /// Asks all reactors for a pass; its number. One thread, while no pass is under way.
    package func order(_ plan: UpkeepPlan) -> UInt64 {
        precondition(board.isEnded(board.ordered), "a plan does not change during a pass")
        let tallies = (0..<board.reactorCount).map { _ in
            UpkeepTally(
                voidTimes: plan.evictionScale.map { VoidTimeCounts($0) },
                histograms: plan.histogramScale.map { RecordHistograms($0) })
        }
        found.withLock { $0 = UpkeepFindings() }
        planned.withLock { $0 = (plan, tallies) }
        return board.order()
    }

    /// What the pass at hand is to do, and what the reactor counts into until it hands its findings in.
    func begin(_ reactor: Int) -> (UpkeepPlan, UpkeepTally) { planned.withLock { ($0.plan, $0.tallies[reactor]) } }

    /// A reactor has seen all of its partitions, and has let go of its tally.
    func handIn(_ findings: UpkeepFindings) { found.withLock { $0.add(findings) } }

    /// What the pass that has ended has found, over all reactors: once. The thread that has ordered it.
    package func collect() -> UpkeepFindings {
        precondition(board.isEnded(board.ordered), "a pass ends before its findings are added up")
        let (plan, tallies) = planned.withLock { planned in
            defer { planned.tallies = [] }
            return planned
        }
        var all = found.withLock { $0 }
        all.evictionCounts = [UInt64](repeating: 0, count: plan.evictionScale?.count ?? 0)
        for tally in tallies { tally.voidTimes?.add(to: &all.evictionCounts) }
        all.histograms = tallies.first?.histograms
        guard let histograms = all.histograms else { return all }
        for case let other? in tallies.dropFirst().map(\.histograms) { histograms.add(other) }
        histograms.complete()
        return all
    }
}
