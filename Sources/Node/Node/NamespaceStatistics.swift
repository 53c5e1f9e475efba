internal import Base
internal import Engine
internal import Glibc
internal import Index
internal import Storage

/// The statistics of `namespace/<ns>`, in the original's names. What cannot happen on a lone node without the
/// features of later issues is a true zero.
enum NamespaceStatistics {
    static func values(_ namespace: Namespace, _ state: NodeState) -> [(String, String)] {
        head(namespace) + cluster(namespace, state) + upkeep(namespace) + storage(namespace) + counters(namespace)
            + quiet.map { ($0, "0") }
    }

    private static func head(_ namespace: Namespace) -> [(String, String)] {
        let now = RecordTime(unixMilliseconds: UInt64(time(nil)) * 1000)
        let objects = "\(namespace.objectCount)"
        let tombstones = "\(namespace.tombstoneCount)"
        return [
            ("objects", objects), ("tombstones", tombstones), ("clock_skew_stop_writes", "false"),
            ("current_time", "\(now.seconds)"), ("truncating", "\(namespace.isTruncating(set: 0))"),
            ("truncate_lut", "\(namespace.truncation.time(of: 0))"),
            ("index_used_bytes", "\(namespace.index.usedBytes)"),
            ("set_index_used_bytes", "0"), ("sindex_used_bytes", "0"),
        ]
    }

    private static func storage(_ namespace: Namespace) -> [(String, String)] {
        let figures = namespace.statistics
        let used = figures.totalBytes > 0 ? figures.usedBytes * 100 / figures.totalBytes : 0
        let available = figures.totalBytes > 0 ? figures.availableBytes * 100 / figures.totalBytes : 100
        return [
            ("data_total_bytes", "\(figures.totalBytes)"), ("data_used_bytes", "\(figures.usedBytes)"),
            ("data_used_pct", "\(used)"), ("data_avail_pct", "\(available)"),
            ("data_allocated_bytes", "\(figures.allocatedBytes)"), ("data_compression_ratio", "1.000"),
            ("defrag_moved_records", "\(figures.movedImages)"), ("defrag_blocks", "\(figures.compactedBlocks)"),
            ("backend", namespace.agreement.backend), ("backend_format", "\(namespace.agreement.format)"),
            ("backend_capabilities", namespace.agreement.capabilities.names.joined(separator: ",")),
            ("backend_pressure", "\(figures.pressure)"),
        ] + figures.details.map { ($0.name.hasPrefix("storage-engine.") ? $0.name : "backend.\($0.name)", $0.value) }
    }

    private static func counters(_ namespace: Namespace) -> [(String, String)] {
        NamespaceCounter.allCases.map { ($0.statisticName, "\(namespace.total($0))") }
    }

    /// Names tools read whose value is 0 as long as records do not travel between nodes, and there is no UDF, index,
    /// XDR or strong consistency.
    private static let quiet = [
        "xdr_tombstones", "unreplicated_records", "cache_read_pct",
        "migrate_tx_partitions_active", "migrate_rx_partitions_active", "migrate_tx_partitions_initial",
        "migrate_rx_partitions_initial", "migrate_tx_instances", "migrate_rx_instances", "migrate_tx_partitions_imbalance",
        "migrate_signals_active", "migrate_signals_remaining", "migrate_records_skipped", "migrate_records_transmitted",
        "migrate_record_retransmits", "migrate_record_receives", "migrate_records_unreadable",
        "appeals_tx_active", "appeals_rx_active", "appeals_tx_remaining", "appeals_records_exonerated",
        "client_proxy_complete", "client_proxy_error", "client_proxy_timeout", "client_udf_complete",
        "client_udf_error", "si_query_short_basic_complete", "si_query_long_basic_complete",
        "fail_xdr_forbidden", "fail_mrt_blocked",
    ]
}
