// What a namespace counts. Each reactor counts for itself in plain memory; readers add the reactors up and
// may see a request's counters a moment apart. Names are those of `namespace/<ns>`.
internal import CBase
internal import Index

/// Counters of a namespace on one reactor.
package enum NamespaceCounter: Int, CaseIterable, Sendable {
    case clientReadSuccess, clientReadError, clientReadTimeout, clientReadNotFound, clientReadFilteredOut
    case clientWriteSuccess, clientWriteError, clientWriteTimeout, clientWriteFilteredOut
    case clientDeleteSuccess, clientDeleteError, clientDeleteTimeout, clientDeleteNotFound, clientDeleteFilteredOut
    case clientTsvcError, clientTsvcTimeout
    case batchSubTsvcError, batchSubTsvcTimeout
    case batchSubReadSuccess, batchSubReadError, batchSubReadTimeout, batchSubReadNotFound, batchSubReadFilteredOut
    case batchSubWriteSuccess, batchSubWriteError, batchSubWriteTimeout, batchSubWriteFilteredOut
    case batchSubDeleteSuccess, batchSubDeleteError, batchSubDeleteTimeout, batchSubDeleteNotFound
    case batchSubDeleteFilteredOut
    case readTouchSuccess, readTouchError, readTouchSkip
    case failKeyBusy, failGeneration, failRecordTooBig, deletedLastBin
    case ttlReductionsIgnored, ttlReductionsApplied
    case recordsUnreadable, requestsDelayed
    case piQueryShortBasicComplete, piQueryShortBasicError, piQueryShortBasicTimeout
    case piQueryLongBasicComplete, piQueryLongBasicError, piQueryLongBasicAbort
    case piQueryOpsBgComplete, piQueryOpsBgError, piQueryOpsBgAbort
    case opsSubWriteSuccess, opsSubWriteError, opsSubWriteTimeout, opsSubWriteFilteredOut
    case expiredObjects, evictedObjects, truncatedRecords

    /// As printed: `clientReadSuccess` is `client_read_success`.
    package var statisticName: String {
        var name = ""
        for letter in "\(self)" {
            if letter.isUppercase { name += "_" }
            name += letter.lowercased()
        }
        return name
    }
}

/// Which latency a histogram collects.
package enum LatencyKind: Int, CaseIterable, Sendable {
    case read, write, batchSubRead, batchSubWrite, piQuery

    /// As `latencies:` prints it.
    package var text: String {
        switch self {
        case .read: "read"
        case .write: "write"
        case .batchSubRead: "batch-sub-read"
        case .batchSubWrite: "batch-sub-write"
        case .piQuery: "pi-query"
        }
    }
}

/// The counting memory of one namespace on one reactor. Written by that reactor, read by anyone.
package final class ShardCounters: @unchecked Sendable {
    /// Buckets of a histogram: bucket b counts latencies of [2^(b-1), 2^b) microseconds, bucket 0 those below
    /// one.
    package static let latencyBuckets = 40
    private let counters: UnsafeMutablePointer<UInt64>
    private let latencies: UnsafeMutablePointer<UInt64>
    private let setObjects: UnsafeMutableRawPointer
    private let setBytes: UnsafeMutableRawPointer
    private let setTombstones: UnsafeMutableRawPointer
    private static let setRoom = 4096 * 8

    package init() {
        // Lines of their own: other reactors count beside this one.
        let room = (NamespaceCounter.allCases.count + LatencyKind.allCases.count * ShardCounters.latencyBuckets + 32) * 8
        counters = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 128)
            .bindMemory(to: UInt64.self, capacity: room / 8)
        counters.initialize(repeating: 0, count: NamespaceCounter.allCases.count)
        latencies = counters + NamespaceCounter.allCases.count
        latencies.initialize(repeating: 0, count: LatencyKind.allCases.count * ShardCounters.latencyBuckets)
        guard let objects = apus_pages_reserve(ShardCounters.setRoom, false),
            let bytes = apus_pages_reserve(ShardCounters.setRoom, false),
            let tombstones = apus_pages_reserve(ShardCounters.setRoom, false)
        else { fatalError("no address space for set counters") }
        setObjects = objects
        setBytes = bytes
        setTombstones = tombstones
    }

    deinit {
        counters.deallocate()
        apus_pages_release(setObjects, ShardCounters.setRoom)
        apus_pages_release(setBytes, ShardCounters.setRoom)
        apus_pages_release(setTombstones, ShardCounters.setRoom)
    }

    private func add(_ amount: UInt64, to word: UnsafeMutableRawPointer) {
        apus_store_relaxed_u64(word, apus_load_relaxed_u64(word) &+ amount)
    }

    /// Counts one. Owner's thread.
    func count(_ counter: NamespaceCounter) { add(1, to: counters + counter.rawValue) }

    /// Counts `times` requests of `nanoseconds` each. Owner's thread.
    func countLatency(_ kind: LatencyKind, nanoseconds: UInt64, times: UInt64) {
        let bucket = ShardCounters.latencyBucket(nanoseconds: nanoseconds)
        add(times, to: latencies + kind.rawValue * ShardCounters.latencyBuckets + bucket)
    }

    /// The bucket of a latency.
    static func latencyBucket(nanoseconds: UInt64) -> Int {
        min(64 - (nanoseconds / 1000).leadingZeroBitCount, latencyBuckets - 1)
    }

    /// An entry has come into the index (1) or has left it (-1): changes what its set holds. Owner's thread; the sum
    /// over all reactors is the truth, one of them may be negative.
    @inline(__always)
    func changeSet(_ entry: IndexEntry, by sign: Int) {
        let offset = Int(entry.setID) * 8
        add(UInt64(bitPattern: Int64(sign)), to: (entry.kind == .live ? setObjects : setTombstones) + offset)
        add(UInt64(bitPattern: Int64(sign * entry.byteCount)), to: setBytes + offset)
    }

    /// The value of a counter. Any thread.
    package func value(of counter: NamespaceCounter) -> UInt64 { apus_load_relaxed_u64(counters + counter.rawValue) }

    /// What bucket `bucket` of a histogram has counted. Any thread.
    package func latencyCount(_ kind: LatencyKind, bucket: Int) -> UInt64 {
        precondition(bucket >= 0 && bucket < ShardCounters.latencyBuckets)
        return apus_load_relaxed_u64(latencies + kind.rawValue * ShardCounters.latencyBuckets + bucket)
    }

    /// This reactor's share of the objects of set `id`. Any thread.
    package func setObjects(_ id: UInt16) -> Int64 {
        Int64(bitPattern: apus_load_relaxed_u64(setObjects + Int(id) * 8))
    }

    /// This reactor's share of the tombstones of set `id`. Any thread.
    package func setTombstones(_ id: UInt16) -> Int64 {
        Int64(bitPattern: apus_load_relaxed_u64(setTombstones + Int(id) * 8))
    }

    /// This reactor's share of the bytes of set `id`. Any thread.
    package func setBytes(_ id: UInt16) -> Int64 { Int64(bitPattern: apus_load_relaxed_u64(setBytes + Int(id) * 8)) }
}
