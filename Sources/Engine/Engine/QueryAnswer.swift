// What a query answers of a record: which fields, which bins, and their bytes.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Wire

/// The form of a query's answers: fixed while it runs; views into its request.
struct QueryAnswerFields {
    /// No bins are asked for.
    let isMetadataOnly: Bool
    private let namespace: UnsafeRawBufferPointer
    private let selection: OperationSequence
    private let selectionCount: Int
    private let respondsAll: Bool
    private static let fieldHeaderSize = 5

    init(_ request: RequestPointer) {
        isMetadataOnly = request.pointee.header.info1.contains(.noBins)
        namespace = request.pointee.namespace
        selection = request.pointee.operations
        selectionCount = request.pointee.operationCount
        respondsAll = request.pointee.header.info2.contains(.respondAllOperations)
    }

    /// The bins that are asked for, lent until the scratch results are reset; nil if the record has none of them.
    func operations(_ view: ImageView, _ record: IndexedRecord, _ shard: NamespaceShard) -> AnswerOperations? {
        guard selectionCount > 0 else { return AnswerOperations(bytes: view.binBytes, count: view.binCount) }
        let scratch = shard.scratch
        let searchesHashed = shard.beginBins(view, names: selectionCount)
        var operations = selection
        let work = scratch.expressions.work
        while let operation = operations.next() {
            if operation.code == OperationCode.expressionRead {
                guard !shard.isTooMuchWork(since: work) else { return nil }
                evaluate(operation, view, record, shard)
                continue
            }
            // Only reads are left: their code is the one that queries answer.
            shard.addBin(operation, view, searchesHashed: searchesHashed, respondsAll: respondsAll)
        }
        guard scratch.resultCount > 0 else { return nil }
        return AnswerOperations(bytes: scratch.results.bytes, count: scratch.resultCount)
    }

    /// Adds the value of an expression; one that cannot be evaluated is left out, as a bin that is not there.
    private func evaluate(
        _ operation: OperationView, _ view: ImageView, _ record: IndexedRecord, _ shard: NamespaceShard
    ) {
        let facts = shard.facts(record.entry, record.digest, shard.scratch.now)
        // Queries answer READs.
        _ = shard.applyExpression(operation, facts, BinSource(view), respondsAll: respondsAll, code: OperationCode.read)
    }

    /// Bytes of a record's answer.
    func byteCount(
        _ setName: UnsafeRawBufferPointer, _ view: ImageView?, _ operations: AnswerOperations
    ) -> Int {
        let fields = 2 + (setName.isEmpty ? 0 : 1) + (key(view).isEmpty ? 0 : 1)
        return MessageHeader.byteCount + fields * QueryAnswerFields.fieldHeaderSize + namespace.count + Digest.byteCount
            + setName.count + key(view).count + operations.bytes.count
    }

    private func key(_ view: ImageView?) -> UnsafeRawBufferPointer {
        view?.key ?? UnsafeRawBufferPointer(start: nil, count: 0)
    }

    /// Writes a record's answer: header, fields, bins.
    func write(
        _ record: IndexedRecord, _ setName: UnsafeRawBufferPointer, _ view: ImageView?, _ operations: AnswerOperations,
        to output: OutputBuffer
    ) {
        let byteCount = byteCount(setName, view, operations)
        let target = output.reserve(byteCount)
        var header = MessageHeader()
        header.info1 = isMetadataOnly ? .noBins : []
        header.generation = UInt32(view?.generation ?? record.entry.generation)
        header.timeToLive = view?.voidTime ?? record.entry.voidTime
        header.operationCount = UInt16(truncatingIfNeeded: operations.count)
        var cursor = target + MessageHeader.byteCount
        func field(_ number: FieldNumber, _ bytes: UnsafeRawBufferPointer) {
            header.fieldCount += 1
            cursor = QueryAnswerFields.begin(number, bytes.count, cursor)
            cursor.copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
            cursor += bytes.count
        }
        field(.namespace, namespace)
        header.fieldCount += 1
        cursor = QueryAnswerFields.begin(.digest, Digest.byteCount, cursor)
        record.digest.store(to: cursor)
        cursor += Digest.byteCount
        if !setName.isEmpty { field(.set, setName) }
        let key = key(view)
        if !key.isEmpty { field(.key, key) }
        if let source = operations.bytes.baseAddress { cursor.copyMemory(from: source, byteCount: operations.bytes.count) }
        header.write(to: target)
        output.commit(byteCount)
    }

    private static func begin(
        _ number: FieldNumber, _ byteCount: Int, _ cursor: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        cursor.storeBigEndian(UInt32(1 + byteCount))
        cursor.storeBytes(of: number.rawValue, toByteOffset: 4, as: UInt8.self)
        return cursor + fieldHeaderSize
    }
}
