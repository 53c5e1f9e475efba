// The operations EXP_READ and EXP_MODIFY, inside reads and writes.
internal import Base
internal import Expressions
internal import Record

extension NamespaceShard {
    /// What an expression operation rules out before the record is looked at. Compiles it.
    func checkExpression(_ operation: OperationView) -> ResultCode {
        guard let carried = ExpressionOperation(operation) else { return .parameter }
        do throws(ExpressionError) {
            _ = try scratch.expressions.expression(carried.expression)
            return .ok
        } catch { return error.resultCode }
    }

    /// Whether the expressions of one request, before which the work was `before`, have taken more than they may together.
    func isTooMuchWork(since before: Int) -> Bool { scratch.expressions.work - before > Limits.expressionWorkMax }

    /// Evaluates one; its result goes to the answer, as the result of an operation `code`, or into its bin.
    func applyExpression(
        _ operation: OperationView, _ facts: RecordFacts, _ bins: BinSource, respondsAll: Bool, code: UInt8
    ) -> ResultCode {
        guard let carried = ExpressionOperation(operation) else { return .parameter }
        var operation = operation
        let isRead = operation.code == OperationCode.expressionRead
        operation.code = code
        do throws(ExpressionError) {
            let expression = try scratch.expressions.expression(carried.expression)
            defer { scratch.expressions.work += expression.work }
            guard isRead else {
                let result = modify(operation, carried.flags, expression, facts, bins)
                if result == .ok, respondsAll { addNull(operation) }
                return result
            }
            // A literal's bytes are the expression's own, and the cache need not hold it.
            return withExtendedLifetime(expression) {
                answer(operation, carried.flags, expression.evaluate(facts, bins), respondsAll: respondsAll)
            }
        } catch { return error.resultCode }
    }

    private func answer(
        _ operation: OperationView, _ flags: ExpressionOperation.Flags, _ value: ExpressionValue, respondsAll: Bool
    ) -> ResultCode {
        var room: UInt64 = 0
        return withUnsafeMutableBytes(of: &room) { room -> ResultCode in
            guard let base = room.baseAddress, let particle = value.particle(base) else {
                guard flags.contains(.evaluationNoFail) else { return .notApplicable }
                if respondsAll { addNull(operation) }
                return .ok
            }
            addResult(operation.code, operation.name, particle.particleType, particle.value)
            return scratch.isResultTooLarge ? .recordTooBig : .ok
        }
    }

    private func modify(
        _ operation: OperationView, _ flags: ExpressionOperation.Flags, _ expression: Expression, _ facts: RecordFacts,
        _ bins: BinSource
    ) -> ResultCode {
        let exists = scratch.editor.read(operation.name) != nil
        if flags.contains(.createOnly), exists { return flags.contains(.policyNoFail) ? .ok : .binExists }
        if flags.contains(.updateOnly), !exists { return flags.contains(.policyNoFail) ? .ok : .binNotFound }
        let value = expression.evaluate(facts, bins)
        var room: UInt64 = 0
        return withUnsafeMutableBytes(of: &room) { room -> ResultCode in
            guard let base = room.baseAddress, let particle = value.particle(base) else {
                return flags.contains(.evaluationNoFail) ? .ok : .notApplicable
            }
            if particle.particleType == ParticleType.null, !flags.contains(.allowDelete) {
                return flags.contains(.policyNoFail) ? .ok : .notApplicable
            }
            return withExtendedLifetime(expression) {
                scratch.editor.set(operation.name, particle.particleType, copying: particle.value)
            }
        }
    }
}
