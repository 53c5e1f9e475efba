// Where this node listens, and where it reaches the others, as tools for operators ask.
internal import Assembly
internal import Configuration
internal import Fabric
internal import Membership
internal import Wire

extension InfoService {
    static let endpointCommands: [String: Command] = [
        "endpoints": { service, _ in statisticsText(service.endpoints) },
        // Deprecated: the heartbeat's own addresses.
        "mesh": { service, _ in
            let own = service.state.nodeAddresses.heartbeat
            guard !own.isEmpty else { return InfoError.text(4, "this node's heartbeat mode is not mesh") }
            return InfoService.list(own)
        },
        "mcast": { service, _ in
            guard let groups = service.groups else {
                return InfoError.text(4, "this node's heartbeat mode is not multicast")
            }
            return InfoService.list(groups)
        },
    ]

    private static func list(_ addresses: [Address]) -> String { addresses.map(\.description).joined(separator: ",") }

    /// The multicast groups of the heartbeat; nil if it uses none.
    private var groups: [Address]? {
        guard let heartbeat = state.configuration.network.heartbeat, heartbeat.mode == .multicast else { return nil }
        let port = UInt16(truncatingIfNeeded: heartbeat.endpoint.port ?? 0)
        return heartbeat.multicastGroups.map { Address(host: $0, port: port) }
    }

    /// Lists with commas; what this node does not listen on is left out.
    private var endpoints: [(String, String)] {
        let service = state.configuration.network.service
        var values = InfoService.bound("service", state.serviceEndpoints) + [
            ("service.access-port", "\(service.accessPort ?? 0)"),
            ("service.access-addresses", service.accessAddresses.joined(separator: ",")),
            ("service.alternate-access-port", "\(service.alternateAccessPort ?? 0)"),
            ("service.alternate-access-addresses", service.alternateAccessAddresses.joined(separator: ",")),
        ]
        if !state.adminEndpoints.isEmpty { values += InfoService.bound("admin", state.adminEndpoints) }
        guard let heartbeat = state.configuration.network.heartbeat else { return values }
        if let groups {
            values += [("heartbeat.port", "\(groups.first?.port ?? 0)"), ("heartbeat.multicast", InfoService.list(groups))]
        } else {
            values += InfoService.bound("heartbeat", InfoService.ends(state.nodeAddresses.heartbeat))
            values += heartbeat.seeds.map {
                ("heartbeat.mesh", Address(host: $0.host, port: UInt16(truncatingIfNeeded: $0.port)).description)
            }
        }
        values += InfoService.bound("fabric", InfoService.ends(state.nodeAddresses.fabric))
        return values + state.cluster.figures.fabricPeers.map {
            ("fabric.peer", "node-id=\($0.member.id):addresses=\(InfoService.list($0.addresses))")
        }
    }

    private static func ends(_ addresses: [Address]) -> [Endpoint] {
        addresses.map { Endpoint(address: $0.host, port: Int($0.port)) }
    }

    private static func bound(_ block: String, _ endpoints: [Endpoint]) -> [(String, String)] {
        [
            ("\(block).port", "\(endpoints.first?.port ?? 0)"),
            ("\(block).addresses", endpoints.map(\.address).joined(separator: ",")),
        ]
    }
}
