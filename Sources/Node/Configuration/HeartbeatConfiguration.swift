/// `network { heartbeat { ... } }`.
package struct HeartbeatConfiguration: Sendable {
    package enum Mode: String, Sendable { case mesh, multicast }
    /// A node to find others by.
    package struct Seed: Sendable, Equatable {
        /// A name or a numeric address.
        package let host: String
        package let port: Int
    }
    package let mode: Mode
    package let endpoint: EndpointConfiguration
    package let seeds: [Seed]
    /// Numeric addresses.
    package let multicastGroups: [String]
    /// 0 for the system's choice.
    package let multicastTimeToLive: Int
    /// Bytes of the largest datagram.
    package let datagramSizeMax: Int
    package let intervalMilliseconds: UInt64
    package let timeoutIntervals: UInt64
    package let connectTimeoutMilliseconds: UInt64
    private static let portDefault = 3002
    private static let datagramSizeDefault = 1500
    /// What every network that speaks IPv4 carries; a heartbeat that names nobody fits.
    private static let datagramSizeLeast = 576

    init(_ block: ConfiguredBlock, _ report: (Int, String) -> Void) {
        mode = Mode(rawValue: block.text("mode") ?? "") ?? .mesh
        endpoint = EndpointConfiguration(block, portDefault: HeartbeatConfiguration.portDefault)
        seeds = block.written.filter { $0.name == "mesh-seed-address-port" }.compactMap { written in
            let seed = HeartbeatConfiguration.seed(written.value)
            if seed == nil {
                report(written.line, "mesh-seed-address-port takes an address or a name and a port, as in: 10.0.0.1 3002")
            }
            return seed
        }
        multicastGroups = block.list("multicast-group")
        for written in block.written where written.name == "multicast-group" {
            guard !HeartbeatConfiguration.isGroup(written.value) else { continue }
            report(written.line, "multicast-group: \(written.value) is no address of a group: those are 224.0.0.0 to"
                + " 239.255.255.255, as in 239.1.99.222, and IPv6 addresses that begin with ff")
        }
        multicastTimeToLive = Int(block.number("multicast-ttl") ?? 0)
        let size = Int(block.number("mtu") ?? 0)
        datagramSizeMax = size == 0 ? HeartbeatConfiguration.datagramSizeDefault : size
        intervalMilliseconds = block.number("interval") ?? 0
        timeoutIntervals = block.number("timeout") ?? 0
        connectTimeoutMilliseconds = block.number("connect-timeout-ms") ?? 0
        if size != 0, size < HeartbeatConfiguration.datagramSizeLeast {
            report(block.written.last { $0.name == "mtu" }?.line ?? block.line, "mtu: \(size) is too small:"
                + " \(HeartbeatConfiguration.datagramSizeLeast) bytes pass every network, 0 is"
                + " \(HeartbeatConfiguration.datagramSizeDefault)")
        }
        if mode == .multicast, multicastGroups.isEmpty {
            report(block.line, "heartbeat mode multicast needs a group: multicast-group 239.1.99.222")
        }
        if mode == .multicast, endpoint.port == 0 {
            report(block.line, "heartbeat mode multicast needs a port, the same on all nodes")
        }
    }

    private static func isGroup(_ address: String) -> Bool {
        if address.contains(":") {
            let first = address.split(separator: ":", omittingEmptySubsequences: false)[0]
            return first.utf8.count == 4 && first.lowercased().hasPrefix("ff") && UInt16(first, radix: 16) != nil
        }
        let parts = address.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard parts.count == 4, !parts.contains(nil), let first = parts[0] else { return false }
        return (224...239).contains(first)
    }

    /// `host port`, or `host:port` with an IPv6 address in brackets.
    private static func seed(_ text: String) -> Seed? {
        let words = text.split(separator: " ").map { String($0) }
        if words.count == 2 { return seed(words[0], words[1]) }
        guard words.count == 1, let colon = text.lastIndex(of: ":") else { return nil }
        return seed(String(text[..<colon]), String(text[text.index(after: colon)...]))
    }

    private static func seed(_ host: String, _ port: String) -> Seed? {
        var name = host
        if name.hasPrefix("["), name.hasSuffix("]") { name = String(name.dropFirst().dropLast()) }
        guard !name.isEmpty, let number = Int(port), (1...65_535).contains(number) else { return nil }
        return Seed(host: name, port: number)
    }
}
