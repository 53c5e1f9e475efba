// From packed bytes to a program, in one pass. Recursion follows the nesting of calls, which is limited; literals are
// passed over without recursion.
internal import Base

/// Compiles one expression. What it has read so far is always a valid program with `height` values on the stack.
struct Compiler {
    /// Most values on the stack.
    private static let heightLimit = 512
    /// Most variables that are visible at a time.
    private static let variablesMax = 128
    /// Most regular expressions.
    private static let patternsMax = 16
    private(set) var code: [Instruction] = []
    private(set) var patterns: [Pattern] = []
    private(set) var heightMax = 1
    private(set) var readsRecord = false
    private(set) var readsMetadata = false
    private(set) var isSlow = false
    var reader: PackedReader
    private var height = 0
    private var depth = 0
    private var variables: [Variable] = []

    private struct Variable {
        var name: UnsafeRawBufferPointer
        var place: Int
        var type: ExpressionType
    }

    init(_ bytes: UnsafeRawBufferPointer) { reader = PackedReader(bytes) }

    /// Compiles all of the bytes.
    mutating func compile() throws(ExpressionError) -> ExpressionType {
        let type = try expression()
        guard reader.isAtEnd else { throw .malformed }
        return type
    }

    // ---- Emitting ----

    /// Adds an instruction that takes `takes` values and gives `gives`.
    mutating func emit(_ instruction: Instruction, takes: Int, gives: Int = 1) throws(ExpressionError) {
        guard code.count < Expression.instructionsMax else { throw .malformed }
        code.append(instruction)
        height += gives - takes
        guard height <= Compiler.heightLimit else { throw .malformed }
        heightMax = max(heightMax, height)
    }

    mutating func emit(literal value: ExpressionValue) throws(ExpressionError) {
        try emit(Instruction(.literal, value: value), takes: 0)
    }

    /// The instructions at `places` jump to the next one that will be emitted.
    private mutating func land(_ places: [Int]) {
        for place in places { code[place].target = UInt32(code.count) }
    }

    mutating func noteRecord() { readsRecord = true }
    mutating func noteMetadata() { readsMetadata = true }
    mutating func noteSlow() { isSlow = true }

    // ---- Reading ----

    /// One expression: a literal or a call.
    mutating func expression() throws(ExpressionError) -> ExpressionType {
        let start = reader
        guard let token = reader.next() else { throw .malformed }
        switch token {
        case .none: return try literal(ExpressionValue(.none), .none)
        case .bool(let value): return try literal(.bool(value), .bool)
        case .integer(let value): return try literal(.integer(value), .integer)
        case .float(let value): return try literal(.float(value), .float)
        case .bytes(let bytes): return try literal(bytes)
        case .map:
            reader = start
            guard reader.skip() else { throw .malformed }
            let bytes = reader.bytes(since: start.cursor)
            return try literal(ExpressionValue(.map, bytes, particleType: ParticleType.map), .map)
        case .list(let count):
            guard count > 0, case .integer(let operation)? = reader.next() else { throw .malformed }
            depth += 1
            guard depth <= Expression.depthMax else { throw .malformed }
            let type = try call(operation, count - 1)
            depth -= 1
            return type
        case .extra: throw .malformed
        }
    }

    private mutating func literal(
        _ value: ExpressionValue, _ type: ExpressionType
    ) throws(ExpressionError) -> ExpressionType {
        try emit(literal: value)
        return type
    }

    /// Text and blobs carry their particle type in the first byte.
    private mutating func literal(_ bytes: UnsafeRawBufferPointer) throws(ExpressionError) -> ExpressionType {
        guard let particleType = bytes.first else { throw .malformed }
        let content = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
        switch particleType {
        case ParticleType.string:
            return try literal(ExpressionValue(.string, content, particleType: particleType), .string)
        case ParticleType.geoJSON: throw .unsupported
        case ParticleType.blob, ParticleType.languageBlobs:
            return try literal(ExpressionValue(.blob, content, particleType: particleType), .blob)
        default: throw .malformed
        }
    }

    /// `[126, list]`: the list as it is.
    mutating func quote(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 1 else { throw .malformed }
        let start = reader
        var ahead = reader
        guard case .list? = ahead.next(), reader.skip() else { throw .malformed }
        let bytes = reader.bytes(since: start.cursor)
        return try literal(ExpressionValue(.list, bytes, particleType: ParticleType.list), .list)
    }

    /// An expression of this type, or of one that is always unknown.
    mutating func expect(_ type: ExpressionType) throws(ExpressionError) {
        let found = try expression()
        guard found == type || found == .any else { throw .malformed }
    }

    /// The type of both; `any` gives way.
    static func unify(_ left: ExpressionType, _ right: ExpressionType) throws(ExpressionError) -> ExpressionType {
        if left == .any { return right }
        guard right == left || right == .any else { throw .malformed }
        return left
    }

    /// A raw name, without a type byte.
    mutating func name() throws(ExpressionError) -> UnsafeRawBufferPointer {
        guard case .bytes(let bytes)? = reader.next() else { throw .malformed }
        return bytes
    }

    mutating func staticInteger() throws(ExpressionError) -> Int64 {
        guard case .integer(let value)? = reader.next() else { throw .malformed }
        return value
    }

    // ---- Control ----

    /// And, or: every part may decide.
    mutating func logic(_ operation: Int64, _ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count >= 1 else { throw .malformed }
        let isAnd = operation == 16
        var exits: [Int] = []
        try expect(.bool)
        for part in 1..<max(count, 1) {
            if part == 1 {
                exits.append(code.count)
                try emit(Instruction(isAnd ? .ifFalse : .ifTrue), takes: 0, gives: 0)
            }
            try expect(.bool)
            exits.append(code.count)
            try emit(Instruction(isAnd ? .and : .or), takes: 2)
        }
        land(exits)
        return .bool
    }

    /// True if exactly one part is.
    mutating func exclusive(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count >= 1 else { throw .malformed }
        try emit(Instruction(.exclusiveBegin), takes: 0)
        for _ in 0..<count {
            try expect(.bool)
            try emit(Instruction(.exclusiveAdd), takes: 2)
        }
        try emit(Instruction(.exclusiveEnd), takes: 1)
        return .bool
    }

    /// Condition, value, condition, value, ..., default.
    mutating func condition(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count >= 3, count % 2 == 1 else { throw .malformed }
        var type = ExpressionType.any
        var (exits, branches): ([Int], [Int]) = ([], [])
        for _ in 0..<(count / 2) {
            try expect(.bool)
            let branch = code.count
            branches.append(branch)
            try emit(Instruction(.branch), takes: 1, gives: 0)
            type = try Compiler.unify(type, try expression())
            exits.append(code.count)
            // The other ways come here without the value.
            try emit(Instruction(.jump), takes: 1, gives: 0)
            land([branch])
        }
        type = try Compiler.unify(type, try expression())
        land(exits)
        for branch in branches { code[branch].end = UInt32(code.count) }
        return type
    }

    /// Name, value, name, value, ..., expression. The values stay on the stack below the expression's.
    mutating func variables(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count >= 3, count % 2 == 1 else { throw .malformed }
        let before = variables.count
        for _ in 0..<(count / 2) {
            let name = try name()
            let place = height
            let type = try expression()
            guard !name.isEmpty, variables.count < Compiler.variablesMax else { throw .malformed }
            variables.append(Variable(name: name, place: place, type: type))
        }
        let type = try expression()
        try emit(Instruction(.drop, target: count / 2), takes: count / 2 + 1)
        variables.removeLast(variables.count - before)
        return type
    }

    mutating func variable(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 1 else { throw .malformed }
        let name = try name()
        guard let found = variables.last(where: { $0.name.equals(name) }) else { throw .malformed }
        try emit(Instruction(.variable, target: found.place), takes: 0)
        return found.type
    }

    /// Flags, pattern, text.
    mutating func regex(_ count: Int) throws(ExpressionError) -> ExpressionType {
        guard count == 3, patterns.count < Compiler.patternsMax else { throw .malformed }
        let flags = try staticInteger()
        guard let pattern = Pattern(try name(), flags: flags) else { throw .malformed }
        patterns.append(pattern)
        try expect(.string)
        noteSlow()
        var value = ExpressionValue(.none)
        value.base = UnsafeRawPointer(Unmanaged.passUnretained(pattern).toOpaque())
        try emit(Instruction(.regex, value: value), takes: 1)
        return .bool
    }
}
