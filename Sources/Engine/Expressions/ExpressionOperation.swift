// What the operations EXP_READ and EXP_MODIFY carry (wire.md 7.9): a list of the expression and flags.
package import Base

/// An expression operation's value, taken apart. Views.
package struct ExpressionOperation: BitwiseCopyable {
    package let expression: UnsafeRawBufferPointer
    package let flags: Flags

    /// Flags of expression operations, by the protocol's names.
    package struct Flags: OptionSet, Sendable, BitwiseCopyable {
        package let rawValue: Int64
        package init(rawValue: Int64) { self.rawValue = rawValue }
        /// The bin must not exist.
        package static var createOnly: Flags { Flags(rawValue: 1) }
        /// The bin must exist.
        package static var updateOnly: Flags { Flags(rawValue: 2) }
        /// A result of nil deletes the bin.
        package static var allowDelete: Flags { Flags(rawValue: 4) }
        /// What a policy forbids is left undone.
        package static var policyNoFail: Flags { Flags(rawValue: 8) }
        /// An unknown result is no failure.
        package static var evaluationNoFail: Flags { Flags(rawValue: 16) }
        static let read: Flags = [.evaluationNoFail]
        static let modify: Flags = [.createOnly, .updateOnly, .allowDelete, .policyNoFail, .evaluationNoFail]
    }

    /// Nil if the value is not a list of an expression and flags that fit the operation.
    package init?(_ operation: OperationView) {
        guard operation.particleType == ParticleType.blob else { return nil }
        var reader = PackedReader(operation.value)
        guard case .list(2)? = reader.next() else { return nil }
        let start = reader.cursor
        guard reader.skip() else { return nil }
        expression = reader.bytes(since: start)
        guard case .integer(let flags)? = reader.next(), reader.isAtEnd else { return nil }
        self.flags = Flags(rawValue: flags)
        let allowed = operation.code == OperationCode.expressionRead ? Flags.read : Flags.modify
        let both: Flags = [.createOnly, .updateOnly]
        guard flags & ~allowed.rawValue == 0, flags & both.rawValue != both.rawValue else { return nil }
    }
}
