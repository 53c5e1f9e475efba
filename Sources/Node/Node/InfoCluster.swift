// What clients ask while tending, and the view of a cluster of one.
internal import Base
internal import Configuration
internal import Engine
internal import Wire

extension InfoService {
    static let clusterCommands: [String: Command] = [
        "cluster-name": { service, _ in service.state.configuration.service.clusterName ?? "null" },
        "partition-generation": { service, _ in "\(service.state.partitionGeneration)" },
        "rebalance-generation": { service, _ in service.state.phase == .starting ? "0" : "1" },
        "peers-generation": { _, _ in "0" },
        "peers-clear-std": peers, "peers-clear-alt": peers, "peers-tls-std": peers, "peers-tls-alt": peers,
        "alumni-clear-std": peers, "alumni-clear-alt": peers, "alumni-tls-std": peers, "alumni-tls-alt": peers,
        "service-clear-std": { service, _ in service.endpointText(service.state.serviceEndpoints) },
        "service-clear-alt": { service, _ in service.alternateText },
        "service-tls-std": { _, _ in "" },
        "service-tls-alt": { _, _ in "" },
        "admin-clear-std": { service, _ in service.endpointText(service.state.adminEndpoints) },
        "admin-tls-std": { _, _ in "" },
        "service": { service, _ in
            service.state.serviceEndpoints.map(\.text).joined(separator: ";")
        },
        "services": { _, _ in "" },
        "services-alternate": { _, _ in "" },
        "services-alumni": { _, _ in "" },
        "services-alumni-reset": { _, _ in "ok" },
        "replicas": { service, request in service.replicas(request) },
        "replicas-all": { service, _ in
            service.eachNamespace { "\($0.settings.name):1,\(service.partitionBitmap)" }
        },
        "replicas-master": { service, _ in
            service.eachNamespace { "\($0.settings.name):\(service.partitionBitmap)" }
        },
        "rack-ids": { service, _ in service.eachNamespace { "\($0.settings.name):0" } },
        "racks": { service, _ in
            service.eachNamespace { "ns=\($0.settings.name):rack_0=\(service.state.nodeID)" }
        },
        "cluster-stable": { service, request in service.clusterStable(request) },
        "get-sl": { service, _ in "\(service.state.nodeID)" },
    ]

    private static let peers: Command = { _, _ in "0,3000,[]" }

    func endpointText(_ endpoints: [Endpoint]) -> String { endpoints.map(\.text).joined(separator: ",") }

    private var alternateText: String {
        let service = state.configuration.network.service
        let port = service.alternateAccessPort ?? state.serviceEndpoints.first?.port ?? 0
        return endpointText(service.alternateAccessAddresses.map { Endpoint(address: $0, port: port) })
    }

    private func eachNamespace(_ text: (Namespace) -> String) -> String {
        state.servingNamespaces.map(text).joined(separator: ";")
    }

    /// Regime 0, one column: this node is master of everything, once it serves.
    private func replicas(_ request: InfoRequest) -> String {
        if let most = request["max"], Int(most) == nil { return InfoError.text(4, "bad 'max'") }
        guard state.phase != .starting else {
            return state.configuration.namespaces.map { "\($0.name):0,1,\(Self.emptyBitmap)" }.joined(separator: ";")
        }
        return eachNamespace { "\($0.settings.name):0,1,\(partitionBitmap)" }
    }

    private static let emptyBitmap = Base64.encode([UInt8](repeating: 0, count: PartitionID.count / 8))
    private static let fullBitmap = Base64.encode([UInt8](repeating: 0xFF, count: PartitionID.count / 8))
    private var partitionBitmap: String { Self.fullBitmap }

    private func clusterStable(_ request: InfoRequest) -> String {
        guard state.phase == .serving else { return InfoError.text(7, "unstable cluster") }
        if let size = request["size"], size != "1" { return InfoError.text(7, "cluster not specified size") }
        if let name = request["namespace"], state.namespace(name) == nil {
            return InfoError.text(20, "namespace not found on node")
        }
        return hexadecimal(state.clusterKey)
    }
}

/// Upper-case digits without leading zeros.
func hexadecimal(_ value: UInt64) -> String { String(value, radix: 16, uppercase: true) }
