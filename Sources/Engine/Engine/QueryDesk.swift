// The queries of one reactor: begins those that its connections ask for, and runs the parts that have come to it.
// Invariants:
// 1. Every part that has come is in `parts` until it has ended.
// 2. Parts of one kind take turns; kinds take turns in the order of `EngineShard.turns`.
internal import Base
internal import Expressions
internal import Record
internal import Wire

/// Reactor's thread only.
final class QueryDesk {
    private let registry: QueryRegistry
    private let service: LiveSettings<LiveServiceSettings>
    private let scratch: Scratch
    private let shards: [NamespaceShard]
    private let reactor: Int
    private let reactors: Int
    /// By kind.
    private var parts: [[QueryPart]] = [[], [], []]
    private var nextPart = [0, 0, 0]

    init(
        _ registry: QueryRegistry, _ service: LiveSettings<LiveServiceSettings>, shards: [NamespaceShard], reactor: Int,
        reactors: Int, scratch: Scratch
    ) {
        self.registry = registry
        self.service = service
        self.shards = shards
        self.reactor = reactor
        self.reactors = reactors
        self.scratch = scratch
    }

    // ---- Begin ----

    /// Begins the query that `request` asks for. `suspended`: the answer comes in parts.
    func execute(_ request: RequestPointer, namespace: Int, connection: UInt64, deadline: Instant) -> Progress {
        let isBackground = request.pointee.header.info2.contains(.write)
        let shard = shards[namespace]
        let refusal = check(request, shard, isBackground: isBackground)
        guard refusal == .ok else { return end(refusal, isBackground, shard) }
        let fields: QueryView
        do throws(QueryView.Problem) {
            fields = try QueryView(request.pointee, isBackground: isBackground)
        } catch {
            return end(error == .malformed ? .parameter : .unsupportedFeature, isBackground, shard)
        }
        guard let partitions = partitions(fields, isBackground: isBackground) else {
            return end(.parameter, isBackground, shard)
        }
        let live = shard.namespace.live.current
        let isShort = request.pointee.header.info1.contains(.shortQuery) && !isBackground && !live.pointee.forcesLongQueries
        let rateMax = isBackground ? UInt64(live.pointee.backgroundQueryRecordsPerSecondMax) : 0
        guard rateMax == 0 || fields.recordsPerSecond <= rateMax, !isShort || fields.recordsPerSecond == 0 else {
            return end(.parameter, isBackground, shard)
        }
        guard let setID = shard.namespace.sets.id(of: request.pointee.set) else {
            return end(isBackground ? .notFound : .ok, isBackground, shard)
        }
        let query = Query(
            request, fields, kind: isBackground ? .background : isShort ? .short : .long, namespace: namespace,
            name: shard.namespace.settings.name, setID: setID == 0 ? nil : setID, partitions: partitions, home: reactor,
            started: scratch.now.monotonic, deadline: deadline,
            rate: fields.recordsPerSecond == 0 ? rateMax : UInt64(fields.recordsPerSecond))
        guard isShort || registry.begin(query) else { return end(.forbidden, isBackground, shard) }
        let home = QueryHome(
            query, connection: connection, reactors: reactors, registry: registry, service: service, shard: shard)
        home.begin()
        if isBackground { return end(.ok, isBackground, shard) }
        scratch.streams.add(home)
        return .suspended
    }

    /// What the header and the fields rule out.
    private func check(_ request: RequestPointer, _ shard: NamespaceShard, isBackground: Bool) -> ResultCode {
        let header = request.pointee.header
        if request.pointee.fieldsPresent & QueryDesk.laterFields != 0 { return .unsupportedFeature }
        if request.pointee.has(.indexRange) || request.pointee.has(.indexName) { return .indexNotFound }
        if request.pointee.set.count > Limits.setNameSizeMax { return .parameter }
        do throws(ExpressionError) { _ = try shard.filter(of: request) } catch { return error.resultCode }
        if isBackground { return shard.checkOperations(request) }
        guard header.info1.contains(.read) else { return .parameter }
        guard header.info3.contains(.partitionDone) else { return .unsupportedFeature }
        guard request.pointee.operationCount <= Limits.operationsMax else { return .parameter }
        var operations = request.pointee.operations
        while let operation = operations.next() {
            let refusal = shard.checkSelection(operation)
            guard refusal == .ok else { return refusal }
        }
        return .ok
    }
    private static let laterFields: UInt64 = RequestView.fieldMask([.udfPackage, .udfOperation, .transactionID])

    /// Which partitions are walked; nil if one is named twice, or none has the number.
    private func partitions(
        _ fields: QueryView, isBackground: Bool
    ) -> [(partition: PartitionID, after: Digest?)]? {
        if isBackground { return (0..<UInt16(PartitionID.count)).map { (PartitionID($0), nil) } }
        var isNamed = [Bool](repeating: false, count: PartitionID.count)
        var partitions: [(partition: PartitionID, after: Digest?)] = []
        for place in 0..<fields.partitionCount {
            guard let named = fields[place], !isNamed[Int(named.partition.number)] else { return nil }
            isNamed[Int(named.partition.number)] = true
            partitions.append(named)
        }
        return partitions
    }

    /// Answers without a stream.
    private func end(_ result: ResultCode, _ isBackground: Bool, _ shard: NamespaceShard) -> Progress {
        AnswerWriter.appendLast(result: result, to: scratch.output)
        if result != .ok { shard.counters.count(isBackground ? .piQueryOpsBgError : .piQueryLongBasicError) }
        return .answered
    }

    // ---- Letters ----

    /// A letter of a query; false if it is none.
    func letter(_ letter: UnsafeMutablePointer<Letter>) -> Bool {
        switch letter.pointee.kind {
        case LetterKind.queryPart:
            let part = QueryPart.take(letter)
            part.begin(shards[part.query.namespace])
            parts[Int(part.query.kind.rawValue)].append(part)
            scratch.shell.wantsSlices()
        case LetterKind.queryRoom:
            let chunk = QueryChunk.take(letter)
            chunk.part.take(chunk)
            scratch.shell.wantsSlices()
        case LetterKind.queryFilled:
            let chunk = QueryChunk.take(letter)
            chunk.part.home?.take(chunk)
        case LetterKind.queryEnded:
            let part = QueryPart.take(letter)
            part.home?.partEnded(part)
        default: return false
        }
        return true
    }

    // ---- Slices ----

    /// Runs a slice of the next part of a kind that has something to do.
    func slice(_ kind: QueryKind) -> BackgroundWork {
        let row = Int(kind.rawValue)
        for _ in parts[row].indices {
            if nextPart[row] >= parts[row].count { nextPart[row] = 0 }
            switch parts[row][nextPart[row]].slice() {
            case .worked:
                nextPart[row] += 1
                return .some
            case .waiting: nextPart[row] += 1
            case .ended:
                parts[row].remove(at: nextPart[row])
                return .some
            }
        }
        return .none
    }

    /// Whether a query may want to go on without having been told: it waits for its time.
    var wantsTicks: Bool { parts.contains { !$0.isEmpty } }
}

extension NamespaceShard {
    /// Whether a query may ask for the result of `operation`.
    func checkSelection(_ operation: OperationView) -> ResultCode {
        switch operation.code {
        case OperationCode.read: OperationRules.checkRead(operation)
        case OperationCode.expressionRead: checkExpression(operation)
        case OperationCode.collectionRead, OperationCode.bitsRead, OperationCode.hyperLogLogRead: .unsupportedFeature
        default: .parameter
        }
    }

    /// Counts the end of a query. Home reactor's thread.
    func countEnd(of query: Query, _ now: Instant) {
        switch (query.kind, query.state) {
        case (.short, .done), (.short, .active): counters.count(.piQueryShortBasicComplete)
        case (.short, .timedOut): counters.count(.piQueryShortBasicTimeout)
        case (.short, _): counters.count(.piQueryShortBasicError)
        case (.long, .done), (.long, .active): counters.count(.piQueryLongBasicComplete)
        case (.long, .userAborted): counters.count(.piQueryLongBasicAbort)
        case (.long, _): counters.count(.piQueryLongBasicError)
        case (.background, .done), (.background, .active): counters.count(.piQueryOpsBgComplete)
        case (.background, .userAborted): counters.count(.piQueryOpsBgAbort)
        case (.background, _): counters.count(.piQueryOpsBgError)
        }
        if query.kind == .short {
            counters.countLatency(.piQuery, nanoseconds: now.nanoseconds(since: query.started), times: 1)
        }
    }
}
