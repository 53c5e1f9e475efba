// Loads and stores of unaligned big-endian integers on raw memory: the byte order of the client protocol. The
// caller has checked the bounds; these are single instructions.

extension UnsafeRawPointer {
    /// The big-endian integer at `offset` bytes from here; needs no alignment.
    @inlinable
    public func bigEndian<Integer: FixedWidthInteger & BitwiseCopyable>(
        _ type: Integer.Type, at offset: Int = 0
    ) -> Integer {
        Integer(bigEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }

    /// The little-endian integer at `offset` bytes from here; needs no alignment.
    @inlinable
    public func littleEndian<Integer: FixedWidthInteger & BitwiseCopyable>(
        _ type: Integer.Type, at offset: Int = 0
    ) -> Integer {
        Integer(littleEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension UnsafeMutableRawPointer {
    /// Stores `value` big-endian at `offset` bytes from here; needs no alignment.
    @inlinable
    public func storeBigEndian<Integer: FixedWidthInteger & BitwiseCopyable>(_ value: Integer, at offset: Int = 0) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: Integer.self)
    }

    /// Stores `value` little-endian at `offset` bytes from here; needs no alignment.
    @inlinable
    public func storeLittleEndian<Integer: FixedWidthInteger & BitwiseCopyable>(
        _ value: Integer, at offset: Int = 0
    ) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: Integer.self)
    }
}

extension UnsafeRawBufferPointer {
    /// Whether both views hold the same bytes.
    @inlinable
    public func equals(_ other: UnsafeRawBufferPointer) -> Bool {
        guard count == other.count else { return false }
        guard count > 0, let left = baseAddress, let right = other.baseAddress else { return true }
        return bytesEqual(left, right, count)
    }

    /// The bytes as text, damaged UTF-8 repaired. Allocates: not for the data path.
    public var text: String { String(decoding: self, as: UTF8.self) }
}
