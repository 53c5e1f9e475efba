// One namespace on one reactor: the backend shard, and the way from a request to a result.
package import Base
internal import CBase
internal import Index
internal import Record
package import Storage
internal import Wire

/// What became of a request for now.
package enum Progress: Sendable {
    /// The answer is in the output.
    case answered
    /// The answer comes later; the slot is kept.
    case suspended
}

/// A namespace as one reactor sees it. Reactor's thread only.
package final class NamespaceShard {
    package let namespace: Namespace
    package let backend: any BackendShard
    package let counters: ShardCounters
    private let compaction: (any Compacting)?
    let expiry: Sweep<ExpirySweep>
    let index: PrimaryIndex
    let partitions: PartitionTable
    let scratch: Scratch
    let cluster: any ClusterEffects
    /// Backend answers at once and nobody else must agree: a small write runs in one hold of the lock.
    let writesAtOnce: Bool
    let checksChecksums: Bool
    /// One image per digest: `append` replaces, `remove` deletes, nothing is released.
    let isKeyed: Bool
    /// A commit makes releases last: deletes wait for it.
    let releasesLast: Bool
    /// Releases need not last: a delete that is to last leaves a tombstone.
    let keepsTombstones: Bool
    /// Reports pressure that writers wait for.
    let hasPressure: Bool
    let number: Int
    let log: @Sendable (String) -> Void
    /// Whether this node may not serve every partition.
    let isRouting: Bool
    private let nameBytes: UnsafeRawBufferPointer
    private let truncation: Truncation
    let truncateSweep: Sweep<TruncateSweep>
    private var lastFailure: StorageError?
    private var failureCount = 0

    init(
        namespace: Namespace, number: Int, reactor: Int, backend: any BackendShard, scratch: Scratch,
        cluster: any ClusterEffects, log: @escaping @Sendable (String) -> Void
    ) {
        self.namespace = namespace
        self.number = number
        self.backend = backend
        self.scratch = scratch
        self.cluster = cluster
        self.log = log
        counters = namespace.counters[reactor]
        let name = UnsafeMutableRawBufferPointer.allocate(byteCount: namespace.settings.name.utf8.count, alignment: 8)
        name.copyBytes(from: namespace.settings.name.utf8)
        nameBytes = UnsafeRawBufferPointer(name)
        compaction = namespace.backend.compaction
        truncation = namespace.truncation
        truncateSweep = Sweep(TruncateSweep(namespace), board: namespace.truncateBoard, reactor: reactor)
        expiry = Sweep(ExpirySweep(namespace, reactor: reactor), board: namespace.upkeep.board, reactor: reactor)
        index = namespace.index
        partitions = namespace.partitions
        let isVolatile = namespace.agreement.capabilities.contains(.volatile)
        checksChecksums = !isVolatile
        isKeyed = namespace.agreement.capabilities.contains(.keyed)
        hasPressure = !isVolatile
        keepsTombstones = namespace.agreement.keepsTombstones
        releasesLast = namespace.agreement.capabilities.isSuperset(of: [.durableAtCommit, .deletesLast])
        isRouting = cluster.isRouting
        writesAtOnce = isVolatile && cluster.isAlone && !namespace.settings.commitBeforeAnswer
    }

    deinit { nameBytes.deallocate() }

    /// Whether the entry stands for a record that a client can see at `now`. Void-times are cut to seconds: a
    /// record is there through the second of its void-time, so that it never lives shorter than it was given.
    func isVisible(_ entry: IndexEntry, now: RecordTime) -> Bool {
        entry.kind == .live && (entry.voidTime == 0 || entry.voidTime >= now.seconds)
            && !truncation.covers(entry.lastUpdate, set: entry.setID)
    }

    /// Looks the slot's record up and copies its entry into the slot. Under the partition's lock.
    func loadPrevious(_ slot: SlotPointer) -> IndexReference? {
        guard let reference = index.find(slot.pointee.digest) else {
            slot.pointee.hasPrevious = false
            return nil
        }
        slot.pointee.hasPrevious = true
        slot.pointee.previous = index.entry(reference)
        return reference
    }

    /// What the index says of a record now, and whether somebody writes to it.
    func current(_ digest: Digest) -> (entry: IndexEntry?, isClaimed: Bool) {
        partitions.lock(digest.partition)
        defer { partitions.unlock(digest.partition) }
        return (index.find(digest).map { index.entry($0) }, partitions.owner(of: digest) != nil)
    }

    /// The payload of an image as the backend gave it; nil if it is not what was written.
    func payload(of image: UnsafeRawBufferPointer, _ digest: Digest) -> ImageView? {
        NamespaceShard.payload(of: image, digest, checksChecksum: checksChecksums)
    }

    /// The same for images that no shard has read.
    static func payload(
        of image: UnsafeRawBufferPointer, _ digest: Digest, checksChecksum: Bool
    ) -> ImageView? {
        let bytes = image.count >= 4 ? Envelope.byteCount(at: image.baseAddress!) : 0
        guard bytes >= Envelope.byteCount, bytes <= image.count else { return nil }
        let whole = UnsafeRawBufferPointer(rebasing: image[..<bytes])
        guard Envelope.fits(whole, digest: digest), !checksChecksum || Envelope.checksumFits(whole) else { return nil }
        return ImageView(UnsafeRawBufferPointer(rebasing: whole[Envelope.byteCount...]))
    }

    /// The image that `entry` points at is not there or not what was written: counted and logged, never served.
    func damaged(_ entry: IndexEntry, _ digest: Digest) -> ResultCode {
        counters.count(.recordsUnreadable)
        log("record \(digest) of namespace \(namespace.settings.name) at location \(entry.location) is damaged: "
            + "answering 1; restore it from another copy or delete it")
        return .unknown
    }

    /// The result code for what a backend reports; a failing medium is logged.
    func resultCode(_ error: StorageError) -> ResultCode {
        switch error {
        case .outOfSpace: return .outOfSpace
        case .overloaded: return .deviceOverload
        case .tooLarge: return .recordTooBig
        case .corrupt, .device, .closed, .settings, .medium, .unsupported:
            logFailure(error)
            return .unknown
        }
    }

    /// A medium that fails fails for every request: the same error is logged the 1st, 2nd, 4th, 8th time and so on.
    private func logFailure(_ error: StorageError) {
        failureCount = error == lastFailure ? failureCount + 1 : 1
        lastFailure = error
        guard failureCount.nonzeroBitCount == 1 else { return }
        let times = failureCount > 1 ? " (\(failureCount) times)" : ""
        log("namespace \(namespace.settings.name): storage failed\(times): \(error.text)")
    }

    /// Starts fetching what a look-up of `digest` will touch first. Stage one of three.
    @inline(__always)
    package func prefetchBucket(_ digest: Digest, isWrite: Bool) {
        partitions.prefetch(digest.partition)
        if isWrite { index.prefetchState(digest) }
        index.prefetchBucket(digest)
    }

    /// Stage two: the entry.
    @inline(__always)
    package func prefetchEntry(_ digest: Digest, isWrite: Bool) {
        index.prefetchEntry(digest)
        if isWrite { index.prefetchFreeEntry(digest) }
    }

    /// Stage three: the image.
    package func prefetchImage(_ digest: Digest) {
        guard let image = index.likelyLocation(digest) else { return }
        backend.prefetch(at: Location(rawValue: image.location), byteCount: image.byteCount)
    }
}

extension NamespaceShard {
    /// Whether this is the namespace called `name`.
    func isNamed(_ name: UnsafeRawBufferPointer) -> Bool {
        nameBytes.equals(name)
    }

    /// A backend operation of `slot` has ended: the machine goes on from there.
    func completed(_ slot: SlotPointer, _ result: Completion.Result, now: TurnTime) -> Progress {
        switch result {
        case .read(let image):
            if slot.pointee.isRead { return finishRead(slot, image, now) }
            slot.pointee.phase = .read
            return advance(slot, image: image, now: now)
        case .absent:
            if slot.pointee.isRead { return readAgain(slot, now) }
            return finish(slot, damaged(slot.pointee.previous, slot.pointee.digest))
        case .placed(let location):
            slot.pointee.next.location = location.rawValue
            slot.pointee.phase = .appended
            return advance(slot, image: nil, now: now)
        case .done: return stepDone(slot, now)
        case .failed(let error): return failed(slot, error, now)
        }
    }

    /// A remove or a commit has ended.
    private func stepDone(_ slot: SlotPointer, _ now: TurnTime) -> Progress {
        switch slot.pointee.phase {
        case .applied: slot.pointee.phase = .appended
        case .appended: slot.pointee.phase = .committed
        case .published: slot.pointee.phase = .settled
        case .abandoned: return finish(slot, slot.pointee.result)
        default: preconditionFailure("nothing is under way in \(slot.pointee.phase)")
        }
        return advance(slot, image: nil, now: now)
    }

    private func failed(_ slot: SlotPointer, _ error: StorageError, _ now: TurnTime) -> Progress {
        if error == .overloaded, slot.pointee.phase < .appended, delay(slot, now) { return .suspended }
        if slot.pointee.isRead, case .corrupt = error { return readAgain(slot, now) }
        let code = resultCode(error)
        if slot.pointee.isRead { return end(slot, code) }
        switch slot.pointee.phase {
        case .appended: return commitFailed(slot, code)
        case .abandoned: return finish(slot, slot.pointee.result)
        default: return finish(slot, code)
        }
    }

    /// One slice of compaction, if the backend wants it.
    func compactSlice() -> BackgroundWork {
        if removeNeedlessTombstones() { return .some }
        guard let compaction else { return .none }
        let byteBudget = compaction.wantedBytes
        guard byteBudget > 0 else { return .none }
        do throws(StorageError) {
            let seen = try compaction.compact(on: backend, byteBudget: byteBudget, arbiter: namespace)
            guard seen > 0 else { return .none }
            return byteBudget >= CompactionUrgency.pressingBytes ? .pressing : .some
        } catch {
            _ = resultCode(error)
            return .none
        }
    }
}
