internal import Storage

extension Settings {
    /// `network { service { ... } }`.
    static let networkService: [SettingSchema] = [
        .active("access-address", .list, "", "addresses told to clients"),
        .active("access-port", .integer(0...65_535), "", "port told to clients"),
        .active("address", .list, "", "numeric addresses to listen on, or any"),
        .active("alternate-access-address", .list, "", "second set of addresses told to clients"),
        .active("alternate-access-port", .integer(0...65_535), "", "port of the second set"),
        .idle("disable-localhost", .boolean, "false"),
        .active("port", .integer(0...65_535), "", "port to listen on; 0 takes a free one"),
        .idle("tls-access-address", .list, ""),
        .idle("tls-access-port", .integer(0...65_535), ""),
        .idle("tls-address", .list, ""),
        .idle("tls-alternate-access-address", .list, ""),
        .idle("tls-alternate-access-port", .integer(0...65_535), ""),
        .idle("tls-authenticate-client", .word(["any", "false"]), "any"),
        .idle("tls-name", .text, ""),
        .idle("tls-port", .integer(0...65_535), ""),
    ]

    /// `network { admin { ... } }`.
    static let networkAdmin: [SettingSchema] = [
        .active("address", .list, "", "numeric addresses to listen on, or any"),
        .idle("disable-localhost", .boolean, "false"),
        .active("port", .integer(0...65_535), "", "port for operators; 0 takes a free one"),
        .idle("tls-address", .list, ""),
        .idle("tls-authenticate-client", .word(["any", "false"]), "any"),
        .idle("tls-name", .text, ""),
        .idle("tls-port", .integer(0...65_535), ""),
    ]

    /// `network { heartbeat { ... } }`.
    static let heartbeat: [SettingSchema] = [
        .active("address", .list, "",
            "mesh: numeric addresses to listen on, or any; multicast: of the interface that is used"),
        .live("connect-timeout-ms", .milliseconds(50...UInt64.u32Max), "500",
            "a connection to another node that does not stand after this is given up"),
        .live("interval", .integer(50...600_000), "150", "milliseconds between two heartbeats"),
        .active("mesh-seed-address-port", .list, "",
            "address or name, and port, of a node to find the others by; several lines name several"),
        .active("mode", .word(["mesh", "multicast"]), "mesh",
            "how nodes find each other; without this block the node is alone"),
        .live("mtu", .integer(0...65_507), "0", "largest multicast datagram in bytes, from 576 on; 0 for 1500"),
        .active("multicast-group", .list, "", "numeric address of a group that heartbeats are sent to"),
        .active("multicast-ttl", .integer(0...255), "0", "how many routers heartbeats may pass; 0 for the system's choice"),
        .active("port", .integer(0...65_535), "",
            "port for heartbeats, 3002 if it is not said; 0 takes a free one (mesh)"),
        .idle("protocol", .word(["none", "v3"]), "v3"),
        .live("timeout", .integer(3...UInt64.u32Max), "10",
            "a node that misses so many heartbeats in a row has departed"),
        .idle("tls-address", .list, ""),
        .idle("tls-mesh-seed-address-port", .list, ""),
        .idle("tls-name", .text, ""),
        .idle("tls-port", .integer(0...65_535), ""),
    ]

    /// `network { fabric { ... } }`.
    static let fabric: [SettingSchema] = [
        .active("address", .list, "", "numeric addresses to listen on, or any"),
        .idle("channel-bulk-fds", .integer(1...128), "2"),
        .idle("channel-bulk-recv-threads", .integer(1...128), "4"),
        .idle("channel-ctrl-fds", .integer(1...128), "1"),
        .idle("channel-ctrl-recv-threads", .integer(1...128), "4"),
        .idle("channel-meta-fds", .integer(1...128), "1"),
        .idle("channel-meta-recv-threads", .integer(1...128), "4"),
        .idle("channel-rw-fds", .integer(1...128), "8"),
        .idle("channel-rw-recv-pools", .integer(1...16), "1"),
        .idle("channel-rw-recv-threads", .integer(1...128), "16"),
        .idle("keepalive-enabled", .boolean, "true"),
        .idle("keepalive-intvl", .integer(1...UInt64.i32Max), "1"),
        .idle("keepalive-probes", .integer(1...UInt64.i32Max), "10"),
        .idle("keepalive-time", .integer(1...UInt64.i32Max), "1"),
        .idle("latency-max-ms", .milliseconds(0...1_000), "5"),
        .active("port", .integer(0...65_535), "",
            "port for the other nodes, 3001 if it is not said; 0 takes a free one"),
        .idle("recv-rearm-threshold", .integer(0...1_048_576), "1024"),
        .idle("send-threads", .integer(1...128), "8"),
        .idle("tls-address", .list, ""),
        .idle("tls-name", .text, ""),
        .idle("tls-port", .integer(0...65_535), ""),
    ]

    /// `network { tls <name> { ... } }`.
    static let tls: [SettingSchema] = [
        .idle("ca-file", .text, ""),
        .idle("ca-path", .text, ""),
        .idle("cert-blacklist", .text, ""),
        .idle("cert-file", .text, ""),
        .idle("cipher-suite", .text, ""),
        .idle("key-file", .text, ""),
        .idle("key-file-password", .text, ""),
        .idle("pki-user-append-ou", .boolean, "false"),
        .idle("protocols", .text, "TLSv1.2"),
    ]
}
