import Base
import Expressions
import Record
import TestSupport
import Testing

/// A packed value as a person would write it down.
indirect enum Packed {
    case none
    case bool(Bool)
    case integer(Int64)
    case float(Double)
    /// With its type byte.
    case text(String)
    case blob([UInt8])
    /// A name: without a type byte.
    case name(String)
    case list([Packed])
    case map([(Packed, Packed)])
    case bytes([UInt8])

    var packed: [UInt8] {
        switch self {
        case .none: [0xC0]
        case .bool(let value): [value ? 0xC3 : 0xC2]
        case .integer(let value): value >= 0 && value < 128 ? [UInt8(value)] : [0xD3] + bigEndian(UInt64(bitPattern: value))
        case .float(let value): [0xCB] + bigEndian(value.bitPattern)
        case .text(let text): Packed.sized([3] + Array(text.utf8))
        case .blob(let bytes): Packed.sized([4] + bytes)
        case .name(let name): Packed.sized(Array(name.utf8))
        case .list(let all): Packed.counted(0x90, 0xDD, all.count) + all.flatMap(\.packed)
        case .map(let all): Packed.counted(0x80, 0xDF, all.count) + all.flatMap { $0.0.packed + $0.1.packed }
        case .bytes(let bytes): bytes
        }
    }

    private static func sized(_ bytes: [UInt8]) -> [UInt8] {
        (bytes.count < 32 ? [0xA0 | UInt8(bytes.count)] : [0xDB] + bigEndian(UInt64(bytes.count)).suffix(4)) + bytes
    }

    private static func counted(_ small: UInt8, _ large: UInt8, _ count: Int) -> [UInt8] {
        count < 16 ? [small | UInt8(count)] : [large] + bigEndian(UInt64(count)).suffix(4)
    }

    static func call(_ operation: Int64, _ arguments: Packed...) -> Packed { .list([.integer(operation)] + arguments) }
    static func call(_ operation: Int64, of arguments: [Packed]) -> Packed { .list([.integer(operation)] + arguments) }
    static func bin(_ type: ExpressionType, _ name: String) -> Packed {
        .call(81, .integer(Int64(type.rawValue)), .name(name))
    }
    static var unknown: Packed { .call(0) }
    static func quote(_ elements: Packed...) -> Packed { .call(126, .list(elements)) }
}

func bigEndian(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * UInt64($0))) } }

/// A record in memory: its image, with exactly the bytes it has.
struct TestRecord {
    var bins: [(name: String, type: UInt8, value: [UInt8])] = []
    var key: [UInt8] = []
    private let blocks = KeptBlocks()

    func source(_ editor: RecordEditor) -> BinSource { BinSource(editor, key: blocks.add(key)) }

    /// Fills an editor with the bins.
    func fill(_ editor: RecordEditor) {
        editor.begin(nil)
        for bin in bins {
            let result = editor.apply(OperationView(
                code: OperationCode.write, particleType: bin.type, name: blocks.add(bin.name.utf8),
                value: blocks.add(bin.value)))
            precondition(result == .ok)
        }
    }

    func image(_ editor: RecordEditor) -> ImageView {
        fill(editor)
        let header = ImageHeader(
            generation: 1, voidTime: 0, lastUpdate: 5, epoch: Epoch(rawValue: 6), setName: blocks.add([]),
            key: blocks.add(key))
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: editor.imageByteCount(header), alignment: 16)
        editor.writeImage(header, to: room.baseAddress!)
        let bytes = blocks.add(Array(room))
        room.deallocate()
        return ImageView(bytes)!
    }

    mutating func add(_ name: String, _ value: Int64) {
        bins.append((name, ParticleType.integer, bigEndian(UInt64(bitPattern: value))))
    }
    mutating func add(_ name: String, float value: Double) {
        bins.append((name, ParticleType.float, bigEndian(value.bitPattern)))
    }
    mutating func add(_ name: String, _ value: String) { bins.append((name, ParticleType.string, Array(value.utf8))) }
    mutating func add(_ name: String, _ value: Bool) { bins.append((name, ParticleType.bool, [value ? 1 : 0])) }
    mutating func add(_ name: String, blob: [UInt8]) { bins.append((name, ParticleType.blob, blob)) }
    mutating func add(_ name: String, _ value: Packed) {
        if case .map = value {
            bins.append((name, ParticleType.map, value.packed))
        } else {
            bins.append((name, ParticleType.list, value.packed))
        }
    }
}

/// Facts of a record that nothing else is said of.
func plainFacts() -> RecordFacts {
    RecordFacts(
        digest: Digest(low: 1, middle: 2, high: 1000), lastUpdate: 1_000_000, voidTime: 0, isKeyStored: false,
        isTombstone: false, byteCount: 128, setName: UnsafeRawBufferPointer(start: nil, count: 0),
        now: RecordTime(milliseconds: 5_000_000))
}

/// A result, copied out: kind and value.
enum Outcome: Equatable, CustomStringConvertible {
    case unknown
    case particle(UInt8, [UInt8])

    static func integer(_ value: Int64) -> Outcome { .particle(1, bigEndian(UInt64(bitPattern: value))) }
    static func float(_ value: Double) -> Outcome { .particle(2, bigEndian(value.bitPattern)) }
    static func bool(_ value: Bool) -> Outcome { .particle(17, [value ? 1 : 0]) }
    static func text(_ value: String) -> Outcome { .particle(3, Array(value.utf8)) }
    static var `true`: Outcome { .bool(true) }
    static var `false`: Outcome { .bool(false) }

    init(_ value: ExpressionValue) {
        var room: UInt64 = 0
        self = withUnsafeMutableBytes(of: &room) { room in
            value.particle(room.baseAddress!).map { .particle($0.particleType, Array($0.value)) } ?? .unknown
        }
    }

    var description: String {
        switch self {
        case .unknown: "unknown"
        case .particle(let type, let bytes): "\(type):\(hex(bytes))"
        }
    }
}

func compile(_ packed: Packed) throws -> Expression { try Expression(Block(packed.packed).view) }

func outcome(
    _ packed: Packed, _ record: TestRecord = TestRecord(), _ facts: RecordFacts = plainFacts()
) throws -> Outcome {
    let expression = try compile(packed)
    let editor = RecordEditor()
    let image = record.image(editor)
    let result = Outcome(expression.evaluate(facts, BinSource(image)))
    record.fill(editor)
    #expect(Outcome(expression.evaluate(facts, record.source(editor))) == result, "an editor and an image give the same")
    return result
}

func refusal(_ packed: Packed) -> ExpressionError? { refusal(packed.packed) }

func refusal(_ bytes: [UInt8]) -> ExpressionError? {
    do throws(ExpressionError) { _ = try Expression(Block(bytes).view) } catch { return error }
    return nil
}
