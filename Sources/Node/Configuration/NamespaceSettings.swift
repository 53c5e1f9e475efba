internal import Storage

extension Settings {
    /// `namespace <name> { ... }`.
    static let namespace: [SettingSchema] = [
        .idle("active-rack", .integer(0...1_000_000), "0"),
        .active("allow-ttl-without-nsup", .boolean, "false",
            "accept times to live although nsup-period is 0"),
        .active("apply-ttl-reductions", .boolean, "true", "a write may shorten the time to live"),
        .idle("auto-revive", .boolean, "false"),
        .idle("background-query-max-rps", .integer(1...1_000_000), "10000"),
        .idle("conflict-resolution-policy", .word(["generation", "last-update-time"]), "generation"),
        .idle("conflict-resolve-writes", .boolean, "false"),
        .active("default-read-touch-ttl-pct", .integer(0...100), "0",
            "reads renew a time to live of which less than this percentage is left"),
        .active("default-ttl", .seconds(0...315_360_000), "0",
            "seconds that records live whose write says default; 0 for ever"),
        .idle("disable-cold-start-eviction", .boolean, "false"),
        .idle("disable-mrt-writes", .boolean, "false"),
        .idle("disable-write-dup-res", .boolean, "false"),
        .idle("disallow-expunge", .boolean, "false"),
        .active("disallow-null-setname", .boolean, "false", "writes must name a set"),
        .idle("enable-benchmarks-batch-sub", .boolean, "false"),
        .idle("enable-benchmarks-ops-sub", .boolean, "false"),
        .idle("enable-benchmarks-read", .boolean, "false"),
        .idle("enable-benchmarks-udf", .boolean, "false"),
        .idle("enable-benchmarks-udf-sub", .boolean, "false"),
        .idle("enable-benchmarks-write", .boolean, "false"),
        .idle("enable-hist-proxy", .boolean, "false"),
        .idle("evict-hist-buckets", .integer(100...10_000_000), "10000"),
        .idle("evict-indexes-memory-pct", .integer(0...100), "0"),
        .idle("evict-tenths-pct", .integer(0...UInt64.u32Max), "5"),
        .idle("ignore-migrate-fill-delay", .boolean, "false"),
        .idle("index-stage-size", .size(134_217_728...17_179_869_184), "1073741824"),
        .active("indexes-memory-budget", .size(0...UInt64.max), "0",
            "writes answer 8 when the index takes more bytes; 0 for no limit"),
        .idle("inline-short-queries", .boolean, "false"),
        .active("max-record-size", .size(64...8_388_608), "1048576", "largest record in bytes"),
        .idle("migrate-order", .integer(1...10), "5"),
        .idle("migrate-retransmit-ms", .milliseconds(0...UInt64.u32Max), "5000"),
        .idle("migrate-skip-unreadable", .boolean, "false"),
        .idle("migrate-sleep", .integer(0...UInt64.u32Max), "1"),
        .idle("mrt-duration", .seconds(1...120), "10"),
        .idle("nsup-hist-period", .seconds(0...UInt64.u32Max), "3600"),
        .active("nsup-period", .seconds(0...UInt64.u32Max), "0", "seconds between two runs of expiry; 0 for none"),
        .idle("nsup-threads", .integer(1...128), "1"),
        .idle("partition-tree-sprigs", .integer(256...268_435_456), "256"),
        .idle("prefer-uniform-balance", .boolean, "true"),
        .idle("rack-id", .integer(0...1_000_000), "0"),
        .idle("read-consistency-level-override", .word(["all", "off", "one"]), "off"),
        .idle("reject-non-xdr-writes", .boolean, "false"),
        .idle("reject-xdr-writes", .boolean, "false"),
        .idle("replication-factor", .integer(1...256), "2"),
        .idle("sindex-stage-size", .size(134_217_728...4_294_967_296), "1073741824"),
        .idle("single-query-threads", .integer(1...128), "4"),
        .active("stop-writes-sys-memory-pct", .integer(0...100), "90",
            "writes answer 8 when more of the machine's memory is used; 0 for never"),
        .idle("strong-consistency", .boolean, "false"),
        .idle("strong-consistency-allow-expunge", .boolean, "false"),
        .idle("tomb-raider-eligible-age", .seconds(0...UInt64.u32Max), "86400"),
        .idle("tomb-raider-period", .seconds(0...UInt64.u32Max), "86400"),
        .active("transaction-pending-limit", .integer(0...UInt64.u32Max), "20",
            "writes that may wait for one record; 0 for no limit"),
        .idle("truncate-threads", .integer(1...128), "4"),
        .idle("write-commit-level-override", .word(["all", "master", "off"]), "off"),
        .idle("xdr-bin-tombstone-ttl", .seconds(0...315_360_000), "86400"),
        .idle("xdr-tomb-raider-period", .seconds(0...UInt64.u32Max), "120"),
        .idle("xdr-tomb-raider-threads", .integer(1...128), "1"),
        .idle("force-long-queries", .boolean, "false"),
    ]

    /// `geo2dsphere-within { ... }` of a namespace.
    static let geo: [SettingSchema] = [
        .idle("strict", .boolean, "true"),
        .idle("min-level", .integer(0...30), "1"),
        .idle("max-level", .integer(0...30), "20"),
        .idle("max-cells", .integer(1...256), "12"),
        .idle("level-mod", .integer(1...3), "1"),
        .idle("earth-radius-meters", .integer(0...UInt64.u32Max), "6371000"),
    ]

    /// `index-type <name> { ... }` and `sindex-type <name> { ... }` of a namespace.
    static let indexType: [SettingSchema] = [
        .idle("evict-mounts-pct", .integer(0...100), "0"),
        .idle("mount", .list, ""),
        .idle("mounts-budget", .size(1_073_741_824...UInt64.max), "0"),
    ]

    /// `set <name> { ... }` of a namespace.
    static let set: [SettingSchema] = [
        .idle("default-read-touch-ttl-pct", .integer(0...100), "0"),
        .idle("default-ttl", .seconds(0...315_360_000), "0"),
        .idle("disable-eviction", .boolean, "false"),
        .idle("enable-index", .boolean, "false"),
        .idle("stop-writes-count", .integer(0...UInt64.max), "0"),
        .idle("stop-writes-size", .size(0...UInt64.max), "0"),
    ]
}
