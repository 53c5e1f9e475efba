// Expiry and eviction on one reactor: what is due is deleted one by one by the ordinary write machine, if its void-time is
// still the same. Invariants:
// 1. At most `underWayMax` of these deletes are under way; each ends in `ended`, once.
internal import Base
internal import Index
internal import Storage
internal import Wire

/// See the invariants above. Reactor's thread only.
final class ExpirySweep: SweepTask {
    private let upkeep: Upkeep
    private let reactor: Int
    private let setValues: SetValues
    private let template = OwnRequest.delete()
    private var plan = UpkeepPlan()
    private var nowSeconds: UInt32 = 0
    private var findings = UpkeepFindings()
    // Lent for the pass: made and given back by the control thread.
    private var counts: VoidTimeCounts?
    private var histograms: RecordHistograms?
    private var underWay = 0
    private static let underWayMax = 64
    /// How long such a delete waits for a write of the same record.
    private static let waitMilliseconds: UInt64 = 1000

    init(_ namespace: Namespace, reactor: Int) {
        upkeep = namespace.upkeep
        self.reactor = reactor
        setValues = namespace.setValues
    }

    func begin(_ shard: NamespaceShard, _ now: TurnTime) {
        let tally: UpkeepTally
        (plan, tally) = upkeep.begin(reactor)
        nowSeconds = now.wall.seconds
        findings = UpkeepFindings()
        (counts, histograms) = (tally.voidTimes, tally.histograms)
    }

    func matches(_ entry: UnsafePointer<IndexEntry>) -> Bool {
        guard entry.pointee.kind == .live else { return false }
        findings.records &+= 1
        let voidTime = entry.pointee.voidTime
        guard voidTime > 0 else {
            findings.nonExpirable &+= 1
            histograms?.add(entry)
            return false
        }
        if voidTime < nowSeconds { return plan.deletesExpired }
        if findings.lowestVoidTime == 0 || voidTime < findings.lowestVoidTime { findings.lowestVoidTime = voidTime }
        if voidTime > findings.highestVoidTime { findings.highestVoidTime = voidTime }
        histograms?.add(entry)
        guard plan.evictBelow > 0 || counts != nil, !setValues.disablesEviction(entry.pointee.setID) else { return false }
        if voidTime < plan.evictBelow, entry.pointee.lastUpdate <= plan.evictUpdatedUpTo { return true }
        counts?.add(voidTime)
        return false
    }

    func handle(_ record: IndexedRecord, _ shard: NamespaceShard, _ now: TurnTime) -> Bool {
        switch shard.rule(of: record.digest.partition) {
        case .done: break
        case .pending: return false
        case .refused: return true
        }
        guard underWay < ExpirySweep.underWayMax, !shard.isUnderPressure else { return false }
        underWay += 1
        let origin = record.entry.voidTime < nowSeconds ? RequestOrigin.expiry : .eviction
        shard.deleteOwn(
            template.request(digest: record.digest), origin, voidTime: record.entry.voidTime,
            deadline: now.monotonic.advanced(byMilliseconds: ExpirySweep.waitMilliseconds), now)
        return true
    }

    /// A delete that `handle` has begun is over.
    func ended(_ origin: RequestOrigin, _ result: ResultCode) {
        precondition(underWay > 0)
        underWay -= 1
        guard result == .ok else {
            if result != .notFound { findings.failed += 1 }
            return
        }
        if origin == .expiry { findings.expired += 1 } else { findings.evicted += 1 }
    }

    var changedCount: UInt64 { findings.expired + findings.evicted }
    var failedCount: UInt64 { findings.failed }
    var isUnderWay: Bool { underWay > 0 }

    func end(_ shard: NamespaceShard, _ now: TurnTime) {
        // Before the pass ends: whoever has made them gives them back.
        counts = nil
        histograms = nil
        upkeep.handIn(findings)
    }
}

extension NamespaceShard {
    /// Whether deletes that nobody waits for had better be put off.
    var isUnderPressure: Bool { hasPressure && backend.pressure >= .high }

    /// Begins a delete of the engine's own: it is done if the record is there with that void-time.
    func deleteOwn(
        _ request: RequestPointer, _ origin: RequestOrigin, voidTime: UInt32, deadline: Instant, _ now: TurnTime
    ) {
        let slot = scratch.slots.take()
        slot.pointee.begin(request, namespace: number, connection: 0, now: now.monotonic)
        slot.pointee.origin = origin
        slot.pointee.expectedVoidTime = voidTime
        slot.pointee.deadline = deadline
        runOwn(slot, now)
    }

    /// Such a delete where the record is at hand: no image is read, no operation applied.
    func applyOwnDelete(_ slot: SlotPointer, _ now: TurnTime) -> ResultCode {
        if slot.pointee.origin == .truncate { return applyTruncate(slot) }
        let previous = slot.pointee.previous
        guard slot.pointee.hasPrevious, previous.kind == .live, previous.voidTime == slot.pointee.expectedVoidTime else {
            return .notFound
        }
        slot.pointee.isDelete = true
        // An older version that would outlive this one may be on the medium still.
        guard let lives = namespace.longerLives, lives.latest(slot.pointee.digest) >= now.wall.seconds else { return .ok }
        return buildTombstone(slot, now)
    }

    /// Counts the end of a delete of the engine's own.
    func countOwnDelete(_ slot: SlotPointer, _ result: ResultCode) {
        let origin = slot.pointee.origin
        guard origin != .truncate else { return truncateEnded(result) }
        if result == .ok { counters.count(origin == .expiry ? .expiredObjects : .evictedObjects) }
        expiry.task.ended(origin, result)
    }

    /// One slice of the sweeps, if one is wanted.
    func sweepSlice(_ now: TurnTime) -> BackgroundWork {
        let (truncated, expired) = (truncateSweep.slice(self, now), expiry.slice(self, now))
        if case .none = truncated { return expired }
        return truncated
    }
}
