// Removing what a truncate has covered, on one reactor. Nobody can see it any more, so nothing but space hangs on it.
// Invariants:
// 1. At most `underWayMax` deletes by the write machine are under way; each ends in `ended`, once.
internal import Base
internal import Index
internal import Storage

/// See the invariant above. Reactor's thread only.
final class TruncateSweep: SweepTask {
    private(set) var changedCount: UInt64 = 0
    private(set) var failedCount: UInt64 = 0
    private let truncation: Truncation
    private let template = OwnRequest.delete()
    private var underWay = 0
    private static let underWayMax = 64
    /// How long such a delete waits for a write of the same record.
    private static let waitMilliseconds: UInt64 = 1000

    init(_ namespace: Namespace) { truncation = namespace.truncation }

    func begin(_ shard: NamespaceShard, _ now: TurnTime) { (changedCount, failedCount) = (0, 0) }

    func matches(_ entry: UnsafePointer<IndexEntry>) -> Bool { isTruncated(entry.pointee) }

    func isTruncated(_ entry: IndexEntry) -> Bool {
        entry.kind == .live && truncation.covers(entry.lastUpdate, set: entry.setID)
    }

    func handle(_ record: IndexedRecord, _ shard: NamespaceShard, _ now: TurnTime) -> Bool {
        guard shard.isKeyed else { return remove(record, shard) }
        guard underWay < TruncateSweep.underWayMax, !shard.isUnderPressure else { return false }
        underWay += 1
        shard.deleteOwn(
            template.request(digest: record.digest), .truncate, voidTime: 0,
            deadline: now.monotonic.advanced(byMilliseconds: TruncateSweep.waitMilliseconds), now)
        return true
    }

    /// An addressed backend only has to be told: what its medium still holds a cold start finds again, older than the time
    /// of the truncate as before.
    private func remove(_ record: IndexedRecord, _ shard: NamespaceShard) -> Bool {
        let partition = record.digest.partition
        shard.partitions.lock(partition)
        defer { shard.partitions.unlock(partition) }
        // A write that is under way has looked at the entry: it is left alone until that ends.
        guard shard.partitions.owner(of: record.digest) == nil else { return false }
        guard let reference = shard.index.find(record.digest) else { return true }
        let held = shard.index.entry(reference)
        guard isTruncated(held) else { return true }
        shard.index.remove(reference, partition: partition)
        shard.backend.release(record.digest, at: Location(rawValue: held.location), byteCount: held.byteCount)
        shard.counters.changeSet(held, by: -1)
        count(shard)
        return true
    }

    private func count(_ shard: NamespaceShard) {
        changedCount += 1
        shard.counters.count(.truncatedRecords)
    }

    /// A delete that `handle` has begun is over. One that fails is left to a later pass: `UpkeepControl` asks for it.
    func ended(_ shard: NamespaceShard, _ result: ResultCode) {
        precondition(underWay > 0)
        underWay -= 1
        if result == .ok { count(shard) } else if result != .notFound { failedCount += 1 }
    }

    var isUnderWay: Bool { underWay > 0 }

    func end(_ shard: NamespaceShard, _ now: TurnTime) {}
}

extension NamespaceShard {
    /// A delete of the sweep's where the record is at hand.
    func applyTruncate(_ slot: SlotPointer) -> ResultCode {
        guard slot.pointee.hasPrevious, truncateSweep.task.isTruncated(slot.pointee.previous) else { return .notFound }
        slot.pointee.isDelete = true
        return .ok
    }

    /// Such a delete is over.
    func truncateEnded(_ result: ResultCode) { truncateSweep.task.ended(self, result) }
}
