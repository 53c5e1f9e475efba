// The batches of one reactor. Invariants:
// 1. A batch is in `late` from the end of the turn that brought it until its answer is complete or its client is gone, and
//    none of its rows is under way any more. Otherwise it is in `spare`, or runs in this very call.
// 2. `row` belongs to nobody between two rows: it has no claim and is not suspended.
internal import Base
internal import CBase
internal import Wire

/// Runs and keeps the batches of one reactor. Reactor's thread only.
final class BatchTable {
    let scratch: Scratch
    let counters = BatchCounters()
    private let service: LiveSettings<LiveServiceSettings>
    var now: TurnTime { scratch.now }
    /// The slot for the next row.
    private var row: SlotPointer
    private(set) var shards: UnsafeMutablePointer<Unmanaged<NamespaceShard>>?
    private var shardCount = 0
    /// Rows that were answered in their turn, by namespace and kind; the engine counts their latencies.
    private let answeredCounts: UnsafeMutablePointer<UInt32>
    private var late: [Batch] = []
    private var spare: [Batch] = []
    private var nextSlice = 0
    /// Batches answered in their turn since the last `countLatencies`.
    private var answeredInTurn: UInt64 = 0
    private static let spareMax = 16

    init(
        scratch: Scratch, service: LiveSettings<LiveServiceSettings>,
        answeredCounts: UnsafeMutablePointer<UInt32>
    ) {
        self.scratch = scratch
        self.service = service
        self.answeredCounts = answeredCounts
        row = scratch.slots.take()
    }

    /// The namespaces of the engine; once, before the first batch.
    func serve(_ shards: UnsafeMutablePointer<Unmanaged<NamespaceShard>>, count: Int) {
        self.shards = shards
        shardCount = count
    }

    /// Number of the namespace of that name, -1 if there is none.
    func number(ofNamespace name: UnsafeRawBufferPointer) -> Int {
        guard let shards else { return -1 }
        for number in 0..<shardCount where shards[number]._withUnsafeGuaranteedRef({ $0.isNamed(name) }) { return number }
        return -1
    }

    // ---- Requests ----

    /// Runs a batch, or its beginning. What is answered at once is in `scratch.output`.
    func begin(_ request: RequestPointer, connection: UInt64, arrived: Instant) -> Progress {
        guard let rows = BatchRows(request.pointee) else { return refuse(.parameter) }
        let settings = service.current
        guard settings.pointee.batchIndexThreads > 0 else { return refuse(.batchDisabled) }
        guard rows.count > 0 else { return refuse(.parameter) }
        let rowsMax = Int(settings.pointee.batchRequestsMax)
        guard rowsMax == 0 || rows.count <= rowsMax else { return refuse(.batchMaxRequests) }
        // Each batch that outlives its turn has one part of its answer in memory.
        guard late.count < Int(settings.pointee.batchBuffersPerQueueMax) else { return refuse(.batchQueuesFull) }
        counters.count(.initiate)
        let batch = spare.popLast() ?? Batch(self)
        guard batch.begin(request, rows, connection: connection, arrived: arrived) else {
            answeredInTurn += 1
            spare.append(batch)
            return .answered
        }
        late.append(batch)
        counters.setUnderWay(late.count)
        return .suspended
    }

    private func refuse(_ result: ResultCode) -> Progress {
        counters.count(.error)
        AnswerWriter.appendLast(result: result, to: scratch.output)
        return .answered
    }

    /// A batch that had outlived its turn has ended.
    func ended(_ batch: Batch) {
        guard let place = late.firstIndex(where: { $0 === batch }) else {
            preconditionFailure("only a late batch ends late")
        }
        // First: `late` may hold the only reference, and the batch is still running. Whoever is too many goes later.
        spare.append(batch)
        late.swapAt(place, late.count - 1)
        late.removeLast()
        counters.setUnderWay(late.count)
    }

    // ---- Slots ----

    /// The slot for a row; the next call gives the same one, unless `suspend` came in between.
    var rowSlot: SlotPointer { row }

    /// The row in `rowSlot` has to wait.
    func suspendRow() {
        scratch.slots.keepView(row)
        scratch.parkResults(row)
        row = scratch.slots.take()
    }

    // ---- Jobs ----

    /// A share of the next long batch. False: there is none that can go on.
    func slice() -> Bool {
        if spare.count > BatchTable.spareMax { spare.removeLast(spare.count - BatchTable.spareMax) }
        for _ in 0..<late.count {
            nextSlice = nextSlice + 1 < late.count ? nextSlice + 1 : 0
            guard late[nextSlice].isReady else { continue }
            late[nextSlice].slice()
            return true
        }
        return false
    }

    // ---- Figures ----

    /// Counts a row: in its turn, or late with its latency.
    func countLatency(_ slot: SlotPointer, _ shardCounters: ShardCounters) {
        let kind = slot.pointee.isRead ? LatencyKind.batchSubRead : .batchSubWrite
        if slot.pointee.isLate {
            shardCounters.countLatency(
                kind, nanoseconds: now.monotonic.nanoseconds(since: slot.pointee.started), times: 1)
        } else {
            answeredCounts[slot.pointee.namespace * LatencyKind.allCases.count + kind.rawValue] += 1
        }
    }

    /// What was answered in its turn since the last call is answered at `end`.
    @inline(__always)
    func countLatencies(end: Instant) {
        guard answeredInTurn > 0 else { return }
        counters.countLatency(nanoseconds: end.nanoseconds(since: now.monotonic), times: answeredInTurn)
        answeredInTurn = 0
    }
}

/// What the batches of one reactor have come to. Written by that reactor, read by anyone.
package final class BatchCounters: @unchecked Sendable {
    /// One counter.
    package enum Name: Int, CaseIterable, Sendable {
        case initiate, complete, error, timeout, delay

        /// As `statistics` prints it.
        package var statisticName: String { "batch_index_\(self)" }
    }
    private let words: UnsafeMutablePointer<UInt64>
    private static let underWayWord = Name.allCases.count
    private static let latencyWord = underWayWord + 1

    init() {
        // Lines of their own: other reactors count beside this one.
        let count = BatchCounters.latencyWord + ShardCounters.latencyBuckets
        words = UnsafeMutableRawPointer.allocate(byteCount: (count + 32) * 8, alignment: 128)
            .bindMemory(to: UInt64.self, capacity: count)
        words.initialize(repeating: 0, count: count)
    }

    deinit { words.deallocate() }

    private func add(_ amount: UInt64, to word: Int) {
        apus_store_relaxed_u64(words + word, apus_load_relaxed_u64(words + word) &+ amount)
    }

    func count(_ name: Name) { add(1, to: name.rawValue) }

    func countLatency(nanoseconds: UInt64, times: UInt64) {
        add(times, to: BatchCounters.latencyWord + ShardCounters.latencyBucket(nanoseconds: nanoseconds))
    }

    func setUnderWay(_ count: Int) { apus_store_relaxed_u64(words + BatchCounters.underWayWord, UInt64(count)) }

    /// The value of a counter. Any thread.
    package func value(of name: Name) -> UInt64 { apus_load_relaxed_u64(words + name.rawValue) }

    /// Batches that have outlived their turn and are under way. Any thread.
    package var underWay: UInt64 { apus_load_relaxed_u64(words + BatchCounters.underWayWord) }

    /// What bucket `bucket` of the histogram `batch-index` has counted. Any thread.
    package func latencyCount(bucket: Int) -> UInt64 {
        precondition(bucket >= 0 && bucket < ShardCounters.latencyBuckets)
        return apus_load_relaxed_u64(words + BatchCounters.latencyWord + bucket)
    }
}
