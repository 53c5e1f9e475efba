// What a node hands in when it accepts a view (docs/formats.md, "Block of a node"). All blocks of a view are its bundle; the
// maps follow from the bundle alone.
internal import Base
package import Fabric

/// Which copy of a record wins where two lines wrote it.
package enum ConflictPolicy: UInt8, Sendable {
    case generation = 0
    case lastUpdateTime = 1

    /// As in the configuration.
    package var word: String { self == .generation ? "generation" : "last-update-time" }
}

/// A setting that all nodes of a namespace should have alike, in plain form.
package struct NamespaceSetting: Hashable, Comparable, Sendable {
    package let name: String
    package let value: String

    package init(name: String, value: String) {
        self.name = name
        self.value = value
    }

    package static func < (left: NamespaceSetting, right: NamespaceSetting) -> Bool {
        (left.name, left.value) < (right.name, right.value)
    }
}

/// A limit of a namespace of which the least among the nodes holds: `max-record-size` in bytes, and the like.
package struct NamespaceLimit: Hashable, Comparable, Sendable {
    package let name: String
    package let value: UInt64

    package init(name: String, value: UInt64) {
        self.name = name
        self.value = value
    }

    package static func < (left: NamespaceLimit, right: NamespaceLimit) -> Bool {
        (left.name, left.value) < (right.name, right.value)
    }
}

/// A namespace of one node.
package struct NamespaceBlock: Equatable, Sendable {
    package let name: String
    /// 0 if none is configured: those nodes are a rack, too.
    package var rackID: UInt32
    /// As configured, at least 1.
    package var replicationFactor: UInt16
    package var prefersUniformBalance: Bool
    /// The rack that is to have all masters; 0: none.
    package var activeRack: UInt32
    package var isQuiesced: Bool
    /// How full it is, in percent of where it stops writes.
    package var stopWritesPercent: UInt8
    package var conflictPolicy: ConflictPolicy
    /// Stored only, until there is strong consistency.
    package var isStronglyConsistent: Bool
    /// By name.
    package var limits: [NamespaceLimit]
    /// What else should be alike on all nodes, by name.
    package var settings: [NamespaceSetting]
    /// The highest of all partitions, milliseconds since 2010.
    package var highWaterMark: UInt64
    package var claims: PartitionClaims

    /// `records`: of all partitions, or none; the high-water mark and the claims are taken from them.
    package init(
        name: String, records: [PartitionRecord] = [], rackID: UInt32 = 0, replicationFactor: UInt16 = 2,
        prefersUniformBalance: Bool = true, activeRack: UInt32 = 0, isQuiesced: Bool = false, stopWritesPercent: UInt8 = 0,
        conflictPolicy: ConflictPolicy = .generation, isStronglyConsistent: Bool = false, limits: [NamespaceLimit] = [],
        settings: [NamespaceSetting] = []
    ) {
        self.name = name
        self.rackID = rackID
        self.replicationFactor = max(replicationFactor, 1)
        self.prefersUniformBalance = prefersUniformBalance
        self.activeRack = activeRack
        self.isQuiesced = isQuiesced
        self.stopWritesPercent = stopWritesPercent
        self.conflictPolicy = conflictPolicy
        self.isStronglyConsistent = isStronglyConsistent
        self.limits = limits.sorted()
        self.settings = settings.sorted()
        highWaterMark = records.reduce(0) { max($0, $1.highWaterMark) }
        claims = PartitionClaims(records)
    }

    /// Everything that should be alike on all nodes, by name: what `settings` has, and what the map itself goes by.
    package var agreed: [NamespaceSetting] {
        (settings + [
            NamespaceSetting(name: "active-rack", value: "\(activeRack)"),
            NamespaceSetting(name: "conflict-resolution-policy", value: conflictPolicy.word),
            NamespaceSetting(name: "prefer-uniform-balance", value: "\(prefersUniformBalance)"),
            NamespaceSetting(name: "replication-factor", value: "\(replicationFactor)"),
            NamespaceSetting(name: "strong-consistency", value: "\(isStronglyConsistent)"),
        ]).sorted()
    }

    /// Of `agreed`: unequal hashes mean that some setting differs.
    package var settingsHash: UInt64 {
        var hash = WordHash()
        for setting in agreed {
            hash.add(setting.name)
            hash.add(setting.value)
        }
        return hash.value
    }
}

/// What one node hands in.
package struct NodeBlock: Equatable, Sendable {
    /// What is written; the format before is read, too, as soon as there is one.
    package static let format: UInt8 = 1

    /// By name, at most `Limits.namespacesMax`, no name twice.
    package var namespaces: [NamespaceBlock]
    /// The node is about to stop: it is last in all lists.
    package var isLeaving: Bool
    /// Version of its software.
    package var build: String
    /// How clients reach it; means nothing here.
    package var services: [UInt8]
    /// Means nothing here.
    package var systemMetadata: [UInt8]

    package init(
        namespaces: [NamespaceBlock], isLeaving: Bool = false, build: String = "", services: [UInt8] = [],
        systemMetadata: [UInt8] = []
    ) {
        self.namespaces = namespaces.sorted { $0.name < $1.name }
        self.isLeaving = isLeaving
        self.build = build
        self.services = services
        self.systemMetadata = systemMetadata
    }

    /// The namespace of that name.
    package func namespace(_ name: String) -> NamespaceBlock? { namespaces.first { $0.name == name } }

    /// As it travels: equal blocks are equal bytes.
    package var encoded: [UInt8] {
        var writer = FabricWriter()
        writer.integer(NodeBlock.format)
        writer.flag(isLeaving)
        writer.text(build)
        writer.blob(services)
        writer.blob(systemMetadata)
        writer.list(namespaces) { $1.encode(to: &$0) }
        return writer.bytes
    }

    /// The block that `bytes` are, which may be anything.
    /// - Throws: if they are no block, or one of another format; the sentence says which.
    package init(_ bytes: [UInt8]) throws(FabricError) {
        var reader = FabricReader(bytes)
        let format = try reader.byte()
        guard format == NodeBlock.format else {
            throw FabricError("its block has format \(format), this version reads format \(NodeBlock.format)")
        }
        isLeaving = try reader.flag()
        build = try reader.text()
        services = try reader.blob()
        systemMetadata = try reader.blob()
        // Claims of a namespace take 8 KiB however few bytes they are: the number of namespaces bounds them.
        let count = try reader.count(ofSize: NamespaceBlock.encodedSizeMin)
        guard count <= Limits.namespacesMax else { throw FabricError("its block has \(count) namespaces") }
        namespaces = []
        for _ in 0..<count {
            let block = try NamespaceBlock(from: &reader)
            guard namespaces.last.map({ $0.name < block.name }) ?? true else {
                throw FabricError("the namespaces of its block are not in order")
            }
            namespaces.append(block)
        }
        try reader.end()
    }
}

extension NamespaceBlock {
    fileprivate static let encodedSizeMin = 32

    fileprivate func encode(to writer: inout FabricWriter) {
        writer.text(name)
        writer.integer(rackID)
        writer.integer(replicationFactor)
        writer.flag(prefersUniformBalance)
        writer.integer(activeRack)
        writer.flag(isQuiesced)
        writer.integer(stopWritesPercent)
        writer.integer(conflictPolicy.rawValue)
        writer.flag(isStronglyConsistent)
        writer.list(limits) { writer, limit in
            writer.text(limit.name)
            writer.integer(limit.value)
        }
        writer.list(settings) { writer, setting in
            writer.text(setting.name)
            writer.text(setting.value)
        }
        writer.integer(highWaterMark)
        claims.encode(to: &writer)
    }

    fileprivate init(from reader: inout FabricReader) throws(FabricError) {
        name = try reader.text()
        guard !name.isEmpty, name.utf8.count <= Limits.namespaceNameSizeMax else {
            throw FabricError("its block has a namespace whose name has \(name.utf8.count) bytes")
        }
        rackID = try reader.integer()
        replicationFactor = try reader.integer()
        guard replicationFactor > 0 else { throw FabricError("namespace \(name): the replication factor is 0") }
        prefersUniformBalance = try reader.flag()
        activeRack = try reader.integer()
        isQuiesced = try reader.flag()
        stopWritesPercent = try reader.byte()
        let word = try reader.byte()
        guard let policy = ConflictPolicy(rawValue: word) else {
            throw FabricError("namespace \(name): conflict policy \(word) is not known")
        }
        conflictPolicy = policy
        isStronglyConsistent = try reader.flag()
        limits = try reader.list(ofSize: 9) { (reader: inout FabricReader) throws(FabricError) in
            NamespaceLimit(name: try reader.text(), value: try reader.integer())
        }
        settings = try reader.list(ofSize: 2) { (reader: inout FabricReader) throws(FabricError) in
            NamespaceSetting(name: try reader.text(), value: try reader.text())
        }
        highWaterMark = try reader.integer()
        claims = try PartitionClaims(from: &reader)
    }
}
