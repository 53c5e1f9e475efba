// One namespace of a node, shared by all reactors. Invariants:
// 1. An index entry is read and changed under the lock of its partition only.
// 2. The entry of a record points at an image that the backend holds; whoever takes the entry away releases
//    the image that the entry held at that moment, once.
// 3. Last-update times never go back within a record, nor below the record clock's high-water mark at their
//    issue.
package import Base
internal import CBase
package import Index
package import Storage

/// What a namespace needs to know; all but `numbers` is fixed while it serves.
package struct NamespaceSettings: Sendable {
    /// As configured, at most 31 bytes.
    package var name: String
    /// `commit-to-device`: an answer waits for the backend's commit.
    package var commitBeforeAnswer = false
    /// What the namespace starts with; in force is what `Namespace.live` says.
    package var numbers = LiveNamespaceSettings()

    package init(name: String) { self.name = name }
}

/// A namespace, see the invariants above.
package final class Namespace: @unchecked Sendable {
    package let settings: NamespaceSettings
    /// The settings that may change while it serves.
    package let live: LiveSettings<LiveNamespaceSettings>
    package let agreement: Agreement
    package let backend: any Backend
    package let index: PrimaryIndex
    package let sets: SetTable
    package let epoch: Epoch
    package let counters: [ShardCounters]
    /// Times before which records count as gone.
    package let truncation = Truncation()
    /// Settings of sets.
    package let setValues = SetValues()
    /// Passes that remove what was truncated.
    package let truncateBoard: SweepBoard
    let partitions = PartitionTable()
    /// Tombstones that a cold start has found to be needless.
    let needlessTombstones = NeedlessTombstones()
    /// Expiry and eviction.
    package let upkeep: Upkeep
    /// Why writes are refused.
    package let overflowReasons = OverflowReasons()
    /// Nil where no older version can come back.
    let longerLives: LongerLives?
    /// The record clock, on a line of its own; in memory that outlives the process if there is some.
    private let clockWord: UnsafeMutableRawPointer
    private let clock: (any MemoryRegion)?
    // Word 8: what is refused because it runs full.
    private let words: UnsafeMutablePointer<UInt64>

    /// Joins what was opened. `reactors` is how many shards will be made. With `memory` the names of sets and the record
    /// clock that it holds are gone on with.
    /// - Throws: `settings` if the memory has no room, `medium` if it cannot be trusted.
    package init(
        settings: NamespaceSettings, agreement: Agreement, backend: any Backend, index: PrimaryIndex, epoch: Epoch,
        reactors: Int, memory: (any KeptMemory)? = nil
    ) throws(StorageError) {
        self.settings = settings
        live = LiveSettings(settings.numbers)
        self.agreement = agreement
        self.backend = backend
        self.index = index
        self.epoch = epoch
        counters = (0..<reactors).map { _ in ShardCounters() }
        truncateBoard = SweepBoard(reactorCount: reactors)
        let names = try memory?.region("sets", capacity: SetTable.byteCount)
        sets = try names.map { (region) throws(StorageError) in try SetTable(region) } ?? SetTable()
        clock = try memory?.region("clock", capacity: Namespace.clockByteCount)
        if let clock, !clock.grow(to: Namespace.clockByteCount) {
            throw .settings("the medium of the index has no room for its clock")
        }
        upkeep = Upkeep(reactorCount: reactors)
        if agreement.keepsTombstones {
            let lives = try memory?.region("lives", capacity: LongerLives.byteCount)
            longerLives = try lives.map { (region) throws(StorageError) in try LongerLives(region) } ?? LongerLives()
        } else {
            longerLives = nil
        }
        words = .allocate(capacity: 16)
        words.initialize(repeating: 0, count: 16)
        clockWord = clock?.base ?? UnsafeMutableRawPointer(words)
    }

    deinit { words.deallocate() }

    private static let clockByteCount = 4096
    /// Another number whenever index, names of sets or clock keep their memory in another way.
    package static let memoryLayout: UInt64 = 3

    /// The last-update time for a new version: never below `wall`, what this node issued before, or
    /// `previous`.
    func issueTime(wall: RecordTime, previous: UInt64) -> UInt64 {
        let issued = apus_load_relaxed_u64(clockWord)
        if wall.milliseconds > issued { raiseClock(to: wall.milliseconds) }
        return max(wall.milliseconds, max(issued, previous))
    }

    /// No time below `time`, in milliseconds since 2010, is issued from now on. Any thread.
    package func raiseClock(to time: UInt64) {
        var expected = apus_load_relaxed_u64(clockWord)
        while expected < time, !apus_compare_exchange_u64(clockWord, expected, time) {
            expected = apus_load_relaxed_u64(clockWord)
        }
    }

    /// What client writes are refused (8) because the namespace runs full; deletes go on. Any thread.
    package var overflow: Overflow {
        get { Overflow(rawValue: apus_load_relaxed_u64(words + 8)) ?? .none }
        set { apus_store_relaxed_u64(words + 8, newValue.rawValue) }
    }

    /// Whether no record can be created. Any thread.
    package var stopWrites: Bool { overflow != .none }

    /// How many records there are. Any thread; a moment old.
    package var objectCount: Int { max(index.count - tombstoneCount, 0) }

    /// How many deleted records the index remembers. Any thread; a moment old.
    package var tombstoneCount: Int {
        let total = counters.reduce(Int64(0)) { sum, shard in
            (0...sets.count).reduce(sum) { $0 + shard.setTombstones(UInt16($1)) }
        }
        return Int(max(total, 0))
    }

    /// Bytes of the images that the index points at, each rounded to its unit. Any thread; a moment old.
    package var indexedBytes: UInt64 {
        let total = counters.reduce(Int64(0)) { sum, shard in
            (0...sets.count).reduce(sum) { $0 + shard.setBytes(UInt16($1)) }
        }
        return UInt64(max(total, 0))
    }

    /// The backend's figures; what a keyed one does not count comes from the index. Any thread.
    package var statistics: BackendStatistics {
        var figures = backend.statistics
        if figures.usedBytes == 0, agreement.capabilities.contains(.keyed) { figures.usedBytes = indexedBytes }
        return figures
    }

    /// The sum of a counter over all reactors. Any thread.
    package func total(_ counter: NamespaceCounter) -> UInt64 { counters.reduce(0) { $0 + $1.value(of: counter) } }
}

extension Agreement {
    /// Releases need not last: a delete that is to last leaves a tombstone.
    var keepsTombstones: Bool {
        !capabilities.contains(.volatile) && !capabilities.contains(.keyed) && !capabilities.contains(.deletesLast)
    }
}

extension Namespace: LivenessArbiter {
    package func prefetch(_ digest: Digest, stage: Int) {
        if stage == 0 {
            partitions.prefetch(digest.partition)
            index.prefetchBucket(digest)
        } else {
            index.prefetchEntry(digest)
        }
    }

    package func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        partitions.lock(digest.partition)
        defer { partitions.unlock(digest.partition) }
        guard let reference = index.find(digest), index.entry(reference).location == from.rawValue else { return false }
        index.relocate(reference, to: to.rawValue)
        return true
    }

    package func isLive(_ digest: Digest, at location: Location) -> Bool {
        partitions.lock(digest.partition)
        defer { partitions.unlock(digest.partition) }
        guard let reference = index.find(digest), partitions.owner(of: digest) == nil else { return false }
        return index.entry(reference).location == location.rawValue
    }
}
