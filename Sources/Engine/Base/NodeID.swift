/// The name of a node in the cluster: 64 bits, printed as upper-case hexadecimal without leading zeros.
public struct NodeID: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
    /// The 64 bits.
    public let rawValue: UInt64

    /// Wraps the bits.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Lower number first.
    public static func < (left: NodeID, right: NodeID) -> Bool { left.rawValue < right.rawValue }

    /// As clients and tools expect it, for example `BB9020011AC4202`.
    public var description: String { String(rawValue, radix: 16, uppercase: true) }
}
