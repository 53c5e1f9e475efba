// What the operations of a request may be, before the record is looked at.
package import Base

/// Checks of operations that need no record.
package enum OperationRules {
    /// The flags of the request that matter here.
    package struct Flags: Sendable, BitwiseCopyable {
        package var isReplace: Bool
        package var readsAllowed: Bool
        package var getsAll: Bool
        package var respondsAll: Bool

        package init(isReplace: Bool, readsAllowed: Bool, getsAll: Bool, respondsAll: Bool) {
            self.isReplace = isReplace
            self.readsAllowed = readsAllowed
            self.getsAll = getsAll
            self.respondsAll = respondsAll
        }
    }

    /// What a look at all operations found.
    package struct Summary: Sendable, BitwiseCopyable {
        /// A touch: the record must exist.
        package var hasTouch = false
        /// A read of all bins.
        package var readsAll = false
        /// A read of one bin, or of an expression.
        package var readsOne = false
        /// An expression is evaluated.
        package var hasExpression = false

        package init() {}
    }

    /// Looks at one operation of a write and notes it in `summary`.
    package static func check(_ operation: OperationView, flags: Flags, summary: inout Summary) -> ResultCode {
        switch operation.code {
        case OperationCode.read: return checkRead(operation, flags, &summary)
        case OperationCode.write:
            guard !(flags.isReplace && operation.particleType == ParticleType.null) else { return .parameter }
            return checkName(operation.name)
        case OperationCode.increment, OperationCode.append, OperationCode.prepend:
            guard !flags.isReplace else { return .parameter }
            return checkName(operation.name)
        case OperationCode.touch:
            summary.hasTouch = true
            return flags.isReplace ? .parameter : .ok
        case OperationCode.deleteAll: return flags.isReplace ? .parameter : .ok
        case OperationCode.collectionModify, OperationCode.bitsModify, OperationCode.hyperLogLogModify:
            return flags.isReplace ? .parameter : .unsupportedFeature
        case OperationCode.expressionRead:
            guard flags.readsAllowed else { return .parameter }
            summary.readsOne = true
            summary.hasExpression = true
            return checkName(operation.name)
        case OperationCode.expressionModify:
            guard !flags.isReplace else { return .parameter }
            summary.hasExpression = true
            return checkName(operation.name)
        case OperationCode.collectionRead, OperationCode.bitsRead, OperationCode.hyperLogLogRead, 17, 18, 19:
            return .unsupportedFeature
        default: return .parameter
        }
    }

    /// The checks that need all operations to be known.
    package static func checkTogether(_ summary: Summary, count: Int, flags: Flags) -> ResultCode {
        guard count > 0, count <= Limits.operationsMax else { return .parameter }
        if flags.getsAll, !summary.readsAll { return .parameter }
        if summary.readsAll, flags.respondsAll || summary.readsOne { return .parameter }
        return .ok
    }

    /// An operation of a plain read.
    package static func checkRead(_ operation: OperationView) -> ResultCode {
        switch operation.code {
        case OperationCode.read, OperationCode.expressionRead: return checkName(operation.name)
        case OperationCode.collectionRead, OperationCode.bitsRead, OperationCode.hyperLogLogRead, 17, 19:
            return .unsupportedFeature
        default: return .parameter
        }
    }

    private static func checkRead(
        _ operation: OperationView, _ flags: Flags, _ summary: inout Summary
    ) -> ResultCode {
        guard flags.readsAllowed else { return .parameter }
        guard operation.name.isEmpty else {
            summary.readsOne = true
            return checkName(operation.name)
        }
        guard !summary.readsAll, flags.getsAll else { return .parameter }
        summary.readsAll = true
        return .ok
    }

    /// A bin name has 1 to 15 bytes and no NUL.
    package static func checkName(_ name: UnsafeRawBufferPointer) -> ResultCode {
        guard name.count >= 1, name.count <= Limits.binNameSizeMax else { return .binName }
        for byte in name where byte == 0 { return .binName }
        return .ok
    }
}
