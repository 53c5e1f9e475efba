// Operations of a request and the results they put into the answer.
internal import Base
internal import Expressions
internal import Record
internal import Wire

extension NamespaceShard {
    /// Applies the operations of a write in order; what they answer is collected in `scratch.results`.
    func applyOperations(_ slot: SlotPointer, exists: Bool, _ view: ImageView?, _ now: TurnTime) -> ResultCode {
        let request = slot.pointee.request
        let respondsAll = request.pointee.header.info2.contains(.respondAllOperations)
        let workBefore = scratch.expressions.work
        var operations = request.pointee.operations
        while let operation = operations.next() {
            if operation.code == OperationCode.read {
                readOperation(operation, respondsAll: respondsAll)
                guard !scratch.isResultTooLarge else { return .recordTooBig }
                continue
            }
            if operation.code == OperationCode.expressionRead || operation.code == OperationCode.expressionModify {
                guard !isTooMuchWork(since: workBefore) else { return .parameter }
                let result = applyExpression(
                    operation, editedFacts(slot, exists: exists, now), BinSource(scratch.editor, key: key(slot, view)),
                    respondsAll: respondsAll, code: resultCode(slot, operation))
                guard result == .ok else { return result }
                continue
            }
            let result = scratch.editor.apply(operation)
            guard result == .ok else { return result }
            if respondsAll { addNull(operation) }
        }
        return .ok
    }

    /// The code that an expression's result has: rows of batches and records of queries say `read`.
    func resultCode(_ slot: SlotPointer, _ operation: OperationView) -> UInt8 {
        slot.pointee.owner == nil ? operation.code : OperationCode.read
    }

    /// Metadata are those of the record before the write; a new one has none yet.
    private func editedFacts(_ slot: SlotPointer, exists: Bool, _ now: TurnTime) -> RecordFacts {
        if exists { return facts(slot.pointee.previous, slot.pointee.digest, now) }
        let request = slot.pointee.request
        return RecordFacts(
            digest: slot.pointee.digest, lastUpdate: now.wall.milliseconds, voidTime: 0,
            isKeyStored: request.pointee.has(.key), isTombstone: false, byteCount: 0, setName: request.pointee.set,
            now: now.wall)
    }

    private func key(_ slot: SlotPointer, _ view: ImageView?) -> UnsafeRawBufferPointer {
        if let view, !view.key.isEmpty { return view.key }
        return slot.pointee.request.pointee.key
    }

    /// A read inside an operate sees what the operations before it did.
    private func readOperation(_ operation: OperationView, respondsAll: Bool) {
        if operation.name.isEmpty {
            scratch.editor.forEachBin { addResult(operation.code, $0.name, $0.particleType, $0.value) }
        } else if let bin = scratch.editor.read(operation.name) {
            addResult(operation.code, bin.name, bin.particleType, bin.value)
        } else if respondsAll {
            addNull(operation)
        }
    }

    /// Makes ready for `addBin` with so many names; true if they are many enough for a hash.
    func beginBins(_ view: ImageView, names: Int) -> Bool {
        guard names > NamespaceShard.linearNamesMax else { return false }
        scratch.editor.begin(view)
        return true
    }
    private static let linearNamesMax = 16

    /// Adds the bin that a read names, or null if it is not there and every operation is answered.
    func addBin(_ operation: OperationView, _ view: ImageView, searchesHashed: Bool, respondsAll: Bool) {
        let bin = searchesHashed ? scratch.editor.read(operation.name) : view.bin(named: operation.name)
        if let bin {
            addResult(operation.code, bin.name, bin.particleType, bin.value)
        } else if respondsAll {
            addNull(operation)
        }
    }

    func addNull(_ operation: OperationView) {
        addResult(
            operation.code, operation.name, ParticleType.null, UnsafeRawBufferPointer(start: nil, count: 0))
    }

    func addResult(
        _ code: UInt8, _ name: UnsafeRawBufferPointer, _ particleType: UInt8, _ value: UnsafeRawBufferPointer
    ) {
        guard scratch.results.count + value.count <= Limits.resultSizeMax else {
            scratch.isResultTooLarge = true
            return
        }
        AnswerWriter.appendOperation(
            code: code, particleType: particleType, name: name, value: value, to: scratch.results)
        scratch.resultCount += 1
    }
}
