internal import Base
internal import Glibc
internal import Wire

/// Finds whole answers in what came from one connection.
struct AnswerReader {
    /// How the end of an answer is found.
    enum Framing {
        /// By its header; a result code says whether it went well.
        case frames
        /// By the message marked last, in frames of many messages.
        case streams
        /// Every answer has so many bytes.
        case fixed(Int)
        /// One line, and a body if the line is `$n`.
        case redis
    }
    private let framing: Framing
    /// An answer that has begun.
    private var rest: [UInt8] = []

    init(_ framing: Framing) { self.framing = framing }

    /// Calls `answered` with the result code of every whole answer; keeps what is left. False: the peer talks
    /// nonsense.
    mutating func take(_ bytes: UnsafeRawBufferPointer, _ answered: (UInt8) -> Void) -> Bool {
        guard !rest.isEmpty else { return scan(bytes, answered) }
        let joined = rest + bytes
        rest.removeAll(keepingCapacity: true)
        return joined.withUnsafeBytes { scan($0, answered) }
    }

    private mutating func scan(_ bytes: UnsafeRawBufferPointer, _ answered: (UInt8) -> Void) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let left = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            guard let (size, result) = AnswerReader.answer(left, framing) else { return false }
            guard size > 0, size <= left.count else { break }
            answered(result)
            offset += size
        }
        if offset < bytes.count { rest.append(contentsOf: bytes[offset...]) }
        return true
    }

    /// Size and result of the answer at the start, size 0 if it is not known yet; nil if it is none.
    private static func answer(_ bytes: UnsafeRawBufferPointer, _ framing: Framing) -> (Int, UInt8)? {
        switch framing {
        case .fixed(let size): return (size, 0)
        case .frames:
            switch FrameHeader.parse(bytes) {
            case .incomplete: return (0, 0)
            case .refused: return nil
            case .frame(let header):
                let size = FrameHeader.byteCount + header.bodySize
                guard header.bodySize >= MessageHeader.byteCount else { return nil }
                return bytes.count < size ? (size, 0) : (size, bytes[FrameHeader.byteCount + 5])
            }
        case .streams: return stream(bytes)
        case .redis: return redis(bytes)
        }
    }

    /// The frames up to the one with the last message, whose result counts.
    private static func stream(_ bytes: UnsafeRawBufferPointer) -> (Int, UInt8)? {
        var offset = 0
        while true {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            guard case .frame(let header) = FrameHeader.parse(rest) else {
                if case .incomplete = FrameHeader.parse(rest) { return (0, 0) }
                return nil
            }
            let end = FrameHeader.byteCount + header.bodySize
            guard rest.count >= end else { return (0, 0) }
            var message = FrameHeader.byteCount
            while message < end {
                guard end - message >= MessageHeader.byteCount else { return nil }
                let head = MessageHeader(rest.baseAddress! + message)
                if head.info3.contains(.last) { return (offset + end, head.resultCode) }
                let operations = UnsafeRawBufferPointer(rebasing: rest[(message + MessageHeader.byteCount)..<end])
                guard head.fieldCount == 0,
                    let size = OperationSequence.byteCount(operations, count: Int(head.operationCount))
                else { return nil }
                message += MessageHeader.byteCount + size
            }
            offset += end
        }
    }

    private static func redis(_ bytes: UnsafeRawBufferPointer) -> (Int, UInt8)? {
        guard let lineEnd = bytes.firstIndex(of: UInt8(ascii: "\n")) else { return (0, 0) }
        switch bytes[0] {
        case UInt8(ascii: "+"), UInt8(ascii: ":"): return (lineEnd + 1, 0)
        case UInt8(ascii: "-"): return (lineEnd + 1, 1)
        case UInt8(ascii: "$"):
            if bytes[1] == UInt8(ascii: "-") { return (lineEnd + 1, 2) }
            var size = 0
            for digit in bytes[1..<(lineEnd - 1)] { size = size * 10 + Int(digit) - 0x30 }
            return (lineEnd + 1 + size + 2, 0)
        default: return nil
        }
    }
}
