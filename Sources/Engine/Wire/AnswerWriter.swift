package import Base

/// Writes answers into an output buffer.
package enum AnswerWriter {
    private static let headerSize = FrameHeader.byteCount + MessageHeader.byteCount

    /// One whole answer: header, then ready-made operations.
    package static func appendAnswer(
        result: ResultCode, generation: UInt16, voidTime: UInt32, operations: UnsafeRawBufferPointer,
        operationCount: Int, to output: OutputBuffer
    ) {
        let target = output.reserve(headerSize + operations.count)
        FrameHeader.write(type: .message, bodySize: MessageHeader.byteCount + operations.count, to: target)
        let body = target + FrameHeader.byteCount
        body.storeBigEndian(UInt64(22) << 56 | UInt64(result.rawValue) << 16 | UInt64(generation) >> 16)
        body.storeBigEndian(UInt32(generation), at: 6)
        body.storeBigEndian(UInt64(voidTime) << 32, at: 10)
        body.storeBigEndian(UInt32(truncatingIfNeeded: operationCount), at: 18)
        if let source = operations.baseAddress {
            (body + MessageHeader.byteCount).copyMemory(from: source, byteCount: operations.count)
        }
        output.commit(headerSize + operations.count)
    }

    /// An answer that is a result and nothing else.
    package static func appendResult(_ result: ResultCode, to output: OutputBuffer) {
        appendAnswer(
            result: result, generation: 0, voidTime: 0, operations: UnsafeRawBufferPointer(start: nil, count: 0),
            operationCount: 0, to: output)
    }

    /// One operation of an answer. It goes to a buffer that is handed to `appendAnswer` later.
    package static func appendOperation(
        code: UInt8, particleType: UInt8, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer,
        to output: OutputBuffer
    ) {
        let target = output.reserve(8 + name.count + value.count)
        target.storeBigEndian(UInt32(4 + name.count + value.count))
        target.storeBigEndian(
            UInt32(code) << 24 | UInt32(particleType) << 16 | UInt32(UInt8(truncatingIfNeeded: name.count)), at: 4)
        if let source = name.baseAddress { (target + 8).copyMemory(from: source, byteCount: name.count) }
        if let source = value.baseAddress {
            (target + 8 + name.count).copyMemory(from: source, byteCount: value.count)
        }
        output.commit(8 + name.count + value.count)
    }

    /// The end of a stream of answers.
    package static func appendLast(result: ResultCode, to output: OutputBuffer) {
        var header = MessageHeader()
        header.info3 = .last
        header.resultCode = result.rawValue
        let target = output.reserve(headerSize)
        FrameHeader.write(type: .message, bodySize: MessageHeader.byteCount, to: target)
        header.write(to: target + FrameHeader.byteCount)
        output.commit(headerSize)
    }

    /// The answer to any security message: 16 bytes with a result code.
    package static func appendSecurity(result: ResultCode, to output: OutputBuffer) {
        let size = FrameHeader.byteCount + 16
        let target = output.reserve(size)
        target.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        FrameHeader.write(type: .security, bodySize: 16, to: target)
        target.storeBytes(of: result.rawValue, toByteOffset: FrameHeader.byteCount + 1, as: UInt8.self)
        output.commit(size)
    }
}

/// One data answer as a client sees it.
package struct AnswerView: BitwiseCopyable {
    package let header: MessageHeader
    private let operationBytes: UnsafeRawBufferPointer

    /// Parses the body of a data message; nil if its sizes do not fit together.
    package init?(_ body: UnsafeRawBufferPointer) {
        guard case .request(let view) = RequestView.parse(body) else { return nil }
        header = view.header
        operationBytes = view.operationBytes
    }

    /// The operations of the answer in order.
    package var operations: OperationSequence {
        OperationSequence(operationBytes, count: Int(header.operationCount))
    }
}
