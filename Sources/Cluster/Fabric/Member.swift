package import Base

/// A node on the network: its id and the run of its process. The incarnation is drawn at each start; a new one of a known id
/// is a departure and an arrival.
package struct Member: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
    package let id: NodeID
    /// Never 0.
    package let incarnation: UInt64

    package init(id: NodeID, incarnation: UInt64) {
        self.id = id
        self.incarnation = incarnation
    }

    /// By id, then by incarnation.
    package static func < (left: Member, right: Member) -> Bool {
        (left.id.rawValue, left.incarnation) < (right.id.rawValue, right.incarnation)
    }

    /// `BB9020011AC4202/1f3a`: the id, and the last digits of the incarnation, as logs name it.
    package var description: String { "\(id)/\(String(incarnation & 0xFFFF, radix: 16))" }
}
