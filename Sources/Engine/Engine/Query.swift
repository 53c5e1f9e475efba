// One query: what was asked, and how far it is, shared by the reactors that run it. Invariants:
// 1. The request's bytes are the query's own, and are there until its last part has ended.
// 2. `state` leaves `active` once; parts that see that end without reading further.
// 3. A record is counted once: succeeded, failed, or filtered by its metadata or its bins.
package import Base
internal import CBase
package import Wire

/// What kind of query it is.
package enum QueryKind: UInt8, Sendable {
    /// Expects few records: first in line, not monitored, ends with 9 when its time is up.
    case short
    /// Monitored and abortable.
    case long
    /// Writes to each record; answered before it begins.
    case background
}

/// How a query stands.
package enum QueryState: UInt64, Sendable {
    case active, done, userAborted, clientGone, timedOut, failed

    /// As `query-show` prints it.
    package var text: String {
        switch self {
        case .active: "active(ok)"
        case .done: "done(ok)"
        case .userAborted: "done(user-aborted)"
        case .clientGone: "done(abandoned-response-error)"
        case .timedOut: "done(abandoned-response-timeout)"
        case .failed: "done(abandoned-unknown)"
        }
    }

    /// What ends the answer.
    var result: ResultCode {
        switch self {
        case .active, .done: .ok
        case .userAborted, .clientGone: .queryAbort
        case .timedOut: .timeout
        case .failed: .unknown
        }
    }
}

/// Figures of a query; any thread may read them.
package enum QueryFigure: Int, CaseIterable {
    /// Records answered or written.
    case succeeded
    case failed
    case filteredMetadata
    case filteredBins
    /// How often the limit on records per second has made it wait.
    case throttled
    /// Bytes of answers.
    case bytes
    /// Nanoseconds in which the client did not take what there was.
    case blockedNanoseconds
    /// Partitions walked to their end.
    case partitionsDone
    /// Parts that have not ended.
    case partsActive
}

/// See the invariants above.
package final class Query: @unchecked Sendable {
    /// Number of the namespace.
    let namespace: Int
    package let namespaceName: String
    package let kind: QueryKind
    /// The reactor that answers.
    let home: Int
    package let fields: QueryView
    package let started: Instant
    /// Parts of the answer may be compressed.
    let isCompressionAsked: Bool
    /// The set it is confined to; empty for none.
    package let setName: String
    /// Only these records; nil for all.
    let setID: UInt16?
    /// Partitions that it walks, and behind which digests.
    let partitions: [(partition: PartitionID, after: Digest?)]
    /// The request, in memory of the query's own.
    private(set) var request: RequestPointer
    let deadline: Instant
    /// Records per second over all reactors, 0 for no limit.
    package let rate: UInt64
    private var memory: UnsafeMutableRawPointer?
    // Figures, then: state, records left, the time from which on records may be taken, the time of the end.
    private let words: UnsafeMutablePointer<UInt64>
    private var state64: UnsafeMutablePointer<UInt64> { words + QueryFigure.allCases.count }
    private var left: UnsafeMutablePointer<UInt64> { state64 + 1 }
    private var paceTime: UnsafeMutablePointer<UInt64> { state64 + 2 }
    private var ended: UnsafeMutablePointer<UInt64> { state64 + 3 }
    private static let viewRoom = (MemoryLayout<RequestView>.size + 63) / 64 * 64

    /// Keeps a copy of `request`'s bytes.
    init(
        _ request: RequestPointer, _ fields: QueryView, kind: QueryKind, namespace: Int, name: String, setID: UInt16?,
        partitions: [(partition: PartitionID, after: Digest?)], home: Int, started: Instant, deadline: Instant,
        rate: UInt64
    ) {
        let bytes = request.pointee.bytes
        let memory = UnsafeMutableRawPointer.allocate(byteCount: Query.viewRoom + bytes.count, alignment: 64)
        self.memory = memory
        (memory + Query.viewRoom).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        let copy = UnsafeRawBufferPointer(start: memory + Query.viewRoom, count: bytes.count)
        guard case .request(let view) = RequestView.parse(copy) else {
            preconditionFailure("a request that was parsed once parses again")
        }
        self.request = UnsafePointer(memory.initializeMemory(as: RequestView.self, to: view))
        self.namespace = namespace
        namespaceName = name
        self.fields = fields
        self.kind = kind
        self.setID = setID
        isCompressionAsked = request.pointee.header.info1.contains(.compressResponse)
        setName = request.pointee.set.text
        self.partitions = partitions
        self.home = home
        self.started = started
        self.deadline = deadline
        self.rate = rate
        let count = QueryFigure.allCases.count + 4
        words = .allocate(capacity: count)
        words.initialize(repeating: 0, count: count)
        left.pointee = fields.recordsMax == 0 ? .max : fields.recordsMax
    }

    deinit {
        memory?.deallocate()
        words.deallocate()
    }

    /// Every part has ended: what is remembered of a query is little. Home reactor's thread.
    func forgetRequest() {
        request = RequestSlot.noRequest
        memory?.deallocate()
        memory = nil
    }

    package var partitionCount: Int { partitions.count }

    /// A figure. Any thread; a moment old.
    package func value(of figure: QueryFigure) -> UInt64 { apus_load_relaxed_u64(words + figure.rawValue) }

    func count(_ figure: QueryFigure, _ amount: UInt64 = 1) {
        if amount > 0 { _ = apus_fetch_add_u64(words + figure.rawValue, amount) }
    }

    /// Takes one from a figure; returns what is left.
    func countDown(_ figure: QueryFigure) -> UInt64 { apus_fetch_add_u64(words + figure.rawValue, .max) &- 1 }

    /// How it stands. Any thread.
    package var state: QueryState { QueryState(rawValue: apus_load_acquire_u64(state64)) ?? .failed }

    /// Ends it as `state` says, if it was active. Any thread.
    @discardableResult
    package func end(_ state: QueryState) -> Bool {
        apus_compare_exchange_u64(state64, QueryState.active.rawValue, state.rawValue)
    }

    /// When its last part ended; nil before that. Any thread.
    package var endedAt: Instant? {
        let nanoseconds = apus_load_relaxed_u64(ended)
        return nanoseconds == 0 ? nil : Instant(nanoseconds: nanoseconds)
    }

    func markEnded(_ now: Instant) { apus_store_relaxed_u64(ended, max(now.nanoseconds, 1)) }

    /// Takes one of the records that may still be answered; false if there is none left.
    func takeRecord() -> Bool {
        guard fields.recordsMax > 0 else { return true }
        var expected = apus_load_relaxed_u64(left)
        while expected > 0 {
            if apus_compare_exchange_u64(left, expected, expected - 1) { return true }
            expected = apus_load_relaxed_u64(left)
        }
        return false
    }

    var hasRecordsLeft: Bool { apus_load_relaxed_u64(left) > 0 }

    /// How many of `wanted` records may be looked at now, so that there are at most `rate` in a second; 0 for later.
    /// A burst is at most what 20 ms allow.
    func allowance(_ wanted: Int, now: Instant) -> Int {
        guard rate > 0 else { return wanted }
        let perRecord = max(1_000_000_000 / rate, 1)
        let burst: UInt64 = 20_000_000
        while true {
            let time = apus_load_relaxed_u64(paceTime)
            let from = max(time, now.nanoseconds > burst ? now.nanoseconds - burst : 0)
            guard from <= now.nanoseconds else { return 0 }
            let count = min(UInt64(wanted), (now.nanoseconds - from) / perRecord + 1)
            if apus_compare_exchange_u64(paceTime, time, from + count * perRecord) { return Int(count) }
        }
    }
}
