import Base
import Record
import TestSupport
import Testing

/// An image to build: everything a header can say, and so many bins "b0", "b1"... with a blob each.
private struct Shape {
    var generation: UInt16 = 1
    var voidTime: UInt32 = 0
    var lastUpdate: UInt64 = 1
    var regime: UInt32 = 1
    var viewKey: UInt64 = 2
    var set: [UInt8] = []
    var key: [UInt8] = []
    var bins = 1

    /// The image; `blocks` keeps its parts.
    func image(_ editor: RecordEditor, _ blocks: KeptBlocks) -> Block {
        editor.begin(nil)
        for number in 0..<bins {
            let name = blocks.add("b\(number)".utf8)
            #expect(editor.apply(OperationView(
                code: OperationCode.write, particleType: ParticleType.blob, name: name, value: name)) == .ok)
        }
        let header = ImageHeader(
            generation: generation, voidTime: voidTime, lastUpdate: lastUpdate,
            epoch: Epoch(regime: regime, viewKey: viewKey), setName: blocks.add(set), key: blocks.add(key))
        let block = Block([UInt8](repeating: 0xEE, count: editor.imageByteCount(header)))
        editor.writeImage(header, to: block.bytes.baseAddress!)
        return block
    }

    /// Any values, often those at a border.
    static func random(_ random: inout SeededRandom) -> Shape {
        func number(_ bits: UInt64) -> UInt64 {
            let most = UInt64(1) << bits - 1
            return [0, 1, 0xFF & most, 0x100 & most, most, UInt64.random(in: 0...most, using: &random)]
                .randomElement(using: &random)!
        }
        return Shape(
            generation: UInt16(number(16)), voidTime: UInt32(number(32)), lastUpdate: number(40), regime: UInt32(number(24)),
            viewKey: number(40), set: [UInt8](repeating: 0x73, count: [0, 1, 4, 63].randomElement(using: &random)!),
            key: [UInt8](repeating: 0x03, count: [0, 0, 2, 21, 300].randomElement(using: &random)!),
            bins: [1, 2, 255, 256, 700].randomElement(using: &random)!)
    }
}

@Suite struct ImageTests {
    private let editor = RecordEditor()
    private let blocks = KeptBlocks()

    /// The bytes of docs/formats.md, written down by hand: one of each part, then all of them.
    @Test func bytesOfTheFormat() {
        let bin = "00000008" + "01040002" + "6230" + "6230"
        var small = Shape(
            generation: 0x0201, lastUpdate: 0x0A_0908_0706, regime: 0x0B, viewKey: 0x15_1413_1211, set: Array("test".utf8))
        #expect(hex(small.image(editor, blocks).view) == "2004010206070809" + "0a11121314150b01" + "74657374" + bin)
        small.set = []
        small.voidTime = 0x4433_2211
        #expect(hex(small.image(editor, blocks).view) == "2200010206070809" + "0a11121314150b01" + "11223344" + bin)
        small.voidTime = 0
        small.key = [3, 0x6B]
        #expect(hex(small.image(editor, blocks).view) == "2100010206070809" + "0a11121314150b01" + "02000000" + "036b" + bin)
        small.key = []
        small.regime = 0x0D_0C0B
        #expect(hex(small.image(editor, blocks).view) == "2400010206070809" + "0a11121314150b01" + "0c0d0000" + bin)
        small.voidTime = 0x4433_2211
        small.key = [3, 0x6B]
        small.set = Array("s".utf8)
        #expect(hex(small.image(editor, blocks).view) == "2701010206070809" + "0a11121314150b01" + "0c0d0000" + "11223344"
            + "02000000" + "73" + "036b" + bin)
        let many = hex(Shape(bins: 0x0123).image(editor, blocks).view)
        #expect(many.hasPrefix("2400010001000000" + "0002000000000123" + "00000100" + bin))
        withExtendedLifetime(blocks) {}
    }

    /// What issue 4 counts: a record of one bin of 100 bytes, with a name of three and a set name of four.
    @Test func aSmallRecordTakesFewBytes() {
        editor.begin(nil)
        let value = [UInt8](repeating: 1, count: 100)
        _ = editor.apply(OperationView(
            code: OperationCode.write, particleType: ParticleType.blob, name: blocks.add("bin".utf8),
            value: blocks.add(value)))
        let header = ImageHeader(
            generation: 1, voidTime: 0, lastUpdate: 500_000_000_000, epoch: Epoch(regime: 1, viewKey: 1 << 40 - 1),
            setName: blocks.add("test".utf8), key: blocks.add([]))
        #expect(editor.imageByteCount(header) == 16 + 4 + 8 + 3 + 100)
        withExtendedLifetime(blocks) {}
    }

    @Test func headersComeBack() throws {
        var random = SeededRandom(seed: runSeed("headersComeBack"))
        for _ in 0..<2000 {
            let shape = Shape.random(&random)
            let blocks = KeptBlocks()
            let view = try #require(ImageView(shape.image(editor, blocks).view), "\(shape)")
            #expect(view.generation == shape.generation && view.voidTime == shape.voidTime, "\(shape)")
            #expect(view.lastUpdate == shape.lastUpdate, "\(shape)")
            #expect(view.epoch == Epoch(regime: shape.regime, viewKey: shape.viewKey), "\(shape)")
            #expect(Array(view.setName) == shape.set && Array(view.key) == shape.key, "\(shape)")
            #expect(view.binCount == shape.bins, "\(shape)")
            let name = blocks.add("b\(shape.bins - 1)".utf8)
            #expect(view.bin(named: name).map { Array($0.value) } == Array(name), "\(shape)")
            withExtendedLifetime(blocks) {}
        }
    }

    /// Every beginning of an image is refused, and an image with one byte behind it.
    @Test func cutImagesAreRefused() {
        let shapes = [
            Shape(), Shape(voidTime: 9), Shape(key: [3, 0x6B]), Shape(regime: 256), Shape(bins: 256),
            Shape(voidTime: 7, regime: 1 << 24 - 1, set: [UInt8](repeating: 0x73, count: 63), key: [3, 1, 2], bins: 3),
        ]
        for shape in shapes {
            let whole = Array(shape.image(editor, blocks).view)
            for count in 0..<whole.count {
                #expect(ImageView(Block(Array(whole[..<count])).view) == nil, "\(count) bytes of \(shape)")
            }
            #expect(ImageView(Block(whole + [0]).view) == nil, "\(shape)")
        }
        withExtendedLifetime(blocks) {}
    }

    @Test func otherFormatsAndFlagsAreRefused() {
        var bytes = Array(Shape().image(editor, blocks).view)
        for first in UInt8.min...UInt8.max where first != 0x20 {
            bytes[0] = first
            #expect(ImageView(Block(bytes).view) == nil, "first byte \(first)")
        }
        withExtendedLifetime(blocks) {}
    }

    /// Damaged images are refused or read inside their bytes; a sanitizer run sees the rest.
    @Test func damagedImagesAreSafe() {
        var random = SeededRandom(seed: runSeed("damagedImages"))
        let originals = [
            Shape(), Shape(bins: 5), Shape(voidTime: 5, regime: 300, set: [0x73, 0x74], key: [3, 0x6B], bins: 2),
        ].map { Array($0.image(editor, blocks).view) }
        for _ in 0..<20_000 {
            var damaged = originals.randomElement(using: &random)!
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                damaged[Int.random(in: 0..<damaged.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            let block = Block(damaged)
            guard let view = ImageView(block.view) else { continue }
            let end = block.view.baseAddress! + block.count
            for part in [view.setName, view.key] {
                #expect(part.isEmpty || part.baseAddress! + part.count <= end)
            }
            var bins = view.bins
            while let bin = bins.next() {
                #expect(bin.value.isEmpty || bin.value.baseAddress! + bin.value.count <= end)
            }
        }
        withExtendedLifetime(blocks) {}
    }
}
