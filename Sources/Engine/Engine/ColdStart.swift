// From what the medium holds to an index, before the namespace serves. Invariants:
// 1. Of several images of one digest the one that was written last wins, whatever its times say.
// 2. The record clock ends at or above every last-update time that was seen.
// 3. A tombstone that has older images below it is of kind `raiderTombstone` meanwhile; one that has none when everything is
//    read is of no use any more.
package import Base
internal import CBase
package import Index
internal import Record
package import Storage

/// Fills the index of one namespace. `visit` on several threads at once, each with a worker number of its own.
package final class ColdStart: @unchecked Sendable {
    private let namespace: Namespace
    private let now: RecordTime
    private let isKeyed: Bool
    /// Order of writing of the image behind each entry; address space, pages come with the first touch.
    private let sequences: UnsafeMutablePointer<UInt64>
    private let sequencesByteCount: Int
    private let figures: UnsafeMutablePointer<UInt64>
    private let log: @Sendable (String) -> Void
    /// The last digests that were told ahead, a ring for each worker, and where in it the next one goes.
    private let upcoming: UnsafeMutablePointer<Digest>
    private let turns: UnsafeMutablePointer<Int>
    private static let stepVisits = 4
    private static let ringSize = 8
    private static let workersMax = 1024
    private enum Figure: Int, CaseIterable { case visited, bytes, damaged, expired, refused }

    /// Prepares for `recordsMax` records; `now` decides what has expired.
    package init(
        _ namespace: Namespace, recordsMax: Int, now: RecordTime, log: @escaping @Sendable (String) -> Void
    ) throws(IndexError) {
        self.namespace = namespace
        self.now = now
        self.log = log
        isKeyed = namespace.agreement.capabilities.contains(.keyed)
        // Images of evicted records may still be there.
        namespace.upkeep.evictAgain()
        sequencesByteCount = 8 * recordsMax
        guard let pages = apus_pages_reserve(sequencesByteCount, false) else {
            throw .noAddressSpace(byteCount: sequencesByteCount)
        }
        sequences = pages.bindMemory(to: UInt64.self, capacity: recordsMax)
        figures = .allocate(capacity: Figure.allCases.count)
        figures.initialize(repeating: 0, count: Figure.allCases.count)
        let ringRoom = ColdStart.workersMax * ColdStart.ringSize
        upcoming = .allocate(capacity: ringRoom)
        upcoming.initialize(repeating: Digest(low: 0, middle: 0, high: 0), count: ringRoom)
        // Each on a line of its own, as long as a ring.
        turns = .allocate(capacity: ringRoom)
        turns.initialize(repeating: 0, count: ringRoom)
    }

    deinit {
        apus_pages_release(sequences, sequencesByteCount)
        figures.deallocate()
        upcoming.deallocate()
        turns.deallocate()
    }

    private func count(_ figure: Figure, _ amount: Int = 1) {
        _ = apus_fetch_add_u64(figures + figure.rawValue, UInt64(amount))
    }

    private func value(_ figure: Figure) -> Int { Int(apus_load_relaxed_u64(figures + figure.rawValue)) }

    /// Images seen so far. Any thread.
    package var visited: Int { value(.visited) }
    /// Bytes of the images seen so far. Any thread.
    package var bytes: Int { value(.bytes) }
    /// Images that were not what was written; they are not served. Any thread.
    package var damaged: Int { value(.damaged) }
    /// Records whose time was up. Any thread.
    package var expired: Int { value(.expired) }
    /// Records that the index had no room for. Any thread.
    package var refused: Int { value(.refused) }

    /// Takes one image in. The bytes are used during the call only.
    package func visit(_ scanned: ScannedImage, worker: Int) -> ScanDecision {
        if let ahead = scanned.ahead { prefetch(ahead, worker) }
        count(.visited)
        count(.bytes, scanned.image.count)
        guard let view = NamespaceShard.payload(of: scanned.image, scanned.digest, checksChecksum: true) else {
            count(.damaged)
            log("record \(scanned.digest) of namespace \(namespace.settings.name) at location"
                + " \(scanned.location.rawValue) is damaged: it is left where it is and not served")
            return .live
        }
        namespace.raiseClock(to: view.lastUpdate)
        // In a log an older image could take the place of an expired one: there, expired records go like all others.
        if isKeyed, view.voidTime != 0, view.voidTime < now.seconds {
            count(.expired)
            return .stale
        }
        guard let setID = namespace.sets.makeID(for: view.setName) else {
            count(.refused)
            return .live
        }
        var entry = IndexEntry(digest: scanned.digest)
        entry.location = scanned.location.rawValue
        entry.byteCount = Envelope.storedByteCount(Envelope.byteCount(at: scanned.image.baseAddress!))
        entry.isKeyStored = !view.key.isEmpty
        entry.lastUpdate = view.lastUpdate
        entry.generation = view.generation
        entry.voidTime = view.voidTime
        entry.setID = setID
        // What has no bins says that the record was deleted.
        entry.kind = view.binCount == 0 ? .tombstone : .live
        return place(entry, scanned, namespace.counters[worker])
    }

    /// Digests come some visits early: each is fetched in two steps, what leads to its place first, then, half of the
    /// way later, the place itself.
    private func prefetch(_ digest: Digest, _ worker: Int) {
        guard worker < ColdStart.workersMax else { return }
        let ring = upcoming + worker * ColdStart.ringSize
        let place = turns[worker * ColdStart.ringSize]
        turns[worker * ColdStart.ringSize] = (place + 1) % ColdStart.stepVisits
        let near = ring[place]
        ring[place] = digest
        namespace.partitions.prefetch(digest.partition)
        namespace.index.prefetchState(digest)
        namespace.index.prefetchRoot(digest)
        namespace.index.prefetchBucket(near)
        apus_prefetch(sequences + namespace.index.prefetchNewEntry(near))
    }

    private func place(_ entry: IndexEntry, _ scanned: ScannedImage, _ counters: ShardCounters) -> ScanDecision {
        let partition = scanned.digest.partition
        let index = namespace.index
        namespace.partitions.lock(partition)
        defer { namespace.partitions.unlock(partition) }
        do throws(IndexError) {
            guard let reference = index.find(scanned.digest) else {
                try index.insert(scanned.digest, entry)
                if let made = index.find(scanned.digest) { sequences[index.number(made)] = scanned.sequence }
                counters.changeSet(entry, by: 1)
                return .live
            }
            let held = index.entry(reference)
            guard scanned.sequence > sequences[index.number(reference)] else {
                namespace.longerLives?.replaces(entry, held, scanned.digest)
                if held.kind == .tombstone { index.setKind(reference, .raiderTombstone) }
                return .stale
            }
            namespace.longerLives?.replaces(held, entry, scanned.digest)
            var entry = entry
            if entry.kind == .tombstone { entry.kind = .raiderTombstone }
            let replaced = try index.replace(reference, with: entry, partition: partition)
            sequences[index.number(replaced)] = scanned.sequence
            counters.changeSet(held, by: -1)
            counters.changeSet(entry, by: 1)
            return .replaces(Location(rawValue: held.location), byteCount: held.byteCount)
        } catch {
            count(.refused)
            return .live
        }
    }

    // ---- Tombstones ----

    /// Everything is read: tombstones that hold nothing down any more are left to the reactors to remove, unless something
    /// could not be read (`isComplete` is false), which they may hold down. Once, on one thread, after all visits.
    package func settleTombstones(isComplete: Bool = true) {
        guard namespace.tombstoneCount > 0 else { return }
        let room = UnsafeMutableBufferPointer<IndexedRecord>.allocate(capacity: 256)
        defer { room.deallocate() }
        var needless: [NeedlessTombstones.One] = []
        for number in 0..<PartitionID.count {
            let partition = PartitionID(UInt16(number))
            var cursor = IndexCursor()
            while !cursor.isDone {
                for record in room[..<namespace.index.slice(partition, &cursor, into: room)] {
                    if record.entry.kind == .tombstone, isComplete {
                        needless.append(NeedlessTombstones.One(digest: record.digest, location: record.entry.location))
                    }
                    if record.entry.kind == .raiderTombstone, let reference = namespace.index.find(record.digest) {
                        namespace.index.setKind(reference, .tombstone)
                    }
                }
            }
        }
        namespace.needlessTombstones.add(needless)
    }
}
