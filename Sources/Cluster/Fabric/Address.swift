/// A numeric address and port of the network.
package struct Address: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Numeric, IPv6 without brackets.
    package let host: String
    package let port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// By host as text, then by port.
    package static func < (left: Address, right: Address) -> Bool {
        left.host == right.host ? left.port < right.port : left.host < right.host
    }

    /// IPv6 in brackets.
    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
