// The rows of a batch request, parsed one after the other without allocating. Invariants:
// 1. `start` <= `cursor` <= `end`; all of a row that `next` has given lies between `start` and `cursor`.
// 2. `descriptor` is what the last row without REPEAT said; rows that repeat it share its bytes.
internal import Base

/// Flags of a batch.
package struct BatchFlags: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The standard library's way through `SetAlgebra` is not specialised in other modules.
    @inlinable package func contains(_ other: BatchFlags) -> Bool { rawValue & other.rawValue == other.rawValue }
    /// Every row is answered, also after an error.
    @inlinable package static var respondAllKeys: BatchFlags { BatchFlags(rawValue: 0x04) }
    /// The row that stopped the batch is answered.
    @inlinable package static var errorRows: BatchFlags { BatchFlags(rawValue: 0x08) }
}

/// One row: a request that a machine can run.
package struct BatchRow: BitwiseCopyable {
    package var request = RequestView.empty
    /// The client's number of the row.
    package var index: UInt32 = 0
    /// What the request's namespace was found to be; whoever runs the row keeps it here.
    package var namespace = -1

    package init() {}
}

/// Walks the rows of a batch.
package struct BatchRows: BitwiseCopyable {
    /// Rows that the client announced.
    package let count: Int
    package let flags: BatchFlags
    /// Announced rows that `next` has not come to.
    package private(set) var left: Int
    private var cursor: UnsafeRawPointer
    private var end: UnsafeRawPointer
    private var descriptor = RequestView.empty
    private var hasDescriptor = false
    private let parent: MessageHeader
    private var filter: UnsafeRawBufferPointer
    private let hasFilter: Bool

    /// What a call of `next` came to.
    package enum Step: BitwiseCopyable {
        /// A row; it says the same as the row before if `isRepeat`.
        case row(isRepeat: Bool)
        case end
        /// Counts and lengths do not fit together.
        case malformed
    }

    private enum RowFlag {
        static let `repeat`: UInt8 = 0x01
        static let info: UInt8 = 0x02
        static let generation: UInt8 = 0x04
        static let timeToLive: UInt8 = 0x08
        static let info4: UInt8 = 0x10
    }
    /// Index, digest, flags.
    private static let rowHeadSize = 4 + Digest.byteCount + 1

    /// The rows in the batch field of `request`; nil if there is no such field or it is too short.
    package init?(_ request: RequestView) {
        guard let bytes = request.field(.batch) ?? request.field(.batchWithSet), bytes.count >= 5,
            let base = bytes.baseAddress
        else { return nil }
        count = Int(base.bigEndian(UInt32.self))
        flags = BatchFlags(rawValue: base.load(fromByteOffset: 4, as: UInt8.self))
        left = count
        cursor = base + 5
        end = base + bytes.count
        parent = request.header
        filter = request.filter
        hasFilter = request.has(.filter)
    }

    /// The next row, written to `row`. After `malformed` nothing more is asked.
    package mutating func next(into row: UnsafeMutablePointer<BatchRow>) -> Step {
        guard left > 0 else { return cursor == end ? .end : .malformed }
        guard end - cursor >= BatchRows.rowHeadSize else { return .malformed }
        let head = cursor
        let flags = head.load(fromByteOffset: 24, as: UInt8.self)
        cursor = head + BatchRows.rowHeadSize
        let isRepeat = flags & RowFlag.repeat != 0
        if isRepeat {
            // A key belongs to one record.
            guard hasDescriptor, !descriptor.has(.key) else { return .malformed }
        } else {
            guard parseDescriptor(flags) else { return .malformed }
        }
        left -= 1
        row.pointee.request = descriptor
        row.pointee.request.digest = Digest(head + 4)
        row.pointee.index = head.bigEndian(UInt32.self)
        return .row(isRepeat: isRepeat)
    }

    /// Reads what a row says beside its digest.
    private mutating func parseDescriptor(_ flags: UInt8) -> Bool {
        let start = cursor
        guard let header = parseHeader(flags) else { return false }
        descriptor = RequestView.empty
        descriptor.header = header
        guard let fieldsEnd = descriptor.parseFields(start, from: cursor - start, to: end - start),
            descriptor.fieldStart?.load(fromByteOffset: 4, as: UInt8.self) == FieldNumber.namespace.rawValue
        else { return false }
        let rest = UnsafeRawBufferPointer(start: start + fieldsEnd, count: end - start - fieldsEnd)
        guard let operationsSize = OperationSequence.byteCount(rest, count: Int(header.operationCount)) else { return false }
        descriptor.operationBytes = UnsafeRawBufferPointer(rebasing: rest[..<operationsSize])
        descriptor.bytes = UnsafeRawBufferPointer(start: start, count: fieldsEnd + operationsSize)
        cursor = start + fieldsEnd + operationsSize
        if hasFilter, !descriptor.has(.filter) {
            descriptor.filter = filter
            descriptor.fieldsPresent |= RequestView.mask(.filter)
        }
        descriptor.fieldsPresent |= RequestView.mask(.digest)
        descriptor.isDigestMalformed = false
        hasDescriptor = true
        return true
    }

    /// Reads the parts of a message header that the row flags announce; nil if they reach outside.
    private mutating func parseHeader(_ flags: UInt8) -> MessageHeader? {
        let hasInfo = flags & RowFlag.info != 0
        let hasInfo4 = flags & RowFlag.info4 != 0
        let hasGeneration = flags & RowFlag.generation != 0
        let hasTimeToLive = flags & RowFlag.timeToLive != 0
        let size = 5 + (hasInfo ? 2 : 0) + (hasInfo4 ? 1 : 0) + (hasGeneration ? 2 : 0) + (hasTimeToLive ? 4 : 0)
        guard end - cursor >= size else { return nil }
        var header = MessageHeader()
        // Compression and origin are the batch's affair.
        header.info1 = Info1(rawValue: cursor.load(as: UInt8.self) & ~(Info1.compressResponse.rawValue | Info1.xdr.rawValue))
        cursor += 1
        if hasInfo {
            header.info2 = Info2(rawValue: cursor.load(as: UInt8.self))
            header.info3 = Info3(rawValue: cursor.load(fromByteOffset: 1, as: UInt8.self))
            cursor += 2
        } else if flags == 0 {
            // The oldest form: how consistent a read is stands in the batch's header.
            header.info3 = Info3(rawValue: parent.info3.rawValue & (Info3.readType.rawValue | Info3.readRelax.rawValue))
        }
        if hasInfo4 {
            header.info4 = cursor.load(as: UInt8.self)
            cursor += 1
        }
        if hasGeneration {
            header.generation = UInt32(cursor.bigEndian(UInt16.self))
            cursor += 2
        }
        if hasTimeToLive {
            header.timeToLive = cursor.bigEndian(UInt32.self)
            cursor += 4
        }
        header.transactionTimeout = parent.transactionTimeout
        // Old clients do not count the namespace.
        header.fieldCount = max(cursor.bigEndian(UInt16.self), 1)
        header.operationCount = cursor.bigEndian(UInt16.self, at: 2)
        cursor += 4
        return header
    }

    /// The batch's bytes have moved: everything that points into them follows.
    package mutating func rebase(by distance: Int) {
        cursor += distance
        end += distance
        filter = filter.moved(by: distance)
        descriptor.rebase(by: distance)
    }
}

extension RequestView {
    /// The bit of a field in `fieldsPresent`.
    static func mask(_ field: FieldNumber) -> UInt64 { 1 << UInt64(field.rawValue) }

    /// The bytes that the view points into have moved.
    package mutating func rebase(by distance: Int) {
        bytes = bytes.moved(by: distance)
        namespace = namespace.moved(by: distance)
        set = set.moved(by: distance)
        key = key.moved(by: distance)
        filter = filter.moved(by: distance)
        fieldStart = fieldStart.map { $0 + distance }
        operationBytes = operationBytes.moved(by: distance)
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func moved(by distance: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: baseAddress.map { $0 + distance }, count: count)
    }
}
