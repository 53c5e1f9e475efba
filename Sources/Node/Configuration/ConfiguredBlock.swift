internal import Storage

/// One block as configured: what was written, and defaults for the rest.
struct ConfiguredBlock: Sendable {
    let word: String
    /// The name or choice behind the word; empty if it has none.
    let argument: String
    /// The same as the operator wrote it, where another was meant.
    var writtenArgument = ""
    let line: Int
    let settings: [SettingSchema]
    /// What was written, in plain form, in order.
    var written: [(name: String, value: String, line: Int)] = []
    var blocks: [ConfiguredBlock] = []
    /// Settings of backends that settings of this block have picked, named `<setting>.<name>`.
    var parts: [(name: String, value: String)] = []

    /// The value of a setting: the last one written, else the default; nil if there is neither.
    func text(_ name: String) -> String? {
        if let value = written.last(where: { $0.name == name })?.value { return value.isEmpty ? nil : value }
        guard let setting = settings.first(where: { $0.name == name }) else { return nil }
        let value = SettingValue.plainDefault(setting)
        return value.isEmpty ? nil : value
    }

    func number(_ name: String) -> UInt64? { text(name).flatMap { UInt64($0) } }

    func flag(_ name: String) -> Bool { text(name) == "true" }

    /// All values of a list, each line a value.
    func list(_ name: String) -> [String] { written.filter { $0.name == name }.map(\.value) }

    func isWritten(_ name: String) -> Bool { written.contains { $0.name == name } }

    /// The only block of that word, if it was written.
    func block(_ word: String) -> ConfiguredBlock? { blocks.first { $0.word == word } }

    /// Every setting with its value in the order of the schema; lists once per value.
    var values: [(name: String, value: String)] {
        settings.flatMap { setting -> [(name: String, value: String)] in
            if setting.kind == .list {
                let values = list(setting.name)
                return values.isEmpty ? [(setting.name, "")] : values.map { (setting.name, $0) }
            }
            return [(setting.name, text(setting.name) ?? "")]
        } + parts
    }
}
