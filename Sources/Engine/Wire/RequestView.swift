// A data request, parsed in one pass over its bytes. Invariants:
// 1. Every pointer lies inside `bytes`; the view is valid as long as they are.
// 2. All operations were walked: sizes, names and values lie inside `operationBytes`, which ends where the
//    body ends.
package import Base

/// A data request as views into its bytes.
package struct RequestView: BitwiseCopyable {
    /// The whole body.
    package var bytes: UnsafeRawBufferPointer
    package var header: MessageHeader
    /// Bit n is set if field n is there; fields above 63 are skipped.
    package var fieldsPresent: UInt64
    package var namespace: UnsafeRawBufferPointer
    package var set: UnsafeRawBufferPointer
    /// Particle type byte and key bytes.
    package var key: UnsafeRawBufferPointer
    /// Filter expression: the request's own, or that of the batch it is a row of. Empty unless `has(.filter)`.
    package var filter: UnsafeRawBufferPointer
    /// Where the request's own fields begin, as on the wire.
    var fieldStart: UnsafeRawPointer?
    /// All operations, as on the wire.
    package var operationBytes: UnsafeRawBufferPointer
    /// Zero unless `has(.digest)` and not `isDigestMalformed`.
    package var digest: Digest
    /// A digest field that has not 20 bytes.
    package var isDigestMalformed: Bool

    /// A request without anything.
    package static var empty: RequestView { RequestView(UnsafeRawBufferPointer(start: nil, count: 0)) }

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        header = MessageHeader()
        fieldsPresent = 0
        namespace = UnsafeRawBufferPointer(start: nil, count: 0)
        set = namespace
        key = namespace
        filter = namespace
        operationBytes = namespace
        digest = Digest(low: 0, middle: 0, high: 0)
        isDigestMalformed = false
    }

    /// How many operations there are.
    package var operationCount: Int { Int(header.operationCount) }

    /// Whether the field is there.
    @inlinable
    package func has(_ field: FieldNumber) -> Bool { fieldsPresent & (1 << UInt64(field.rawValue)) != 0 }

    /// A mask for `fieldsPresent`.
    package static func fieldMask(_ fields: [FieldNumber]) -> UInt64 {
        fields.reduce(0) { $0 | 1 << UInt64($1.rawValue) }
    }

    /// The operations in order.
    package var operations: OperationSequence { OperationSequence(operationBytes, count: operationCount) }

    /// The value of a field; found by walking the fields again.
    package func field(_ number: FieldNumber) -> UnsafeRawBufferPointer? {
        guard has(number) else { return nil }
        if number == .filter { return filter }
        guard var field = fieldStart else { return nil }
        for _ in 0..<header.fieldCount {
            let size = Int(field.bigEndian(UInt32.self))
            if field.load(fromByteOffset: 4, as: UInt8.self) == number.rawValue {
                return UnsafeRawBufferPointer(start: field + 5, count: size - 1)
            }
            field += 4 + size
        }
        return nil
    }
}

/// What parsing came to.
package enum RequestParse: BitwiseCopyable {
    case request(RequestView)
    /// Sizes do not fit together: answer 4.
    case malformed
}

extension RequestView {
    /// Parses the body of a data message.
    package static func parse(_ body: UnsafeRawBufferPointer) -> RequestParse {
        var request = RequestView.empty
        return parse(body, into: &request) ? .request(request) : .malformed
    }

    /// Parses the body of a data message in place; false if it is malformed.
    package static func parse(_ body: UnsafeRawBufferPointer, into request: inout RequestView) -> Bool {
        guard body.count >= MessageHeader.byteCount, let base = body.baseAddress else { return false }
        request = RequestView(body)
        request.header = MessageHeader(base)
        guard let fieldsEnd = request.parseFields(base, from: MessageHeader.byteCount, to: body.count) else { return false }
        request.operationBytes = UnsafeRawBufferPointer(start: base + fieldsEnd, count: body.count - fieldsEnd)
        return OperationSequence.fits(request.operationBytes, count: request.operationCount)
    }

    /// Reads as many fields as the header says; returns where they end, nil if a size does not fit.
    mutating func parseFields(_ base: UnsafeRawPointer, from start: Int, to count: Int) -> Int? {
        var offset = start
        fieldStart = base + start
        for _ in 0..<header.fieldCount {
            guard count - offset >= 5 else { return nil }
            let size = Int(base.bigEndian(UInt32.self, at: offset))
            guard size >= 1, count - offset - 4 >= size else { return nil }
            let number = base.load(fromByteOffset: offset + 4, as: UInt8.self)
            take(number, UnsafeRawBufferPointer(start: base + offset + 5, count: size - 1))
            offset += 4 + size
        }
        return offset
    }

    private mutating func take(_ number: UInt8, _ value: UnsafeRawBufferPointer) {
        guard number < 64 else { return }
        fieldsPresent |= 1 << UInt64(number)
        switch number {
        case FieldNumber.namespace.rawValue: namespace = value
        case FieldNumber.set.rawValue: set = value
        case FieldNumber.key.rawValue: key = value
        case FieldNumber.filter.rawValue: filter = value
        case FieldNumber.digest.rawValue:
            if value.count == Digest.byteCount {
                digest = Digest(value.baseAddress!)
            } else {
                isDigestMalformed = true
            }
        default: break
        }
    }
}
