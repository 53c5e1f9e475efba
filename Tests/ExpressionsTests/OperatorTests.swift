import Base
import Expressions
import Record
import TestSupport
import Testing

/// Every operator by hand: what it gives, and what it does with what is missing.
@Suite struct OperatorTests {
    private var record: TestRecord {
        var record = TestRecord()
        record.add("i", 7)
        record.add("negative", -7)
        record.add("f", float: 2.5)
        record.add("s", "swift")
        record.add("empty", "")
        record.add("yes", true)
        record.add("b", blob: [1, 2, 3])
        record.bins.append(("python", 9, [1, 2, 3]))
        record.add("list", Packed.list([.integer(1), .text("a"), .list([.integer(200)])]))
        record.add("map", Packed.map([(.text("a"), .integer(1)), (.text("b"), .list([.none]))]))
        record.key = [3] + Array("apus".utf8)
        return record
    }

    private func expect(_ packed: Packed, _ wanted: Outcome, _ line: Int = #line) throws {
        #expect(try outcome(packed, record) == wanted, "line \(line)")
    }

    @Test func comparisons() throws {
        let (three, five) = (Packed.integer(3), Packed.integer(5))
        let wanted: [(Int64, Bool, Bool, Bool)] = [
            (1, false, true, false), (2, true, false, true), (3, false, false, true), (4, false, true, true),
            (5, true, false, false), (6, true, true, false),
        ]
        for (operation, less, equal, greater) in wanted {
            let pairs: [(Packed, Packed)] = [
                (three, five), (.integer(-1), three), (.float(-1.5), .float(0)), (.text("a"), .text("aa")),
                (.text(""), .text("a")),
                (.text("ab"), .text("b")), (.blob([1]), .blob([1, 0])), (.blob([0x7F]), .blob([0x80])),
                (.bool(false), .bool(true)),
            ]
            for (left, right) in pairs {
                try expect(.call(operation, left, right), .bool(less))
                try expect(.call(operation, right, left), .bool(greater))
                try expect(.call(operation, left, left), .bool(equal))
            }
            try expect(.call(operation, .bin(.integer, "none"), three), .unknown)
            try expect(.call(operation, three, .bin(.integer, "s")), .unknown)
        }
        try expect(.call(1, .none, .none), .true)
        try expect(.call(1, .float(.nan), .float(.nan)), .false)
        try expect(.call(2, .float(.nan), .float(.nan)), .true)
        // Blobs of two languages are never equal.
        try expect(.call(1, .bin(.blob, "b"), .blob([1, 2, 3])), .true)
        try expect(.call(1, .bin(.blob, "python"), .blob([1, 2, 3])), .false)
    }

    @Test func listsAndMaps() throws {
        let list = Packed.bin(.list, "list")
        try expect(.call(1, list, .quote(.integer(1), .text("a"), .list([.bytes([0xCC, 200])]))), .true)
        try expect(.call(2, list, .quote(.integer(1), .text("a"), .list([.integer(201)]))), .true)
        try expect(.call(1, list, .quote(.integer(1), .text("a"))), .false)
        // Attributes are no elements; a wildcard equals anything.
        try expect(.call(1, list, .quote(.bytes([0xC7, 0, 1]), .integer(1), .text("a"), .bytes([0xD4, 0xFF, 0]))), .true)
        try expect(.call(1, .quote(), .quote(.bytes([0xC7, 0, 1]))), .true)
        let map = Packed.bin(.map, "map")
        try expect(.call(1, map, .map([(.text("a"), .integer(1)), (.text("b"), .list([.none]))])), .true)
        try expect(.call(1, map, .map([(.text("b"), .list([.none])), (.text("a"), .integer(1))])), .true)
        let attributes = (Packed.bytes([0xC7, 0, 1]), Packed.none)
        try expect(.call(1, map, .map([attributes, (.text("b"), .list([.none])), (.text("a"), .integer(1))])), .true)
        try expect(.call(1, map, .map([(.text("b"), .list([])), (.text("a"), .integer(1))])), .false)
        try expect(.call(1, map, .map([(.text("c"), .list([.none])), (.text("a"), .integer(1))])), .false)
        // A map in a list: what follows it is still found.
        let mixed = Packed.map([(.integer(2), .integer(2)), (.integer(1), .integer(1))])
        let sorted = Packed.map([(.integer(1), .integer(1)), (.integer(2), .integer(2))])
        try expect(.call(1, .quote(mixed, .integer(9)), .quote(sorted, .integer(9))), .true)
        try expect(.call(1, .quote(mixed, .integer(9)), .quote(sorted, .integer(8))), .false)
        #expect(refusal(.call(3, list, .quote())) == .unsupported)
    }

    @Test func damagedListsAreUnknown() throws {
        let damaged: [[UInt8]] = [
            [0x92, 1], [0xDD, 0xFF, 0xFF, 0xFF, 0xFF], [0xDF, 0xFF, 0xFF, 0xFF, 0xFF, 1], [], [0xC1], [0x91, 0xA5, 3],
        ]
        for bytes in damaged {
            var record = TestRecord()
            record.bins.append(("l", ParticleType.list, bytes))
            #expect(try outcome(.call(1, .bin(.list, "l"), .quote(.integer(1), .integer(2))), record) != .true)
            #expect(try outcome(.call(9, .integer(7), .bin(.list, "l")), record) == .unknown)
        }
        let deep = [UInt8](repeating: 0x91, count: 100_000) + [1]
        var record = TestRecord()
        record.bins.append(("l", ParticleType.list, deep))
        #expect(try outcome(.call(1, .bin(.list, "l"), .bin(.list, "l")), record) == .unknown)
        #expect(try outcome(.call(9, .integer(7), .bin(.list, "l")), record) == .false)
    }

    @Test func membership() throws {
        let all = Packed.quote(
            .integer(7), .float(2.5), .text("swift"), .blob([1, 2, 3]), .bool(true), .none, .list([.integer(1)]))
        let present: [Packed] = [
            .bin(.integer, "i"), .bin(.float, "f"), .bin(.string, "s"), .bin(.blob, "b"), .bin(.bool, "yes"), .none,
            .quote(.integer(1)),
        ]
        for value in present { try expect(.call(9, value, all), .true) }
        let absent: [Packed] = [
            .integer(8), .float(7), .text("swif"), .blob([1, 2]), .bool(false), .quote(.integer(2)),
            .text("\u{1}\u{2}\u{3}"),
        ]
        for value in absent { try expect(.call(9, value, all), .false) }
        try expect(.call(9, .integer(1), .bin(.list, "list")), .true)
        try expect(.call(9, .integer(1), .bin(.list, "none")), .unknown)
        try expect(.call(9, .integer(1), .quote()), .false)
    }

    @Test func logicOfThreeValues() throws {
        let (yes, no, maybe) = (Packed.bool(true), Packed.bool(false), Packed.call(1, .bin(.integer, "none"), .integer(1)))
        try expect(.call(16, no, maybe), .false)
        try expect(.call(16, maybe, no), .false)
        try expect(.call(16, maybe, yes), .unknown)
        try expect(.call(16, yes, yes, yes), .true)
        try expect(.call(17, maybe, yes), .true)
        try expect(.call(17, yes, maybe), .true)
        try expect(.call(17, maybe, no), .unknown)
        try expect(.call(17, no, no, no), .false)
        try expect(.call(18, maybe), .unknown)
        try expect(.call(18, yes), .false)
        try expect(.call(19, yes, no, no), .true)
        try expect(.call(19, yes, yes, maybe), .false)
        try expect(.call(19, yes, maybe), .unknown)
        try expect(.call(19, no, no), .false)
        try expect(.call(16, .unknown, .bin(.bool, "yes")), .unknown)
    }

    @Test func integers() throws {
        let (least, most) = (Packed.integer(.min), Packed.integer(.max))
        func two(_ operation: Int64, _ left: Packed, _ right: Packed, _ wanted: Int64?, _ line: Int = #line) throws {
            try expect(.call(operation, left, right), wanted.map { .integer($0) } ?? .unknown, line)
        }
        try two(20, most, .integer(1), .min)
        try two(21, least, .integer(1), .max)
        try two(22, most, .integer(2), -2)
        try two(23, .integer(-7), .integer(2), -3)
        try two(23, .integer(7), .integer(0), nil)
        try two(23, least, .integer(-1), .min)
        try two(26, .integer(-7), .integer(3), -1)
        try two(26, .integer(7), .integer(0), nil)
        try two(26, least, .integer(-1), 0)
        try two(32, .integer(12), .integer(10), 8)
        try two(33, .integer(12), .integer(10), 14)
        try two(34, .integer(12), .integer(10), 6)
        try two(36, .integer(3), .integer(63), .min)
        try two(36, .integer(3), .integer(64), 0)
        try two(37, .integer(-1), .integer(60), 15)
        try two(37, .integer(-1), .integer(200), 0)
        try two(38, .integer(-16), .integer(2), -4)
        try two(38, .integer(-16), .integer(100), -1)
        for shift in [36, 37, 38] as [Int64] { try two(shift, .integer(1), .integer(-1), nil) }
        try two(50, .integer(3), .integer(-3), -3)
        try two(51, .integer(3), .integer(-3), 3)
        try two(40, .integer(1), .bool(true), 63)
        try two(40, .integer(1), .bool(false), 0)
        try two(41, .integer(1), .bool(true), 63)
        try two(41, .integer(1), .bool(false), 62)
        try two(40, .integer(0), .bool(true), -1)
        try two(41, .integer(-1), .bool(false), -1)
        let ones: [(Int64, Packed, Int64)] = [
            (21, .integer(7), -7), (23, .integer(2), 0), (23, .integer(-1), -1), (27, .integer(-7), 7), (27, least, .min),
            (35, .integer(0), -1), (39, .integer(-1), 64),
        ]
        for (operation, value, wanted) in ones { try expect(.call(operation, value), .integer(wanted)) }
        try expect(.call(23, .integer(0)), .unknown)
        try expect(.call(23, .integer(100), .integer(5), .integer(4)), .integer(5))
        try expect(.call(21, .integer(100), .integer(5), .integer(4)), .integer(91))
        try expect(.call(20, .bin(.integer, "i"), .bin(.integer, "negative"), .integer(1)), .integer(1))
        try expect(.call(20, .bin(.integer, "i"), .bin(.integer, "none")), .unknown)
    }

    @Test func floats() throws {
        try expect(.call(20, .float(1.5), .float(2)), .float(3.5))
        try expect(.call(21, .float(1.5)), .float(-1.5))
        try expect(.call(23, .float(4)), .float(0.25))
        try expect(.call(23, .float(1), .float(0)), .float(.infinity))
        try expect(.call(24, .float(2), .float(10)), .float(1024))
        try expect(.call(25, .float(8), .float(2)), .float(3))
        try expect(.call(27, .float(-2.5)), .float(2.5))
        try expect(.call(28, .float(-2.5)), .float(-3))
        try expect(.call(29, .float(-2.5)), .float(-2))
        try expect(.call(30, .float(-2.5)), .integer(-2))
        try expect(.call(30, .float(9.3e18)), .unknown)
        try expect(.call(30, .float(.nan)), .unknown)
        try expect(.call(31, .integer(3)), .float(3))
        try expect(.call(50, .float(3), .float(-3), .float(1)), .float(-3))
        try expect(.call(51, .float(3), .float(-3), .float(1)), .float(3))
        try expect(.call(20, .bin(.float, "f"), .bin(.float, "f")), .float(5))
    }

    @Test func regularExpressions() throws {
        func regex(_ flags: Int64, _ pattern: String, _ text: Packed, _ wanted: Outcome, _ line: Int = #line) throws {
            try expect(.call(7, .integer(flags), .name(pattern), text), wanted, line)
        }
        try regex(1, "^sw(i|a)ft$", .bin(.string, "s"), .true)
        try regex(0, "^sw(i|a)ft$", .bin(.string, "s"), .false)
        try regex(0, "^sw\\(i\\|a\\)ft$", .bin(.string, "s"), .true)
        try regex(1, "SWIFT", .bin(.string, "s"), .false)
        try regex(3, "SWIFT", .bin(.string, "s"), .true)
        try regex(1, "^a$", .text("b\na\nb"), .false)
        try regex(5, "^a$", .text("b\na\nb"), .true)
        try regex(9, "w", .bin(.string, "s"), .true)
        try regex(1, "^$", .bin(.string, "empty"), .true)
        try regex(1, "x", .bin(.string, "none"), .unknown)
        // A NUL ends no text.
        try regex(1, "b", .text("a\u{0}b"), .true)
        try regex(1, "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            .text("123e4567-e89b-12d3-a456-426614174000"), .true)
        let refused = [
            "(", "[", "a{2,1}", "(a)\\1", "((a{100}){100}){100}", "[(]{32767}", "([)]a){20000}", "a{90}{90}{90}",
            "a++++++++++++++++++++++++++++++++", "+++++++++++++++++++++++++++++", "(a+)+b(c+(d+(e{10}+)+)+){99}+{9}",
            "((a?){20}+){20}", "((a?){200})+", "a?+?+?+", "(a?){500}", "a{3000}",
            String(repeating: "(", count: 100) + String(repeating: ")", count: 100), String(repeating: "a", count: 5000),
            "a\u{0}b",
        ]
        for pattern in refused {
            #expect(refusal(.call(7, .integer(1), .name(pattern), .text("a"))) == .malformed, "\(pattern)")
        }
        #expect(refusal(.call(7, .integer(0), .name("\\(\\(a\\{100\\}\\)\\{100\\}\\)\\{100\\}"), .text("a"))) == .malformed)
        let many = "a" + String(repeating: "\\+", count: 20)
        #expect(refusal(.call(7, .integer(0), .name(many), .text("a"))) == .malformed)
        try regex(1, "^([a-z]+[0-9]*)+\\+(x|y+)?$", .text("abc12d+yy"), .true)
        try regex(1, "^([0-9]{1,3}\\.){3}[0-9]{1,3}$", .text("127.0.0.1"), .true)
        try regex(1, "^[^@]+@([a-z0-9-]+\\.)+[a-z]{2,}$", .text("apus@example.org"), .true)
        try regex(1, "^\\+\\+\\+\\+\\+\\+\\*\\*\\?\\(\\{[[:alpha:]{]{1000}$", .text("+"), .false)
        try regex(0, "^a+++++(((((\\(b\\)*$", .text("a+++++(((((bb"), .true)
        #expect(refusal(.call(7, .integer(1 << 40), .name("a"), .text("a"))) == .malformed)
    }

    /// Much text through one pattern: what the library has learnt is thrown away, the answers stay.
    @Test func aPatternOverMuchText() throws {
        let expression = try compile(.call(7, .integer(1), .name("(a|b)*c$"), .bin(.string, "s")))
        let editor = RecordEditor()
        var record = TestRecord()
        record.add("s", String(repeating: "ab", count: 10_000) + "c")
        let image = record.image(editor)
        for _ in 0..<200 { #expect(Outcome(expression.evaluate(plainFacts(), BinSource(image))) == .true) }
        withExtendedLifetime(record) {}
    }

    @Test func binsAndKeys() throws {
        for (name, type) in [("i", 1), ("f", 2), ("s", 3), ("b", 4), ("python", 9), ("yes", 17), ("list", 20), ("map", 19),
            ("none", 0)] { try expect(.call(82, .name(name)), .integer(Int64(type))) }
        try expect(.bin(.string, "s"), .text("swift"))
        try expect(.bin(.string, "empty"), .text(""))
        try expect(.bin(.blob, "python"), .particle(9, [1, 2, 3]))
        try expect(.bin(.geoJSON, "s"), .unknown)
        try expect(.call(80, .integer(3)), .text("apus"))
        try expect(.call(80, .integer(2)), .unknown)
        #expect(try outcome(.call(80, .integer(3))) == .unknown)
        var keyed = TestRecord()
        keyed.key = [1] + bigEndian(99)
        #expect(try outcome(.call(80, .integer(2)), keyed) == .integer(99))
    }

    @Test func conditionsAndVariables() throws {
        func condition(_ first: Packed, _ second: Packed) -> Packed {
            .call(123, first, .integer(10), second, .integer(20), .integer(30))
        }
        let maybe = Packed.call(1, .bin(.integer, "none"), .integer(1))
        try expect(condition(.bool(true), maybe), .integer(10))
        try expect(condition(.bool(false), .bool(true)), .integer(20))
        try expect(condition(.bool(false), .bool(false)), .integer(30))
        try expect(condition(.bool(false), maybe), .unknown)
        try expect(condition(maybe, .bool(true)), .unknown)
        try expect(.call(123, .bool(false), .integer(1), .unknown), .unknown)
        try expect(.call(20, condition(.bool(false), .bool(true)), .integer(1)), .integer(21))
        let double = Packed.call(
            125, .name("x"), .bin(.integer, "i"), .name("y"), .call(22, .call(124, .name("x")), .integer(2)),
            .call(20, .call(124, .name("x")), .call(124, .name("y"))))
        try expect(double, .integer(21))
        // The inner name hides the outer one, and only there.
        try expect(.call(125, .name("x"), .integer(1), .call(
            20, .call(125, .name("x"), .integer(2), .call(124, .name("x"))), .call(124, .name("x")))), .integer(3))
        try expect(.call(20, .integer(100), double), .integer(121))
        #expect(refusal(.call(124, .name("x"))) == .malformed)
        #expect(refusal(.call(20, .call(125, .name("x"), .integer(2), .integer(3)), .call(124, .name("x")))) == .malformed)
    }
}
