internal import Storage

/// Every setting that exists, by block: names, kinds, bounds and defaults as in the original (8.1), where
/// Apus has them too.
enum Settings {}

extension UInt64 {
    static let u32Max = UInt64(UInt32.max)
    static let i32Max = UInt64(Int32.max)
}

extension SettingSchema {
    /// A setting that does something.
    static func active(_ name: String, _ kind: Kind, _ defaultText: String, _ help: String) -> SettingSchema {
        SettingSchema(name, kind, default: defaultText, help: help)
    }

    /// A setting that does something, and may change while the node serves.
    static func live(_ name: String, _ kind: Kind, _ defaultText: String, _ help: String) -> SettingSchema {
        SettingSchema(name, kind, default: defaultText, isDynamic: true, help: help)
    }

    /// A setting that is accepted, kept and shown, and does nothing yet.
    static func idle(_ name: String, _ kind: Kind, _ defaultText: String) -> SettingSchema {
        SettingSchema(name, kind, default: defaultText, hasEffect: false, help: "no effect yet")
    }
}

/// One kind of block: what may stand in it.
struct BlockSchema: Sendable {
    /// What stands between the block's word and its brace.
    enum Argument: Sendable {
        case none
        /// A name of the operator's choice; several blocks of this kind may exist if their names differ.
        case name
        /// A word that picks the settings, and the braces may be missing.
        case choice
    }
    let word: String
    let argument: Argument
    let settings: [SettingSchema]
    let blocks: [BlockSchema]

    init(_ word: String, _ argument: Argument = .none, _ settings: [SettingSchema], _ blocks: [BlockSchema] = []) {
        self.word = word
        self.argument = argument
        self.settings = settings
        self.blocks = blocks
    }
}

extension BlockSchema {
    private static let logContext = [
        SettingSchema("context", .list, help: "a context or any, and a level: critical warning info debug detail")
    ]

    /// The whole file.
    static let file = BlockSchema(
        "", .none, [],
        [
            BlockSchema("service", .none, Settings.service),
            BlockSchema(
                "logging", .none, [],
                [
                    BlockSchema("console", .none, logContext),
                    BlockSchema("file", .name, logContext),
                    BlockSchema(
                        "syslog", .none,
                        logContext + [
                            .idle("facility", .text, ""), .idle("path", .text, ""), .idle("tag", .text, ""),
                        ]),
                ]),
            BlockSchema(
                "network", .none, [],
                [
                    BlockSchema("service", .none, Settings.networkService),
                    BlockSchema("admin", .none, Settings.networkAdmin),
                    BlockSchema("heartbeat", .none, Settings.heartbeat),
                    BlockSchema("fabric", .none, Settings.fabric),
                    BlockSchema("info", .none, [.idle("address", .list, ""), .idle("port", .integer(0...65_535), "")]),
                    BlockSchema("tls", .name, Settings.tls),
                ]),
            namespace,
            BlockSchema("plugin", .none, plugin),
            BlockSchema("mod-lua", .none, Settings.modLua),
            BlockSchema(
                "security", .none, Settings.security,
                [BlockSchema("ldap", .none, Settings.ldap), BlockSchema("log", .none, Settings.securityLog)]),
            BlockSchema(
                "xdr", .none, Settings.xdr,
                [
                    BlockSchema(
                        "dc", .name, Settings.dc, [BlockSchema("namespace", .name, Settings.dcNamespace)])
                ]),
        ])

    private static let plugin = [
        SettingSchema("path", .list, help: "a storage backend as a shared object; several lines load several")
    ]

    private static let namespace = BlockSchema(
        "namespace", .name, Settings.namespace,
        [
            // Its settings are those of the backend that the argument names.
            BlockSchema("storage-engine", .choice, []),
            BlockSchema("index-type", .choice, Settings.indexType),
            BlockSchema("sindex-type", .choice, Settings.indexType),
            BlockSchema("set", .name, Settings.set),
            BlockSchema("geo2dsphere-within", .none, Settings.geo),
        ])
}
