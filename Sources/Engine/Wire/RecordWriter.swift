// Answers of many records: frames that hold one message after the other, for batches and queries.
package import Base

/// What an answer says about one record beside its fields and operations.
package struct RecordHead: BitwiseCopyable {
    package var info3: Info3 = []
    package var result = ResultCode.ok
    package var generation: UInt16 = 0
    /// Seconds since 2010, 0 for never.
    package var voidTime: UInt32 = 0
    /// Batches: the client's number of the row.
    package var index: UInt32 = 0

    package init() {}
}

/// Writes messages without frame headers, and the frames around them.
package enum RecordWriter {
    /// Leaves room for a frame's header and returns where the frame begins.
    package static func beginFrame(_ output: OutputBuffer) -> Int {
        let start = output.count
        _ = output.reserve(FrameHeader.byteCount)
        output.commit(FrameHeader.byteCount)
        return start
    }

    /// Writes the header of the frame that began at `start` and ends where `output` does.
    package static func endFrame(_ output: OutputBuffer, from start: Int) {
        FrameHeader.write(
            type: .message, bodySize: output.count - start - FrameHeader.byteCount,
            to: output.mutableBytes.baseAddress! + start)
    }

    /// Bytes of a message with so many bytes of fields and operations.
    @inline(__always)
    package static func byteCount(fields: Int, operations: Int) -> Int {
        MessageHeader.byteCount + fields + operations
    }

    /// One message: header, ready-made fields, ready-made operations. `operationCode` replaces the code of every operation
    /// if there is one.
    package static func append(
        _ head: RecordHead, fields: UnsafeRawBufferPointer, fieldCount: Int, operations: UnsafeRawBufferPointer,
        operationCount: Int, operationCode: UInt8? = nil, to output: OutputBuffer
    ) {
        let size = byteCount(fields: fields.count, operations: operations.count)
        let target = output.reserve(size)
        target.storeBigEndian(
            UInt64(22) << 56 | UInt64(head.info3.rawValue) << 32 | UInt64(head.result.rawValue) << 16)
        target.storeBigEndian(UInt32(head.generation), at: 6)
        target.storeBigEndian(UInt64(head.voidTime) << 32 | UInt64(head.index), at: 10)
        target.storeBigEndian(
            UInt32(UInt16(truncatingIfNeeded: fieldCount)) << 16 | UInt32(UInt16(truncatingIfNeeded: operationCount)),
            at: 18)
        let body = target + MessageHeader.byteCount
        if let source = fields.baseAddress { body.copyMemory(from: source, byteCount: fields.count) }
        if let source = operations.baseAddress {
            (body + fields.count).copyMemory(from: source, byteCount: operations.count)
            if let operationCode { mark(body + fields.count, operationCount, operationCode) }
        }
        output.commit(size)
    }

    private static func mark(_ operations: UnsafeMutableRawPointer, _ count: Int, _ code: UInt8) {
        var operation = operations
        for _ in 0..<count {
            operation.storeBytes(of: code, toByteOffset: 4, as: UInt8.self)
            operation += 4 + Int(UnsafeRawPointer(operation).bigEndian(UInt32.self))
        }
    }

    /// The message that ends a stream, inside a frame of the caller's.
    package static func appendLast(result: ResultCode, to output: OutputBuffer) {
        var head = RecordHead()
        head.info3 = .last
        head.result = result
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        append(head, fields: nothing, fieldCount: 0, operations: nothing, operationCount: 0, to: output)
    }
}
