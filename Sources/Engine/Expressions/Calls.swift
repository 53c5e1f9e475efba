// The calls of an expression by their number (wire.md 7.10).
internal import Base

extension Compiler {
    /// Compiles a call with `count` arguments, which follow at the reader.
    mutating func call(_ operation: Int64, _ count: Int) throws(ExpressionError) -> ExpressionType {
        switch operation {
        case 0:
            guard count == 0 else { throw .malformed }
            try emit(literal: .unknown)
            return .any
        case 1...6: return try compare(UInt8(operation), count)
        case 7: return try regex(count)
        case 9: return try inList(count)
        case 16, 17: return try logic(operation, count)
        case 18:
            guard count == 1 else { throw .malformed }
            try expect(.bool)
            try emit(Instruction(.not), takes: 1)
            return .bool
        case 19: return try exclusive(count)
        case 20...41, 50, 51: return try arithmetic(UInt8(operation), count)
        case 64...74: return try fact(UInt8(operation), count)
        case 80: return try key(count)
        case 81: return try bin(count)
        case 82: return try binType(count)
        case 123: return try condition(count)
        case 124: return try variable(count)
        case 125: return try variables(count)
        case 126: return try quote(count)
        // Geo, result_remove, map_keys, map_values, loop variables, calls of collections, bits and HLL.
        case 8, 100, 101, 102, 122, 127: throw .unsupported
        default: throw .malformed
        }
    }

    /// Both sides have one type. Integers and floats are different types.
    private mutating func compare(_ operation: UInt8, _ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 2 else { throw .malformed }
        let type = try Compiler.unify(try expression(), try expression())
        let code: Code
        switch type {
        case .none, .bool, .integer, .any: code = .compareIntegers
        case .float: code = .compareFloats
        case .string, .blob: code = .compareBytes
        case .list, .map:
            // The order of lists and maps comes with the operations on them.
            guard operation <= 2 else { throw .unsupported }
            noteSlow()
            code = .comparePacked
        case .geoJSON, .hyperLogLog: throw .unsupported
        }
        try emit(Instruction(code, operation: operation), takes: 2)
        return .bool
    }

    private mutating func inList(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 2 else { throw .malformed }
        let type = try expression()
        guard type != .geoJSON, type != .hyperLogLog else { throw .unsupported }
        try expect(.list)
        noteSlow()
        try emit(Instruction(.inList), takes: 2)
        return .bool
    }

    // ---- Record ----

    private mutating func fact(_ operation: UInt8, _ count: Int) throws(ExpressionError) -> ExpressionType {
        noteMetadata()
        guard operation != 64 else {
            guard count == 1 else { throw .malformed }
            let divisor = try staticInteger()
            guard divisor > 0 else { throw .malformed }
            try emit(Instruction(.digestModulo, value: .integer(divisor)), takes: 0)
            return .integer
        }
        guard count == 0 else { throw .malformed }
        try emit(Instruction(.fact, operation: operation), takes: 0)
        switch operation {
        case 70: return .string
        case 71, 72: return .bool
        default: return .integer
        }
    }

    private mutating func key(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 1 else { throw .malformed }
        let type = try staticType()
        guard type == .integer || type == .string || type == .blob || type == .float else { throw .malformed }
        noteRecord()
        // A key that is not stored is unknown without the record.
        noteMetadata()
        try emit(Instruction(.key, operation: type.rawValue), takes: 0)
        return type
    }

    private mutating func staticType() throws(ExpressionError) -> ExpressionType {
        guard let number = UInt8(exactly: try staticInteger()), number < ExpressionType.any.rawValue,
            let type = ExpressionType(rawValue: number)
        else { throw .malformed }
        return type
    }

    private mutating func binName() throws(ExpressionError) -> UnsafeRawBufferPointer {
        let name = try name()
        guard (1...Limits.binNameSizeMax).contains(name.count) else { throw .malformed }
        noteRecord()
        return name
    }

    private mutating func bin(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 2 else { throw .malformed }
        let type = try staticType()
        guard type != .none else { throw .malformed }
        let name = ExpressionValue(.string, try binName(), particleType: 0)
        try emit(Instruction(.bin, operation: type.rawValue, value: name), takes: 0)
        return type
    }

    private mutating func binType(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 1 else { throw .malformed }
        let name = ExpressionValue(.string, try binName(), particleType: 0)
        try emit(Instruction(.binType, value: name), takes: 0)
        return .integer
    }

    // ---- Arithmetic ----

    /// What an operation takes and gives.
    private struct Shape {
        var least: Int
        var most: Int
        /// Nil: integers or floats, all of one type.
        var takes: ExpressionType?
        /// Nil: what it takes.
        var gives: ExpressionType?
    }

    private static func shape(_ operation: UInt8) throws(ExpressionError) -> Shape {
        switch operation {
        case 20...23, 50, 51: return Shape(least: 1, most: .max)
        case 24, 25: return Shape(least: 2, most: 2, takes: .float)
        case 26, 36, 37, 38: return Shape(least: 2, most: 2, takes: .integer)
        case 27: return Shape(least: 1, most: 1)
        case 28, 29: return Shape(least: 1, most: 1, takes: .float)
        case 30: return Shape(least: 1, most: 1, takes: .float, gives: .integer)
        case 31: return Shape(least: 1, most: 1, takes: .integer, gives: .float)
        case 32, 33, 34: return Shape(least: 1, most: .max, takes: .integer)
        case 35, 39: return Shape(least: 1, most: 1, takes: .integer)
        case 40, 41: return Shape(least: 2, most: 2, takes: .integer)
        default: throw .malformed
        }
    }

    private mutating func arithmetic(_ operation: UInt8, _ count: Int) throws(ExpressionError) -> ExpressionType {
        let shape = try Compiler.shape(operation)
        guard count >= shape.least, count <= shape.most else { throw .malformed }
        var type = shape.takes ?? .any
        try operand(&type)
        if operation == 40 || operation == 41 {
            try expect(.bool)
            try emit(Instruction(.scan, operation: operation), takes: 2)
            return .integer
        }
        // One operand: the negative, the reciprocal, or a function of one.
        if count == 1, shape.most == 1 || operation == 21 || operation == 23 {
            try emit(Instruction(type == .float ? .floatOne : .integerOne, operation: operation), takes: 1)
            return shape.gives ?? type
        }
        // The first is divided by the product of the others.
        let joins = operation == 23 ? 22 : operation
        for number in 1..<max(count, 1) {
            try operand(&type)
            if operation != 23 || number > 1 { try join(joins, type) }
        }
        if operation == 23 { try join(23, type) }
        return shape.gives ?? type
    }

    private mutating func operand(_ type: inout ExpressionType) throws(ExpressionError) {
        type = try Compiler.unify(type, try expression())
        guard type == .integer || type == .float || type == .any else { throw .malformed }
    }

    private mutating func join(_ operation: UInt8, _ type: ExpressionType) throws(ExpressionError) {
        try emit(Instruction(type == .float ? .floatPair : .integerPair, operation: operation), takes: 2)
    }
}
