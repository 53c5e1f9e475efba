// Operations one after the other, as they travel in requests and answers and as the bins of an image are stored
// (decision 002): u32 size of what follows, u8 operation, u8 particle type, u8 flags, u8 bytes of the name, name, in some
// operations eight bytes of last-update time (flag bit 0), value. Big-endian.

/// Walks operations whose sizes have been checked by `fits`.
public struct OperationSequence: BitwiseCopyable {
    /// Bytes of an operation in front of its name.
    @inlinable public static var headerSize: Int { 8 }

    @usableFromInline var cursor: UnsafeRawPointer?
    @usableFromInline var left: Int

    /// The `count` operations at the start of `bytes`.
    @inlinable
    public init(_ bytes: UnsafeRawBufferPointer, count: Int) {
        cursor = bytes.baseAddress
        left = count
    }

    /// Whether `bytes` are exactly `count` operations, none of which reaches outside.
    @inlinable
    public static func fits(_ bytes: UnsafeRawBufferPointer, count: Int) -> Bool {
        byteCount(bytes, count: count) == bytes.count
    }

    /// How many bytes the `count` operations at the start of `bytes` are; nil if one reaches outside.
    @inlinable
    public static func byteCount(_ bytes: UnsafeRawBufferPointer, count: Int) -> Int? {
        guard let base = bytes.baseAddress else { return count == 0 ? 0 : nil }
        var offset = 0
        for _ in 0..<count {
            guard bytes.count - offset >= headerSize else { return nil }
            let size = Int(base.bigEndian(UInt32.self, at: offset))
            guard size >= 4 + nameSize(base + offset) + lastUpdateSize(base + offset), bytes.count - offset - 4 >= size
            else { return nil }
            offset += 4 + size
        }
        return offset
    }

    @inlinable
    static func nameSize(_ operation: UnsafeRawPointer) -> Int {
        Int(operation.load(fromByteOffset: 7, as: UInt8.self))
    }

    @inlinable
    static func lastUpdateSize(_ operation: UnsafeRawPointer) -> Int {
        operation.load(fromByteOffset: 6, as: UInt8.self) & 1 == 1 ? 8 : 0
    }

    /// The next operation, nil at the end.
    @inlinable
    public mutating func next() -> OperationView? {
        guard left > 0, let base = cursor else { return nil }
        left -= 1
        let size = Int(base.bigEndian(UInt32.self))
        let nameSize = OperationSequence.nameSize(base)
        let skipped = nameSize + OperationSequence.lastUpdateSize(base)
        cursor = base + 4 + size
        return OperationView(
            code: base.load(fromByteOffset: 4, as: UInt8.self),
            particleType: base.load(fromByteOffset: 5, as: UInt8.self),
            name: UnsafeRawBufferPointer(start: base + OperationSequence.headerSize, count: nameSize),
            value: UnsafeRawBufferPointer(
                start: base + OperationSequence.headerSize + skipped, count: size - 4 - skipped))
    }
}
