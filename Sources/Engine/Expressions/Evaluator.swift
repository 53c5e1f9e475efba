// Runs a program. Values that are unknown, and in the metadata pass undecided, go through every instruction: of two,
// unknown wins, because it stays unknown whatever the record says; only `and`, `or`, `exclusive` can do without them.
internal import Base
internal import Record

/// Pointer to the place above the top of the stack.
private typealias Top = UnsafeMutablePointer<ExpressionValue>

extension Expression {
    /// The value for a record; what it took is in `work`. Allocates nothing except in the C library's regular expressions.
    /// What it points to is lent.
    package func evaluate(_ facts: RecordFacts, _ bins: BinSource) -> ExpressionValue {
        var top = stack
        var next = 0
        let end = instructionCount
        var workLeft = Expression.workMax - instructionCount
        while next < end {
            let instruction = instructions + next
            next += 1
            switch instruction.pointee.code {
            case .literal:
                top.pointee = instruction.pointee.value
                top += 1
            case .bin:
                top.pointee = bins.bin(instruction, &workLeft)
                top += 1
            case .compareIntegers:
                top -= 1
                if let special = special(top[-1], top[0]) {
                    top[-1] = special
                } else {
                    top[-1] = .bool(compare(top[-1].integer, top[0].integer, instruction.pointee.operation))
                }
            case .ifFalse: if top[-1].isFalse { next = Int(instruction.pointee.target) }
            case .ifTrue: if top[-1].isTrue { next = Int(instruction.pointee.target) }
            case .and:
                top -= 1
                top[-1] = joined(top[-1], top[0], decisive: 0)
                if top[-1].isFalse { next = Int(instruction.pointee.target) }
            case .or:
                top -= 1
                top[-1] = joined(top[-1], top[0], decisive: 1)
                if top[-1].isTrue { next = Int(instruction.pointee.target) }
            case .not: if top[-1].isKnown { top[-1].bits ^= 1 }
            case .jump: next = Int(instruction.pointee.target)
            case .branch:
                if top[-1].isTrue {
                    top -= 1
                } else if top[-1].isFalse {
                    top -= 1
                    next = Int(instruction.pointee.target)
                } else {
                    next = Int(instruction.pointee.end)
                }
            default: top = step(instruction, top, facts, bins, &workLeft)
            }
        }
        assert(top == stack + 1, "an expression leaves one value")
        work = Expression.workMax - workLeft
        return stack.pointee
    }

    /// Whether a record passes a filter.
    package func passes(_ facts: RecordFacts, _ bins: BinSource) -> Bool { evaluate(facts, bins).isTrue }

    private func step(
        _ instruction: UnsafePointer<Instruction>, _ top: Top, _ facts: RecordFacts, _ bins: BinSource,
        _ workLeft: inout Int
    ) -> Top {
        switch instruction.pointee.code {
        case .binType, .key, .digestModulo, .fact, .variable:
            top.pointee = given(instruction, facts, bins, &workLeft)
            return top + 1
        case .drop:
            let kept = top - Int(instruction.pointee.target)
            kept[-1] = top[-1]
            return kept
        case .exclusiveBegin, .exclusiveAdd, .exclusiveEnd: return exclusive(instruction.pointee.code, top)
        case .compareFloats, .compareBytes, .comparePacked, .inList, .integerPair, .floatPair, .scan:
            top[-2] = pair(instruction, top[-2], top[-1], &workLeft)
            return top - 1
        case .integerOne, .floatOne:
            if top[-1].isKnown {
                let operation = instruction.pointee.operation
                top[-1] = instruction.pointee.code == .integerOne
                    ? Arithmetic.integer(operation, top[-1].integer) : Arithmetic.float(operation, top[-1].float)
            }
            return top
        case .regex:
            if top[-1].isKnown, let pattern = instruction.pointee.value.base {
                workLeft -= top[-1].bytes.count >> 2
                guard workLeft >= 0 else {
                    top[-1] = .unknown
                    return top
                }
                let isMatch = Unmanaged<Pattern>.fromOpaque(pattern)._withUnsafeGuaranteedRef { $0.matches(top[-1].bytes) }
                top[-1] = .bool(isMatch)
            }
            return top
        default: preconditionFailure("instruction \(instruction.pointee.code) runs in the loop")
        }
    }

    /// What an instruction with two operands gives.
    private func pair(
        _ instruction: UnsafePointer<Instruction>, _ left: ExpressionValue, _ right: ExpressionValue,
        _ workLeft: inout Int
    ) -> ExpressionValue {
        if let special = special(left, right) { return special }
        let operation = instruction.pointee.operation
        switch instruction.pointee.code {
        case .compareFloats: return .bool(compare(left.float, right.float, operation))
        case .compareBytes:
            workLeft -= min(left.bytes.count, right.bytes.count) >> 6
            return workLeft < 0 ? .unknown : .bool(compareBytes(left, right, operation))
        case .comparePacked, .inList:
            var equality = PackedEquality(workLeft: workLeft)
            let isList = instruction.pointee.code == .inList
            let isEqual = isList ? equality.contains(right.bytes, left) : equality.equal(left.bytes, right.bytes)
            workLeft = equality.workLeft
            guard let isEqual else { return .unknown }
            return .bool(isList ? isEqual : isEqual == (operation == 1))
        case .integerPair: return Arithmetic.integers(operation, left.integer, right.integer)
        case .floatPair: return Arithmetic.floats(operation, left.float, right.float)
        case .scan: return Arithmetic.scan(operation, left.integer, for: right.isTrue)
        default: preconditionFailure("\(instruction.pointee.code) takes no pair")
        }
    }

    /// What of two operands makes the result unknown or undecided; nil if both are known.
    @inline(__always)
    private func special(_ left: ExpressionValue, _ right: ExpressionValue) -> ExpressionValue? {
        guard !left.isKnown || !right.isKnown else { return nil }
        return left.kind == .unknown || right.kind == .unknown ? .unknown : .undecided
    }

    /// And (`decisive` 0) or or (1): one decisive part is enough; what is undecided may still become decisive.
    @inline(__always)
    private func joined(_ left: ExpressionValue, _ right: ExpressionValue, decisive: UInt64) -> ExpressionValue {
        if left.kind == .bool, left.bits == decisive { return left }
        if right.kind == .bool, right.bits == decisive { return right }
        if left.kind == .undecided || right.kind == .undecided { return .undecided }
        return left.isKnown ? right : left
    }

    /// The state below the parts counts those that are true (bits 0-31), unknown (32), undecided (33).
    private func exclusive(_ code: Code, _ top: Top) -> Top {
        let (unknownBit, undecidedBit) = (UInt64(1) << 32, UInt64(1) << 33)
        switch code {
        case .exclusiveBegin:
            top.pointee = .integer(0)
            return top + 1
        case .exclusiveAdd:
            switch top[-1].kind {
            case .unknown: top[-2].bits |= unknownBit
            case .undecided: top[-2].bits |= undecidedBit
            default: top[-2].bits += top[-1].bits
            }
            return top - 1
        default:
            let state = top[-1].bits
            let isTrueCount = state & (unknownBit - 1)
            if isTrueCount > 1 {
                top[-1] = .bool(false)
            } else if state & undecidedBit != 0 {
                top[-1] = .undecided
            } else {
                top[-1] = state & unknownBit != 0 ? .unknown : .bool(isTrueCount == 1)
            }
            return top
        }
    }

    // ---- Comparison ----

    @inline(__always)
    private func compare<Value: Comparable>(_ left: Value, _ right: Value, _ operation: UInt8) -> Bool {
        switch operation {
        case 1: left == right
        case 2: left != right
        case 3: left > right
        case 4: left >= right
        case 5: left < right
        default: left <= right
        }
    }

    /// Byte by byte, the shorter of two with the same beginning first. Blobs of different particle types are not equal;
    /// their types order them.
    private func compareBytes(_ left: ExpressionValue, _ right: ExpressionValue, _ operation: UInt8) -> Bool {
        if left.particleType != right.particleType { return compare(left.particleType, right.particleType, operation) }
        return compare(order(left.bytes, right.bytes), 0, operation)
    }

    // ---- Record ----

    /// What comes from the record, its metadata, or the stack.
    private func given(
        _ instruction: UnsafePointer<Instruction>, _ facts: RecordFacts, _ bins: BinSource, _ workLeft: inout Int
    ) -> ExpressionValue {
        switch instruction.pointee.code {
        case .binType: return bins.type(instruction, &workLeft)
        case .key: return bins.key(ofType: instruction.pointee.operation, facts)
        case .digestModulo:
            // The last four bytes of the digest, little-endian: those that decide nothing else.
            return .integer(Int64(facts.digest.high) % instruction.pointee.value.integer)
        case .variable: return stack[Int(instruction.pointee.target)]
        default: return fact(instruction.pointee.operation, facts)
        }
    }

    private func fact(_ operation: UInt8, _ facts: RecordFacts) -> ExpressionValue {
        let epoch = RecordTime.epochUnixSeconds
        switch operation {
        case 66: return .integer(Int64((epoch * 1000 + facts.lastUpdate) * 1_000_000))
        case 67: return .integer(Int64(facts.now.milliseconds) - Int64(facts.lastUpdate))
        case 68: return .integer(facts.voidTime == 0 ? -1 : Int64((epoch + UInt64(facts.voidTime)) * 1_000_000_000))
        case 69: return .integer(facts.voidTime == 0 ? -1 : Int64(facts.voidTime) - Int64(facts.now.seconds))
        case 70: return ExpressionValue(.string, facts.setName, particleType: ParticleType.string)
        case 71: return .bool(facts.isKeyStored)
        case 72: return .bool(facts.isTombstone)
        // 65, 73 and 74: size on the device, in memory, of the record.
        default: return .integer(Int64(facts.byteCount))
        }
    }
}

/// Less than, equal to, greater than zero as `left` is before, equal to, behind `right`.
private func order(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Int {
    if let one = left.baseAddress, let other = right.baseAddress {
        let order = bytesOrder(one, other, min(left.count, right.count))
        if order != 0 { return order }
    }
    return left.count - right.count
}

extension BinSource {
    /// The bin that the instruction names, if it has the type that the instruction wants.
    @inline(__always)
    fileprivate func bin(_ instruction: UnsafePointer<Instruction>, _ workLeft: inout Int) -> ExpressionValue {
        guard hasRecord else { return .undecided }
        guard maySearch(&workLeft) else { return .unknown }
        guard let bin = find(instruction.pointee.value) else { return .unknown }
        return typed(bin.particleType, bin.value, instruction.pointee.operation)
    }

    /// The particle type of the bin that the instruction names, 0 if there is none.
    fileprivate func type(_ instruction: UnsafePointer<Instruction>, _ workLeft: inout Int) -> ExpressionValue {
        guard hasRecord else { return .undecided }
        guard maySearch(&workLeft) else { return .unknown }
        return .integer(Int64(find(instruction.pointee.value)?.particleType ?? ParticleType.null))
    }

    /// The stored key.
    fileprivate func key(ofType type: UInt8, _ facts: RecordFacts) -> ExpressionValue {
        guard hasRecord else { return facts.isKeyStored ? .undecided : .unknown }
        guard let particleType = key.first else { return .unknown }
        return typed(particleType, UnsafeRawBufferPointer(rebasing: key.dropFirst()), type)
    }

    @inline(__always)
    private func typed(_ particleType: UInt8, _ value: UnsafeRawBufferPointer, _ wanted: UInt8) -> ExpressionValue {
        let kind: ValueKind
        switch particleType {
        case ParticleType.integer, ParticleType.float:
            kind = particleType == ParticleType.integer ? .integer : .float
            guard kind.rawValue == wanted, value.count == 8, let base = value.baseAddress else { return .unknown }
            return ExpressionValue(kind, bits: base.bigEndian(UInt64.self))
        case ParticleType.bool:
            guard ValueKind.bool.rawValue == wanted, value.count == 1 else { return .unknown }
            return .bool(value[0] != 0)
        case ParticleType.string: kind = .string
        case ParticleType.list: kind = .list
        case ParticleType.map: kind = .map
        case ParticleType.geoJSON: kind = .geoJSON
        case ParticleType.hyperLogLog: kind = .hyperLogLog
        case ParticleType.blob, 7...12: kind = .blob
        default: return .unknown
        }
        guard kind.rawValue == wanted else { return .unknown }
        return ExpressionValue(kind, value, particleType: particleType)
    }

    /// Counts the search for a bin; false beyond the limit.
    @inline(__always)
    private func maySearch(_ workLeft: inout Int) -> Bool {
        workLeft -= count >> 2
        return workLeft >= 0
    }

    /// The bin of that name.
    @inline(__always)
    private func find(_ name: ExpressionValue) -> (particleType: UInt8, value: UnsafeRawBufferPointer)? {
        guard editor == nil else { return findEdited(name.bytes) }
        guard var operation = bytes.baseAddress else { return nil }
        let wanted = name.bytes
        for _ in 0..<count {
            let size = Int(operation.bigEndian(UInt32.self))
            let nameCount = Int(operation.load(fromByteOffset: 7, as: UInt8.self))
            let start = operation + OperationSequence.headerSize
            if nameCount == wanted.count, UnsafeRawBufferPointer(start: start, count: nameCount).equals(wanted) {
                return (
                    operation.load(fromByteOffset: 5, as: UInt8.self),
                    UnsafeRawBufferPointer(start: start + nameCount, count: size - 4 - nameCount))
            }
            operation += 4 + size
        }
        return nil
    }

    @inline(never)
    private func findEdited(_ name: UnsafeRawBufferPointer) -> (particleType: UInt8, value: UnsafeRawBufferPointer)? {
        editor?._withUnsafeGuaranteedRef { $0.read(name) }.map { ($0.particleType, $0.value) }
    }
}
