// One walk of a part of a query: a window over the partition at hand, its reads and its writes. Invariants:
// 1. Records of a partition are answered in the order of the index walk, none twice, none left out that lived throughout:
//    a client may go on behind the last digest it was given.
// 2. Nothing is looked at while the lock of a partition is held; a slice holds it once, for at most 64 entries.
// 3. `underWay` slots belong to this lane.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Storage
internal import Wire

/// See the invariants above. Its reactor's thread only.
final class QueryLane: SlotOwner {
    /// Partitions without any record for it that are walked in one slice.
    private static let sparsePartitionsMax = 16
    private unowned let part: QueryPart
    private let query: Query
    private let fields: QueryAnswerFields
    private let filter: Expression?
    /// Outlives every query.
    private unowned(unsafe) let shard: NamespaceShard
    /// The partition at hand, and how far it is walked; nil between two.
    private var walk: (partition: PartitionID, cursor: IndexCursor)?
    private var window = QueryWindow()
    private(set) var underWay = 0
    private var idleSlot: SlotPointer?
    /// One request for each place of the window, if the query writes.
    private let writes: UnsafeMutablePointer<RequestView>?

    init(_ part: QueryPart, _ fields: QueryAnswerFields, _ filter: Expression?, _ shard: NamespaceShard) {
        self.part = part
        query = part.query
        self.fields = fields
        self.filter = filter
        self.shard = shard
        if query.kind == .background {
            writes = .allocate(capacity: QueryWindow.capacity)
            writes?.initialize(repeating: query.request.pointee, count: QueryWindow.capacity)
        } else {
            writes = nil
        }
    }

    deinit { writes?.deallocate() }

    /// Nothing of it is under way any more, and nothing will be.
    func end() {
        precondition(underWay == 0)
        if let idleSlot { shard.scratch.slots.giveBack(idleSlot) }
        idleSlot = nil
    }

    // ---- Slices ----

    /// Goes on for one slice. `ended`: no partition is left for it.
    func slice() -> SliceOutcome {
        let hasDrained = drain()
        if window.hasFresh { return start(isLater: true) || hasDrained ? .worked : .waiting }
        guard window.isEmpty else { return hasDrained ? .worked : .waiting }
        for _ in 0..<QueryLane.sparsePartitionsMax where window.isEmpty {
            guard query.hasRecordsLeft, walk != nil || takePartition() else { return hasDrained ? .worked : .ended }
            guard fill() else { return hasDrained ? .worked : .waiting }
        }
        return .worked
    }

    private func takePartition() -> Bool {
        guard let (partition, after) = part.nextPartition() else { return false }
        walk = (partition, after.map { IndexCursor(after: $0) } ?? IndexCursor())
        return true
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
                guard let output = part.room(place.byteCount) else { return window.next > first }
                guard query.takeRecord() else {
                    window.drop()
                    return true
                }
                let bytes = window.answers.bytes[place.offset..<(place.offset + place.byteCount)]
                output.append(UnsafeRawBufferPointer(rebasing: bytes))
                query.count(.succeeded)
                window.advance()
            }
        }
        return window.next > first
    }

    /// Copies the next entries out of the index and keeps those that are asked for. False: there is no room to say that the
    /// partition is not here, or it is being decided where it is.
    private func fill() -> Bool {
        guard let (partition, begun) = walk else { return true }
        var cursor = begun
        if shard.isRouting {
            let isWrite = query.kind == .background
            switch shard.cluster.route(partition, namespace: query.namespace, isWrite: isWrite) {
            case .done: break
            case .pending: return false
            case .refused: return unavailable(partition)
            }
        }
        shard.partitions.lock(partition)
        let seen = window.copy(shard.index, partition, &cursor)
        shard.partitions.unlock(partition)
        walk = (partition, cursor)
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
        if cursor.isDone { leavePartition() }
        _ = start(isLater: false)
        return true
    }

    private func leavePartition() {
        walk = nil
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
        if !part.hasChunk, window.answers.count > Limits.streamPartSizeMax { return false }
        let wanted = window.freshCount(byteBudget: Limits.streamPartSizeMax) { needsImage($0) }
        let count = query.allowance(wanted, now: shard.scratch.now.monotonic)
        if count < wanted { query.count(.throttled, UInt64(window.putOff(wanted, allowed: count))) }
        guard count > 0 else { return false }
        let rows = window.takeFresh(count)
        if isLater {
            for row in rows where window.places[row].state == .fresh {
                _ = renew(row, shard.current(window.records[row].digest).entry)
            }
        }
        if query.kind == .background {
            for row in rows where window.places[row].state == .fresh { write(row) }
            return true
        }
        for row in rows where window.places[row].state == .fresh && needsImage(row) {
            let entry = window.records[row].entry
            shard.backend.prefetch(at: Location(rawValue: entry.location), byteCount: entry.byteCount)
        }
        let work = shard.scratch.expressions.work
        for row in rows where window.places[row].state == .fresh {
            if shard.scratch.expressions.work - work > Limits.expressionWorkPerSliceMax {
                window.putBack(row)
                break
            }
            look(row)
        }
        return true
    }

    private func needsImage(_ row: Int) -> Bool {
        !fields.isMetadataOnly || window.places[row].isUndecided || window.records[row].entry.isKeyStored
    }

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
        let (entry, isClaimed) = shard.current(record.digest)
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
        if window.next == row, let output = part.room(byteCount) {
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
        // Who serves the partition runs the query there.
        if query.kind == .background {
            walk = nil
            return true
        }
        guard let output = part.room(MessageHeader.byteCount) else { return false }
        var head = RecordHead()
        head.info3 = .partitionDone
        head.result = .unavailable
        head.generation = partition.number
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        RecordWriter.append(head, fields: nothing, fieldCount: 0, operations: nothing, operationCount: 0, to: output)
        leavePartition()
        return true
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
        guard !shard.runOwn(slot, shard.scratch.now) else { return }
        window.places[row].state = .waiting
        underWay += 1
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
