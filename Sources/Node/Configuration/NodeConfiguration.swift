package import Logging
package import Storage
internal import Base

/// The configuration of one node, checked: values in their types, defaults filled in.
package struct NodeConfiguration: Sendable {
    package let service: ServiceConfiguration
    package let network: NetworkConfiguration
    package let logging: [LogSinkSettings]
    package let namespaces: [NamespaceConfiguration]
    /// What the operator should know although nothing is wrong: settings without effect, with file and line.
    package private(set) var notes: [String]
    let file: ConfiguredBlock

    /// Where settings belong, for `get-config`.
    package enum Context: Sendable { case service, network, security, xdr }

    /// Builds the typed form; `report` takes problems as (line, sentence). Nil if there were any that leave
    /// no value.
    init?(
        file: ConfiguredBlock, notes: [String], processors: Int, _ report: (Int, String) -> Void
    ) {
        self.file = file
        self.notes = notes
        let service = file.block("service") ?? NodeConfiguration.empty("service", Settings.service)
        guard let checked = ServiceConfiguration(service, processors: processors, report) else { return nil }
        self.service = checked
        let network = file.block("network") ?? NodeConfiguration.empty("network", [])
        self.network = NetworkConfiguration(network, report)
        logging = LogSinks.read(file.block("logging"), report)
        namespaces = file.blocks.filter { $0.word == "namespace" }.map { NamespaceConfiguration($0, report) }
        if namespaces.isEmpty { report(1, "no namespace is configured; add: namespace test { storage-engine memory }") }
        if namespaces.count > Limits.namespacesMax {
            report(namespaces[Limits.namespacesMax].line, "more than \(Limits.namespacesMax) namespaces")
        }
    }

    /// What `apus serve --dev` runs with.
    package static func development(
        workDirectory: String, registry: BackendRegistry, processors: Int
    ) throws(ConfigurationError) -> NodeConfiguration {
        let text = """
            service { work-directory \(workDirectory)
            }
            network {
              service { address 127.0.0.1
                port 3000
              }
              fabric { address 127.0.0.1
                port 3001
              }
              heartbeat { address 127.0.0.1
                port 3002
              }
              admin { address 127.0.0.1
                port 3003
              }
            }
            namespace test { storage-engine memory
              nsup-period 120
            }
            """
        var configuration = try ConfigurationParser.parse(
            Array(text.utf8), fileName: "--dev", registry: registry, processors: processors)
        configuration.notes.append(
            "running without a configuration file (--dev): namespace 'test' in memory, nothing outlives the process;"
                + " 127.0.0.1, ports 3000, 3001 (fabric), 3002 (heartbeat) and 3003 (admin);"
                + " work directory \(workDirectory)")
        return configuration
    }

    static func empty(_ word: String, _ settings: [SettingSchema]) -> ConfiguredBlock {
        ConfiguredBlock(word: word, argument: "", line: 1, settings: settings)
    }

    // ---- get-config ----

    /// All settings of a context with their values, named as tools expect them.
    package func values(context: Context) -> [(String, String)] {
        switch context {
        case .service:
            let block = file.block("service") ?? NodeConfiguration.empty("service", Settings.service)
            return block.values.map { name, value in
                name == "service-threads" ? (name, "\(service.serviceThreads)") : (name, value)
            }
        case .network: return NodeConfiguration.networkBlocks.flatMap { word, settings in
            let block = file.block("network")?.block(word) ?? NodeConfiguration.empty(word, settings)
            return block.values.map { ("\(word).\($0.name)", $0.value) }
        }
        case .security: return (file.block("security") ?? NodeConfiguration.empty("", Settings.security)).values
            .map { ($0.name, $0.value) }
        case .xdr: return (file.block("xdr") ?? NodeConfiguration.empty("", Settings.xdr)).values
            .map { ($0.name, $0.value) }
        }
    }

    static let networkBlocks = [
        ("service", Settings.networkService), ("admin", Settings.networkAdmin), ("heartbeat", Settings.heartbeat),
        ("fabric", Settings.fabric),
    ]

    /// All settings of a namespace with their values; empty if there is none of that name.
    package func values(namespace name: String) -> [(String, String)] {
        guard let block = file.blocks.first(where: { $0.word == "namespace" && $0.argument == name }),
            namespaces.contains(where: { $0.name == name })
        else { return [] }
        let geo = block.block("geo2dsphere-within") ?? NodeConfiguration.empty("", Settings.geo)
        return block.values.map { ($0.name, $0.value) }
            + indexValues(block.block("index-type"))
            + [("storage-engine", block.block("storage-engine")?.writtenArgument ?? "")]
            + storageValues(block.block("storage-engine"))
            + geo.values.map { ("geo2dsphere-within.\($0.name)", $0.value) }
    }

    private func indexValues(_ index: ConfiguredBlock?) -> [(String, String)] {
        guard let index else { return [] }
        let mounts = index.list("mount").enumerated().map { ("index-type.mount[\($0.offset)]", $0.element) }
        return [("index-type", index.argument)] + mounts
            + index.values.filter { $0.name != "mount" }.map { ("index-type.\($0.name)", $0.value) }
    }

    /// Settings of a backend; lists as tools read them: `storage-engine.file[0]`.
    private func storageValues(_ engine: ConfiguredBlock?) -> [(String, String)] {
        guard let engine else { return [] }
        let lists = engine.settings.filter { $0.kind == .list }.map(\.name)
        return lists.flatMap { name in
            engine.list(name).enumerated().map { ("storage-engine.\(name)[\($0.offset)]", $0.element) }
        } + engine.values.filter { !lists.contains($0.name) }.map { ("storage-engine.\($0.name)", $0.value) }
    }
}

/// Where a namespace's index lies.
package enum IndexType: String, CaseIterable, Sendable {
    /// Ordinary memory: gone with the process.
    case heap
    /// Shared memory: outlives the process.
    case shmem
    /// Persistent memory: outlives a loss of power.
    case pmem
    /// No effect yet.
    case flash
}

/// `namespace <name> { ... }`.
package struct NamespaceConfiguration: Sendable {
    package let name: String
    /// Name of the backend.
    package let storageEngine: String
    /// The backend's own settings, defaults included.
    package let storageSettings: BackendSettings
    /// Bytes.
    package let maxRecordSize: Int
    /// Bytes; 0 for no limit.
    package let indexesMemoryBudget: UInt64
    /// Seconds; 0 for ever.
    package let defaultTtl: UInt32
    /// 0 for no limit.
    package let transactionPendingLimit: Int
    /// Answers wait until a write is durable.
    package let commitToDevice: Bool
    package let strongConsistency: Bool
    /// Nil if the operator leaves it to the node.
    package let indexType: IndexType?
    /// Directories for the index; empty for the default.
    package let indexMounts: [String]
    /// Bytes.
    package let indexStageSize: Int
    /// Bytes; 0 for no limit.
    package let indexMountsBudget: UInt64
    /// Settings of sets.
    package let sets: [SetConfiguration]
    let line: Int
    private let block: ConfiguredBlock

    /// The value of a setting of the block itself; 0 if it has none.
    package func number(_ name: String) -> UInt64 { block.number(name) ?? 0 }
    /// Whether a setting of the block itself is `true`.
    package func flag(_ name: String) -> Bool { block.flag(name) }
    /// The value of a setting of the block itself in its plain form; empty if it has none.
    package func text(_ name: String) -> String { block.text(name) ?? "" }

    init(_ block: ConfiguredBlock, _ report: (Int, String) -> Void) {
        self.block = block
        sets = block.blocks.filter { $0.word == "set" }.map { SetConfiguration($0, report) }
        name = block.argument
        line = block.line
        if name.utf8.count > Limits.namespaceNameSizeMax {
            report(line, "namespace '\(name)' has a name longer than \(Limits.namespaceNameSizeMax) bytes")
        }
        if name.contains(where: { ":;,=/|".contains($0) }) || name == "null" {
            report(line, "'\(name)' cannot be the name of a namespace: avoid : ; , = / | and null")
        }
        let engine = block.block("storage-engine")
        if engine == nil { report(line, "namespace '\(name)' has no valid storage-engine; add: storage-engine memory") }
        storageEngine = engine?.argument ?? ""
        storageSettings = BackendSettings(engine?.values ?? [])
        commitToDevice = storageSettings.flag(StandardSettings.commitToDevice)
        strongConsistency = block.flag("strong-consistency")
        // What has no effect must not have its mounts and its limit have one.
        let index = block.block("index-type").flatMap { $0.argument == IndexType.flash.rawValue ? nil : $0 }
        indexType = index.flatMap { IndexType(rawValue: $0.argument) }
        indexMounts = index?.list("mount") ?? []
        indexMountsBudget = index?.number("mounts-budget") ?? 0
        if let index, indexType == .pmem, indexMounts.isEmpty {
            report(index.line, "index-type pmem needs a mount: index-type pmem { mount /mnt/pmem0 }")
        }
        if let index, indexType == .heap, !indexMounts.isEmpty { report(index.line, "index-type heap takes no mount") }
        func number(_ name: String) -> UInt64 { block.number(name) ?? 0 }
        indexStageSize = Int(number("index-stage-size"))
        maxRecordSize = Int(number("max-record-size"))
        indexesMemoryBudget = number("indexes-memory-budget")
        defaultTtl = UInt32(number("default-ttl"))
        transactionPendingLimit = Int(number("transaction-pending-limit"))
        if defaultTtl > 0, number("nsup-period") == 0, !block.flag("allow-ttl-without-nsup") {
            report(line, "namespace '\(name)': default-ttl needs nsup-period above 0, or allow-ttl-without-nsup true")
        }
    }
}
