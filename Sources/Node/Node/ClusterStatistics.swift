// The view and the map as statistics, in the original's names.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Fabric
internal import Index
internal import Membership
internal import Partitions
internal import Reactor

extension InfoService {
    /// Only nodes that speak the same version of the format between nodes find each other.
    private static let compatibilityID = 1

    /// What `statistics` says about the cluster.
    var clusterStatistics: [(String, String)] {
        let figures = state.cluster.figures
        let shown = state.phase == .starting ? nil : snapshot
        let view = shown?.phase == .orphan ? nil : shown?.view
        let duplicates = shown?.duplicateNodes ?? []
        let remaining = (shown?.maps ?? []).reduce(0) { $0 + $1.remaining(for: state.nodeID).total }
        return [
            ("cluster_size", "\(view?.members.count ?? 0)"), ("cluster_key", hexadecimal(view?.mark.key ?? 0)),
            // Ours: orders the views, and is the regime of the epochs that begin in this one.
            ("cluster_view_number", "\(view?.mark.number ?? 0)"),
            ("cluster_generation", "\(shown?.rebalanceGeneration ?? 0)"),
            ("cluster_principal", view.map { "\($0.principal)" } ?? "0"),
            ("paxos_principal", view.map { "\($0.principal)" } ?? "0"),
            ("cluster_integrity", "\(view != nil && figures.isIntact)"), ("cluster_is_member", "\(view != nil)"),
            ("cluster_min_compatibility_id", "\(InfoService.compatibilityID)"),
            ("cluster_max_compatibility_id", "\(InfoService.compatibilityID)"),
            ("cluster_clock_skew_ms", "\(figures.clockSkewMilliseconds)"),
            ("cluster_duplicate_nodes", InfoService.list(duplicates)),
            ("cluster_clock_skew_outliers", InfoService.list(figures.clockSkewOutliers)),
            ("cluster_waiting_for", InfoService.list(figures.waitingFor)),
            // Ours: who is heard, and is not in the view.
            ("cluster_nodes_outside", InfoService.list(view == nil ? [] : figures.nodesOutside)),
            ("cluster_problems", "\(shown?.problems.count ?? 0)"),
            ("cluster_map_hash", hexadecimal(view == nil ? 0 : shown?.mapHash ?? 0)),
            ("time_since_rebalance", "\(secondsSinceRebalance)"),
            ("migrate_allowed", "\(shown?.phase == .open)"), ("migrate_partitions_remaining", "\(remaining)"),
            // No namespace stops writes because clocks are apart: there is no limit.
            ("cluster_clock_skew_stop_writes_sec", "0"),
        ] + streamStatistics(figures)
    }

    /// Since the view opened; since the start, if there was none.
    private var secondsSinceRebalance: UInt64 {
        SystemClock.monotonic().nanoseconds(since: state.cluster.rebalancedAt ?? state.started) / 1_000_000_000
    }

    private func streamStatistics(_ figures: ClusterFigures) -> [(String, String)] {
        let rates = state.fabricRates.rates
        return [
            ("heartbeat_connections", "\(figures.heartbeatConnections)"),
            ("heartbeat_connections_opened", "\(figures.heartbeatOpened)"),
            ("heartbeat_connections_closed", "\(figures.heartbeatClosed)"),
            ("heartbeat_received_self", "\(figures.heartbeatReceivedSelf)"),
            ("heartbeat_received_foreign", "\(figures.heartbeatReceivedForeign)"),
            ("fabric_connections", "\(figures.fabricConnections)"),
            ("fabric_connections_opened", "\(figures.fabricOpened)"),
            ("fabric_connections_closed", "\(figures.fabricClosed)"),
            // Of the original's channels there are no `bulk` and `rw` yet: records do not travel between nodes.
            ("fabric_ctrl_send_rate", "\(rates.controlSent)"), ("fabric_ctrl_recv_rate", "\(rates.controlReceived)"),
            ("fabric_meta_send_rate", "\(rates.metadataSent)"), ("fabric_meta_recv_rate", "\(rates.metadataReceived)"),
        ]
    }

    private static func list(_ nodes: [NodeID]) -> String {
        nodes.isEmpty ? "null" : nodes.map { "\($0)" }.joined(separator: ",")
    }

    static let problemCommands: [String: Command] = [
        // Ours: what is wrong in the cluster, a sentence each.
        "cluster-problems": { service, _ in (service.snapshot?.problems ?? []).joined(separator: ";") }
    ]
}

extension NamespaceStatistics {
    /// What `namespace/<ns>` says about the namespace's map.
    static func cluster(_ namespace: Namespace, _ state: NodeState) -> [(String, String)] {
        let name = namespace.settings.name
        let map = state.cluster.snapshot?.map(name)
        let isQuiesced = map.flatMap { map in map.number(of: state.nodeID).map { map.quiesced[Int($0)] } } ?? false
        let work = map?.remaining(for: state.nodeID) ?? MigrationWork()
        return [
            ("ns_cluster_size", "\(map?.nodes.count ?? 0)"),
            ("effective_replication_factor", "\(map?.copies ?? 0)"),
            ("effective_active_rack", "\(map?.activeRack ?? 0)"),
            ("effective_prefer_uniform_balance", "\(map?.isUniform ?? true)"),
            ("effective_is_quiesced", "\(isQuiesced)"),
            ("nodes_quiesced", "\((map?.quiesced ?? []).reduce(0) { $0 + ($1 ? 1 : 0) })"),
            ("pending_quiesce", "\(state.cluster.figures.isQuiescePending)"),
            ("unavailable_partitions", "\(map?.unavailableCount ?? PartitionID.count)"), ("dead_partitions", "0"),
            ("migrate_tx_partitions_remaining", "\(work.out)"), ("migrate_rx_partitions_remaining", "\(work.in)"),
            ("migrate_tx_partitions_lead_remaining", "\(work.lead)"),
            ("migrate_fresh_partitions", "\(state.cluster.snapshot?.bundle?.freshCount(name, of: state.nodeID) ?? 0)"),
        ] + objects(namespace, map, state.nodeID)
    }

    /// Records by what this node is for their partitions.
    private static func objects(_ namespace: Namespace, _ map: NamespaceMap?, _ me: NodeID) -> [(String, String)] {
        var counts = (master: 0, prole: 0, other: 0)
        let own = map?.number(of: me)
        for partition in 0..<PartitionID.count {
            let count = namespace.index.count(PartitionID(UInt16(partition)))
            guard count > 0 else { continue }
            switch own.flatMap({ map?.clientColumn(of: $0, partition) }) {
            case 0: counts.master += count
            case nil: counts.other += count
            default: counts.prole += count
            }
        }
        let tombstones = namespace.tombstoneCount
        // Tombstones are not counted by partition: they count for the part that has most, which on a node alone is all.
        return [
            ("master_objects", "\(max(counts.master - tombstones, 0))"), ("master_tombstones", "\(tombstones)"),
            ("prole_objects", "\(counts.prole)"), ("prole_tombstones", "0"),
            ("non_replica_objects", "\(counts.other)"), ("non_replica_tombstones", "0"),
        ]
    }
}

/// Copies that are to be sent and received.
struct MigrationWork {
    var out = 0
    /// Of `out` those that the acting master may lack.
    var lead = 0
    var `in` = 0
    var total: Int { out + `in` }
}

extension NamespaceMap {
    /// What a node has to send and to receive until all copies are complete.
    func remaining(for node: NodeID) -> MigrationWork {
        var work = MigrationWork()
        guard let own = number(of: node) else { return work }
        for (partition, nodes) in fills {
            if actingMasters[Int(partition.number)] == own { work.out += nodes.count }
            if nodes.contains(own) { work.in += 1 }
        }
        for (partition, nodes) in duplicates {
            if actingMasters[Int(partition.number)] == own { work.in += nodes.count }
            if nodes.contains(own) {
                work.out += 1
                work.lead += 1
            }
        }
        return work
    }
}

extension ClusterMap {
    /// Partitions that this node has since the view, and that no member had before: new and empty.
    func freshCount(_ namespace: String, of node: NodeID) -> Int {
        guard let map = map(namespace), let own = map.number(of: node) else { return 0 }
        let claims = blocks.compactMap { entry in entry.block.namespaces.first { $0.name == namespace }?.claims }
        return (0..<PartitionID.count).count { partition in
            map.column(of: own, partition) != nil && !claims.contains { $0.hasCopy(partition) }
        }
    }
}
