import Base
import Expressions
import Record
import TestSupport
import Testing

/// What compiles and what is refused, and the bytes of a real client.
@Suite struct CompilerTests {
    /// What the Python client 19.3.0 sends, taken from the wire, and for record {a: 5} of set "s": true, false or unknown.
    @Test func bytesOfTheClient() throws {
        let facts = withUnsafeBytes(of: (UInt8(ascii: "s"))) { set in
            var facts = plainFacts()
            facts.setName = Block(Array(set)).view
            facts.voidTime = 6000
            return facts
        }
        var record = TestRecord()
        record.add("a", 5)
        record.add("s", "axxb")
        let golden: [(String, Outcome)] = [
            ("9301935102a16105", .true),  // a == 5, of wire.md section 14
            ("93109303935102a161059305935102a161d2fffe7960", .false),  // a > 5 and a < -100000
            ("9301935103a173a403616263", .false),  // string s == "abc"
            ("9301935106a173a404616263", .unknown),  // blob s
            ("9301935101a173c3", .unknown),  // bool s
            ("9301935107a166cb3ff8000000000000", .unknown),  // float f == 1.5
            ("9301935104a16c927e9601a20361cb4004000000000000c0910181a2036101", .unknown),  // list l
            ("9301935105a16c81a2036101", .unknown),  // map l
            ("940703a65e612e2a6224935103a173", .true),  // s =~ ^a.*b$
            ("930192500201", .unknown),  // integer key == 1
            ("9147", .false),  // the key is stored
            ("93029252a16100", .true),  // bin a exists
            ("93019252a16103", .false),  // bin a is a string
            ("93019146a20373", .true),  // set == "s"
            ("930192400301", .true),  // digest modulo 3 == 1
            ("9303914101", .true), ("9303914201", .true), ("9303914301", .true), ("9303914401", .true),
            ("9303914501", .true),
            ("9148", .false), ("9303914901", .true), ("9303914a01", .true),
            ("9301967b9301935102a161010a9301935102a1610291001e1e", .true),  // cond(a == 1, 10, a == 2, unknown, 30) == 30
            ("947da1789314935102a161019301927ca17802", .false),  // let x = a + 1: x == 2
            ("9212931193029252a16100931393029252a1610093029252a16200", .false),  // not(or(a?, exclusive(a?, b?)))
            ("93019414935102a161010201", .false), ("93019315935102a1610101", .false), ("93019215935102a16101", .false),
            ("93019417935102a161020201", .true),  // a / 2 / 2 == 1
            ("9301931a935102a1610201", .true),  // a % 2 == 1
            ("9301921e" + "cb3ff800000000000001", .true),  // to_int(1.5) == 1
            ("93019332010201", .true), ("93019333010201", .false), ("93019320935102a1610201", .false),
            ("93019328935102a161c301", .false), ("93019329935102a161c301", .false),
        ]
        for (digits, wanted) in golden {
            #expect(try outcome(.bytes(bytes(hex: digits)), record, facts) == wanted, "\(digits)")
        }
        // pow(2.0, 3.0) == 1: a float and an integer. A list operation, a geo comparison, a scan without its second operand.
        #expect(refusal(bytes(hex: "93019318cb4000000000000000cb400800000000000001")) == .malformed)
        #expect(refusal(bytes(hex: "9301957f02009110935104a16c01")) == .unsupported)
        #expect(refusal(bytes(hex: "9308935108a167b1037b2274797065223a22506f696e74227d")) == .unsupported)
        #expect(refusal(bytes(hex: "93019228935102a161c301")) == .malformed)
        #expect(refusal(bytes(hex: "9301935102a161c0")) == .malformed)
    }

    @Test func malformed() {
        let one = Packed.integer(1)
        let refused: [Packed] = [
            .list([]), .list([.text("a")]), .bytes([]), .bytes([0xC1]), .bytes([0x93, 1, 1]), .bytes([1, 1]), .call(10, one),
            .call(200), .call(-1), .call(0, one), .call(1, one), .call(1, one, one, one), .call(1, one, .float(1)),
            .call(1, .text("a"), .blob([1])), .call(1, .bool(true), one), .call(16), .call(16, one),
            .call(17, .bool(true), one),
            .call(18), .call(18, one), .call(19), .call(20), .call(20, one, .float(1)), .call(20, .text("a")),
            .call(24, one, one),
            .call(26, .float(1), .float(1)), .call(28, one), .call(30, one), .call(31, .float(1)), .call(32, .float(1)),
            .call(35, one, one), .call(40, one, one), .call(50), .call(64), .call(64, .integer(0)), .call(64, .integer(-3)),
            .call(64, .call(20, one)), .call(66, one), .call(80), .call(80, .integer(4)), .call(80, .integer(77)),
            .call(81, one),
            .call(81, .integer(0), .name("a")), .call(81, .integer(10), .name("a")), .call(81, .integer(2), .name("")),
            .call(81, .integer(2), .name("sixteenletters__")), .call(81, .integer(2), one), .call(82), .call(82, one),
            .call(123), .call(123, .bool(true), one), .call(123, .bool(true), one, .float(1)), .call(123, one, one, one),
            .call(124), .call(125, .name("x"), one), .call(125, one), .call(125, .name(""), one, one), .call(126),
            .call(126, one), .call(126, .map([])), .call(9, one, one), .call(9, one, .bytes([0x92, 1, 2])), .name(""),
            .bytes([0xA2, 5, 65]), .call(7, one, .name("a"), one), .call(7, one, .text("a")), .bytes([0xD4, 0xFF, 0]),
            .bytes([0xDD, 0xFF, 0xFF, 0xFF, 0xFF, 16]), .bytes([0x81, 1]), .call(126, .bytes([0xDC, 0xFF, 0xFF])),
        ]
        for packed in refused { #expect(refusal(packed) == .malformed, "\(hex(packed.packed))") }
        for operation in [8, 100, 101, 102, 122, 127] as [Int64] {
            #expect(refusal(.call(operation, one, one)) == .unsupported)
        }
        #expect(refusal(.call(1, .bin(.hyperLogLog, "h"), .bin(.hyperLogLog, "h"))) == .unsupported)
    }

    /// Every prefix of a good expression is malformed, and so is every change of a byte or it is something else.
    @Test func cutsAndChanges() throws {
        let whole = Packed.call(
            16, .call(1, .bin(.string, "s"), .text("x")), .call(7, .integer(1), .name("a+"), .bin(.string, "s")),
            .call(9, .integer(1), .quote(.integer(1), .map([(.text("a"), .blob([1]))])))).packed
        _ = try Expression(Block(whole).view)
        for count in 0..<whole.count { #expect(refusal(Array(whole[..<count])) == .malformed) }
        let editor = RecordEditor()
        var record = TestRecord()
        record.add("s", "aaa")
        let image = record.image(editor)
        var compiled = 0
        for place in whole.indices {
            for byte in UInt8.min...UInt8.max {
                var changed = whole
                changed[place] = byte
                guard let expression = try? Expression(Block(changed).view) else { continue }
                compiled += 1
                _ = expression.evaluate(plainFacts(), BinSource(image))
            }
        }
        #expect(compiled > whole.count)
        withExtendedLifetime(record) {}
    }

    @Test func nestingAndSize() throws {
        func nested(_ depth: Int) -> [UInt8] { Array([[UInt8]](repeating: [0x92, 18], count: depth).joined()) + [0xC3] }
        #expect(refusal(nested(Expression.depthMax)) == nil)
        #expect(refusal(nested(Expression.depthMax + 1)) == .malformed)
        #expect(refusal(nested(10_000)) == .malformed)
        // Literals may be as deep as they are long.
        let list = [0x92, 126] + [UInt8](repeating: 0x91, count: 100_000) + [1]
        #expect(refusal([0x93, 1] + list + list) == nil)
        // 1 MiB, and one byte more.
        func large(_ count: Int) -> Packed { .call(1, .text(String(repeating: "x", count: count)), .text("")) }
        let rest = large(100).packed.count - 100
        #expect(refusal(large((1 << 20) - rest)) == nil)
        #expect(refusal(large((1 << 20) - rest + 1)) == .malformed)
        // An instruction for each part and one behind each of them.
        func wide(_ count: Int) -> Packed { .call(16, of: [Packed](repeating: .bool(true), count: count)) }
        #expect(try outcome(wide(Expression.instructionsMax / 2)) == .true)
        #expect(refusal(wide(Expression.instructionsMax / 2 + 1)) == .malformed)
        #expect(refusal(wide(500_000)) == .malformed)
        // Variables: 128 at a time.
        func variables(_ count: Int) -> Packed {
            .call(125, of: (0..<count).flatMap { [Packed.name("v\($0)"), .integer(1)] } + [.bool(true)])
        }
        #expect(refusal(variables(128)) == nil)
        #expect(refusal(variables(129)) == .malformed)
    }

    @Test func metadataDecide() throws {
        var facts = plainFacts()
        facts.setName = Block(Array("birds".utf8)).view
        facts.voidTime = 6000
        let (isBirds, isFish) = (Packed.call(1, .call(70), .text("birds")), Packed.call(1, .call(70), .text("fish")))
        let bin = Packed.call(1, .bin(.integer, "a"), .integer(1))
        func verdict(_ packed: Packed) throws -> Verdict { try compile(packed).metadata(facts) }
        #expect(try verdict(isBirds) == .isTrue)
        #expect(try verdict(isFish) == .isFalse)
        #expect(try verdict(bin) == .needsRecord)
        #expect(try verdict(.call(16, bin, isFish)) == .isFalse)
        #expect(try verdict(.call(16, bin, isBirds)) == .needsRecord)
        #expect(try verdict(.call(17, bin, isBirds)) == .isTrue)
        #expect(try verdict(.call(17, bin, isFish)) == .needsRecord)
        #expect(try verdict(.call(18, .call(16, bin, isFish))) == .isTrue)
        #expect(try verdict(.call(19, bin, isBirds)) == .needsRecord)
        #expect(try verdict(.call(19, bin, isBirds, isBirds)) == .isFalse)
        #expect(try verdict(.unknown) == .unknown)
        #expect(try verdict(.call(16, .unknown, isBirds)) == .unknown)
        #expect(try verdict(.call(16, .unknown, bin, isBirds)) == .needsRecord)
        #expect(try verdict(.call(123, isFish, bin, isBirds)) == .isTrue)
        #expect(try verdict(.call(123, bin, isBirds, isBirds)) == .needsRecord)
        #expect(try verdict(.call(1, .call(80, .integer(3)), .text("k"))) == .unknown)
        facts.isKeyStored = true
        #expect(try verdict(.call(1, .call(80, .integer(3)), .text("k"))) == .needsRecord)
        #expect(try verdict(.call(71)) == .isTrue)
        #expect(try Outcome(compile(.call(69)).evaluate(facts, .metadataOnly)) == .integer(1000))
        #expect(try Outcome(compile(.call(67)).evaluate(facts, .metadataOnly)) == .integer(4_000_000))
        #expect(try Outcome(compile(.call(66)).evaluate(facts, .metadataOnly)) == .integer(1_262_305_000_000_000_000))
        #expect(try Outcome(compile(.call(68)).evaluate(facts, .metadataOnly)) == .integer(1_262_310_000_000_000_000))
        facts.voidTime = 0
        #expect(try Outcome(compile(.call(68)).evaluate(facts, .metadataOnly)) == .integer(-1))
        #expect(try Outcome(compile(.call(69)).evaluate(facts, .metadataOnly)) == .integer(-1))
    }

    @Test func filtersAreBoolean() throws {
        #expect(try compile(.call(20, .integer(1), .integer(1))).isFilter == false)
        #expect(try compile(.bin(.bool, "a")).isFilter && compile(.unknown).isFilter && compile(.bool(true)).isFilter)
    }
}

@Suite struct ExpressionCacheTests {
    @Test func sameBytesAreCompiledOnce() throws {
        let cache = ExpressionCache()
        let bytes = Block(Packed.call(1, .bin(.integer, "a"), .integer(1)).packed)
        let first = try cache.expression(bytes.view)
        #expect(try cache.expression(Block(Array(bytes.view)).view) === first && cache.compiledCount == 1)
        #expect(throws: ExpressionError.malformed) { try cache.expression(Block([0x93]).view) }
        #expect(cache.byteCount == first.memoryByteCount)
    }

    /// The usual room holds every expression that compiles: none is compiled for each record.
    @Test func theLargestExpressionIsHeld() throws {
        let cache = ExpressionCache()
        let parts = [Packed](repeating: .bool(true), count: Expression.instructionsMax / 2 - 2)
        let text = String(repeating: "x", count: (1 << 20) - parts.count - 40)
        let bytes = Block(Packed.call(16, of: parts + [.call(2, .text(text), .text("a"))]).packed)
        let first = try cache.expression(bytes.view)
        #expect(try cache.expression(bytes.view) === first && cache.compiledCount == 1)
    }

    /// Far more expressions than there is room for: memory stays within its bound, and what is held stays valid.
    @Test func memoryIsBounded() throws {
        let cache = ExpressionCache(byteCountMax: 100_000)
        var kept: [Expression] = []
        for number in 0..<5000 {
            let text = String(repeating: "x", count: number % 997)
            let packed = Packed.call(1, .text(text), .text("\(number)"))
            let expression = try cache.expression(Block(packed.packed).view)
            if number % 100 == 0 { kept.append(expression) }
            #expect(cache.byteCount <= 100_000)
        }
        #expect(cache.byteCount > 10_000)
        for expression in kept { #expect(Outcome(expression.evaluate(plainFacts(), .metadataOnly)) == .false) }
        // Too large to be held, and usable all the same.
        let large = Packed.call(1, .text(String(repeating: "x", count: 90_000)), .text(""))
        let before = cache.byteCount
        #expect(try Outcome(cache.expression(Block(large.packed).view).evaluate(plainFacts(), .metadataOnly)) == .false)
        #expect(cache.byteCount == before)
    }
}
