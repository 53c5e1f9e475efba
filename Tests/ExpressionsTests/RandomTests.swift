import Base
import Expressions
import Record
import TestSupport
import Testing

/// A value of the simple evaluator; `unknown` is none.
private enum Value: Equatable {
    case unknown, bool(Bool), integer(Int64), float(Double), text([UInt8]), blob([UInt8])

    var outcome: Outcome {
        switch self {
        case .unknown: .unknown
        case .bool(let value): .bool(value)
        case .integer(let value): .integer(value)
        case .float(let value): .float(value)
        case .text(let value): .particle(3, value)
        case .blob(let value): .particle(4, value)
        }
    }
}

/// An expression as a tree, evaluated in the plainest way.
private indirect enum Node {
    case literal(Value)
    case bin(ExpressionType, String)
    case fact(Int64)
    case call(Int64, [Node])
    case variable(String)
    case bind([(String, Node)], Node)

    var packed: Packed {
        switch self {
        case .literal(.unknown): .unknown
        case .literal(.bool(let value)): .bool(value)
        case .literal(.integer(let value)): .integer(value)
        case .literal(.float(let value)): .float(value)
        case .literal(.text(let value)): .text(String(decoding: value, as: UTF8.self))
        case .literal(.blob(let value)): .blob(value)
        case .bin(let type, let name): .bin(type, name)
        case .fact(let operation): .call(operation)
        case .call(let operation, let parts): .call(operation, of: parts.map(\.packed))
        case .variable(let name): .call(124, .name(name))
        case .bind(let names, let body): .call(125, of: names.flatMap { [.name($0.0), $0.1.packed] } + [body.packed])
        }
    }

    func evaluate(_ world: World) -> Value {
        switch self {
        case .literal(let value): return value
        case .bin(let type, let name): return world.bins[name].flatMap { $0.type == type ? $0.value : nil } ?? .unknown
        case .fact(let operation): return world.facts[operation]!
        case .variable(let name): return world.variables[name]!
        case .bind(let names, let body):
            var inner = world
            for (name, node) in names { inner.variables[name] = node.evaluate(inner) }
            return body.evaluate(inner)
        case .call(let operation, let parts): return call(operation, parts, world)
        }
    }

    private func call(_ operation: Int64, _ parts: [Node], _ world: World) -> Value {
        if operation == 123 {
            for place in stride(from: 0, to: parts.count - 1, by: 2) {
                let condition = parts[place].evaluate(world)
                if condition == .unknown { return .unknown }
                if condition == .bool(true) { return parts[place + 1].evaluate(world) }
            }
            return parts.last!.evaluate(world)
        }
        let values = parts.map { $0.evaluate(world) }
        switch operation {
        case 16: return values.contains(.bool(false)) ? .bool(false) : values.contains(.unknown) ? .unknown : .bool(true)
        case 17: return values.contains(.bool(true)) ? .bool(true) : values.contains(.unknown) ? .unknown : .bool(false)
        case 19:
            let trues = values.count { $0 == .bool(true) }
            return trues > 1 ? .bool(false) : values.contains(.unknown) ? .unknown : .bool(trues == 1)
        default: break
        }
        guard !values.contains(.unknown) else { return .unknown }
        switch (values[0], values.count > 1 ? values[1] : .unknown) {
        case (.bool(let value), .unknown): return .bool(!value)
        case (.bool(let one), .bool(let other)): return Node.compared(operation, one ? 1 : 0, other ? 1 : 0)
        case (.text(let one), .text(let other)), (.blob(let one), .blob(let other)):
            return Node.compared(operation, one.lexicographicallyPrecedes(other) ? -1 : one == other ? 0 : 1, 0)
        case (.integer, _):
            let all = values.map { value -> Int64 in if case .integer(let integer) = value { integer } else { 0 } }
            return operation <= 6 ? Node.compared(operation, all[0], all[1]) : Node.integers(operation, all)
        case (.float, _):
            let all = values.map { value -> Double in if case .float(let float) = value { float } else { 0 } }
            return operation <= 6 ? Node.compared(operation, all[0], all[1]) : Node.floats(operation, all)
        default: preconditionFailure("\(operation) \(values)")
        }
    }

    private static func compared<One: Comparable>(_ operation: Int64, _ one: One, _ other: One) -> Value {
        .bool([one == other, one != other, one > other, one >= other, one < other, one <= other][Int(operation) - 1])
    }

    private static func integers(_ operation: Int64, _ all: [Int64]) -> Value {
        let rest = all.dropFirst()
        switch operation {
        case 20: return .integer(all.reduce(0, &+))
        case 21: return .integer(rest.isEmpty ? 0 &- all[0] : rest.reduce(all[0], &-))
        case 22: return .integer(all.reduce(1, &*))
        case 23:
            let divisor = rest.isEmpty ? all[0] : rest.reduce(1, &*)
            let divided = rest.isEmpty ? 1 : all[0]
            return divisor == 0 ? .unknown : .integer(divisor == -1 ? 0 &- divided : divided / divisor)
        case 26: return all[1] == 0 ? .unknown : .integer(all[1] == -1 ? 0 : all[0] % all[1])
        case 27: return .integer(Int64(bitPattern: all[0].magnitude))
        case 31: return .float(Double(all[0]))
        case 32: return .integer(all.reduce(-1, &))
        case 33: return .integer(all.reduce(0, |))
        case 34: return .integer(all.reduce(0, ^))
        case 35: return .integer(-1 - all[0])
        case 36, 37, 38:
            guard all[1] >= 0 else { return .unknown }
            var value = all[0]
            for _ in 0..<min(all[1], 64) {
                value = operation == 36 ? value &* 2 : operation == 37 ? Int64(bitPattern: UInt64(bitPattern: value) / 2)
                    : (value - (value & 1)) / 2
            }
            return .integer(value)
        case 39: return .integer(Int64((0..<64).count { all[0] >> $0 & 1 == 1 }))
        case 50: return .integer(all.min()!)
        case 51: return .integer(all.max()!)
        default: preconditionFailure("\(operation)")
        }
    }

    private static func floats(_ operation: Int64, _ all: [Double]) -> Value {
        let rest = all.dropFirst()
        switch operation {
        case 20: return .float(rest.reduce(all[0], +))
        case 21: return .float(rest.isEmpty ? -all[0] : rest.reduce(all[0], -))
        case 22: return .float(rest.reduce(all[0], *))
        case 23: return .float(rest.isEmpty ? 1 / all[0] : all[0] / rest.dropFirst().reduce(rest.first!, *))
        case 27: return .float(abs(all[0]))
        case 28: return .float(all[0].rounded(.down))
        case 29: return .float(all[0].rounded(.up))
        case 30:
            let whole = all[0].rounded(.towardZero)
            return whole >= -0x1p63 && whole < 0x1p63 ? .integer(Int64(whole)) : .unknown
        case 50: return .float(all.min()!)
        case 51: return .float(all.max()!)
        default: preconditionFailure("\(operation)")
        }
    }
}

/// What the simple evaluator knows of a record.
private struct World {
    var bins: [String: (type: ExpressionType, value: Value)] = [:]
    var facts: [Int64: Value] = [:]
    var variables: [String: Value] = [:]

    static func random(_ random: inout SeededRandom) -> (World, TestRecord, RecordFacts) {
        var world = World()
        var record = TestRecord()
        for name in ["a", "b", "c", "somewhat longer"] where Bool.random(using: &random) {
            let type = Generator.types.randomElement(using: &random)!
            let value = Generator.value(type, &random)
            world.bins[name] = (type, value)
            guard case .particle(let particleType, let bytes) = value.outcome else { continue }
            record.bins.append((name, particleType, bytes))
        }
        var facts = plainFacts()
        facts.voidTime = Bool.random(using: &random) ? 0 : 9000
        facts.isKeyStored = Bool.random(using: &random)
        facts.byteCount = Int.random(in: 0...3, using: &random) * 16
        facts.setName = Block(Generator.text(&random)).view
        world.facts = [
            67: .integer(4_000_000), 69: .integer(facts.voidTime == 0 ? -1 : 4000), 70: .text(Array(facts.setName)),
            71: .bool(facts.isKeyStored), 72: .bool(false), 74: .integer(Int64(facts.byteCount)),
        ]
        return (world, record, facts)
    }
}

/// Makes expressions that are well typed.
private struct Generator {
    static let types: [ExpressionType] = [.bool, .integer, .float, .string, .blob]
    private var scope: [(String, ExpressionType)] = []

    static func text(_ random: inout SeededRandom) -> [UInt8] {
        (0..<Int.random(in: 0...3, using: &random)).map { _ in UInt8.random(in: 97...98, using: &random) }
    }

    static func value(_ type: ExpressionType, _ random: inout SeededRandom) -> Value {
        let integers: [Int64] = [0, 1, -1, 2, 3, 5, 16, 63, 64, 127, 128, -128, 4_000_000, .max, .min]
        switch type {
        case .bool: return .bool(Bool.random(using: &random))
        case .integer: return .integer(integers.randomElement(using: &random)!)
        // Halves: sums and products are exact, so nothing depends on their order.
        case .float: return .float(Double(Int.random(in: -6...6, using: &random)) / 2 + 0.25)
        case .string: return .text(text(&random))
        default: return .blob(text(&random))
        }
    }

    mutating func node(_ type: ExpressionType, _ depth: Int, _ random: inout SeededRandom) -> Node {
        let choice = depth == 0 ? Int.random(in: 0..<5, using: &random) : Int.random(in: 0..<20, using: &random)
        switch choice {
        case 0, 1: return .literal(Generator.value(type, &random))
        case 2, 3: return .bin(type, ["a", "b", "c", "somewhat longer"].randomElement(using: &random)!)
        case 4:
            if let name = scope.last(where: { $0.1 == type }), scope.last(where: { $0.0 == name.0 })?.1 == type {
                return .variable(name.0)
            }
            return Int.random(in: 0..<4, using: &random) == 0 ? .literal(.unknown) : fact(type, &random)
        case 5, 6:
            let pairs = Int.random(in: 1...3, using: &random)
            return .call(123, (0..<pairs).flatMap { _ in
                [node(.bool, depth - 1, &random), node(type, depth - 1, &random)]
            } + [node(type, depth - 1, &random)])
        case 7:
            let before = scope.count
            let names = (0..<Int.random(in: 1...2, using: &random)).map { _ in
                let name = ["x", "y"].randomElement(using: &random)!
                let type = Generator.types.randomElement(using: &random)!
                let value = node(type, depth - 1, &random)
                scope.append((name, type))
                return (name, value)
            }
            defer { scope.removeLast(scope.count - before) }
            return .bind(names, node(type, depth - 1, &random))
        default: return call(type, depth, &random)
        }
    }

    private func fact(_ type: ExpressionType, _ random: inout SeededRandom) -> Node {
        switch type {
        case .integer: .fact([67, 69, 74].randomElement(using: &random)!)
        case .string: .fact(70)
        case .bool: .fact([71, 72].randomElement(using: &random)!)
        default: .bin(type, "a")
        }
    }

    private mutating func call(_ type: ExpressionType, _ depth: Int, _ random: inout SeededRandom) -> Node {
        func some(_ type: ExpressionType, _ counts: ClosedRange<Int>, _ random: inout SeededRandom) -> [Node] {
            (0..<Int.random(in: counts, using: &random)).map { _ in node(type, depth - 1, &random) }
        }
        switch type {
        case .bool:
            switch Int.random(in: 0..<5, using: &random) {
            case 0: return .call([16, 17, 19].randomElement(using: &random)!, some(.bool, 1...4, &random))
            case 1: return .call([16, 17].randomElement(using: &random)!, some(.bool, 2...3, &random))
            case 2: return .call(18, some(.bool, 1...1, &random))
            default:
                let sides = some(Generator.types.randomElement(using: &random)!, 2...2, &random)
                return .call(Int64.random(in: 1...6, using: &random), sides)
            }
        case .integer:
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                let operations: [Int64] = [20, 21, 22, 23, 32, 33, 34, 50, 51]
                return .call(operations.randomElement(using: &random)!, some(.integer, 1...3, &random))
            case 1: return .call([26, 36, 37, 38].randomElement(using: &random)!, some(.integer, 2...2, &random))
            case 2: return .call([27, 35, 39].randomElement(using: &random)!, some(.integer, 1...1, &random))
            default: return .call(30, some(.float, 1...1, &random))
            }
        case .float:
            switch Int.random(in: 0..<3, using: &random) {
            case 0: return .call([20, 21, 50, 51].randomElement(using: &random)!, some(.float, 1...3, &random))
            case 1: return .call([21, 23, 27, 28, 29].randomElement(using: &random)!, some(.float, 1...1, &random))
            default: return .call(31, some(.integer, 1...1, &random))
            }
        default: return .literal(Generator.value(type, &random))
        }
    }
}

@Suite struct RandomExpressionTests {
    /// Random expressions over random records: the program gives what the simple evaluator gives, from an image and from an
    /// editor; and what metadata decide is what the record would have said.
    @Test func programsMatchTheSimpleEvaluator() throws {
        var random = SeededRandom(seed: runSeed("RandomExpressionTests"))
        let editor = RecordEditor()
        var known = 0
        var decided = 0
        try forAWhile(2, until: known > 1000 && decided > 100) {
            var generator = Generator()
            let isFilter = Bool.random(using: &random)
            let type = isFilter ? .bool : Generator.types.randomElement(using: &random)!
            let node = generator.node(type, Int.random(in: 0...5, using: &random), &random)
            let expression = try Expression(Block(node.packed.packed).view)
            for _ in 0..<4 {
                let (world, record, facts) = World.random(&random)
                let wanted = node.evaluate(world).outcome
                let image = record.image(editor)
                let found = Outcome(expression.evaluate(facts, BinSource(image)))
                #expect(found == wanted, "\(hex(node.packed.packed)) over \(record.bins)")
                record.fill(editor)
                #expect(Outcome(expression.evaluate(facts, record.source(editor))) == wanted)
                known += wanted == .unknown ? 0 : 1
                guard expression.type == .bool || expression.type == .any else { continue }
                let verdict = expression.metadata(facts)
                decided += verdict == .needsRecord ? 0 : 1
                let outcomes: [Verdict: Outcome] = [.isTrue: .true, .isFalse: .false, .unknown: .unknown]
                if let claimed = outcomes[verdict] { #expect(claimed == wanted, "\(hex(node.packed.packed))") }
                if !expression.readsRecord { #expect(verdict != .needsRecord) }
                withExtendedLifetime(record) {}
            }
        }
        #expect(known > 1000 && decided > 100, "\(known) known, \(decided) decided")
    }

    /// Random bytes and random changes to good ones never do more than fail.
    @Test func damagedBytesAreRefusedOrEvaluated() throws {
        var random = SeededRandom(seed: runSeed("RandomExpressionTests.damage"))
        let editor = RecordEditor()
        let (_, record, drawn) = World.random(&random)
        var facts = drawn
        let kept = KeptBlocks()
        facts.setName = kept.add(facts.setName)
        let image = record.image(editor)
        var compiled = 0
        forAWhile(1, until: compiled > 0) {
            var generator = Generator()
            var bytes = generator.node(.bool, 4, &random).packed.packed
            for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: place)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
                }
            }
            guard let expression = try? Expression(Block(bytes).view) else { return }
            compiled += 1
            _ = expression.evaluate(facts, BinSource(image))
            _ = expression.metadata(facts)
        }
        #expect(compiled > 0)
        withExtendedLifetime((record, kept)) {}
    }
}
