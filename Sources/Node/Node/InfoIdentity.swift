internal import Configuration
internal import Engine
internal import Logging
internal import Wire

/// What the node says about itself. The build names the version of the protocol that is spoken: clients
/// choose their code paths by it.
enum Product {
    /// Version of the protocol.
    static let build = "8.1.2.0"
    /// Version of Apus.
    static let version = "0.1.0"
    static let edition = "Apus"
    #if arch(x86_64)
    static let architecture = "x86_64"
    #else
    static let architecture = "aarch64"
    #endif
}

extension InfoService {
    static let identityCommands: [String: Command] = [
        "node": { service, _ in "\(service.state.nodeID)" },
        "name": { service, _ in "\(service.state.nodeID)" },
        "build": { _, _ in Product.build },
        "edition": { _, _ in Product.edition },
        "version": { _, _ in "\(Product.edition) \(Product.version) build \(Product.build)" },
        "release": { _, _ in
            "edition=\(Product.edition);version=\(Product.build);os=linux;arch=\(Product.architecture)"
                + ";apus-version=\(Product.version)"
        },
        "build_os": { _, _ in "linux" },
        "build_arch": { _, _ in Product.architecture },
        "digests": { _, _ in "RIPEMD160" },
        "partitions": { _, _ in "4096" },
        "status": { service, _ in service.statusText },
        "connection": { service, _ in "admin=\(service.isAdmin)" },
        "help": { service, _ in service.commandNames.joined(separator: ";") },
        "features": { _, _ in features.joined(separator: ";") },
        "objects": { service, _ in
            "\(service.state.servingNamespaces.reduce(0) { $0 + $1.objectCount })"
        },
    ]

    /// Those that note something about a connection: its reactor answers them, while it is open.
    static let connectionCommands: [String: @Sendable (InfoService, InfoRequest, UInt64) -> String] = [
        "user-agent-set": { service, request, connection in service.setUserAgent(request, connection) }
    ]

    /// The words by which Java and Go clients choose their requests. batch-any, pquery, pscans and query-show
    /// say which form of request to send; until those requests exist they answer 16.
    private static let features = [
        "batch-any", "cluster-stable", "float", "peers", "pipelining", "pquery", "pscans", "query-show", "replicas",
        "replicas-all", "replicas-master", "replicas-max",
    ]

    private func setUserAgent(_ request: InfoRequest, _ connection: UInt64) -> String {
        guard let name = request["value"] else { return InfoError.text(4, "missing 'value'") }
        guard UserAgents.fits(name) else { return InfoError.text(4, "bad value") }
        let key = UserAgents.Key(reactor: reactor, connection: connection)
        return state.userAgents.set(key, name) ? "ok" : InfoError.text(4, "already set")
    }

    private var statusText: String {
        switch state.phase {
        case .starting: "starting"
        case .serving: "ok"
        case .stopping: "stopping"
        }
    }
}
