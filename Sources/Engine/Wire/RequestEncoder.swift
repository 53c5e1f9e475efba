package import Base

/// Builds data requests for clients. One after the other into the same buffer, which keeps its memory.
package struct RequestEncoder {
    private let output: OutputBuffer
    private var start = 0
    private var header = MessageHeader()

    /// Requests are appended to `output`.
    package init(_ output: OutputBuffer) { self.output = output }

    /// Begins a request. Fields come before operations.
    package mutating func begin(_ header: MessageHeader) {
        start = output.count
        self.header = header
        self.header.fieldCount = 0
        self.header.operationCount = 0
        _ = output.reserve(FrameHeader.byteCount + MessageHeader.byteCount)
        output.commit(FrameHeader.byteCount + MessageHeader.byteCount)
    }

    /// Adds a field.
    package mutating func field(_ number: FieldNumber, _ value: UnsafeRawBufferPointer) {
        precondition(header.operationCount == 0, "fields come before operations")
        let target = output.reserve(5 + value.count)
        target.storeBigEndian(UInt32(1 + value.count))
        target.storeBytes(of: number.rawValue, toByteOffset: 4, as: UInt8.self)
        if let source = value.baseAddress { (target + 5).copyMemory(from: source, byteCount: value.count) }
        output.commit(5 + value.count)
        header.fieldCount += 1
    }

    /// Adds a text field.
    package mutating func field(_ number: FieldNumber, _ text: String) {
        var text = text
        text.withUTF8 { field(number, UnsafeRawBufferPointer($0)) }
    }

    /// Adds the digest field.
    package mutating func field(_ digest: Digest) {
        withUnsafeTemporaryAllocation(byteCount: Digest.byteCount, alignment: 8) { bytes in
            digest.store(to: bytes.baseAddress!)
            field(.digest, UnsafeRawBufferPointer(bytes))
        }
    }

    /// Adds an operation.
    package mutating func operation(
        _ code: UInt8, _ particleType: UInt8, _ name: String, _ value: UnsafeRawBufferPointer
    ) {
        var name = name
        name.withUTF8 {
            AnswerWriter.appendOperation(
                code: code, particleType: particleType, name: UnsafeRawBufferPointer($0), value: value, to: output)
        }
        header.operationCount += 1
    }

    /// Completes the request: sizes and counts are known now.
    package mutating func end() {
        let target = output.mutableBytes.baseAddress! + start
        FrameHeader.write(type: .message, bodySize: output.count - start - FrameHeader.byteCount, to: target)
        header.write(to: target + FrameHeader.byteCount)
    }
}
