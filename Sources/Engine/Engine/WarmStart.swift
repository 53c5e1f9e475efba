// From an index that outlived its process to a namespace that serves: one walk. Invariants:
// 1. Every entry that stays in the index was shown to the backend, once.
// 2. Counters of sets and the record clock cover every entry.
internal import Base
internal import Index
package import Storage
internal import Synchronization

/// Goes on from the index that `namespace` was given. `adopt` on several threads at once, each with a worker number of its
/// own; then `finish`.
package final class WarmStart: @unchecked Sendable {
    private let namespace: Namespace
    private let backend: any WarmStarting
    private let repairedCount = Atomic(0)

    /// `backend` is the facet of the namespace's backend.
    package init(_ namespace: Namespace, _ backend: any WarmStarting) {
        self.namespace = namespace
        self.backend = backend
    }

    /// Walks the partitions of one worker of `count`, until somebody asks to stop.
    /// - Throws: `medium` with the reason if the index is not to be trusted.
    package func adopt(
        worker: Int, of count: Int, isStopAsked: () -> Bool = { false }
    ) throws(StorageError) {
        let counters = namespace.counters[worker]
        var lastUpdate: UInt64 = 0
        let setCount = namespace.sets.count
        do throws(AttachFailure) {
            for number in stride(from: worker, to: PartitionID.count, by: count) where !isStopAsked() {
                let found = try namespace.index.adoptPartition(PartitionID(UInt16(number))) { record in
                    let entry = record.entry
                    guard Int(entry.setID) <= setCount else { return false }
                    lastUpdate = max(lastUpdate, entry.lastUpdate)
                    counters.changeSet(entry, by: 1)
                    return backend.adopt(Location(rawValue: entry.location), byteCount: entry.byteCount)
                }
                if found.clearedHandleCount > 0 { addRepaired(found.clearedHandleCount) }
            }
        } catch {
            throw .medium("the index is damaged: \(error)")
        }
        namespace.raiseClock(to: lastUpdate)
    }

    private func addRepaired(_ count: Int) { repairedCount.add(count, ordering: .relaxed) }

    /// Handles that an interrupted change had left behind. Any thread.
    package var repaired: Int { repairedCount.load(ordering: .relaxed) }

    /// Every partition was walked: the backend makes durable what was not.
    /// - Throws: `medium` if the memory is not to be trusted, `device`.
    package func finish() throws(StorageError) {
        _ = namespace.index.finishAdoption()
        try backend.finish()
    }
}
