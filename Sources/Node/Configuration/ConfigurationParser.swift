// From statements to configured blocks: every name must be known where it stands, every value must fit. All
// problems are collected (up to `problemsMax`), so that an operator mends a file in one go.
package import Storage

/// Reads configurations.
package enum ConfigurationParser {
    /// Reads a whole file. `processors` is how many reactors there are without `service-threads`.
    /// - Throws: `ConfigurationError` with every problem found, each naming file and line.
    package static func parse(
        _ bytes: [UInt8], fileName: String, registry: BackendRegistry, processors: Int
    ) throws(ConfigurationError) -> NodeConfiguration {
        let statements = try StatementReader.read(bytes, fileName: fileName)
        var reader = BlockReader(fileName: fileName, registry: registry)
        let file = reader.read(
            Statement(words: [""], line: 1, block: statements), as: .file, argument: "", settings: [])
        let configuration = NodeConfiguration(file: file, notes: reader.notes, processors: processors) {
            reader.report($0, $1)
        }
        guard reader.problems.isEmpty, let configuration else { throw ConfigurationError(problems: reader.problems) }
        return configuration
    }
}

extension ConfigurationParser {
    /// The shared objects that a configuration's `plugin` blocks name, with their lines. Nothing else of the file is
    /// looked at: which names it may use is known only when they are loaded.
    package static func pluginPaths(
        _ bytes: [UInt8], fileName: String
    ) throws(ConfigurationError) -> [(path: String, line: Int)] {
        var paths: [(path: String, line: Int)] = []
        for statement in try StatementReader.read(bytes, fileName: fileName) where statement.words == ["plugin"] {
            for inner in statement.block ?? [] where inner.words.count == 2 && inner.words[0] == "path" {
                paths.append((inner.words[1], inner.line))
            }
        }
        return paths
    }
}

/// Checks statements against schemas.
struct BlockReader {
    private static let problemsMax = 20
    private(set) var problems: [String] = []
    private(set) var notes: [String] = []
    private let fileName: String
    private let registry: BackendRegistry

    init(fileName: String, registry: BackendRegistry) {
        self.fileName = fileName
        self.registry = registry
    }

    /// Notes a problem; those beyond the limit are not kept.
    mutating func report(_ line: Int, _ text: String) {
        if problems.count < BlockReader.problemsMax { problems.append("\(fileName):\(line): \(text)") }
    }

    // ---- Blocks ----

    mutating func read(
        _ statement: Statement, as schema: BlockSchema, argument: String, settings: [SettingSchema]
    ) -> ConfiguredBlock {
        var block = ConfiguredBlock(
            word: schema.word, argument: argument, line: statement.line, settings: settings)
        for inner in statement.block ?? [] {
            let word = inner.words[0]
            if let blockSchema = schema.blocks.first(where: { $0.word == word }),
                inner.block != nil || blockSchema.argument == .choice {
                if let child = readBlock(inner, blockSchema, in: block) { block.blocks.append(child) }
            } else if let setting = settings.first(where: { $0.name == word }), setting.kind == .backend {
                readPart(inner, setting, &block)
            } else if let setting = settings.first(where: { $0.name == word }), inner.block == nil {
                readSetting(inner, setting, &block)
            } else {
                reportUnknown(inner, schema, settings)
            }
        }
        return block
    }

    private mutating func readBlock(
        _ statement: Statement, _ schema: BlockSchema, in owner: ConfiguredBlock
    ) -> ConfiguredBlock? {
        let arguments = statement.words.dropFirst()
        guard arguments.count == (schema.argument == .none ? 0 : 1) else {
            let expected = schema.argument == .none ? "no name" : "one name"
            report(statement.line, "'\(schema.word)' takes \(expected) before its {")
            return nil
        }
        var argument = arguments.first ?? ""
        let written = argument
        let earlier = owner.blocks.first { one in
            one.word == schema.word && (schema.argument != .name || one.argument == argument)
        }
        if let earlier {
            report(statement.line, "'\(statement.words.joined(separator: " "))' was there already, in line \(earlier.line)")
            return nil
        }
        var settings = schema.settings
        if schema.word == "storage-engine" {
            guard let backend = backend(argument, statement) else {
                reportUnknownEngine(statement.line, argument)
                return nil
            }
            settings = backend.allSettings
            argument = backend.name
        } else if schema.word == "index-type" || schema.word == "sindex-type" {
            guard let type = IndexType(rawValue: argument) else {
                let types = IndexType.allCases.map(\.rawValue).joined(separator: ", ")
                report(statement.line, "'\(schema.word) \(argument)': the types are \(types)")
                return nil
            }
            if type == .flash || schema.word == "sindex-type" {
                note(statement.line, "\(schema.word) \(argument) has no effect yet")
            }
        }
        if let consequence = BlockReader.blocksWithoutEffect[schema.word] { note(statement.line, consequence) }
        var block = read(statement, as: schema, argument: argument, settings: settings)
        block.writtenArgument = written
        return block
    }

    /// The backend that a `storage-engine` block means.
    private func backend(_ name: String, _ statement: Statement) -> BackendDescriptor? {
        guard let named = registry.descriptor(named: name), let other = named.alternative else {
            return registry.descriptor(named: name)
        }
        let isMeant = (statement.block ?? []).contains { other.settings.contains($0.words[0]) }
        return isMeant ? registry.descriptor(named: other.name) : named
    }

    private static let blocksWithoutEffect = [
        "security": "'security' has no effect yet: EVERY CLIENT MAY DO EVERYTHING; keep untrusted networks away",
        "xdr": "'xdr' has no effect yet: nothing is shipped",
        "tls": "'tls' has no effect yet: connections are in the clear",
        "syslog": "'syslog' has no effect yet: use console or file",
    ]

    // ---- Settings ----

    private mutating func readSetting(_ statement: Statement, _ setting: SettingSchema, _ block: inout ConfiguredBlock) {
        let values = statement.words.dropFirst()
        guard values.count == 1 || setting.kind == .list && values.count > 1 else {
            let form = setting.kind == .list ? "a value" : "one value"
            return report(statement.line, "'\(setting.name)' takes \(form), here are \(values.count)")
        }
        if setting.kind != .list, let earlier = block.written.first(where: { $0.name == setting.name }) {
            return report(statement.line, "'\(setting.name)' was set already, in line \(earlier.line)")
        }
        switch SettingValue.read(values.joined(separator: " "), as: setting.kind) {
        case .wrong(let reason): report(statement.line, "\(setting.name): \(reason)")
        case .value(let value):
            block.written.append((setting.name, value, statement.line))
            if !setting.hasEffect { note(statement.line, "'\(setting.name)' is known but has no effect yet") }
        }
    }

    /// A setting that picks another backend: `cold rocksdb { ... }`. Its settings become `cold.<setting>` of the owner.
    private mutating func readPart(_ statement: Statement, _ setting: SettingSchema, _ block: inout ConfiguredBlock) {
        guard statement.words.count == 2 else {
            return report(statement.line, "'\(setting.name)' takes the name of one storage-engine before its {")
        }
        if let earlier = block.written.first(where: { $0.name == setting.name }) {
            return report(statement.line, "'\(setting.name)' was set already, in line \(earlier.line)")
        }
        let name = statement.words[1]
        guard let backend = registry.descriptor(named: name) else {
            return reportUnknownEngine(statement.line, name)
        }
        block.written.append((setting.name, name, statement.line))
        let schema = BlockSchema("\(block.word) \(block.argument) \(setting.name) \(name)", .none, backend.partSettings)
        let part = read(statement, as: schema, argument: name, settings: backend.partSettings)
        block.parts += part.values.map { (name: "\(setting.name).\($0.name)", value: $0.value) }
    }

    private mutating func note(_ line: Int, _ text: String) { notes.append("\(fileName):\(line): \(text)") }

    // ---- Names that are not known ----

    private mutating func reportUnknown(_ statement: Statement, _ schema: BlockSchema, _ settings: [SettingSchema]) {
        let word = statement.words[0]
        let place = schema.word.isEmpty ? "at the top of the file" : "in '\(schema.word)'"
        if statement.block != nil, settings.contains(where: { $0.name == word }) {
            return report(statement.line, "'\(word)' is a setting and has no { }")
        }
        if statement.block == nil, schema.blocks.contains(where: { $0.word == word }) {
            return report(statement.line, "'\(word)' is a block and needs { }")
        }
        let names = settings.map(\.name) + schema.blocks.map(\.word)
        var text = "'\(word)' is not known \(place)"
        if let meant = NearestName.find(word, in: names) {
            text += "; did you mean '\(meant)'?"
        } else if let home = BlockReader.home(of: word, BlockSchema.file, path: []) {
            text += "; it belongs into '\(home)'"
        } else if !names.isEmpty, names.count <= 10 {
            text += "; known are: \(names.joined(separator: ", "))"
        }
        report(statement.line, text)
    }

    private mutating func reportUnknownEngine(_ line: Int, _ name: String) {
        let known = registry.descriptors.map(\.name)
        let meant = NearestName.find(name, in: known).map { "; did you mean '\($0)'?" } ?? ""
        report(line, "there is no storage-engine '\(name)'\(meant) This node has: \(known.joined(separator: ", "))")
    }

    /// Where a setting that stands in the wrong place would be right.
    private static func home(of word: String, _ schema: BlockSchema, path: [String]) -> String? {
        for block in schema.blocks {
            let inner = path + [block.word]
            if block.settings.contains(where: { $0.name == word }) || block.blocks.contains(where: { $0.word == word }) {
                return inner.joined(separator: " ")
            }
            if let found = home(of: word, block, path: inner) { return found }
        }
        return nil
    }
}
