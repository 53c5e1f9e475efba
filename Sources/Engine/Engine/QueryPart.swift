// The part of a query that one reactor walks: its partitions, in slices. Invariants:
// 1. Records of a partition are answered in the order of the index walk, none twice, none left out that lived throughout:
//    a client may go on behind the last digest it was given.
// 2. Nothing is looked at while the lock of a partition is held; a slice holds it once, for at most 64 entries.
// 3. `underWay` slots belong to this part; it ends only when there is none.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Storage
internal import Wire

/// What a slice of a job came to.
enum SliceOutcome: BitwiseCopyable {
    /// Something was done, and there is more to do.
    case worked
    /// Waits: for the backend, for the client, for its time.
    case waiting
    /// Over: to be forgotten.
    case ended
}

/// See the invariants above. Its reactor's thread only, but for `home`.
final class QueryPart: SlotOwner {
    let query: Query
    let reactor: Int
    /// Home reactor's thread only.
    var home: QueryHome?
    /// Empty chunks.
    var spare: [QueryChunk] = []
    /// The chunk that is being filled.
    private var chunk: QueryChunk?
    private var chunkBegan = Instant(nanoseconds: 0)
    /// A client waits so long at most for records that have been found: its patience may be short.
    private static let chunkAgeMaxNanoseconds: UInt64 = 100_000_000
    /// Partitions without any record for it that are walked in one slice.
    private static let sparsePartitionsMax = 16
    private let walked: [(partition: PartitionID, after: Digest?)]
    private var position = 0
    private var cursor: IndexCursor?
    private var window = QueryWindow()
    private var underWay = 0
    private var idleSlot: SlotPointer?
    private var hasEnded = false
    private let letter: UnsafeMutablePointer<Letter>
    /// One request for each place of the window, if the query writes.
    private let writes: UnsafeMutablePointer<RequestView>?
    private let fields: QueryAnswerFields
    /// Compiled by this reactor.
    private var filter: Expression?
    /// Where it runs, from `begin` on; outlives every query.
    private unowned(unsafe) var shard: NamespaceShard

    init(_ query: Query, reactor: Int, _ walked: [(partition: PartitionID, after: Digest?)], _ shard: NamespaceShard) {
        self.shard = shard
        self.query = query
        self.reactor = reactor
        self.walked = walked
        fields = QueryAnswerFields(query.request)
        letter = .allocate(capacity: 1)
        letter.initialize(to: Letter(kind: LetterKind.queryPart))
        if query.kind == .background {
            writes = .allocate(capacity: QueryWindow.capacity)
            writes?.initialize(repeating: query.request.pointee, count: QueryWindow.capacity)
        } else {
            writes = nil
        }
    }

    deinit {
        letter.deallocate()
        writes?.deallocate()
    }

    func post(_ kind: UInt32, to reactor: Int, _ shell: any EngineShell) {
        letter.pointee.kind = kind
        letter.pointee.payload = UInt64(UInt(bitPattern: Unmanaged.passRetained(self).toOpaque()))
        shell.post(letter, to: reactor)
    }

    static func take(_ letter: UnsafeMutablePointer<Letter>) -> QueryPart {
        Unmanaged<QueryPart>.fromOpaque(UnsafeRawPointer(bitPattern: UInt(letter.pointee.payload))!).takeRetainedValue()
    }

    /// It has come to its reactor.
    func begin(_ shard: NamespaceShard) {
        self.shard = shard
        do throws(ExpressionError) { filter = try shard.filter(of: query.request) } catch { query.end(.failed) }
        idleSlot = shard.scratch.slots.take()
    }

    // ---- Slices ----

    /// Goes on for one slice.
    func slice() -> SliceOutcome {
        let now = shard.scratch.now.monotonic
        if query.kind == .short, now > query.deadline { query.end(.timedOut) }
        guard query.state == .active else { return end() }
        if chunk != nil, now.nanoseconds(since: chunkBegan) > QueryPart.chunkAgeMaxNanoseconds { passChunk() }
        let hasDrained = drain()
        if window.hasFresh { return start(isLater: true) || hasDrained ? .worked : .waiting }
        guard window.isEmpty else { return hasDrained ? .worked : .waiting }
        for _ in 0..<QueryPart.sparsePartitionsMax where window.isEmpty {
            guard query.hasRecordsLeft, position < walked.count else { return end() }
            guard fill() else { return hasDrained ? .worked : .waiting }
        }
        return .worked
    }

    /// What is ready leaves. False: nothing did.
    private func drain() -> Bool {
        let first = window.next
        while !window.isEmpty {
            switch window.places[window.next].state {
            case .fresh, .waiting: return window.next > first
            case .leftOut: window.advance()
            case .ready:
                let place = window.places[window.next]
                guard hasRoom(place.byteCount) else { return window.next > first }
                guard query.takeRecord() else {
                    window.drop()
                    return true
                }
                let bytes = window.answers.bytes[place.offset..<(place.offset + place.byteCount)]
                chunk?.output.append(UnsafeRawBufferPointer(rebasing: bytes))
                query.count(.succeeded)
                window.advance()
            }
        }
        return window.next > first
    }

    /// Copies the next entries out of the index and keeps those that are asked for. False: there is no room to say that the
    /// partition is not here.
    private func fill() -> Bool {
        let partition = walked[position].partition
        if cursor == nil {
            if case .refused = shard.cluster.route(partition, namespace: query.namespace, isWrite: false) {
                return unavailable(partition)
            }
            cursor = walked[position].after.map { IndexCursor(after: $0) } ?? IndexCursor()
        }
        guard var walk = cursor else { return true }
        shard.partitions.lock(partition)
        let seen = window.copy(shard.index, partition, &walk)
        shard.partitions.unlock(partition)
        cursor = walk
        var kept = 0
        var undecided: UInt64 = 0
        for number in 0..<seen {
            let wish = wish(window.records[number])
            guard wish != .unwanted else { continue }
            if wish == .undecided { undecided |= 1 << UInt64(kept) }
            window.records[kept] = window.records[number]
            kept += 1
        }
        window.fill(kept, undecided: undecided)
        if walk.isDone { leavePartition() }
        _ = start(isLater: false)
        return true
    }

    private func leavePartition() {
        cursor = nil
        position += 1
        query.count(.partitionsDone)
    }

    private enum Wish { case wanted, unwanted, undecided }

    /// What the entry of a record says: whether it is asked for, or its bins decide.
    private func wish(_ record: IndexedRecord) -> Wish {
        guard shard.isVisible(record.entry, now: shard.scratch.now.wall) else { return .unwanted }
        if let set = query.setID, set != record.entry.setID { return .unwanted }
        guard let filter else { return .wanted }
        switch shard.verdict(filter, record.entry, record.digest, shard.scratch.now) {
        case .isTrue: return .wanted
        case .needsRecord: return .undecided
        case .isFalse, .unknown:
            query.count(.filteredMetadata)
            return .unwanted
        }
    }

    /// Takes over the entry that a record has now; false if it is not asked for any more.
    private func renew(_ row: Int, _ entry: IndexEntry?) -> Bool {
        window.places[row].state = .leftOut
        guard let entry else { return false }
        let record = IndexedRecord(digest: window.records[row].digest, entry: entry)
        let wish = wish(record)
        guard wish != .unwanted else { return false }
        window.records[row] = record
        window.places[row].state = .fresh
        window.places[row].isUndecided = wish == .undecided
        return true
    }

    /// Begins with as many records of the window as the query may have now. False: with none. `isLater`: in another turn
    /// than the one in which they were copied; what their entries said may not be so any more.
    private func start(isLater: Bool) -> Bool {
        guard window.hasFresh else { return false }
        // What has no room for its answer is not read.
        if chunk == nil, spare.isEmpty, window.answers.count > Limits.streamPartSizeMax { return false }
        let wanted = window.freshCount(byteBudget: Limits.streamPartSizeMax) { needsImage($0) }
        let count = query.allowance(wanted, now: shard.scratch.now.monotonic)
        if count < wanted { query.count(.throttled, UInt64(window.putOff(wanted, allowed: count))) }
        guard count > 0 else { return false }
        let rows = window.takeFresh(count)
        if isLater {
            for row in rows where window.places[row].state == .fresh { lookUp(row) }
        }
        if query.kind == .background {
            for row in rows where window.places[row].state == .fresh { write(row) }
            return true
        }
        for row in rows where window.places[row].state == .fresh && needsImage(row) {
            let entry = window.records[row].entry
            shard.backend.prefetch(at: Location(rawValue: entry.location), byteCount: entry.byteCount)
        }
        for row in rows where window.places[row].state == .fresh { look(row) }
        return true
    }

    /// Copies the entry of a record again; leaves it out if it is not asked for any more.
    private func lookUp(_ row: Int) {
        let digest = window.records[row].digest
        shard.partitions.lock(digest.partition)
        let entry = shard.index.find(digest).map { shard.index.entry($0) }
        shard.partitions.unlock(digest.partition)
        _ = renew(row, entry)
    }

    private func needsImage(_ row: Int) -> Bool {
        !fields.isMetadataOnly || window.places[row].isUndecided || window.records[row].entry.isKeyStored
    }

    /// The query is over here. `waiting` if something is still under way.
    private func end() -> SliceOutcome {
        guard underWay == 0 else { return .waiting }
        if query.state == .active { passChunk() }
        chunk = nil
        spare = []
        if let idleSlot { shard.scratch.slots.giveBack(idleSlot) }
        idleSlot = nil
        hasEnded = true
        post(LetterKind.queryEnded, to: query.home, shard.scratch.shell)
        return .ended
    }

    /// An empty chunk has come.
    func take(_ chunk: QueryChunk) { if !hasEnded { spare.append(chunk) } }

    // ---- Reading ----

    private func look(_ row: Int) {
        let record = window.records[row]
        guard needsImage(row) else { return answer(row, nil) }
        let slot = idleSlot ?? shard.scratch.slots.take()
        idleSlot = nil
        slot.pointee.beginScan(record.digest, namespace: query.namespace, owner: self, row: row)
        do throws(StorageError) {
            let result = try shard.backend.read(
                record.digest, at: Location(rawValue: record.entry.location), byteCount: record.entry.byteCount,
                tag: Tag(rawValue: UInt64(UInt(bitPattern: slot))))
            switch result {
            case .here(let image):
                keep(slot)
                take(row, image)
            case .absent:
                keep(slot)
                again(row)
            case .pending:
                window.places[row].state = .waiting
                underWay += 1
            }
        } catch {
            keep(slot)
            failed(row, error)
        }
    }

    private func keep(_ slot: SlotPointer) {
        if idleSlot == nil { idleSlot = slot } else { shard.scratch.slots.giveBack(slot) }
    }

    override func scanned(_ slot: SlotPointer, _ result: Completion.Result) {
        let row = Int(slot.pointee.ownerRow)
        underWay -= 1
        window.places[row].state = .fresh
        keep(slot)
        switch result {
        case .read(let image): take(row, image)
        case .absent: again(row)
        case .failed(let error): failed(row, error)
        case .placed, .done: preconditionFailure("a read ends with an image")
        }
        shard.scratch.shell.wantsSlices()
    }

    private func failed(_ row: Int, _ error: StorageError) {
        switch error {
        case .overloaded: window.putBack(row)
        case .corrupt: again(row)
        default:
            _ = shard.resultCode(error)
            query.count(.failed)
            window.places[row].state = .leftOut
        }
    }

    /// The image was not where the entry said: the record has changed or has gone since, or it is damaged.
    private func again(_ row: Int) {
        let record = window.records[row]
        shard.partitions.lock(record.digest.partition)
        let entry = shard.index.find(record.digest).map { shard.index.entry($0) }
        let isClaimed = shard.partitions.owner(of: record.digest) != nil
        shard.partitions.unlock(record.digest.partition)
        window.places[row].attempts += 1
        guard renew(row, entry) else { return }
        let isSame = window.records[row].entry.location == record.entry.location
        guard !isSame, window.places[row].attempts < Limits.readAttemptsMax else {
            window.places[row].state = .leftOut
            if isSame, isClaimed, shard.isKeyed { return }
            if isSame { _ = shard.damaged(record.entry, record.digest) }
            return query.count(.failed)
        }
        look(row)
    }

    private func take(_ row: Int, _ image: UnsafeRawBufferPointer) {
        guard let view = shard.payload(of: image, window.records[row].digest) else { return again(row) }
        answer(row, view)
    }

    // ---- Answering ----

    private func answer(_ row: Int, _ view: ImageView?) {
        let record = window.records[row]
        if window.places[row].isUndecided, let filter,
            !shard.passes(filter, record.entry, record.digest, view, shard.scratch.now) {
            query.count(.filteredBins)
            window.places[row].state = .leftOut
            return
        }
        var operations = AnswerOperations()
        defer { shard.scratch.resetResults() }
        if let view, !fields.isMetadataOnly {
            guard let found = fields.operations(view, record, shard), !shard.scratch.isResultTooLarge else {
                if shard.scratch.isResultTooLarge { query.count(.failed) }
                window.places[row].state = .leftOut
                return
            }
            operations = found
        }
        let setName = shard.namespace.sets.name(of: record.entry.setID)
        let byteCount = fields.byteCount(setName, view, operations)
        if window.next == row, hasRoom(byteCount), let output = chunk?.output {
            guard query.takeRecord() else { return window.drop() }
            fields.write(record, setName, view, operations, to: output)
            query.count(.succeeded)
            window.places[row].state = .leftOut
            return window.advance()
        }
        window.places[row].offset = window.answers.count
        fields.write(record, setName, view, operations, to: window.answers)
        window.places[row].byteCount = byteCount
        window.places[row].state = .ready
    }

    private func unavailable(_ partition: PartitionID) -> Bool {
        guard hasRoom(MessageHeader.byteCount), let output = chunk?.output else { return false }
        var head = RecordHead()
        head.info3 = .partitionDone
        head.result = .unavailable
        head.generation = partition.number
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        RecordWriter.append(head, fields: nothing, fieldCount: 0, operations: nothing, operationCount: 0, to: output)
        leavePartition()
        return true
    }

    /// Whether `byteCount` more bytes can be written to the chunk at hand. A full one leaves.
    private func hasRoom(_ byteCount: Int) -> Bool {
        if let full = chunk, full.output.count + byteCount > Limits.streamPartSizeMax { passChunk() }
        if chunk != nil { return true }
        guard let empty = spare.popLast() else { return false }
        chunkBegan = shard.scratch.now.monotonic
        _ = RecordWriter.beginFrame(empty.output)
        chunk = empty
        return true
    }

    /// The chunk at hand leaves, unless it is empty.
    private func passChunk() {
        guard let filled = chunk, filled.output.count > FrameHeader.byteCount else { return }
        chunk = nil
        RecordWriter.endFrame(filled.output, from: 0)
        filled.post(LetterKind.queryFilled, to: query.home, shard.scratch.shell)
    }

    // ---- Writing ----

    private func write(_ row: Int) {
        guard let request = writes.map({ $0 + row }) else { return }
        window.places[row].state = .leftOut
        let digest = window.records[row].digest
        request.pointee.digest = digest
        // Whatever has gone meanwhile stays gone.
        request.pointee.header.info3 = request.pointee.header.info3.union(.updateOnly)
        let slot = shard.scratch.slots.take()
        slot.pointee.begin(
            UnsafePointer(request), namespace: query.namespace, connection: 0, now: shard.scratch.now.monotonic)
        slot.pointee.owner = .passUnretained(self)
        slot.pointee.ownerRow = UInt32(row)
        if let filter { slot.pointee.setFilter(filter) }
        slot.pointee.deadline = shard.scratch.now.monotonic.advanced(byMilliseconds: Limits.queryWriteMilliseconds)
        shard.scratch.discardOutput()
        if shard.startWrite(slot, now: shard.scratch.now) == .answered {
            shard.scratch.slots.giveBack(slot)
        } else {
            shard.scratch.slots.keepBody(slot)
            shard.scratch.parkResults(slot)
            window.places[row].state = .waiting
            underWay += 1
        }
    }

    override func answer(
        _ slot: SlotPointer, _ result: ResultCode, _ generation: UInt16, _ voidTime: UInt32,
        _ operations: AnswerOperations
    ) {
        switch result {
        case .ok: query.count(.succeeded)
        case .filteredOut: query.count(.filteredBins)
        case .notFound: break
        default: query.count(.failed)
        }
        window.places[Int(slot.pointee.ownerRow)].state = .leftOut
    }

    override func count(_ slot: SlotPointer, _ result: ResultCode, _ counters: ShardCounters) {
        switch result {
        case .ok: counters.count(.opsSubWriteSuccess)
        case .timeout: counters.count(.opsSubWriteTimeout)
        case .filteredOut: counters.count(.opsSubWriteFilteredOut)
        default: counters.count(.opsSubWriteError)
        }
    }

    override func ended() {
        underWay -= 1
        shard.scratch.shell.wantsSlices()
    }
}
