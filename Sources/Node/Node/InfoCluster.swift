// What clients ask while tending: who is there, and where.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Fabric
internal import Membership
internal import Partitions
internal import Wire

extension InfoService {
    static let clusterCommands: [String: Command] = tendCommands.merging(peerCommands) { first, _ in first }
        .merging(partitionCommands) { first, _ in first }
        .merging(endpointCommands) { first, _ in first }
        .merging(rosterCommands) { first, _ in first }

    private static let tendCommands: [String: Command] = [
        "cluster-name": { service, _ in service.state.configuration.service.clusterName ?? "null" },
        "partition-generation": { service, _ in service.state.partitionGeneration },
        "rebalance-generation": { service, _ in "\(service.snapshot?.rebalanceGeneration ?? 0)" },
        "peers-generation": { service, _ in "\(service.snapshot?.peersGeneration ?? 0)" },
        "service-clear-std": { service, _ in service.endpointText(service.state.serviceEndpoints) },
        "service-clear-alt": { service, _ in service.endpointText(service.state.alternateEndpoints) },
        "service-tls-std": { _, _ in "" },
        "service-tls-alt": { _, _ in "" },
        "admin-clear-std": { service, _ in service.endpointText(service.state.adminEndpoints) },
        "admin-tls-std": { _, _ in "" },
        "service": { service, _ in service.state.serviceEndpoints.map(\.text).joined(separator: ";") },
        "cluster-stable": { service, request in service.clusterStable(request) },
        "get-sl": { service, _ in
            (service.snapshot?.view?.members ?? []).map { "\($0.id)" }.joined(separator: ",")
        },
    ]

    private static let peerCommands: [String: Command] = [
        "peers-clear-std": { service, request in service.peers(request, \.clear) },
        "peers-clear-alt": { service, request in service.peers(request, \.clearAlternate) },
        "peers-tls-std": { service, request in service.peers(request, \.tls) },
        "peers-tls-alt": { service, request in service.peers(request, \.tlsAlternate) },
        "alumni-clear-std": { service, _ in service.alumni(\.clear) },
        "alumni-clear-alt": { service, _ in service.alumni(\.clearAlternate) },
        "alumni-tls-std": { service, _ in service.alumni(\.tls) },
        "alumni-tls-alt": { service, _ in service.alumni(\.tlsAlternate) },
        "services": { service, _ in service.services(\.clear, withDeparted: false) },
        "services-alternate": { service, _ in service.services(\.clearAlternate, withDeparted: false) },
        "services-alumni": { service, _ in service.services(\.clear, withDeparted: true) },
        "services-alumni-reset": { service, _ in
            service.state.cluster.forgetDeparted()
            return "ok"
        },
    ]

    /// What is published now; nil before the first view.
    var snapshot: ClusterSnapshot? { state.cluster.snapshot }

    func endpointText(_ endpoints: [Endpoint]) -> String { endpoints.map(\.text).joined(separator: ",") }

    // ---- Peers ----

    private static let portDefault = 3000

    /// `generation,3000,[[ID,tls-name,[address]],...]`; with `:generation=n` what has changed since then, departed nodes
    /// without addresses.
    private func peers(_ request: InfoRequest, _ kind: KeyPath<ServiceAddresses, [String]>) -> String {
        let peers = state.cluster.peers
        guard let text = request["generation"] else {
            return peerText(peers.generation, peers.present.map(\.peer), [], kind)
        }
        guard let known = UInt64(text) else { return InfoError.text(4, "bad 'generation'") }
        // A node that was restarted counts from the start: then everything is new.
        let since = known <= peers.generation ? known : 0
        return peerText(
            peers.generation, peers.present.filter { $0.since > since }.map(\.peer),
            peers.departed.filter { $0.since > since }.map(\.peer), kind)
    }

    private func alumni(_ kind: KeyPath<ServiceAddresses, [String]>) -> String {
        let peers = state.cluster.peers
        return peerText(peers.generation, peers.present.map(\.peer) + peers.departed.map(\.peer), [], kind)
    }

    private func peerText(
        _ generation: UInt64, _ present: [PeerDescription], _ departed: [PeerDescription],
        _ kind: KeyPath<ServiceAddresses, [String]>
    ) -> String {
        let isTls = kind == \.tls || kind == \.tlsAlternate
        let here = present.filter { !$0.services[keyPath: kind].isEmpty }.map { peer in
            let addresses = peer.services[keyPath: kind].map { InfoService.withoutDefaultPort($0) }
            return "[\(peer.id),\(isTls ? peer.services.tlsName : ""),[\(addresses.joined(separator: ","))]]"
        }
        let gone = departed.map { "[\($0.id),,]" }
        return "\(generation),\(InfoService.portDefault),[\((here + gone).joined(separator: ","))]"
    }

    private static func withoutDefaultPort(_ address: String) -> String {
        let suffix = ":\(portDefault)"
        return address.hasSuffix(suffix) ? String(address.dropLast(suffix.count)) : address
    }

    /// `address:port` of all others, as tools of old read it: IPv4 only.
    private func services(_ kind: KeyPath<ServiceAddresses, [String]>, withDeparted: Bool) -> String {
        let peers = state.cluster.peers
        let all = peers.present.map(\.peer) + (withDeparted ? peers.departed.map(\.peer) : [])
        return all.flatMap { $0.services[keyPath: kind] }.filter { !$0.hasPrefix("[") }.joined(separator: ";")
    }

    // ---- Stability ----

    /// The key of the view, if all members have the same map, every partition is served, and nothing is to be moved.
    private func clusterStable(_ request: InfoRequest) -> String {
        if let text = request["size"], Int(text).map({ $0 < 0 }) ?? true { return InfoError.text(4, "bad 'size'") }
        if let text = request["ignore-migrations"], text != "true", text != "false" {
            return InfoError.text(4, "bad 'ignore-migrations': true or false")
        }
        if let name = request["namespace"], state.namespace(name) == nil {
            return InfoError.text(20, "namespace not found on node")
        }
        guard state.phase == .serving, let snapshot, snapshot.phase == .open, let view = snapshot.view,
            state.cluster.figures.isIntact
        else { return InfoError.text(7, "unstable cluster") }
        if let size = request["size"], Int(size) != view.members.count {
            return InfoError.text(7, "cluster not specified size")
        }
        let ignoresMigrations = request["ignore-migrations"] == "true"
        for map in snapshot.maps where request["namespace"].map({ $0 == map.name }) ?? true {
            let isMoving = !ignoresMigrations && !(map.fills.isEmpty && map.duplicates.isEmpty)
            guard !isMoving, map.unavailableCount == 0 else { return InfoError.text(7, "unstable cluster") }
        }
        return hexadecimal(view.mark.key)
    }
}

extension NodeState {
    /// Clients refuse a node until this is no longer -1: before the first view.
    var partitionGeneration: String {
        guard phase != .starting, let snapshot = cluster.snapshot, snapshot.view != nil else { return "-1" }
        return "\(snapshot.partitionGeneration)"
    }
}

/// Upper-case digits without leading zeros.
func hexadecimal(_ value: UInt64) -> String { String(value, radix: 16, uppercase: true) }
