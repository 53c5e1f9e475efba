// Locks and claims of the partitions of one namespace. Invariants:
// 1. At most one slot owns the claim of a digest; owners of a partition form a list through `claimNext`.
// 2. A waiting slot is in the queue of exactly one owner, in order of arrival, and its phase is `waiting`.
// 3. A claim passes to the oldest waiter in the same hold of the lock that ends it: nobody overtakes.
// 4. All links of a slot are read and written under the lock of its digest's partition only.
// 5. No thread holds two of these locks, and nothing slow happens under one.
package import Base
internal import CBase

struct PartitionLine: BitwiseCopyable {
    var lock: UInt32 = 0
    var claimCount: UInt32 = 0
    var claims: SlotPointer?
    var padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
}

/// One cache line per partition: its lock and the list of claimed digests.
package final class PartitionTable: @unchecked Sendable {
    private let lines: UnsafeMutablePointer<PartitionLine>

    package init() {
        precondition(MemoryLayout<PartitionLine>.stride == 64)
        lines = UnsafeMutableRawPointer.allocate(byteCount: 64 * PartitionID.count, alignment: 64)
            .bindMemory(to: PartitionLine.self, capacity: PartitionID.count)
        lines.initialize(repeating: PartitionLine(), count: PartitionID.count)
    }

    deinit { lines.deallocate() }

    private func word(_ partition: PartitionID) -> UnsafeMutablePointer<UInt32> {
        UnsafeMutableRawPointer(lines + Int(partition.number)).assumingMemoryBound(to: UInt32.self)
    }

    /// Takes the lock of a partition: ~10 ns if nobody has it.
    package func lock(_ partition: PartitionID) { apus_lock(word(partition)) }

    /// Gives the lock back.
    package func unlock(_ partition: PartitionID) { apus_unlock(word(partition)) }

    /// Starts fetching the line of a partition.
    func prefetch(_ partition: PartitionID) { apus_prefetch(lines + Int(partition.number)) }

    /// The slot that owns the claim of `digest`. Under the lock.
    func owner(of digest: Digest) -> SlotPointer? {
        let line = lines + Int(digest.partition.number)
        guard line.pointee.claimCount > 0 else { return nil }
        var owner = line.pointee.claims
        while let slot = owner, slot.pointee.digest != digest { owner = slot.pointee.claimNext }
        return owner
    }

    /// Makes `slot` the owner of its digest's claim, which nobody else has. Under the lock.
    func claim(_ slot: SlotPointer) {
        assert(owner(of: slot.pointee.digest) == nil)
        precondition(slot.pointee.waiterFirst == nil && slot.pointee.waiterCount == 0)
        let line = lines + Int(slot.pointee.digest.partition.number)
        slot.pointee.claimNext = line.pointee.claims
        line.pointee.claims = slot
        line.pointee.claimCount += 1
        slot.pointee.phase = .claimed
    }

    /// Puts `slot` at the end of `owner`'s queue. Under the lock.
    func wait(_ slot: SlotPointer, behind owner: SlotPointer) {
        assert(owner.pointee.digest == slot.pointee.digest)
        slot.pointee.waiterNext = nil
        slot.pointee.phase = .waiting
        if let last = owner.pointee.waiterLast { last.pointee.waiterNext = slot } else { owner.pointee.waiterFirst = slot }
        owner.pointee.waiterLast = slot
        owner.pointee.waiterCount += 1
    }

    /// Ends `slot`'s claim. If somebody waits, the claim passes on and its new owner is returned: post its
    /// letter after unlocking. Under the lock.
    func finish(_ slot: SlotPointer) -> SlotPointer? {
        removeOwner(slot)
        guard let heir = slot.pointee.waiterFirst else { return nil }
        let others = (heir.pointee.waiterNext, slot.pointee.waiterLast, slot.pointee.waiterCount - 1)
        slot.pointee.waiterFirst = nil
        slot.pointee.waiterLast = nil
        slot.pointee.waiterCount = 0
        heir.pointee.waiterNext = nil
        claim(heir)
        heir.pointee.waiterFirst = others.0
        heir.pointee.waiterLast = others.0 == nil ? nil : others.1
        heir.pointee.waiterCount = others.2
        return heir
    }

    /// Takes a waiter out of its queue. False if it has become an owner meanwhile. Under the lock.
    func leave(_ slot: SlotPointer) -> Bool {
        guard slot.pointee.phase == .waiting, let owner = owner(of: slot.pointee.digest) else { return false }
        var before: SlotPointer?
        var waiter = owner.pointee.waiterFirst
        while let current = waiter, current != slot {
            before = current
            waiter = current.pointee.waiterNext
        }
        precondition(waiter != nil, "a waiting request is in the queue of its record's owner")
        if let before { before.pointee.waiterNext = slot.pointee.waiterNext }
        else { owner.pointee.waiterFirst = slot.pointee.waiterNext }
        if owner.pointee.waiterLast == slot { owner.pointee.waiterLast = before }
        owner.pointee.waiterCount -= 1
        slot.pointee.waiterNext = nil
        slot.pointee.phase = .answered
        return true
    }

    private func removeOwner(_ slot: SlotPointer) {
        let line = lines + Int(slot.pointee.digest.partition.number)
        if line.pointee.claims == slot {
            line.pointee.claims = slot.pointee.claimNext
        } else {
            var before = line.pointee.claims
            while let current = before, current.pointee.claimNext != slot { before = current.pointee.claimNext }
            precondition(before != nil, "only an owner ends a claim")
            before?.pointee.claimNext = slot.pointee.claimNext
        }
        slot.pointee.claimNext = nil
        line.pointee.claimCount -= 1
    }
}
