// The way back: bytes of the network, which may hold anything.
package import Base

/// Why bytes cannot be understood.
package struct FabricError: Error, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// Reads what a `FabricWriter` has written. Never reads beyond the end, never allocates more than a small multiple of what
/// is there.
package struct FabricReader {
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    package init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    package init(_ bytes: [UInt8]) { self.init(bytes[...]) }

    /// Bytes that have not been read.
    package var left: Int { bytes.endIndex - position }

    private mutating func take(_ count: Int) throws(FabricError) -> ArraySlice<UInt8> {
        guard count >= 0, count <= left else { throw missing(count) }
        defer { position += count }
        return bytes[position..<(position + count)]
    }

    /// Inlined into other modules: what is generic costs ten times as much there.
    @inlinable
    package mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) throws(FabricError) -> Value {
        Value(truncatingIfNeeded: try word(size: Value.bitWidth / 8))
    }

    /// The next bytes, at most 8 of them, as a number: the first counts most.
    @usableFromInline
    package mutating func word(size: Int) throws(FabricError) -> UInt64 {
        guard size <= left else { throw missing(size) }
        var value: UInt64 = 0
        for place in position..<(position + size) { value = value << 8 | UInt64(bytes[place]) }
        position += size
        return value
    }

    private func missing(_ count: Int) -> FabricError {
        FabricError("\(count) bytes are announced, \(left) are there")
    }

    package mutating func byte() throws(FabricError) -> UInt8 {
        guard position < bytes.endIndex else { throw missing(1) }
        defer { position += 1 }
        return bytes[position]
    }

    package mutating func flag() throws(FabricError) -> Bool {
        switch try byte() {
        case 0: return false
        case 1: return true
        case let other: throw FabricError("\(other) is no flag")
        }
    }

    package mutating func varint() throws(FabricError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while shift < 64 {
            let next = try byte()
            guard shift < 63 || next <= 1 else { break }
            value |= UInt64(next & 0x7F) << shift
            if next & 0x80 == 0 { return value }
            shift += 7
        }
        throw FabricError("a number is too long")
    }

    /// A count of things of which each takes at least `size` bytes: what cannot be there is refused before it is allocated.
    package mutating func count(ofSize size: Int = 1) throws(FabricError) -> Int {
        let count = try varint()
        guard count <= UInt64(left / max(size, 1)) else {
            throw FabricError("\(count) things are announced, \(left) bytes are there")
        }
        return Int(count)
    }

    package mutating func blob() throws(FabricError) -> [UInt8] { Array(try take(try count())) }

    package mutating func text() throws(FabricError) -> String {
        guard let text = String(validating: try take(try count()), as: UTF8.self) else {
            throw FabricError("a text is no UTF-8")
        }
        return text
    }

    package mutating func node() throws(FabricError) -> NodeID { NodeID(rawValue: try integer()) }

    package mutating func member() throws(FabricError) -> Member {
        let member = Member(id: try node(), incarnation: try integer())
        guard member.incarnation != 0 else { throw FabricError("node \(member.id) has no incarnation") }
        return member
    }

    package mutating func address() throws(FabricError) -> Address { Address(host: try text(), port: try integer()) }

    /// Values behind their count; each takes at least `size` bytes.
    package mutating func list<Element>(
        ofSize size: Int = 1, _ read: (inout FabricReader) throws(FabricError) -> Element
    ) throws(FabricError) -> [Element] {
        let count = try count(ofSize: size)
        var values: [Element] = []
        values.reserveCapacity(count)
        for _ in 0..<count { values.append(try read(&self)) }
        return values
    }

    /// Throws if something is left.
    package func end() throws(FabricError) {
        guard left == 0 else { throw FabricError("\(left) bytes are left over") }
    }
}
