// The frame around everything that nodes send each other, on streams and in datagrams alike (docs/formats.md):
// magic 4 · format 1 · kind 1 · zero 2 · size of the body 4 · CRC32C of all that, and of the body 4 · body.
internal import Base

/// What a frame carries.
package enum FrameKind: UInt8, Sendable, CaseIterable {
    /// First on every stream: who speaks.
    case hello = 1
    /// A heartbeat.
    case pulse = 2
    /// Where nodes can be reached, asked and answered on heartbeat streams.
    case introduction = 3
    /// Agreement on views.
    case view = 4
    /// System metadata.
    case metadata = 5
}

/// One frame.
package struct FabricFrame: Equatable, Sendable {
    /// What is written. The format before is read, too, as soon as there is one.
    package static let format: UInt8 = 1
    package static let headerSize = 16
    /// Largest body in bytes: a bundle of 256 nodes fits.
    package static let bodySizeMax = 64 << 20
    private static let magic: UInt32 = 0x4150_4653

    package let kind: FrameKind
    package let body: [UInt8]

    package init(_ kind: FrameKind, _ body: [UInt8]) {
        self.kind = kind
        self.body = body
    }

    /// As it travels.
    package var bytes: [UInt8] {
        var writer = FabricWriter()
        writer.integer(FabricFrame.magic)
        writer.integer(FabricFrame.format)
        writer.integer(kind.rawValue)
        writer.integer(UInt16(0))
        writer.integer(UInt32(body.count))
        writer.integer(FabricFrame.sum(writer.bytes[...], body))
        return writer.bytes + body
    }

    fileprivate static func sum(_ head: ArraySlice<UInt8>, _ body: [UInt8]) -> UInt32 {
        let sum = head.withUnsafeBytes { crc32c($0) }
        return body.withUnsafeBytes { crc32c($0, seed: sum) }
    }

    /// The frame that `bytes` are, as a datagram.
    package init(datagram bytes: [UInt8]) throws(FabricError) {
        var framer = StreamFramer()
        framer.append(bytes)
        guard let frame = try framer.next(), framer.held == 0 else {
            throw FabricError("a datagram is not one whole frame")
        }
        self = frame
    }

    /// What a whole header announces.
    /// - Throws: if it is no header, or one of another format: the sentence says which.
    fileprivate static func announced(
        _ header: ArraySlice<UInt8>
    ) throws(FabricError) -> (FrameKind, size: Int, sum: UInt32) {
        var reader = FabricReader(header)
        guard try reader.integer(UInt32.self) == magic else {
            throw FabricError("it does not speak the fabric protocol")
        }
        let format = try reader.byte()
        guard format == FabricFrame.format else {
            let older = format > FabricFrame.format ? "this node" : "the other"
            throw FabricError("it speaks format \(format) of the fabric protocol, this node speaks format"
                + " \(FabricFrame.format): \(older) needs the newer version")
        }
        let word = try reader.byte()
        guard let kind = FrameKind(rawValue: word), try reader.integer(UInt16.self) == 0 else {
            throw FabricError("a frame of kind \(word) is not known")
        }
        let size = try reader.integer(UInt32.self)
        guard size <= bodySizeMax else { throw FabricError("a frame of \(size) bytes is larger than \(bodySizeMax)") }
        return (kind, Int(size), try reader.integer())
    }
}

/// Frames out of the bytes of a stream, in whatever pieces they come. Holds at most one frame and what came behind it.
package struct StreamFramer {
    private var buffer: [UInt8] = []
    private var begin = 0

    package init() {}

    /// Bytes that are no whole frame yet.
    package var held: Int { buffer.count - begin }

    package mutating func append(_ bytes: [UInt8]) {
        if begin > 0 {
            buffer.removeFirst(begin)
            begin = 0
        }
        buffer += bytes
    }

    /// The next whole frame, nil if more bytes have to come. After an error the stream is of no use.
    package mutating func next() throws(FabricError) -> FabricFrame? {
        guard held >= FabricFrame.headerSize else { return nil }
        let bodyBegin = begin + FabricFrame.headerSize
        let (kind, size, sum) = try FabricFrame.announced(buffer[begin..<bodyBegin])
        guard buffer.count - bodyBegin >= size else { return nil }
        let body = Array(buffer[bodyBegin..<(bodyBegin + size)])
        guard FabricFrame.sum(buffer[begin..<(begin + 12)], body) == sum else {
            throw FabricError("the checksum of a frame does not fit")
        }
        begin = bodyBegin + size
        return FabricFrame(kind, body)
    }
}
