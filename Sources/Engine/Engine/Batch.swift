// One batch: rows in groups of 16 whose memory is fetched together, run by the machines of single requests. Invariants:
// 1. Until `isLate`, rows, group and the requests of slots point into the bytes of the connection; from the first row that
//    has to wait on, and at the latest when the turn ends, into `body`, which lives until the batch has ended.
// 2. `waiting[0..<waitingCount]` are the rows under way; a slot's `ownerPlace` is its place there.
// 3. Rows on the same record take effect in order: none begins while one before it is under way, if either writes. So a
//    read sees what the rows before it have written. The protocol promises neither this nor atomicity.
// 4. The frame that begins at `frameStart` of `output` is not ended yet; -1 if there is none. No frame is empty.
// 5. `filterBytes` are those of the row that `filter` and `filterResult` came from; rows with the same ones share them.
// 6. The answer ends once: with the message marked last, or with the connection.
internal import Base
internal import Expressions
internal import Glibc
internal import Index
internal import Wire

/// A row that waits for a device, another request or a replica.
private struct WaitingRow: BitwiseCopyable {
    var slot: SlotPointer
    var digest: Digest
    var isWrite: Bool
    var byteCount: Int
}

/// See the invariants above. Reused for one batch after the other; reactor's thread only.
final class Batch: SlotOwner {
    private static let groupMax = 16
    private unowned(unsafe) let table: BatchTable
    /// Where answers go: the connection's buffer in the turn that brought the batch, then `part`.
    private unowned(unsafe) var output: OutputBuffer
    private let part = OutputBuffer(capacity: 4096)
    private var frameStart = -1

    private var rows: BatchRows?
    private let group: UnsafeMutablePointer<BatchRow>
    private var groupCount = 0
    private var groupNext = 0
    /// Namespace of the last row that named one.
    private var namespace = -1
    /// What `rows` ends with, once it has: 0, or 4 if counts and lengths do not fit together.
    private var rowsResult: ResultCode?
    private var request: RequestPointer
    private var body: UnsafeMutableRawPointer?
    /// The last filter, compiled; nil if there was none or it was refused.
    private var filter: Expression?
    private var filterBytes: UnsafeRawBufferPointer?
    private var filterResult = ResultCode.ok
    /// Bytes of rows and records, and what filters and expressions have taken, that this call may still come to.
    private var workLeft = 0

    private var flags: BatchFlags = []
    private var connection: UInt64 = 0
    private var started = Instant(nanoseconds: 0)
    private var deadline = Instant(nanoseconds: 0)
    private var isCompressionAsked = false
    /// What the answer ends with.
    private var result = ResultCode.ok
    /// No further row begins.
    private var isStopped = false
    private var isLate = false
    /// The next row waits for one before it, or too many are under way.
    private var isHeld = false
    /// The client does not take what was streamed.
    private var isCrowded = false
    /// The client is gone.
    private var isGone = false
    /// A call into this batch is on the stack that will look at everything when it ends.
    private var isRunning = false
    private var stream: BatchStream?

    private let waiting: UnsafeMutablePointer<WaitingRow>
    private var waitingCount = 0
    private var waitingWrites = 0
    private var waitingBytes = 0

    init(_ table: BatchTable) {
        self.table = table
        output = part
        group = .allocate(capacity: Batch.groupMax)
        group.initialize(repeating: BatchRow(), count: Batch.groupMax)
        waiting = .allocate(capacity: Limits.batchRowsUnderWayMax)
        request = RequestSlot.noRequest
        precondition(MemoryLayout<BatchRow>.offset(of: \.request) == 0, "a row's address is its request's")
    }

    deinit {
        group.deallocate()
        waiting.deallocate()
        body?.deallocate()
    }

    // ---- The turn that brought it ----

    /// Runs the first rows; answers go to the output of the connection. True: the batch goes on in later turns.
    func begin(_ request: RequestPointer, _ rows: BatchRows, connection: UInt64, arrived: Instant) -> Bool {
        precondition(waitingCount == 0 && body == nil && stream == nil && frameStart < 0)
        self.request = request
        self.rows = rows
        flags = rows.flags
        self.connection = connection
        started = arrived
        let timeout = UInt64(request.pointee.header.transactionTimeout)
        deadline = arrived.advanced(byMilliseconds: timeout > 0 ? timeout : Limits.batchTimeoutMilliseconds)
        isCompressionAsked = request.pointee.header.info1.contains(.compressResponse)
        groupCount = 0
        groupNext = 0
        namespace = -1
        rowsResult = nil
        result = .ok
        isStopped = false
        isLate = false
        isHeld = false
        isCrowded = false
        isGone = false
        output = table.scratch.output
        runRows(Limits.batchRowsPerTurnMax, byteLimit: output.count + Limits.batchBytesPerTurnMax)
        guard isStopped, waitingCount == 0 else {
            outlive()
            return true
        }
        appendLast()
        countEnd()
        self.request = RequestSlot.noRequest
        dropFilter()
        return false
    }

    /// The turn ends before the batch does.
    private func outlive() {
        endFrame()
        keepBytes()
        request = RequestSlot.noRequest
        output = part
        isLate = true
        let stream = BatchStream(connection: connection, self)
        self.stream = stream
        table.scratch.streams.add(stream)
        if isReady { table.scratch.shell.wantsSlices() }
    }

    /// Copies the request's bytes, unless that has been done; everything that points into them follows.
    private func keepBytes() {
        let bytes = request.pointee.bytes
        guard body == nil, let source = bytes.baseAddress else { return }
        let copy = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 16)
        memcpy(copy, source, bytes.count)
        body = copy
        let distance = UnsafeRawPointer(copy) - source
        rows?.rebase(by: distance)
        filterBytes = filterBytes.map { bytes in
            UnsafeRawBufferPointer(start: bytes.baseAddress.map { $0 + distance }, count: bytes.count)
        }
        for number in 0..<groupCount { group[number].request.rebase(by: distance) }
    }

    // ---- Rows ----

    /// A slice would get on with it.
    var isReady: Bool { isLate && !isStopped && !isHeld && !isCrowded && !isGone }

    /// Begins rows until none are left, or the share is used up, or the next one has to wait.
    private func runRows(_ rowLimit: Int, byteLimit: Int) {
        var left = rowLimit
        workLeft = byteLimit - output.count
        while !isStopped {
            if groupNext == groupCount, !fillGroup() { return }
            guard left > 0, workLeft > 0, output.count < byteLimit else { return }
            let row = group + groupNext
            guard mayBegin(row) else {
                isHeld = true
                return
            }
            left -= 1
            groupNext += 1
            run(row)
        }
    }

    /// Parses up to 16 rows and has their memory fetched: three passes, one for each dependent line. False: the rows are at
    /// their end.
    private func fillGroup() -> Bool {
        groupCount = 0
        groupNext = 0
        while rowsResult == nil, groupCount < Batch.groupMax {
            let row = group + groupCount
            switch rows?.next(into: row) {
            case .row(let isRepeat):
                if !isRepeat { namespace = table.number(ofNamespace: row.pointee.request.namespace) }
                row.pointee.namespace = namespace
                groupCount += 1
            case .malformed: rowsResult = .parameter
            case .end, nil: rowsResult = .ok
            }
        }
        guard groupCount > 0 else {
            stop(rowsResult ?? .ok)
            return false
        }
        if groupCount > 1 { prefetchGroup() }
        return true
    }

    private func prefetchGroup() {
        guard let shards = table.shards else { return }
        for stage in 0..<3 {
            for number in 0..<groupCount where group[number].namespace >= 0 {
                let digest = group[number].request.digest
                let isWrite = group[number].request.header.info2.contains(.write)
                shards[group[number].namespace]._withUnsafeGuaranteedRef { shard in
                    switch stage {
                    case 0: shard.prefetchBucket(digest, isWrite: isWrite)
                    case 1: shard.prefetchEntry(digest, isWrite: isWrite)
                    default: shard.prefetchImage(digest)
                    }
                }
            }
        }
    }

    /// Whether nothing before it is in the row's way.
    @inline(__always)
    private func mayBegin(_ row: UnsafeMutablePointer<BatchRow>) -> Bool {
        waitingCount == 0 || mayJoin(row)
    }

    private func mayJoin(_ row: UnsafeMutablePointer<BatchRow>) -> Bool {
        guard waitingCount < Limits.batchRowsUnderWayMax, waitingBytes < Limits.batchBytesUnderWayMax else { return false }
        let isWrite = row.pointee.request.header.info2.contains(.write)
        guard isWrite || waitingWrites > 0 else { return true }
        let digest = row.pointee.request.digest
        for place in 0..<waitingCount where waiting[place].digest == digest {
            if isWrite || waiting[place].isWrite { return false }
        }
        return true
    }

    private func run(_ row: UnsafeMutablePointer<BatchRow>) {
        guard row.pointee.namespace >= 0, let shards = table.shards else { return stop(.parameter) }
        let request = UnsafePointer(UnsafeMutableRawPointer(row).assumingMemoryBound(to: RequestView.self))
        shards[row.pointee.namespace]._withUnsafeGuaranteedRef { shard in
            if let refusal = refusal(request, shard.counters) {
                return append(row.pointee.index, refusal, 0, 0, AnswerOperations(), operationCode: nil)
            }
            let slot = table.rowSlot
            slot.pointee.begin(
                request, namespace: row.pointee.namespace, connection: connection, now: table.now.monotonic)
            slot.pointee.hasPrevious = false
            slot.pointee.owner = .passUnretained(self)
            slot.pointee.ownerRow = row.pointee.index
            slot.pointee.deadline = deadline
            slot.pointee.isRead = !request.pointee.header.info2.contains(.write)
            let workBefore = table.scratch.expressions.work
            if start(slot, shard) == .suspended { suspend(slot) }
            workLeft -= request.pointee.operationBytes.count
                + (slot.pointee.hasPrevious ? slot.pointee.previous.byteCount : 0)
                + (table.scratch.expressions.work - workBefore) * Limits.bytesPerExpressionWork
        }
    }

    private func start(_ slot: SlotPointer, _ shard: NamespaceShard) -> Progress {
        if slot.pointee.request.pointee.has(.filter) {
            takeFilter(slot, shard)
            guard filterResult == .ok else { return shard.end(slot, filterResult) }
        }
        return shard.start(slot, now: table.now)
    }

    /// Gives the slot its filter. Rows that repeat one another, or have the batch's filter, have the very same bytes.
    private func takeFilter(_ slot: SlotPointer, _ shard: NamespaceShard) {
        let bytes = slot.pointee.request.pointee.filter
        if bytes.baseAddress != filterBytes?.baseAddress || bytes.count != filterBytes?.count {
            dropFilter()
            filterBytes = bytes
            do throws(ExpressionError) {
                filter = try shard.filter(of: slot.pointee.request)
            } catch { filterResult = error.resultCode }
        }
        if let filter { slot.pointee.setFilter(filter) }
    }

    private func dropFilter() {
        filter = nil
        filterBytes = nil
        filterResult = .ok
    }

    /// Why a row reaches no machine; nil if it does.
    private func refusal(_ request: RequestPointer, _ counters: ShardCounters) -> ResultCode? {
        if table.now.monotonic > deadline {
            counters.count(.batchSubTsvcTimeout)
            return .timeout
        }
        let header = request.pointee.header
        guard header.info1.contains(.read) || header.info2.contains(.write) else {
            counters.count(.batchSubTsvcError)
            return .parameter
        }
        guard EngineShard.isSupported(request) else {
            counters.count(.batchSubTsvcError)
            return .unsupportedFeature
        }
        return nil
    }

    private func suspend(_ slot: SlotPointer) {
        keepBytes()
        table.suspendRow()
        let isWrite = !slot.pointee.isRead
        let byteCount = slot.pointee.hasPrevious ? slot.pointee.previous.byteCount : 0
        slot.pointee.ownerPlace = Int32(truncatingIfNeeded: waitingCount)
        (waiting + waitingCount).initialize(
            to: WaitingRow(slot: slot, digest: slot.pointee.digest, isWrite: isWrite, byteCount: byteCount))
        waitingCount += 1
        waitingBytes += byteCount
        if isWrite { waitingWrites += 1 }
    }

    private func leaveWaiting(_ slot: SlotPointer) {
        let place = Int(slot.pointee.ownerPlace)
        precondition(place >= 0 && place < waitingCount && waiting[place].slot == slot, "only a waiting row ends late")
        waitingBytes -= waiting[place].byteCount
        if waiting[place].isWrite { waitingWrites -= 1 }
        waitingCount -= 1
        if place < waitingCount {
            waiting[place] = waiting[waitingCount]
            waiting[place].slot.pointee.ownerPlace = Int32(truncatingIfNeeded: place)
        }
        slot.pointee.ownerPlace = -1
    }

    // ---- Ends of rows ----

    override var carriesRequestsOfClients: Bool { true }

    override func answer(
        _ slot: SlotPointer, _ result: ResultCode, _ generation: UInt16, _ voidTime: UInt32,
        _ operations: AnswerOperations
    ) {
        // Bins are stored as READs; results carry the codes of their operations, and batches answer READs.
        let isAllBins = slot.pointee.isRead && slot.pointee.request.pointee.header.info1.contains(.getAllBins)
        append(
            slot.pointee.ownerRow, result, generation, voidTime, operations,
            operationCode: isAllBins ? nil : OperationCode.read)
    }

    override func count(_ slot: SlotPointer, _ result: ResultCode, _ counters: ShardCounters) {
        if slot.pointee.isLate { leaveWaiting(slot) }
        counters.countBatchRow(slot, result)
        table.countLatency(slot, counters)
    }

    override func ended() {
        isHeld = false
        goOn {}
    }

    /// Adds the answer of a row; an error may stop the batch.
    private func append(
        _ index: UInt32, _ result: ResultCode, _ generation: UInt16, _ voidTime: UInt32, _ operations: AnswerOperations,
        operationCode: UInt8?
    ) {
        let isError = result != .ok && result != .notFound && result != .filteredOut
        if isError, !flags.contains(.respondAllKeys) {
            // One error is told; rows that were under way beside it are answered only if they went well.
            let isFirst = self.result == .ok
            stop(result)
            guard isFirst, flags.contains(.errorRows) else { return }
        }
        guard !isGone else { return }
        let size = RecordWriter.byteCount(fields: 0, operations: operations.bytes.count)
        if frameStart >= 0, output.count - frameStart + size > Limits.streamPartSizeMax { endFrame() }
        if frameStart < 0 { frameStart = RecordWriter.beginFrame(output) }
        var head = RecordHead()
        head.result = result
        head.generation = generation
        head.voidTime = voidTime
        head.index = index
        RecordWriter.append(
            head, fields: UnsafeRawBufferPointer(start: nil, count: 0), fieldCount: 0, operations: operations.bytes,
            operationCount: operations.count, operationCode: operationCode, to: output)
    }

    /// No further row begins; the first error is what the answer ends with.
    private func stop(_ result: ResultCode) {
        isStopped = true
        if self.result == .ok { self.result = result }
    }

    private func endFrame() {
        guard frameStart >= 0 else { return }
        RecordWriter.endFrame(output, from: frameStart)
        frameStart = -1
    }

    private func appendLast() {
        if frameStart < 0 { frameStart = RecordWriter.beginFrame(output) }
        RecordWriter.appendLast(result: result, to: output)
        endFrame()
    }

    // ---- Later turns ----

    /// Begins the next rows of a long batch.
    func slice() {
        goOn { runRows(Limits.batchRowsPerSliceMax, byteLimit: Limits.streamPartSizeMax) }
    }

    /// The client has taken what was streamed.
    func drained() {
        isCrowded = false
        goOn {}
    }

    /// The client is gone: what is under way ends, nothing else begins.
    func connectionClosed() {
        stream = nil
        isGone = true
        isStopped = true
        if !isRunning { goOn {} }
    }

    /// Does `work`, sends what has collected, and sees whether the batch has ended.
    private func goOn(_ work: () -> Void) {
        precondition(isLate && !isRunning)
        isRunning = true
        work()
        if part.count >= Limits.streamPartSizeMax, !isCrowded, !isGone { streamPart() }
        isRunning = false
        if isStopped, waitingCount == 0 { return complete() }
        if isReady { table.scratch.shell.wantsSlices() }
    }

    private func streamPart() {
        endFrame()
        if isCompressionAsked { table.scratch.shell.compress(part) }
        let state = table.scratch.shell.stream(connection, part.bytes, patienceMilliseconds: 0)
        part.truncate(to: 0)
        switch state {
        case .open: break
        case .crowded:
            isCrowded = true
            table.counters.count(.delay)
        case .closed: leaveStream()
        }
    }

    private func leaveStream() {
        if let stream { table.scratch.streams.remove(stream) }
        connectionClosed()
    }

    /// Everything has ended: sends the last part, or drops it if nobody waits.
    private func complete() {
        if !isGone, let target = table.scratch.shell.output(of: connection) {
            appendLast()
            target.append(part.bytes)
            if let stream { table.scratch.streams.remove(stream) }
            stream = nil
            isGone = true
            table.counters.countLatency(
                nanoseconds: table.now.monotonic.nanoseconds(since: started), times: 1)
            countEnd()
            table.scratch.shell.answered(connection, isCompressionAsked: isCompressionAsked)
        } else {
            if let stream { table.scratch.streams.remove(stream) }
            table.counters.count(.error)
        }
        stream = nil
        frameStart = -1
        part.truncate(to: 0)
        dropFilter()
        body?.deallocate()
        body = nil
        rows = nil
        isLate = false
        table.ended(self)
    }

    private func countEnd() {
        table.counters.count(result == .ok ? .complete : result == .timeout ? .timeout : .error)
    }
}

/// A batch hears of its connection.
private final class BatchStream: AnswerStream {
    private unowned let batch: Batch

    init(connection: UInt64, _ batch: Batch) {
        self.batch = batch
        super.init(connection: connection)
    }

    override func drained() { batch.drained() }

    override func connectionClosed() { batch.connectionClosed() }
}
