// Values as the bytes that nodes send each other: integers big-endian or as varints, lists and texts behind their count.
package import Base

/// Writes values behind one another.
package struct FabricWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// Fixed width, the high byte first.
    package mutating func integer(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    /// One byte.
    package mutating func flag(_ value: Bool) { bytes.append(value ? 1 : 0) }

    /// Seven bits a byte, the low ones first: short for small values.
    package mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// A count.
    package mutating func count(_ value: Int) { varint(UInt64(value)) }

    /// Bytes behind their count.
    package mutating func blob(_ value: [UInt8]) {
        count(value.count)
        bytes += value
    }

    /// Text behind the count of its bytes.
    package mutating func text(_ value: String) { blob(Array(value.utf8)) }

    package mutating func node(_ value: NodeID) { integer(value.rawValue) }

    package mutating func member(_ value: Member) {
        node(value.id)
        integer(value.incarnation)
    }

    package mutating func address(_ value: Address) {
        text(value.host)
        integer(value.port)
    }

    /// Values behind their count.
    package mutating func list<Element>(_ values: [Element], _ write: (inout FabricWriter, Element) -> Void) {
        count(values.count)
        for value in values { write(&self, value) }
    }
}
