// Namespaces, sets and their statistics.
internal import Base
internal import Configuration
internal import Engine
internal import Reactor
internal import Storage
internal import Wire

extension InfoService {
    static let dataCommands: [String: Command] = [
        "namespaces": { service, _ in
            service.state.servingNamespaces.map(\.settings.name).joined(separator: ";")
        },
        "namespace": { service, request in
            guard let name = request.arguments.first, let namespace = service.state.namespace(name) else {
                return "type=unknown"
            }
            let configured = service.state.configuration.values(namespace: name)
            return statisticsText(NamespaceStatistics.values(namespace, service.state) + configured)
        },
        "sets": { service, request in service.sets(request) },
        "statistics": { service, _ in statisticsText(service.nodeStatistics) },
        "latencies": { service, request in service.latencies(request) },
        // No secondary index or UDF can exist yet: their lists are empty, and true.
        "sindex-list": { _, _ in "" },
        "sindex": { _, _ in "" },
        "udf-list": { _, _ in "" },
    ]

    // ---- Sets ----

    /// Every record ends with a semicolon, the last one too: tools drop the empty last element blindly.
    private func sets(_ request: InfoRequest) -> String {
        guard let name = request.arguments.first ?? request["namespace"] else {
            return state.servingNamespaces.map { sets(of: $0) }.joined()
        }
        guard let namespace = state.namespace(name) else { return "ns_type=unknown" }
        guard let wanted = request.bytes(argument: 1) else { return sets(of: namespace) }
        guard let id = namespace.existingID(wanted) else { return "" }
        return properties(of: id, namespace) + ";"
    }

    private func setIDs(_ namespace: Namespace) -> [UInt16] {
        let count = namespace.sets.count
        return count == 0 ? [] : (1...UInt16(count)).map { $0 }
    }

    private func sets(of namespace: Namespace) -> String {
        setIDs(namespace).map { id in
            let name = namespace.sets.name(of: id).text
            return "ns=\(namespace.settings.name):set=\(name):\(properties(of: id, namespace));"
        }.joined()
    }

    private func properties(of id: UInt16, _ namespace: Namespace) -> String {
        let objects = namespace.counters.reduce(Int64(0)) { $0 + $1.setObjects(id) }
        let bytes = namespace.counters.reduce(Int64(0)) { $0 + $1.setBytes(id) }
        let tombstones = namespace.counters.reduce(Int64(0)) { $0 + $1.setTombstones(id) }
        let values = [
            ("objects", "\(max(objects, 0))"), ("tombstones", "\(max(tombstones, 0))"),
            ("data_used_bytes", "\(max(bytes, 0))"),
            ("truncate_lut", "\(namespace.truncation.time(of: id))"), ("sindexes", "0"), ("index_populating", "false"),
            ("truncating", "\(namespace.isTruncating(set: id))"),
        ] + SetConfiguration.names.map { ($0, namespace.setValue(id, $0)) }
        return values.map { "\($0.0)=\($0.1)" }.joined(separator: ":")
    }

    // ---- Latencies ----

    /// In the original's order. Those of requests that answer 16 so far are listed, and never active.
    private static let histograms = [
        "read", "write", "udf", "batch-sub-read", "batch-sub-write", "batch-sub-udf", "pi-query", "si-query",
    ]

    private func latencies(_ request: InfoRequest) -> String {
        let isMicroseconds = state.live.current.pointee.hasMicrosecondHistograms
        func entry(_ name: String) -> String {
            guard let interval = state.latencies.interval(name) else { return "\(name):" }
            return "\(name):" + LatencyHistory.text(interval, microseconds: isMicroseconds)
        }
        let names = [LatencyHistory.batchIndex] + state.servingNamespaces.flatMap { namespace in
            Self.histograms.map { "{\(namespace.settings.name)}-\($0)" }
        }
        guard let wanted = request["hist"] else { return names.map(entry).joined(separator: ";") }
        guard names.contains(wanted) else { return InfoError.text(4, "bad hist name") }
        return entry(wanted)
    }

    // ---- The node ----

    private var nodeStatistics: [(String, String)] {
        let memory = SystemMemory.now()
        let network = state.reactors.totals()
        let now = SystemClock.now().monotonic
        let upSeconds = now.nanoseconds(since: state.started) / 1_000_000_000
        return [
            ("failed_best_practices", "false"),
            ("wall_clock_steps", "\(state.clockSteps)"), ("uptime", "\(upSeconds)"),
            ("system_free_mem_kbytes", "\(memory.availableKilobytes)"),
            ("system_free_mem_pct", "\(memory.freePercent)"),
            ("process_rss_kbytes", "\(memory.residentKilobytes)"),
            ("client_connections", "\(network.clientConnections)"),
            ("client_connections_opened", "\(network.opened)"), ("client_connections_closed", "\(network.closed)"),
            ("admin_connections", "\(network.adminConnections)"), ("reaped_fds", "\(network.reaped)"),
            ("refused_connections", "\(network.refused)"),
            ("info_complete", "\(network.infoCompleted)"), ("demarshal_error", "\(network.malformed)"),
            ("early_tsvc_client_error", "\(network.early)"),
            ("objects", "\(state.servingNamespaces.reduce(0) { $0 + $1.objectCount })"),
            ("tombstones", "\(state.servingNamespaces.reduce(0) { $0 + $1.tombstoneCount })"),
        ] + clusterStatistics + batchStatistics + state.reactors.busyStatistics()
    }

    /// Each late batch has one buffer; they are made and freed with it.
    private var batchStatistics: [(String, String)] {
        let counters = state.reactors.batchCounters
        return BatchCounters.Name.allCases.map { name in
            (name.statisticName, "\(counters.reduce(0) { $0 + $1.value(of: name) })")
        } + [
            ("batch_index_unused_buffers", "0"),
            ("batch_index_queue", counters.map { "\($0.underWay):\($0.underWay)" }.joined(separator: ",")),
        ]
    }
}
