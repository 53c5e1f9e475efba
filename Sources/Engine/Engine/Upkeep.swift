// What a namespace's passes of expiry and eviction share: what the next pass is to do, and what the last one has found.
// Invariants:
// 1. `plan` changes only while no pass is under way: all reactors see the same one throughout a pass.
// 2. Reactors hand their findings in once, before they end a pass; whoever sees the pass ended sees all of them.
internal import Base
internal import CBase
internal import Synchronization

/// What one pass is to do.
package struct UpkeepPlan: Sendable {
    /// Deletes what has expired; otherwise the pass only looks.
    package var deletesExpired = true
    /// Records with a lower void-time are evicted, 0 for none.
    package var evictBelow: UInt32 = 0
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
    /// What the last pass that counted them has found; nil before.
    package var histograms: RecordHistograms?

    package init() {}
}

/// See the invariants above.
package final class Upkeep: @unchecked Sendable {
    /// The passes. Whoever orders one sets `plan` before.
    package let board: SweepBoard
    private let planned = Mutex(UpkeepPlan())
    private let found = Mutex(UpkeepFindings())
    private let reported = Mutex(UpkeepReport())
    private let evictVoidTimeWord: UnsafeMutablePointer<UInt64>
    init(reactorCount: Int) {
        board = SweepBoard(reactorCount: reactorCount)
        evictVoidTimeWord = .allocate(capacity: 1)
        evictVoidTimeWord.initialize(to: 0)
    }

    deinit { evictVoidTimeWord.deallocate() }

    /// `smd_evict_void_time`: records with a lower void-time are not wanted on any node; 0 for none. Any thread. Set by
    /// eviction, by `eviction-reset`, and at a start from what was stored.
    package var evictVoidTime: UInt32 {
        get { UInt32(truncatingIfNeeded: apus_load_relaxed_u64(evictVoidTimeWord)) }
        set { apus_store_relaxed_u64(evictVoidTimeWord, UInt64(newValue)) }
    }

    /// What statistics and `histogram` tell. Any thread.
    package var report: UpkeepReport {
        get { reported.withLock { $0 } }
        set { reported.withLock { $0 = newValue } }
    }

    /// Asks all reactors for a pass; its number. One thread, while no pass is under way.
    package func order(_ plan: UpkeepPlan) -> UInt64 {
        precondition(board.isEnded(board.ordered), "a plan does not change during a pass")
        found.withLock { found in
            found = UpkeepFindings()
            found.evictionCounts = plan.evictionScale.map { [UInt64](repeating: 0, count: $0.count) } ?? []
            found.histograms = plan.histogramScale.map { RecordHistograms($0) }
        }
        planned.withLock { $0 = plan }
        return board.order()
    }

    /// What the pass at hand is to do.
    var plan: UpkeepPlan { planned.withLock { $0 } }

    /// What the pass that has ended last has found, over all reactors.
    package var findings: UpkeepFindings { found.withLock { $0 } }

    /// A reactor has seen all of its partitions.
    func handIn(_ findings: UpkeepFindings, _ counts: VoidTimeCounts?, _ histograms: RecordHistograms?) {
        found.withLock { found in
            found.add(findings)
            counts?.add(to: &found.evictionCounts)
            if let histograms { found.histograms?.add(histograms) }
        }
    }
}
