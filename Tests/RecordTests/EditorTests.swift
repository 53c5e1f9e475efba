import Base
import Record
import TestSupport
import Testing

/// A record as a person would write it down: names to typed values. The order of bins is no promise.
private struct Model: Equatable {
    var bins: [(name: String, type: UInt8, value: [UInt8])] = []

    static func == (left: Model, right: Model) -> Bool {
        left.bins.count == right.bins.count
            && left.bins.allSatisfy { bin in
                right[bin.name].map { $0.type == bin.type && $0.value == bin.value } ?? false
            }
    }

    subscript(name: String) -> (type: UInt8, value: [UInt8])? {
        bins.first { $0.name == name }.map { ($0.type, $0.value) }
    }

    mutating func set(_ name: String, _ type: UInt8, _ value: [UInt8]) {
        if let place = bins.firstIndex(where: { $0.name == name }) {
            bins[place] = (name, type, value)
        } else {
            bins.append((name, type, value))
        }
    }

    static func integer(_ value: [UInt8]) -> UInt64 { value.reduce(0) { $0 << 8 | UInt64($1) } }
    static func bytes(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * UInt64($0))) }
    }

    /// What the operation makes of the record; nil if it must be refused.
    mutating func apply(_ operation: Step) -> ResultCode {
        let old = self[operation.name]
        switch operation.code {
        case OperationCode.write:
            if operation.type == ParticleType.null {
                bins.removeAll { $0.name == operation.name }
            } else {
                set(operation.name, operation.type, operation.value)
            }
        case OperationCode.increment:
            guard operation.type == ParticleType.integer else { return .parameter }
            if let old, old.type != ParticleType.integer { return .incompatibleType }
            let sum = (old.map { Model.integer($0.value) } ?? 0) &+ Model.integer(operation.value)
            set(operation.name, ParticleType.integer, Model.bytes(sum))
        case OperationCode.append, OperationCode.prepend:
            guard operation.type == ParticleType.string || operation.type == ParticleType.blob else {
                return .incompatibleType
            }
            if let old, old.type != operation.type { return .incompatibleType }
            let before = old?.value ?? []
            let isAppend = operation.code == OperationCode.append
            set(operation.name, operation.type, isAppend ? before + operation.value : operation.value + before)
        case OperationCode.deleteAll: bins = []
        default: break
        }
        return .ok
    }
}

private struct Step {
    var code: UInt8
    var name: String
    var type: UInt8
    var value: [UInt8]

    static func random(_ random: inout SeededRandom, names: Int) -> Step {
        let codes = [OperationCode.write, OperationCode.write, OperationCode.increment, OperationCode.append,
            OperationCode.prepend, OperationCode.touch]
        let types = [ParticleType.integer, ParticleType.string, ParticleType.blob, ParticleType.null]
        var code = codes.randomElement(using: &random)!
        if Int.random(in: 0..<100, using: &random) == 0 { code = OperationCode.deleteAll }
        var type = types.randomElement(using: &random)!
        if code != OperationCode.write, type == ParticleType.null { type = ParticleType.integer }
        let count = type == ParticleType.integer ? 8 : type == ParticleType.null ? 0 : Int.random(in: 0...40, using: &random)
        return Step(
            code: code, name: "bin\(Int.random(in: 0..<names, using: &random))", type: type,
            value: (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) })
    }
}

@Suite struct EditorTests {
    private let header = ImageHeader(
        generation: 3, voidTime: 4, lastUpdate: 5, epoch: Epoch(rawValue: 6), setName: Block([]).view,
        key: Block([]).view)

    /// Random requests of random operations: bins, order and refusals are those of the model, through the
    /// image.
    @Test func randomHistoriesMatchTheModel() throws {
        var random = SeededRandom(seed: runSeed("EditorTests"))
        let editor = RecordEditor()
        try forAWhile(1) {
            var model = Model()
            var image: Block?
            let names = [2, 8, 40].randomElement(using: &random)!
            for _ in 0..<30 {
                let existing = try image.map { try #require(ImageView($0.view)) }
                editor.begin(existing)
                var next = model
                var kept: [(Block, Block)] = []
                var refusal = ResultCode.ok
                for _ in 0..<Int.random(in: 1...12, using: &random) {
                    let step = Step.random(&random, names: names)
                    let blocks = (Block(Array(step.name.utf8)), Block(step.value))
                    kept.append(blocks)
                    let result = editor.apply(OperationView(
                        code: step.code, particleType: step.type, name: blocks.0.view, value: blocks.1.view))
                    #expect(result == next.apply(step))
                    refusal = result
                    if refusal != .ok { break }
                }
                guard refusal == .ok else { continue }
                model = next
                let bytes = Block([UInt8](repeating: 0xEE, count: editor.imageByteCount(header)))
                editor.writeImage(header, to: bytes.bytes.baseAddress!)
                image = bytes
                withExtendedLifetime(kept) {}
                #expect(try content(bytes) == model)
            }
        }
    }

    private func content(_ image: Block) throws -> Model {
        let view = try #require(ImageView(image.view))
        var model = Model()
        var bins = view.bins
        while let bin = bins.next() { model.bins.append((bin.name.text, bin.particleType, Array(bin.value))) }
        #expect(view.binCount == model.bins.count)
        return model
    }

    @Test func incrementWraps() {
        let editor = RecordEditor()
        editor.begin(nil)
        let name = Block(Array("n".utf8))
        let most = Block(Model.bytes(UInt64(Int64.max)))
        let one = Block(Model.bytes(1))
        for value in [most, one] {
            #expect(editor.apply(OperationView(code: 5, particleType: 1, name: name.view, value: value.view)) == .ok)
        }
        #expect(editor.read(name.view).map { Array($0.value) } == Model.bytes(UInt64(bitPattern: Int64.min)))
    }

    @Test func valuesThatNoTypeHas() {
        let editor = RecordEditor()
        editor.begin(nil)
        let name = Block(Array("n".utf8))
        let refused: [(UInt8, Int)] = [
            (1, 3), (1, 0), (1, 9), (2, 4), (17, 0), (17, 2), (18, 10), (23, 2), (5, 4), (6, 4), (99, 4),
        ]
        for (type, size) in refused {
            let value = Block([UInt8](repeating: 0, count: size))
            let result = editor.apply(OperationView(code: 2, particleType: type, name: name.view, value: value.view))
            #expect(result == .parameter, "type \(type) with \(size) bytes")
        }
        #expect(editor.binCount == 0)
    }

    @Test func moreBinsThanARecordMayHave() {
        let editor = RecordEditor()
        editor.begin(nil)
        let blocks = KeptBlocks()
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        func write(_ name: UnsafeRawBufferPointer, _ type: UInt8) -> ResultCode {
            editor.apply(OperationView(code: 2, particleType: type, name: name, value: type == 0 ? nothing : name))
        }
        let names = (0...Limits.binsMax).map { blocks.add("b\($0)".utf8) }
        for (number, name) in names.enumerated() {
            #expect(write(name, 3) == (number < Limits.binsMax ? .ok : .parameter))
        }
        #expect(editor.binCount == Limits.binsMax)
        // Deleted bins make room for others; they cannot come back on top of those.
        for name in names[..<100] { #expect(write(name, 0) == .ok) }
        for number in 0..<100 { #expect(write(blocks.add("other\(number)".utf8), 3) == .ok) }
        #expect(write(names[0], 3) == .parameter && editor.binCount == Limits.binsMax)
        withExtendedLifetime(blocks) {}
    }
}
