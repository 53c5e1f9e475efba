// A setting that changes while the node runs: a new configuration from the one in force.
internal import Storage

/// Which block of the file a change is for.
package enum SettingPlace: Sendable, Equatable {
    case service, network, security, xdr
    case namespace(String)
}

/// Why a setting was not changed: one sentence for the operator.
package struct SettingRefusal: Error, Equatable {
    package let message: String

    package init(_ message: String) { self.message = message }
}

/// What a change came to.
package struct SettingChange: Sendable {
    /// The configuration with it.
    package let configuration: NodeConfiguration
    /// As `get-config` names it.
    package let name: String
    /// Values in their plain form.
    package let old: String
    package let new: String
    /// The block of the namespace that it stands in: empty, `storage-engine` or `index-type`.
    package let block: String
}

extension NodeConfiguration {
    /// The configuration with setting `name` as `text` says. Storage settings may be named with their block or without.
    /// - Throws: if the name is unknown there, the setting is static or has no effect, the value is out of range, or what
    ///   comes of it does not fit together.
    package func changing(
        _ place: SettingPlace, _ name: String, to text: String
    ) throws(SettingRefusal) -> SettingChange {
        let found = try find(place, name)
        let setting = found.setting
        guard setting.hasEffect else { throw SettingRefusal("'\(name)' is known but has no effect yet") }
        guard setting.isDynamic else {
            throw SettingRefusal("'\(name)' cannot change while the node runs: edit the configuration file and restart")
        }
        let value: String
        switch SettingValue.read(text, as: setting.kind) {
        case .wrong(let reason): throw SettingRefusal("\(name): \(reason)")
        case .value(let plain): value = plain
        }
        if setting.kind == .text, !StatementReader.isWord(value) {
            throw SettingRefusal("\(name): the value is no word of a configuration file: up to 1024 bytes without spaces,"
                + " braces and #")
        }
        let old = found.block.text(setting.name) ?? ""
        var problems: [String] = []
        let changed = replacing(found.path, file) { block in
            block.written.removeAll { $0.name == setting.name }
            block.written.append((setting.name, value, block.line))
        }
        let configuration = NodeConfiguration(file: changed, notes: notes, processors: service.serviceThreads) {
            problems.append($1)
        }
        guard let configuration, problems.isEmpty else { throw SettingRefusal(problems.joined(separator: "; ")) }
        let block = found.path.count > 1 ? found.path[1].word : ""
        return SettingChange(
            configuration: configuration, name: block.isEmpty ? setting.name : "\(block).\(setting.name)", old: old,
            new: value, block: place == .network ? "" : block)
    }

    /// The plain form of a setting of a set, or what is wrong with it.
    package static func setValue(_ name: String, _ text: String) throws(SettingRefusal) -> String {
        guard let setting = Settings.set.first(where: { $0.name == name }) else {
            throw SettingRefusal(unknown(name, "a set", Settings.set.map(\.name)))
        }
        switch SettingValue.read(text, as: setting.kind) {
        case .wrong(let reason): throw SettingRefusal("\(name): \(reason)")
        case .value(let plain):
            if name == SetConfiguration.readTouchName, SetConfiguration.readTouch(plain) == nil {
                throw SettingRefusal("\(name): '\(text)' is out of bounds: from -1 to 100")
            }
            return plain
        }
    }

    // ---- Finding ----

    private typealias Step = (word: String, argument: String)

    private struct Found {
        let setting: SettingSchema
        let block: ConfiguredBlock
        let path: [Step]
    }

    private func find(_ place: SettingPlace, _ name: String) throws(SettingRefusal) -> Found {
        let candidates = candidates(place)
        for (prefix, path, settings, isPrefixNeeded) in candidates {
            for setting in settings {
                let isMeant = "\(prefix)\(setting.name)" == name || !isPrefixNeeded && setting.name == name
                if isMeant { return Found(setting: setting, block: block(path, settings), path: path) }
            }
        }
        let names = candidates.flatMap { candidate in candidate.settings.map { candidate.prefix + $0.name } }
        throw SettingRefusal(NodeConfiguration.unknown(name, NodeConfiguration.text(place), names))
    }

    private static func text(_ place: SettingPlace) -> String {
        switch place {
        case .service: "service"
        case .network: "network"
        case .security: "security"
        case .xdr: "xdr"
        case .namespace(let name): "namespace \(name)"
        }
    }

    private static func unknown(_ name: String, _ place: String, _ names: [String]) -> String {
        let meant = NearestName.find(name, in: names).map { "; did you mean '\($0)'?" } ?? ""
        return "there is no setting '\(name)' of \(place)\(meant)"
    }

    private func candidates(
        _ place: SettingPlace
    ) -> [(prefix: String, path: [Step], settings: [SettingSchema], isPrefixNeeded: Bool)] {
        switch place {
        case .service: return [("", [("service", "")], Settings.service, true)]
        case .security: return [("", [("security", "")], Settings.security, true)]
        case .xdr: return [("", [("xdr", "")], Settings.xdr, true)]
        case .network:
            return NodeConfiguration.networkBlocks.map { word, settings in
                ("\(word).", [("network", ""), (word, "")], settings, true)
            }
        case .namespace(let name):
            let home: Step = ("namespace", name)
            let namespace = file.blocks.first { $0.word == home.word && $0.argument == home.argument }
            let engine = namespace?.block("storage-engine")
            return [
                ("", [home], Settings.namespace, true),
                ("storage-engine.", [home, ("storage-engine", engine?.argument ?? "")], engine?.settings ?? [], false),
                ("index-type.", [home, ("index-type", namespace?.block("index-type")?.argument ?? "")],
                    namespace?.block("index-type") == nil ? [] : Settings.indexType, true),
                ("geo2dsphere-within.", [home, ("geo2dsphere-within", "")], Settings.geo, true),
            ]
        }
    }

    /// The block at the end of `path`; one of defaults if it was not written.
    private func block(_ path: [Step], _ settings: [SettingSchema]) -> ConfiguredBlock {
        var block: ConfiguredBlock? = file
        for step in path { block = block?.blocks.first { $0.word == step.word && $0.argument == step.argument } }
        return block ?? NodeConfiguration.empty(path.last?.word ?? "", settings)
    }

    /// `block` with what `change` makes of the block at the end of `path`; blocks that were not written are added.
    private func replacing(
        _ path: [Step], _ block: ConfiguredBlock, _ change: (inout ConfiguredBlock) -> Void
    ) -> ConfiguredBlock {
        var block = block
        guard let step = path.first else {
            change(&block)
            return block
        }
        let rest = Array(path.dropFirst())
        if let place = block.blocks.firstIndex(where: { $0.word == step.word && $0.argument == step.argument }) {
            block.blocks[place] = replacing(rest, block.blocks[place], change)
        } else {
            let schema = BlockSchema.file.schema(of: step.word)
            let made = ConfiguredBlock(word: step.word, argument: step.argument, line: 1, settings: schema?.settings ?? [])
            block.blocks.append(replacing(rest, made, change))
        }
        return block
    }
}

extension BlockSchema {
    /// The schema of the first block of that word, here or deeper.
    func schema(of word: String) -> BlockSchema? {
        if let own = blocks.first(where: { $0.word == word }) { return own }
        for block in blocks {
            if let found = block.schema(of: word) { return found }
        }
        return nil
    }
}

/// `set <name> { ... }` of a namespace: what was written, in its plain form.
package struct SetConfiguration: Sendable {
    package let name: String
    package let values: [(name: String, value: String)]
    static let readTouchName = "default-read-touch-ttl-pct"

    init(_ block: ConfiguredBlock, _ report: (Int, String) -> Void) {
        name = block.argument
        values = block.written.map { (name: $0.name, value: $0.value) }
        for written in block.written where written.name == SetConfiguration.readTouchName {
            if SetConfiguration.readTouch(written.value) == nil {
                report(written.line, "\(written.name): '\(written.value)' is out of bounds: from -1 to 100")
            }
        }
    }

    /// A percentage, or -1 for never; nil if it is neither.
    package static func readTouch(_ text: String) -> Int? {
        Int(text).flatMap { (-1...100).contains($0) ? $0 : nil }
    }

    /// The settings that a set has.
    package static let names = Settings.set.map(\.name)
}
