internal import Storage

extension Settings {
    /// `security { ... }`.
    static let security: [SettingSchema] = [
        .idle("default-password-file", .text, ""),
        .idle("enable-quotas", .boolean, "false"),
        .idle("privilege-refresh-period", .seconds(10...86_400), "300"),
        .idle("session-ttl", .seconds(120...864_000), "86400"),
        .idle("tps-weight", .integer(2...20), "2"),
    ]

    /// `security { ldap { ... } }`.
    static let ldap: [SettingSchema] = [
        .idle("disable-tls", .boolean, "false"),
        .idle("login-threads", .integer(1...64), "8"),
        .idle("polling-period", .seconds(0...86_400), "300"),
        .idle("query-base-dn", .text, ""),
        .idle("query-user-dn", .text, ""),
        .idle("query-user-password-file", .text, ""),
        .idle("role-query-base-dn", .text, ""),
        .idle("role-query-pattern", .list, ""),
        .idle("role-query-search-ou", .boolean, "false"),
        .idle("server", .text, ""),
        .idle("tls-ca-file", .text, ""),
        .idle("token-hash-method", .text, "sha-256"),
        .idle("user-dn-pattern", .text, ""),
        .idle("user-query-pattern", .text, ""),
    ]

    /// `security { log { ... } }`.
    static let securityLog: [SettingSchema] = [
        .idle("report-authentication", .boolean, "false"),
        .idle("report-data-op", .list, ""),
        .idle("report-data-op-role", .list, ""),
        .idle("report-data-op-user", .list, ""),
        .idle("report-sys-admin", .boolean, "false"),
        .idle("report-user-admin", .boolean, "false"),
        .idle("report-violation", .boolean, "false"),
    ]

    /// `xdr { ... }`.
    static let xdr: [SettingSchema] = [
        .idle("src-id", .integer(0...255), "0"),
    ]

    /// `xdr { dc <name> { ... } }`.
    static let dc: [SettingSchema] = [
        .idle("auth-mode", .word(["none", "internal", "external", "external-insecure", "pki"]), "none"),
        .idle("auth-password-file", .text, ""),
        .idle("auth-user", .text, ""),
        .idle("connector", .boolean, "false"),
        .idle("max-recoveries-interleaved", .integer(0...UInt64.u32Max), "0"),
        .idle("node-address-port", .list, ""),
        .idle("period-ms", .milliseconds(5...1_000), "100"),
        .idle("recovery-threads", .integer(1...32), "1"),
        .idle("tls-name", .text, ""),
        .idle("use-alternate-access-address", .boolean, "false"),
    ]

    /// `namespace <name> { ... }` of a datacenter.
    static let dcNamespace: [SettingSchema] = [
        .idle(
            "bin-policy", .word(["all", "no-bins", "only-changed", "changed-and-specified", "changed-or-specified"]), "all"),
        .idle("compression-level", .integer(1...9), "1"),
        .idle("compression-threshold", .integer(128...UInt64.u32Max), "128"),
        .idle("delay-ms", .milliseconds(0...5_000), "0"),
        .idle("enable-compression", .boolean, "false"),
        .idle("forward", .boolean, "false"),
        .idle("hot-key-ms", .milliseconds(0...5_000), "100"),
        .idle("ignore-bin", .list, ""),
        .idle("ignore-expunges", .boolean, "false"),
        .idle("ignore-set", .list, ""),
        .idle("max-throughput", .integer(0...UInt64.u32Max), "100000"),
        .idle("remote-namespace", .text, ""),
        .idle("sc-replication-wait-ms", .milliseconds(5...1_000), "100"),
        .idle("ship-bin", .list, ""),
        .idle("ship-bin-luts", .boolean, "false"),
        .idle("ship-nsup-deletes", .boolean, "false"),
        .idle("ship-only-specified-sets", .boolean, "false"),
        .idle("ship-set", .list, ""),
        .idle("ship-versions-interval", .seconds(1...3_600), "60"),
        .idle("ship-versions-policy", .word(["latest", "all", "interval"]), "latest"),
        .idle("transaction-queue-limit", .integer(1_024...1_048_576), "16384"),
        .idle("write-policy", .word(["auto", "update", "replace"]), "auto"),
    ]
}
