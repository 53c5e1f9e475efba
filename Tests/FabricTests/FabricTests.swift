import Base
import Fabric
import Testing
import TestSupport

struct FabricTests {
    private func sample() -> [UInt8] {
        var writer = FabricWriter()
        writer.integer(UInt16(0x1234))
        writer.flag(true)
        for value in [0, 1, 127, 128, 300, UInt64.max - 1, UInt64.max] { writer.varint(value) }
        writer.text("räck")
        writer.member(Member(id: NodeID(rawValue: 0xBB9), incarnation: 7))
        writer.list([Address(host: "::1", port: 3002), Address(host: "127.0.0.1", port: 1)]) { $0.address($1) }
        return writer.bytes
    }

    @Test func valuesComeBack() throws {
        var reader = FabricReader(sample())
        #expect(try reader.integer(UInt16.self) == 0x1234)
        #expect(try reader.flag())
        for value in [0, 1, 127, 128, 300, UInt64.max - 1, UInt64.max] { #expect(try reader.varint() == value) }
        #expect(try reader.text() == "räck")
        #expect(try reader.member() == Member(id: NodeID(rawValue: 0xBB9), incarnation: 7))
        let addresses = try reader.list { (reader: inout FabricReader) throws(FabricError) in try reader.address() }
        #expect(addresses.map(\.description) == ["[::1]:3002", "127.0.0.1:1"])
        try reader.end()
    }

    @Test func everyPrefixIsRefused() {
        let bytes = sample()
        for size in 0..<bytes.count {
            #expect(throws: FabricError.self) {
                var reader = FabricReader(bytes[..<size])
                _ = try reader.integer(UInt16.self)
                _ = try reader.flag()
                for _ in 0..<7 { _ = try reader.varint() }
                _ = try reader.text()
                _ = try reader.member()
                _ = try reader.list { (reader: inout FabricReader) throws(FabricError) in try reader.address() }
            }
        }
    }

    @Test func whatCannotBeThereIsNotAllocated() {
        var writer = FabricWriter()
        writer.varint(1 << 60)
        #expect(throws: FabricError.self) {
            var reader = FabricReader(writer.bytes)
            _ = try reader.list { (reader: inout FabricReader) throws(FabricError) in try reader.byte() }
        }
        #expect(throws: FabricError.self) {
            var reader = FabricReader([UInt8](repeating: 0xFF, count: 10))
            _ = try reader.varint()
        }
    }

    @Test func framesComeOutOfAnyPieces() throws {
        var random = SeededRandom(seed: runSeed("frames"))
        for _ in 0..<200 {
            let frames = (0..<5).map { _ in
                FabricFrame(
                    FrameKind.allCases.randomElement(using: &random)!,
                    (0..<Int.random(in: 0...300, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
            }
            var rest = frames.flatMap(\.bytes)[...]
            var framer = StreamFramer()
            var got: [FabricFrame] = []
            while !rest.isEmpty {
                let piece = rest.prefix(Int.random(in: 1...100, using: &random))
                rest = rest.dropFirst(piece.count)
                framer.append(Array(piece))
                while let frame = try framer.next() { got.append(frame) }
            }
            #expect(got == frames && framer.held == 0)
        }
    }

    @Test func aChangedByteIsNoticed() throws {
        let good = FabricFrame(.pulse, [1, 2, 3]).bytes
        #expect(try FabricFrame(datagram: good) == FabricFrame(.pulse, [1, 2, 3]))
        for place in good.indices {
            var bad = good
            bad[place] ^= 0x01
            #expect(throws: FabricError.self, "byte \(place)") { try FabricFrame(datagram: bad) }
        }
        #expect(throws: FabricError.self) { try FabricFrame(datagram: good + [0]) }
    }

    @Test func anotherFormatSaysSo() {
        var newer = FabricFrame(.hello, []).bytes
        newer[4] = FabricFrame.format + 1
        let sentence = "it speaks format 2 of the fabric protocol, this node speaks format 1:"
            + " this node needs the newer version"
        #expect(throws: FabricError(sentence)) {
            try FabricFrame(datagram: newer)
        }
    }
}
