// An expression as a flat program for a stack machine. Invariants:
// 1. The compiler has checked types and heights: every instruction finds on the stack what it takes, and the stack never
//    grows beyond `stack`.
// 2. Jumps lead forward, so every evaluation ends.
// 3. Pointers in instructions lead into `bytes`, or to a pattern in `patterns`.
// 4. An evaluation uses the expression's own stack: one at a time, on one thread.
internal import Base
internal import Glibc
internal import Record

/// What an instruction does. "Takes" and "gives" are about the top of the stack.
enum Code: UInt8, BitwiseCopyable {
    // Values: give one.
    case literal, bin, binType, key, digestModulo, fact, variable
    /// Removes `target` values below the top one.
    case drop
    // Control.
    case jump
    /// Takes a bool: true goes on, false goes to `target`, anything else stays and goes to `end`.
    case branch
    /// Goes to `target` if the top is false, or true.
    case ifFalse, ifTrue
    /// Join the two on top; if that decides, go to `target`.
    case and, or
    case not, exclusiveBegin, exclusiveAdd, exclusiveEnd
    // Comparisons of two, by `operation`.
    case compareIntegers, compareFloats, compareBytes, comparePacked
    case regex, inList
    // Arithmetic by `operation`.
    case integerPair, floatPair, integerOne, floatOne, scan
}

/// 32 bytes.
struct Instruction: BitwiseCopyable {
    /// A literal, or what the instruction needs of bytes and integers.
    var value: ExpressionValue
    var code: Code
    /// Operation number of the protocol, or the type that a bin must have.
    var operation: UInt8
    var target: UInt32
    var end: UInt32

    init(_ code: Code, operation: UInt8 = 0, value: ExpressionValue = ExpressionValue(.none), target: Int = 0) {
        self.code = code
        self.operation = operation
        self.value = value
        self.target = UInt32(target)
        end = 0
    }
}

/// A compiled expression. Not thread-safe.
package final class Expression {
    /// Largest expression in bytes.
    package static let byteCountMax = 1 << 20
    /// How deep calls may stand inside each other.
    package static let depthMax = 256
    /// Longest program: a hundred microseconds.
    package static let instructionsMax = 32_768
    /// What one evaluation may take, in instructions or what takes about as long: a value in a list that is passed over, 64
    /// bytes that are compared, 4 bins or 4 bytes of text that are searched. Beyond it, comparisons and bins are unknown.
    package static let workMax = 1 << 20
    /// What it was compiled from.
    package let bytes: UnsafeRawBufferPointer
    package let type: ExpressionType
    /// Metadata do not decide it in every case.
    package let readsRecord: Bool
    /// Metadata can decide it in some case.
    package let readsMetadata: Bool
    /// Short, and without what takes long: may be evaluated under a partition's lock.
    package let isQuick: Bool
    /// How many bytes it takes in memory, about.
    package let memoryByteCount: Int
    /// What the last evaluation took, as `workMax` counts it.
    package internal(set) var work = 0
    let instructions: UnsafeMutablePointer<Instruction>
    let instructionCount: Int
    let stack: UnsafeMutablePointer<ExpressionValue>
    private let patterns: [Pattern]
    private static let quickInstructionsMax = 128

    /// Compiles a copy of `source`. Allocates; not under a lock.
    package init(_ source: UnsafeRawBufferPointer) throws(ExpressionError) {
        guard source.count <= Expression.byteCountMax, source.count > 0 else { throw .malformed }
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 16)
        copy.copyMemory(from: source)
        let bytes = UnsafeRawBufferPointer(copy)
        var compiler = Compiler(bytes)
        do throws(ExpressionError) {
            type = try compiler.compile()
        } catch {
            copy.deallocate()
            throw error
        }
        self.bytes = bytes
        readsRecord = compiler.readsRecord
        readsMetadata = compiler.readsMetadata || !compiler.readsRecord
        patterns = compiler.patterns
        instructionCount = compiler.code.count
        isQuick = !compiler.isSlow && instructionCount <= Expression.quickInstructionsMax
        instructions = .allocate(capacity: instructionCount)
        instructions.initialize(from: compiler.code, count: instructionCount)
        stack = .allocate(capacity: compiler.heightMax)
        stack.initialize(repeating: .unknown, count: compiler.heightMax)
        memoryByteCount = source.count + instructionCount * MemoryLayout<Instruction>.stride
            + compiler.heightMax * MemoryLayout<ExpressionValue>.stride + patterns.count * 4096 + 256
    }

    deinit {
        UnsafeMutableRawBufferPointer(mutating: bytes).deallocate()
        instructions.deallocate()
        stack.deallocate()
    }

    /// Whether it can be a filter: only bools can, and what is always unknown.
    package var isFilter: Bool { type == .bool || type == .any }

    /// What the metadata alone say. A filter only.
    package func metadata(_ facts: RecordFacts) -> Verdict {
        guard readsMetadata else {
            work = 0
            return .needsRecord
        }
        let value = evaluate(facts, .metadataOnly)
        if value.isTrue { return .isTrue }
        if value.isFalse { return .isFalse }
        return value.kind == .undecided ? .needsRecord : .unknown
    }
}
