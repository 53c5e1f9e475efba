import Expressions
import Record
import TestSupport
import Testing

/// How much one evaluation may take, and what maps are equal.
@Suite struct WorkTests {
    private func work(_ packed: Packed, _ record: TestRecord) throws -> (outcome: Outcome, work: Int) {
        let expression = try compile(packed)
        let editor = RecordEditor()
        let image = record.image(editor)
        return (Outcome(expression.evaluate(plainFacts(), BinSource(image))), expression.work)
    }

    private func isEqual(_ bin: Packed, _ literal: Packed) throws -> Outcome {
        var record = TestRecord()
        record.add("m", bin)
        return try outcome(.call(1, .bin(.map, "m"), literal), record)
    }

    @Test func mapsInAnyOrder() throws {
        func pairs(_ range: Range<Int64>) -> [(Packed, Packed)] { range.map { (.integer($0), .text("\($0)")) } }
        for count in [1, 2, 63, 64] as [Int64] {
            let all = pairs(0..<count)
            #expect(try isEqual(.map(all), .map(all.reversed())) == .true)
            #expect(try isEqual(.map(all), .map(pairs(1..<(count + 1)).reversed())) == .false)
        }
        // More than 64 from where the orders part.
        let many = pairs(0..<200)
        #expect(try isEqual(.map(many), .map(many)) == .true)
        #expect(try isEqual(.map(many), .map(many.reversed())) == .unknown)
        #expect(try isEqual(.map(many), .map(many[..<136] + many[136...].reversed())) == .true)
    }

    /// Bins hold what clients send, also keys that are there twice.
    @Test func duplicateKeys() throws {
        let (a, b, one, two) = (Packed.text("a"), Packed.text("b"), Packed.integer(1), Packed.integer(2))
        #expect(try isEqual(.map([(a, one), (a, one)]), .map([(a, one), (b, two)])) == .false)
        #expect(try isEqual(.map([(a, one), (b, two)]), .map([(a, one), (a, one)])) == .false)
        #expect(try isEqual(.map([(b, two), (a, one), (a, one)]), .map([(a, one), (b, two), (b, two)])) == .false)
        #expect(try isEqual(.map([(b, two), (a, one), (a, one)]), .map([(a, one), (a, one), (b, two)])) == .true)
    }

    /// Maps of 64 pairs in each other, in opposite orders: each level is passed over once more than the one around it.
    @Test func nestedMapsTakeNoPowerOfTheirSize() throws {
        func nested(_ depth: Int, _ isReversed: Bool, _ inner: Packed) -> Packed {
            guard depth > 0 else { return inner }
            let pairs = [(Packed.integer(0), nested(depth - 1, isReversed, inner))]
                + (1..<64).map { (Packed.integer($0), .none) }
            return .map(isReversed ? pairs.reversed() : pairs)
        }
        func compare(_ depth: Int, _ count: Int) throws -> (outcome: Outcome, work: Int) {
            let inner = Packed.list([Packed](repeating: .integer(1), count: count))
            var record = TestRecord()
            record.add("m", nested(depth, false, inner))
            return try work(.call(1, .bin(.map, "m"), nested(depth, true, inner)), record)
        }
        let twenty = try compare(20, 10_000)
        #expect(twenty.outcome == .true && twenty.work < 22 * (20 * 64 * 40 + 10_000))
        let large = try compare(20, 500_000)
        #expect(large.outcome == .unknown && large.work <= Expression.workMax + 100)
    }

    /// What one comparison may take, many may not take together.
    @Test func workIsLimitedForTheWholeExpression() throws {
        var record = TestRecord()
        record.add("l", .list([Packed](repeating: .integer(1), count: 200_000)))
        record.add("s", String(repeating: "x", count: 900_000))
        record.add("t", String(repeating: "x", count: 900_000))
        let isLeftOut = Packed.call(18, .call(9, .integer(2), .bin(.list, "l")))
        #expect(try outcome(isLeftOut, record) == .true)
        let many = try work(.call(16, of: [Packed](repeating: isLeftOut, count: 500)), record)
        #expect(many.outcome == .unknown && many.work < Expression.workMax + 10_000)
        let isSame = Packed.call(1, .bin(.string, "s"), .bin(.string, "t"))
        #expect(try outcome(isSame, record) == .true)
        let texts = try work(.call(16, of: [Packed](repeating: isSame, count: 500)), record)
        #expect(texts.outcome == .unknown)
        var wide = TestRecord()
        for number in 0..<10_000 { wide.add("b\(number)", Int64(number)) }
        let isLast = Packed.call(1, .bin(.integer, "b9999"), .integer(9999))
        #expect(try outcome(isLast, wide) == .true)
        #expect(try work(.call(16, of: [Packed](repeating: isLast, count: 1000)), wide).outcome == .unknown)
        // An expression may be evaluated again: each evaluation has the whole limit.
        let expression = try compile(isLeftOut)
        let image = record.image(RecordEditor())
        for _ in 0..<20 { #expect(Outcome(expression.evaluate(plainFacts(), BinSource(image))) == .true) }
    }
}
