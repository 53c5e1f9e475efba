package import Base

/// Builds one batch request at the end of a buffer, as a client would: begin, rows, end.
package struct BatchEncoder {
    private let output: OutputBuffer
    private let start: Int
    private let fieldStart: Int
    private var header: MessageHeader
    private var rowCount: UInt32 = 0
    private var rowOperations = 0
    private var rowCounts = 0

    /// Begins a batch; `header` gives compression and timeout, `filter` is for all rows.
    package init(
        _ output: OutputBuffer, _ header: MessageHeader, flags: BatchFlags,
        filter: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) {
        self.output = output
        self.header = header
        self.header.info1 = Info1(rawValue: header.info1.rawValue | Info1.batch.rawValue)
        self.header.fieldCount = filter.isEmpty ? 1 : 2
        self.header.operationCount = 0
        start = output.count
        _ = output.reserve(FrameHeader.byteCount + MessageHeader.byteCount)
        output.commit(FrameHeader.byteCount + MessageHeader.byteCount)
        if !filter.isEmpty { BatchEncoder.field(.filter, filter, output) }
        fieldStart = output.count
        let head = output.reserve(10)
        head.storeBytes(of: FieldNumber.batch.rawValue, toByteOffset: 4, as: UInt8.self)
        head.storeBytes(of: flags.rawValue, toByteOffset: 9, as: UInt8.self)
        output.commit(10)
    }

    private static func field(_ number: FieldNumber, _ value: UnsafeRawBufferPointer, _ output: OutputBuffer) {
        let target = output.reserve(5 + value.count)
        target.storeBigEndian(UInt32(1 + value.count))
        target.storeBytes(of: number.rawValue, toByteOffset: 4, as: UInt8.self)
        if let source = value.baseAddress { (target + 5).copyMemory(from: source, byteCount: value.count) }
        output.commit(5 + value.count)
    }

    private mutating func rowHead(_ index: UInt32, _ digest: Digest, _ flags: UInt8) {
        let head = output.reserve(25)
        head.storeBigEndian(index)
        digest.store(to: head + 4)
        head.storeBytes(of: flags, toByteOffset: 24, as: UInt8.self)
        output.commit(25)
        rowCount += 1
    }

    /// A row that says the same as the one before.
    package mutating func repeatRow(_ index: UInt32, _ digest: Digest) { rowHead(index, digest, 0x01) }

    /// A row with the flags, generation and time to live of `row`; its fields and operations follow.
    package mutating func row(
        _ index: UInt32, _ digest: Digest, _ row: MessageHeader, namespace: String, set: String = ""
    ) {
        let hasInfo4 = row.info4 != 0
        rowHead(index, digest, hasInfo4 ? 0x1E : 0x0E)
        let size = 3 + (hasInfo4 ? 1 : 0) + 6
        let head = output.reserve(size + 4)
        head.storeBytes(of: row.info1.rawValue, as: UInt8.self)
        head.storeBytes(of: row.info2.rawValue, toByteOffset: 1, as: UInt8.self)
        head.storeBytes(of: row.info3.rawValue, toByteOffset: 2, as: UInt8.self)
        if hasInfo4 { head.storeBytes(of: row.info4, toByteOffset: 3, as: UInt8.self) }
        head.storeBigEndian(UInt16(truncatingIfNeeded: row.generation), at: size - 6)
        head.storeBigEndian(row.timeToLive, at: size - 4)
        head.storeBigEndian(UInt32(0), at: size)
        output.commit(size + 4)
        rowCounts = output.count - 4
        rowOperations = 0
        field(.namespace, namespace)
        if !set.isEmpty { field(.set, set) }
    }

    /// A field of the row at hand.
    package mutating func field(_ number: FieldNumber, _ value: UnsafeRawBufferPointer) {
        precondition(rowOperations == 0, "fields come before operations")
        BatchEncoder.field(number, value, output)
        count(at: rowCounts)
    }

    /// A text field of the row at hand.
    package mutating func field(_ number: FieldNumber, _ text: String) {
        var text = text
        text.withUTF8 { field(number, UnsafeRawBufferPointer($0)) }
    }

    /// An operation of the row at hand.
    package mutating func operation(
        _ code: UInt8, _ particleType: UInt8, _ name: String, _ value: UnsafeRawBufferPointer
    ) {
        var name = name
        name.withUTF8 {
            AnswerWriter.appendOperation(
                code: code, particleType: particleType, name: UnsafeRawBufferPointer($0), value: value, to: output)
        }
        rowOperations += 1
        count(at: rowCounts + 2)
    }

    private func count(at place: Int) {
        let target = output.mutableBytes.baseAddress! + place
        target.storeBigEndian(UnsafeRawPointer(target).bigEndian(UInt16.self) + 1)
    }

    /// Completes the batch: sizes and counts are known now.
    package mutating func end() {
        let base = output.mutableBytes.baseAddress!
        FrameHeader.write(type: .message, bodySize: output.count - start - FrameHeader.byteCount, to: base + start)
        header.write(to: base + start + FrameHeader.byteCount)
        (base + fieldStart).storeBigEndian(UInt32(output.count - fieldStart - 4))
        (base + fieldStart).storeBigEndian(rowCount, at: 5)
    }
}
