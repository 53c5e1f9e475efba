// Settings that an operator may change while the node serves. Invariants:
// 1. `current` points at values that do not change; a change makes new ones and swaps the pointer in one store.
// 2. Memory of old values is given back by whoever drops the `RetiredSettings` that `change` has answered: when every
//    reactor has ended the turn in which it may have loaded the pointer.
internal import Base
internal import CBase
internal import Record
internal import Synchronization

/// The numbers of a namespace that may change while it serves. One load gives all of them, of one moment.
package struct LiveNamespaceSettings: BitwiseCopyable, Sendable, Equatable {
    // ---- Times to live ----
    /// `default-ttl` in seconds, 0 for never.
    package var defaultTimeToLiveSeconds: UInt32 = 0
    /// `nsup-period` in seconds, 0 for off.
    package var nsupPeriodSeconds: UInt32 = 0
    /// `nsup-hist-period` in seconds, 0 for off.
    package var nsupHistogramPeriodSeconds: UInt32 = 3600
    /// `nsup-threads`.
    package var nsupThreads: UInt32 = 1
    /// `default-read-touch-ttl-pct`.
    package var readTouchPercent: UInt32 = 0
    /// `allow-ttl-without-nsup`.
    package var allowTimeToLiveWithoutNsup = false
    /// `apply-ttl-reductions`.
    package var applyTimeToLiveReductions = true

    // ---- Requests ----
    /// `disallow-null-setname`.
    package var disallowNullSetName = false
    /// `max-record-size` in bytes.
    package var recordSizeMax = Limits.recordSizeDefault
    /// `transaction-pending-limit`, 0 for no limit.
    package var pendingLimit = Limits.pendingLimitDefault

    // ---- Queries and jobs ----
    /// `force-long-queries`.
    package var forcesLongQueries = false
    /// `inline-short-queries`.
    package var inlinesShortQueries = false
    /// `background-query-max-rps`, records per second.
    package var backgroundQueryRecordsPerSecondMax: UInt32 = 10_000
    /// `single-query-threads`.
    package var singleQueryThreads: UInt32 = 4
    /// `truncate-threads`.
    package var truncateThreads: UInt32 = 4

    // ---- Eviction; 0 % is never ----
    /// `evict-hist-buckets`.
    package var evictHistogramBuckets: UInt32 = 10_000
    /// `evict-tenths-pct`, tenths of a percent of the records that one pass evicts.
    package var evictTenthsPercent: UInt32 = 5
    /// `evict-used-pct` of the backend's capacity.
    package var evictUsedPercent: UInt32 = 0
    /// `evict-indexes-memory-pct` of `indexesMemoryBudget`.
    package var evictIndexesMemoryPercent: UInt32 = 0
    /// `disable-eviction` of the namespace (ours): nothing is evicted, whatever is passed.
    package var disablesEviction = false

    // ---- First step of overflow: nothing new is created; 0 % is never ----
    /// `stop-writes-used-pct` of the backend's capacity.
    package var stopWritesUsedPercent: UInt32 = 70
    /// `stop-writes-avail-pct` of the backend's capacity.
    package var stopWritesAvailablePercent: UInt32 = 5
    /// `stop-writes-sys-memory-pct`.
    package var stopWritesSystemMemoryPercent: UInt32 = 90
    /// `indexes-memory-budget` in bytes, 0 for no limit.
    package var indexesMemoryBudget: UInt64 = 0
    /// `index-type.mounts-budget` in bytes, 0 for no limit.
    package var indexMountsBudget: UInt64 = 0

    // ---- Second step (ours): nothing is changed either; 0 % is never ----
    /// `stop-updates-used-pct` of the backend's capacity.
    package var stopUpdatesUsedPercent: UInt32 = 90
    /// `stop-updates-avail-pct` of the backend's capacity.
    package var stopUpdatesAvailablePercent: UInt32 = 2
    /// `stop-updates-sys-memory-pct`.
    package var stopUpdatesSystemMemoryPercent: UInt32 = 95

    /// The defaults.
    package init() {}

    /// The rules for void-times of this namespace.
    var timeToLiveRules: TimeToLive.Settings {
        TimeToLive.Settings(
            defaultSeconds: defaultTimeToLiveSeconds, nsupPeriodSeconds: nsupPeriodSeconds,
            allowWithoutNsup: allowTimeToLiveWithoutNsup, applyReductions: applyTimeToLiveReductions)
    }
}

/// The numbers of the node that may change while it serves.
package struct LiveServiceSettings: BitwiseCopyable, Sendable, Equatable {
    /// `transaction-max-ms`: deadline of a request that brings none.
    package var transactionMaxMilliseconds: UInt64 = 1000
    /// `batch-max-requests`: rows of one batch, 0 for no limit.
    package var batchRequestsMax: UInt32 = 0
    /// `batch-index-threads`.
    package var batchIndexThreads: UInt32 = 1
    /// `batch-max-buffers-per-queue`.
    package var batchBuffersPerQueueMax: UInt32 = 255
    /// `batch-max-unused-buffers`.
    package var batchUnusedBuffersMax: UInt32 = 256
    /// `query-max-done`: jobs that `query-show` remembers after their end.
    package var queryDoneMax: UInt32 = 100
    /// `query-threads-limit`.
    package var queryThreadsLimit: UInt32 = 128
    /// `ticker-interval` in seconds.
    package var tickerIntervalSeconds: UInt32 = 10
    /// `proto-fd-max`: client connections at a time.
    package var clientConnectionsMax: UInt32 = 15_000
    /// `proto-fd-idle-ms`, 0 for never.
    package var connectionIdleMilliseconds: UInt32 = 0
    /// `microsecond-histograms`.
    package var hasMicrosecondHistograms = false

    /// The defaults.
    package init() {}
}

/// Values behind a pointer that is swapped, see the invariants above.
package final class LiveSettings<Values: BitwiseCopyable & Sendable>: @unchecked Sendable {
    // A line of its own: read by every request, written once in a while.
    private let word: UnsafeMutablePointer<UInt64>
    private let changing = Mutex(())

    /// Starts with `values`.
    package init(_ values: Values) {
        word = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 128).bindMemory(to: UInt64.self, capacity: 16)
        word.initialize(repeating: 0, count: 16)
        word.pointee = LiveSettings.make(values)
    }

    deinit {
        UnsafeMutablePointer<Values>(bitPattern: UInt(word.pointee))?.deallocate()
        word.deallocate()
    }

    private static func make(_ values: Values) -> UInt64 {
        let place = UnsafeMutablePointer<Values>.allocate(capacity: 1)
        place.initialize(to: values)
        return UInt64(UInt(bitPattern: place))
    }

    /// The values in force. A reactor's thread, until the end of its turn; the thread that changes them, until it does.
    @inline(__always)
    package var current: UnsafePointer<Values> {
        UnsafePointer(bitPattern: UInt(apus_load_acquire_u64(word))).unsafelyUnwrapped
    }

    /// Puts other values in force, for all requests that begin after this. The old ones are freed when the answer is
    /// dropped by the last that holds it: invariant 2. One thread at a time.
    package func change(to values: Values) -> RetiredSettings {
        changing.withLock { _ in
            RetiredSettings(UInt(apus_exchange_u64(word, LiveSettings.make(values))))
        }
    }
}

/// The memory of values that are no longer in force; freed with this object.
package final class RetiredSettings: Sendable {
    private let address: UInt

    init(_ address: UInt) { self.address = address }

    deinit { UnsafeMutableRawPointer(bitPattern: address)?.deallocate() }
}
