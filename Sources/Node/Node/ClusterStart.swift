// From the configuration to what the cluster part of a node is told: sockets, settings, what was stored.
internal import Assembly
internal import Base
internal import CReactor
internal import Configuration
internal import Engine
internal import Fabric
internal import Membership
internal import Partitions
internal import Reactor
internal import Storage

extension ClusterSettings {
    /// What the node is configured to.
    init(_ configuration: NodeConfiguration) {
        self.init()
        let service = configuration.service
        clusterName = service.clusterName ?? ""
        minClusterSize = service.minClusterSize
        startWaitMilliseconds = service.startWait * 1000
        startWaitMaxMilliseconds = service.startWait * 4000
        if let configured = configuration.network.heartbeat { heartbeat = HeartbeatBoot(configured) }
        namespaces = configuration.namespaces.map { NamespaceClusterSettings($0) }
            .sorted { Array($0.name.utf8).lexicographicallyPrecedes(Array($1.name.utf8)) }
    }
}

extension HeartbeatBoot {
    init(_ configured: HeartbeatConfiguration) {
        self.init()
        mode = configured.mode == .mesh ? .mesh : .multicast
        seeds = configured.mode == .mesh
            ? configured.seeds.map { SeedName(host: $0.host, port: UInt16(truncatingIfNeeded: $0.port)) } : []
        intervalMilliseconds = configured.intervalMilliseconds
        timeoutIntervals = configured.timeoutIntervals
        connectTimeoutMilliseconds = configured.connectTimeoutMilliseconds
        datagramSizeMax = configured.datagramSizeMax
    }
}

extension NamespaceClusterSettings {
    /// Settings that had better be the same on all nodes, beside those that the map names itself.
    private static let comparedNames = [
        "default-ttl", "max-record-size", "nsup-period", "allow-ttl-without-nsup", "disallow-null-setname",
        "conflict-resolution-policy", "strong-consistency",
    ]

    init(_ configured: NamespaceConfiguration) {
        self.init(name: configured.name)
        func number(_ name: String) -> UInt32 { UInt32(clamping: configured.number(name)) }
        replicationFactor = number("replication-factor")
        rackID = number("rack-id")
        activeRack = number("active-rack")
        prefersUniformBalance = configured.flag("prefer-uniform-balance")
        isStronglyConsistent = configured.strongConsistency
        conflictPolicy = configured.text("conflict-resolution-policy")
        recordSizeMax = UInt64(configured.maxRecordSize)
        stopWritesUsedPercent = LiveNamespaceSettings(configured).stopWritesUsedPercent
        compared = NamespaceClusterSettings.comparedNames.map { NamespaceSetting(name: $0, value: configured.text($0)) }
    }
}

extension ClusterSockets {
    /// Takes ports and joins groups, if the node is not to be alone.
    init(_ network: NetworkConfiguration) throws(StartError) {
        self.init()
        guard let configured = network.heartbeat else { return }
        do throws(ListenError) {
            fabric = try ClusterSockets.listen(network.fabric, "fabric")
            if configured.mode == .mesh { heartbeat = try ClusterSockets.listen(configured.endpoint, "heartbeat") }
        } catch {
            throw StartError(error.message)
        }
        guard configured.mode == .multicast else { return }
        groups = try ClusterGroups.join(
            configured.multicastGroups, port: configured.endpoint.port ?? 0,
            interface: configured.endpoint.bindAddresses.first ?? "any", timeToLive: configured.multicastTimeToLive)
    }

    private static func listen(
        _ settings: EndpointConfiguration, _ setting: String
    ) throws(ListenError) -> [Listener] {
        var listeners: [Listener] = []
        // Port 0 of several addresses is one port.
        var port = settings.port ?? 0
        for address in settings.bindAddresses {
            let listener = try Listener.open(address: address, port: port, kind: 0, setting: setting, isOpen: false)
            port = listener.port
            listeners.append(listener)
        }
        return listeners
    }

    /// From here on other nodes can connect: before, a node that is starting would keep what they send for later.
    func open() throws(StartError) {
        do throws(ListenError) {
            for listener in fabric { try listener.open(setting: "fabric") }
            for listener in heartbeat { try listener.open(setting: "heartbeat") }
        } catch {
            throw StartError(error.message)
        }
    }

    /// Where other nodes dial this one.
    var addresses: NodeAddresses {
        NodeAddresses(heartbeat: ClusterSockets.reachable(heartbeat), fabric: ClusterSockets.reachable(fabric))
    }

    private static func reachable(_ listeners: [Listener]) -> [Address] {
        listeners.flatMap { listener in
            Interfaces.addresses(behind: listener.address).map {
                Address(host: $0, port: UInt16(truncatingIfNeeded: listener.port))
            }
        }
    }
}

extension NodeState {
    /// How clients reach this node.
    var services: ServiceAddresses {
        ServiceAddresses(clear: serviceEndpoints.map(\.text), clearAlternate: alternateEndpoints.map(\.text))
    }

    /// The second set of addresses told to clients.
    var alternateEndpoints: [Endpoint] {
        let service = configuration.network.service
        let port = service.alternateAccessPort ?? serviceEndpoints.first?.port ?? 0
        return service.alternateAccessAddresses.map { Endpoint(address: $0, port: port) }
    }
}
