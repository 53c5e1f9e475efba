// The msgpack dialect of the protocol (wire.md 7.1). Invariants:
// 1. `cursor` never passes `end`; no size in the bytes is believed before it is compared with what is left.
// 2. Nothing here recurses: nesting in the bytes costs no stack.
internal import Base

/// One element: a scalar, or the head of a list or map whose elements follow.
enum PackedToken: BitwiseCopyable {
    case none
    case bool(Bool)
    case integer(Int64)
    case float(Double)
    /// Text or blob; in values the first byte is the particle type.
    case bytes(UnsafeRawBufferPointer)
    case list(Int)
    /// Number of pairs.
    case map(Int)
    /// Type and payload.
    case extra(UInt8, UnsafeRawBufferPointer)
}

/// Walks packed elements.
struct PackedReader: BitwiseCopyable {
    private(set) var cursor: UnsafeRawPointer?
    private var left: Int

    init(_ bytes: UnsafeRawBufferPointer) {
        cursor = bytes.baseAddress
        left = bytes.count
    }

    var isAtEnd: Bool { left == 0 }

    /// The bytes from `start`, a cursor of before, to here.
    func bytes(since start: UnsafeRawPointer?) -> UnsafeRawBufferPointer {
        guard let start, let cursor else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(start: start, count: cursor - start)
    }

    private mutating func take(_ count: Int) -> UnsafeRawBufferPointer? {
        guard let start = cursor, count >= 0, count <= left else { return nil }
        cursor = start + count
        left -= count
        return UnsafeRawBufferPointer(start: start, count: count)
    }

    private mutating func takeInteger<Integer: FixedWidthInteger & BitwiseCopyable>(_ type: Integer.Type) -> Integer? {
        take(MemoryLayout<Integer>.size)?.baseAddress?.bigEndian(type)
    }

    /// The next element; nil at the end or if it does not fit.
    mutating func next() -> PackedToken? {
        guard let first = takeInteger(UInt8.self) else { return nil }
        switch first {
        case 0x00...0x7F: return .integer(Int64(first))
        case 0xE0...0xFF: return .integer(Int64(Int8(bitPattern: first)))
        case 0x80...0x8F: return .map(Int(first & 0x0F))
        case 0x90...0x9F: return .list(Int(first & 0x0F))
        case 0xA0...0xBF: return take(Int(first & 0x1F)).map { .bytes($0) }
        case 0xC0: return PackedToken.none
        case 0xC2, 0xC3: return .bool(first == 0xC3)
        case 0xCA: return takeInteger(UInt32.self).map { .float(Double(Float(bitPattern: $0))) }
        case 0xCB: return takeInteger(UInt64.self).map { .float(Double(bitPattern: $0)) }
        case 0xCC: return takeInteger(UInt8.self).map { .integer(Int64($0)) }
        case 0xCD: return takeInteger(UInt16.self).map { .integer(Int64($0)) }
        case 0xCE: return takeInteger(UInt32.self).map { .integer(Int64($0)) }
        case 0xCF: return takeInteger(UInt64.self).map { .integer(Int64(bitPattern: $0)) }
        case 0xD0: return takeInteger(Int8.self).map { .integer(Int64($0)) }
        case 0xD1: return takeInteger(Int16.self).map { .integer(Int64($0)) }
        case 0xD2: return takeInteger(Int32.self).map { .integer(Int64($0)) }
        case 0xD3: return takeInteger(Int64.self).map { .integer($0) }
        default: return nextSized(first)
        }
    }

    private mutating func nextSized(_ first: UInt8) -> PackedToken? {
        switch first {
        case 0xC4, 0xD9: return takeInteger(UInt8.self).flatMap { take(Int($0)) }.map { .bytes($0) }
        case 0xC5, 0xDA: return takeInteger(UInt16.self).flatMap { take(Int($0)) }.map { .bytes($0) }
        case 0xC6, 0xDB: return takeInteger(UInt32.self).flatMap { take(Int($0)) }.map { .bytes($0) }
        case 0xC7: return takeInteger(UInt8.self).flatMap { takeExtra(Int($0)) }
        case 0xC8: return takeInteger(UInt16.self).flatMap { takeExtra(Int($0)) }
        case 0xC9: return takeInteger(UInt32.self).flatMap { takeExtra(Int($0)) }
        case 0xD4...0xD8: return takeExtra(1 << Int(first - 0xD4))
        case 0xDC: return takeInteger(UInt16.self).map { .list(Int($0)) }
        case 0xDD: return takeInteger(UInt32.self).map { .list(Int($0)) }
        case 0xDE: return takeInteger(UInt16.self).map { .map(Int($0)) }
        case 0xDF: return takeInteger(UInt32.self).map { .map(Int($0)) }
        default: return nil
        }
    }

    private mutating func takeExtra(_ count: Int) -> PackedToken? {
        guard let type = takeInteger(UInt8.self), let payload = take(count) else { return nil }
        return .extra(type, payload)
    }

    /// A reader `byteCount` bytes further on, which is not behind the end.
    func advanced(by byteCount: Int) -> PackedReader {
        var reader = self
        let isInside = reader.take(byteCount) != nil
        precondition(isInside, "a reader stays in its bytes")
        return reader
    }

    /// Passes over one element with everything in it; false if it does not fit.
    mutating func skip() -> Bool {
        var unlimited = Int.max
        return skip(&unlimited)
    }

    /// The same, and takes one from `workLeft` for each element; false also if that comes below zero.
    mutating func skip(_ workLeft: inout Int) -> Bool {
        var wanted = 1
        while wanted > 0 {
            workLeft -= 1
            guard workLeft >= 0, let token = next() else { return false }
            wanted -= 1
            switch token {
            case .list(let count): wanted += count
            case .map(let pairs): wanted += 2 * pairs
            default: break
            }
            // Every element takes a byte.
            guard wanted <= left else { return false }
        }
        return true
    }

    /// The number of elements of a list at hand, without its attributes, which are passed over; nil if it is no list.
    mutating func beginList() -> Int? {
        guard case .list(let count)? = next() else { return nil }
        return count - (passAttributes(count) == nil ? 0 : 1)
    }

    /// Passes over the attributes at the head of a list or map of `count` elements; nil if there are none. Those of a map
    /// have an element of their own behind them, which is left.
    mutating func passAttributes(_ count: Int) -> UInt8? {
        var ahead = self
        guard count > 0, case .extra(let type, let payload)? = ahead.next(), payload.isEmpty else { return nil }
        self = ahead
        return type
    }
}
