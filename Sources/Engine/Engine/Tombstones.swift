// Deletes that last on a backend whose releases do not: the record gets a last version without bins, a tombstone. It keeps
// older images, which a cold start may still find on the medium, from coming back.
internal import Base
internal import CBase
internal import Index
internal import Record
internal import Storage
internal import Synchronization
internal import Wire

/// Tombstones that nothing older is left for. Any thread.
final class NeedlessTombstones: Sendable {
    /// The record may have been written and deleted again since: only the tombstone at that place is meant.
    struct One {
        let digest: Digest
        let location: UInt64
    }
    private let digests = Mutex<[One]>([])
    private let count = Atomic(0)

    func add(_ more: [One]) {
        digests.withLock { $0 += more }
        count.add(more.count, ordering: .sequentiallyConsistent)
    }

    var isEmpty: Bool { count.load(ordering: .relaxed) == 0 }

    /// Some of them, to be removed by the caller.
    func take(_ most: Int) -> [One] {
        let taken = digests.withLock { digests in
            let taken = Array(digests.suffix(most))
            digests.removeLast(taken.count)
            return taken
        }
        count.subtract(taken.count, ordering: .sequentiallyConsistent)
        return taken
    }
}

extension NamespaceShard {
    private static let tombstonesPerSlice = 64

    /// Whether the delete in `slot` was asked to last and needs a tombstone for that.
    func leavesTombstone(_ slot: SlotPointer) -> Bool {
        keepsTombstones && slot.pointee.request.pointee.header.info2.contains(.durableDelete)
    }

    /// Builds the tombstone in `scratch.image` and its entry in `slot.next`. From here on the delete is a write.
    func buildTombstone(_ slot: SlotPointer, _ now: TurnTime) -> ResultCode {
        let previous = slot.pointee.previous
        var next = IndexEntry(digest: slot.pointee.digest)
        next.kind = .tombstone
        next.generation = Generation.next(previous.generation)
        next.lastUpdate = namespace.issueTime(wall: now.wall, previous: previous.lastUpdate)
        next.epochSlot = 1
        next.setID = previous.setID
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        let setName = previous.setID == 0 ? nothing : namespace.sets.name(of: previous.setID)
        let header = ImageHeader(
            generation: next.generation, voidTime: 0, lastUpdate: next.lastUpdate, epoch: epoch(of: slot),
            setName: setName, key: nothing)
        scratch.editor.begin(nil)
        writeImage(slot, &next, header, Envelope.byteCount + scratch.editor.imageByteCount(header))
        slot.pointee.isTombstone = true
        return .ok
    }

    /// Removes some tombstones that are needless. True: there may be more.
    func removeNeedlessTombstones() -> Bool {
        guard keepsTombstones, !namespace.needlessTombstones.isEmpty else { return false }
        for one in namespace.needlessTombstones.take(NamespaceShard.tombstonesPerSlice) {
            let digest = one.digest
            partitions.lock(digest.partition)
            // A write that is under way replaces it anyway.
            if partitions.owner(of: digest) == nil, let reference = index.find(digest) {
                let held = index.entry(reference)
                if held.kind == .tombstone, held.location == one.location {
                    index.remove(reference, partition: digest.partition)
                    backend.release(digest, at: Location(rawValue: held.location), byteCount: held.byteCount)
                    counters.changeSet(held, by: -1)
                }
            }
            partitions.unlock(digest.partition)
        }
        return true
    }
}
