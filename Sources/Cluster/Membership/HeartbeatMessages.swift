// What travels on heartbeat streams and in datagrams (docs/formats.md, "Heartbeat and fabric streams").
internal import Base
package import Fabric

/// Which port a stream was dialled for.
package enum PortKind: UInt8, Sendable { case heartbeat = 1, fabric = 2 }

/// The first frame of every stream: who dialled it.
package struct Hello: Equatable, Sendable {
    package let member: Member
    package let port: PortKind
    /// The dialler's number of the stream. Rises: of two streams of one member the higher is the younger.
    package let stream: UInt64
    package let clusterName: String
    package let addresses: NodeAddresses

    package init(member: Member, port: PortKind, stream: UInt64, clusterName: String, addresses: NodeAddresses) {
        self.member = member
        self.port = port
        self.stream = stream
        self.clusterName = clusterName
        self.addresses = addresses
    }

    package init(_ body: [UInt8]) throws(FabricError) {
        var reader = FabricReader(body)
        member = try reader.member()
        let word = try reader.byte()
        guard let port = PortKind(rawValue: word) else { throw FabricError("a port of kind \(word) is not known") }
        self.port = port
        stream = try reader.varint()
        clusterName = try reader.text()
        addresses = try reader.addresses()
        try reader.end()
    }

    package var frame: [UInt8] {
        var writer = FabricWriter()
        writer.member(member)
        writer.integer(port.rawValue)
        writer.varint(stream)
        writer.text(clusterName)
        writer.addresses(addresses)
        return FabricFrame(.hello, writer.bytes).bytes
    }
}

/// A heartbeat.
struct Pulse: Equatable, Sendable {
    /// Rises by one with each pulse of a member: gaps are losses.
    var sequence: UInt64
    var content: PulseContent
    /// The last one: its sender stops now.
    var isGoodbye = false
    /// Which state of `hears` this is. Rises with each change.
    var serial: UInt64
    /// nil: as sent before under this serial.
    var hears: [Member]?
    /// Ids that more than one node claims, as the sender sees it.
    var duplicates: [NodeID] = []

    private static let listBit: UInt8 = 1, goodbyeBit: UInt8 = 2, leavingBit: UInt8 = 4

    func write(to writer: inout FabricWriter) {
        writer.integer((hears == nil ? 0 : Pulse.listBit) | (isGoodbye ? Pulse.goodbyeBit : 0)
            | (content.isLeaving ? Pulse.leavingBit : 0))
        writer.varint(sequence)
        writer.varint(serial)
        writer.varint(content.view.number)
        writer.varint(content.view.key)
        writer.varint(content.accepted)
        writer.varint(content.clock)
        writer.list(duplicates) { $0.node($1) }
        if let hears { writer.list(hears) { $0.member($1) } }
    }

    init(
        sequence: UInt64, content: PulseContent, isGoodbye: Bool = false, serial: UInt64, hears: [Member]?,
        duplicates: [NodeID] = []
    ) {
        self.sequence = sequence
        self.content = content
        self.isGoodbye = isGoodbye
        self.serial = serial
        self.hears = hears
        self.duplicates = duplicates
    }

    init(_ reader: inout FabricReader) throws(FabricError) {
        let flags = try reader.byte()
        guard flags < 8 else { throw FabricError("a pulse has flags \(flags)") }
        isGoodbye = flags & Pulse.goodbyeBit != 0
        sequence = try reader.varint()
        serial = try reader.varint()
        let view = ViewMark(number: try reader.varint(), key: try reader.varint())
        content = PulseContent(
            view: view, accepted: try reader.varint(), isLeaving: flags & Pulse.leavingBit != 0,
            clock: min(try reader.varint(), RecordTime.latestMilliseconds))
        duplicates = try reader.list(ofSize: 8) { (reader: inout FabricReader) throws(FabricError) in try reader.node() }
        guard flags & Pulse.listBit != 0 else { return }
        hears = try reader.list(ofSize: 16) { (reader: inout FabricReader) throws(FabricError) in try reader.member() }
    }

    /// As it goes through a stream, behind the hello.
    var frame: [UInt8] {
        var writer = FabricWriter()
        write(to: &writer)
        return FabricFrame(.pulse, writer.bytes).bytes
    }

    init(stream body: [UInt8]) throws(FabricError) {
        var reader = FabricReader(body)
        try self.init(&reader)
        try reader.end()
    }
}

/// Asked and answered between nodes that hear each other.
enum Introduction: Equatable, Sendable {
    /// Where are these?
    case asked([Member])
    case answered([Introduced])
    /// "Your stream of this number ends at me."
    case reached(stream: UInt64)

    struct Introduced: Equatable, Sendable {
        let member: Member
        let addresses: NodeAddresses
    }

    var frame: [UInt8] {
        var writer = FabricWriter()
        switch self {
        case .asked(let members):
            writer.integer(UInt8(1))
            writer.list(members) { $0.member($1) }
        case .answered(let introduced):
            writer.integer(UInt8(2))
            writer.list(introduced) { writer, one in
                writer.member(one.member)
                writer.addresses(one.addresses)
            }
        case .reached(let stream):
            writer.integer(UInt8(3))
            writer.varint(stream)
        }
        return FabricFrame(.introduction, writer.bytes).bytes
    }

    init(_ body: [UInt8]) throws(FabricError) {
        var reader = FabricReader(body)
        switch try reader.byte() {
        case 1:
            let members = try reader.list(ofSize: 16) { (reader: inout FabricReader) throws(FabricError) in
                try reader.member()
            }
            self = .asked(members)
        case 2:
            let introduced = try reader.list(ofSize: 18) { (reader: inout FabricReader) throws(FabricError) in
                Introduced(member: try reader.member(), addresses: try reader.addresses())
            }
            self = .answered(introduced)
        case 3: self = .reached(stream: try reader.varint())
        case let other: throw FabricError("an introduction of kind \(other) is not known")
        }
        try reader.end()
    }
}

/// A pulse, or a part of one, as a datagram: it says all that a hello says, since nothing went before.
struct DatagramPulse: Equatable, Sendable {
    let member: Member
    let clusterName: String
    let addresses: NodeAddresses
    /// Which of how many parts this is, from 0. Each has its share of `hears`, and all of the rest.
    var part: UInt8
    var parts: UInt8
    var pulse: Pulse

    var frame: [UInt8] {
        var writer = FabricWriter()
        writer.member(member)
        writer.text(clusterName)
        writer.addresses(addresses)
        writer.integer(part)
        writer.integer(parts)
        pulse.write(to: &writer)
        return FabricFrame(.pulse, writer.bytes).bytes
    }

    init(
        member: Member, clusterName: String, addresses: NodeAddresses, part: UInt8 = 0, parts: UInt8 = 1, pulse: Pulse
    ) {
        self.member = member
        self.clusterName = clusterName
        self.addresses = addresses
        self.part = part
        self.parts = parts
        self.pulse = pulse
    }

    init(datagram: [UInt8]) throws(FabricError) {
        let frame = try FabricFrame(datagram: datagram)
        guard frame.kind == .pulse else { throw FabricError("a datagram is no pulse") }
        var reader = FabricReader(frame.body)
        member = try reader.member()
        clusterName = try reader.text()
        addresses = try reader.addresses()
        part = try reader.byte()
        parts = try reader.byte()
        guard part < parts else { throw FabricError("a datagram is part \(part) of \(parts)") }
        pulse = try Pulse(&reader)
        guard pulse.hears != nil else { throw FabricError("a datagram says nothing of whom its sender hears") }
        try reader.end()
    }

    /// This pulse in datagrams of at most `sizeMax` bytes. If what it says beside `hears` is larger, or 255 parts are not
    /// enough, datagrams are larger than that, and the network may cut them into fragments.
    func split(sizeMax: Int) -> [DatagramPulse] {
        var empty = self
        empty.pulse.hears = []
        let members = pulse.hears ?? []
        // A count of 2 bytes more than the empty list has.
        let room = sizeMax - empty.frame.count - 2
        let each = max(room / 16, (members.count + 254) / 255, 1)
        let count = max((members.count + each - 1) / each, 1)
        return (0..<count).map { index in
            var one = empty
            one.part = UInt8(index)
            one.parts = UInt8(count)
            one.pulse.hears = Array(members[min(index * each, members.count)..<min((index + 1) * each, members.count)])
            return one
        }
    }
}

extension FabricWriter {
    mutating func addresses(_ value: NodeAddresses) {
        list(value.heartbeat) { $0.address($1) }
        list(value.fabric) { $0.address($1) }
    }
}

extension FabricReader {
    /// At most 16 of each kind.
    mutating func addresses() throws(FabricError) -> NodeAddresses {
        func some(_ reader: inout FabricReader) throws(FabricError) -> [Address] {
            let all = try reader.list(ofSize: 3) { (reader: inout FabricReader) throws(FabricError) in
                try reader.address()
            }
            guard all.count <= 16 else { throw FabricError("a node has \(all.count) addresses, more than 16") }
            return all
        }
        let heartbeat = try some(&self)
        return NodeAddresses(heartbeat: heartbeat, fabric: try some(&self))
    }
}
