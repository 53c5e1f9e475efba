// The language of inputs: what happens to a node, one after the other. Every byte string is a life.
import Assembly
import Base
import Fabric
import Membership
import Metadata

/// Which stream: of which port, dialled by whom, the how many-th; and into pieces of how many bytes it is cut.
struct StreamName {
    let byte: UInt8

    init(_ byte: UInt8) { self.byte = byte }

    init(_ port: PortKind, _ stream: UInt64, isAccepted: Bool) {
        byte = (port == .fabric ? 1 : 0) | (isAccepted ? 2 : 0) | UInt8(stream & 7) << 2 | 0xE0
    }

    var port: PortKind { byte & 1 == 0 ? .heartbeat : .fabric }
    var stream: StreamID {
        let number = UInt64(byte >> 2 & 7)
        return byte & 2 == 0 ? .dialled(number) : .accepted(number)
    }
    /// From one byte to 16 KiB.
    var pieceSize: Int { 1 << (Int(byte >> 5) * 2) }
}

/// One thing that happens.
enum Instruction {
    /// As they are.
    case bytes(StreamName, [UInt8])
    /// A frame with a good checksum.
    case frame(StreamName, kind: UInt8, [UInt8])
    case accepted(StreamName)
    case connected(StreamName)
    case closed(StreamName)
    /// Units of 5 ms.
    case wait(UInt8)
    /// A pulse with a good checksum, as a datagram.
    case datagram([UInt8])
    case command(UInt8)

    var bytes: [UInt8] {
        func body(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes }
        return switch self {
        case .bytes(let name, let bytes): [0, name.byte] + body(bytes)
        case .frame(let name, let kind, let bytes): [1, name.byte, kind] + body(bytes)
        case .accepted(let name): [2, name.byte]
        case .connected(let name): [3, name.byte]
        case .closed(let name): [4, name.byte]
        case .wait(let span): [5, span]
        case .datagram(let bytes): [6] + body(bytes)
        case .command(let which): [7, which]
        }
    }

    /// The next one; nil at the end.
    static func next(_ bytes: inout ArraySlice<UInt8>) -> Instruction? {
        guard let word = bytes.popFirst() else { return nil }
        func byte() -> UInt8 { bytes.popFirst() ?? 0 }
        func body() -> [UInt8] {
            let size = Int(byte()) << 8 | Int(byte())
            defer { bytes = bytes.dropFirst(size) }
            return Array(bytes.prefix(size))
        }
        switch word & 7 {
        case 0: return .bytes(StreamName(byte()), body())
        case 1:
            let name = StreamName(byte()), kind = byte()
            return .frame(name, kind: kind, body())
        case 2: return .accepted(StreamName(byte()))
        case 3: return .connected(StreamName(byte()))
        case 4: return .closed(StreamName(byte()))
        case 5: return .wait(byte())
        case 6: return .datagram(body())
        default: return .command(byte())
        }
    }
}

extension Fuzzed {
    mutating func follow(_ instruction: Instruction) {
        switch instruction {
        case .bytes(let name, let bytes): receive(name, bytes)
        case .frame(let name, let kind, let body):
            guard let kind = FrameKind(rawValue: kind % 6) else { return }
            receive(name, FabricFrame(kind, body).bytes)
        case .accepted(let name):
            guard name.stream.isAccepted else { return }
            tell(name.port, .accepted(name.stream, from: Address(host: "10.0.0.1", port: 40_000)))
        case .connected(let name):
            guard !name.stream.isAccepted else { return }
            tell(name.port, .connected(name.stream))
        case .closed(let name): tell(name.port, .closed(name.stream, reason: "closed by the other end"))
        case .wait(let span): wait(UInt64(span) * 5)
        case .datagram(let body):
            tell(.datagram(FabricFrame(.pulse, body).bytes, from: Address(host: "10.0.0.1", port: 40_000)))
        case .command(let which): command(which)
        }
    }

    private mutating func tell(_ port: PortKind, _ event: StreamEvent) {
        tell(port == .heartbeat ? .heartbeat(event) : .fabric(event))
    }

    private mutating func receive(_ name: StreamName, _ bytes: [UInt8]) {
        // Few pieces: what one byte more or less does is seen in short frames.
        let size = max(name.pieceSize, bytes.count / 64 + 1)
        for begin in stride(from: 0, to: bytes.count, by: size) {
            tell(name.port, .received(name.stream, Array(bytes[begin..<min(begin + size, bytes.count)])))
        }
    }

    private mutating func command(_ which: UInt8) {
        switch which % 6 {
        case 0: tell(.command(token: 1, .recluster))
        case 1: tell(.command(token: 2, .quiesce(true)))
        case 2: tell(.command(token: 3, .tip(SeedName(host: "10.0.0.1", port: 4002))))
        case 3:
            let change = MetadataChange(.truncate, MetadataKey([Array("test".utf8)]), .afterAllWrites(namespace: "test"))
            tell(.changeMetadata(token: 4, [change], time: time(milliseconds).wall.milliseconds))
        case 4: tell(.leave)
        default: tell(.command(token: 5, .tipClear([])))
        }
    }
}
