internal import CReactor
internal import Glibc

/// Why a port cannot be listened on, and what to do about it.
package struct ListenError: Error, Sendable {
    package let message: String
}

/// A listening socket.
package struct Listener: Sendable {
    /// Numeric address it is bound to.
    package let address: String
    /// Port it is bound to.
    package let port: Int
    /// Handed to `ReactorHandler.receive` for its connections.
    package let kind: UInt8
    let descriptor: Int32
    /// The socket, for owners that are no reactor.
    package var rawDescriptor: Int32 { descriptor }
    private static let backlog: Int32 = 4096

    /// Opens a listener on a numeric address, or on `any` for all IPv4 addresses. Port 0 takes a free one. `setting` is the
    /// block of the configuration that says so, for messages. One that is not open refuses connections until `open`.
    package static func open(
        address: String, port: Int, kind: UInt8, setting: String = "service", isOpen: Bool = true
    ) throws(ListenError) -> Listener {
        let numeric = address == "any" ? "0.0.0.0" : address
        let descriptor = apus_listen(numeric, UInt16(truncatingIfNeeded: port), isOpen ? backlog : -1)
        guard descriptor >= 0 else { throw ListenError(message: explanation(numeric, port, errno, setting)) }
        return Listener(
            address: numeric, port: Int(apus_bound_port(descriptor)), kind: kind, descriptor: descriptor)
    }

    /// From here on connections are taken.
    package func open(setting: String) throws(ListenError) {
        guard listen(descriptor, Listener.backlog) == 0 else {
            throw ListenError(message: Listener.explanation(address, port, errno, setting))
        }
    }

    private static func explanation(_ address: String, _ port: Int, _ reason: Int32, _ setting: String) -> String {
        let place = address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)"
        switch reason {
        case EADDRINUSE:
            return "\(place) is in use by another process: stop it (ss -ltnp shows it) or set another port"
                + (setting == "service" ? "" : " for network.\(setting)")
        case EADDRNOTAVAIL:
            return "\(place): this machine has no such address; set network.\(setting).address to one it has, or any"
        case EACCES: return "\(place): this user may not listen there; ports below 1024 need root"
        case EINVAL: return "\(place): '\(address)' is no numeric IPv4 or IPv6 address"
        default: return "cannot listen on \(place): \(String(cString: strerror(reason)))"
        }
    }
}
