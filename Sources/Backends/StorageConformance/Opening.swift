// What the node would hand to a backend when it opens one.
internal import Storage

enum Opening {
    static let namespace = "conformance"

    /// What the node would have agreed with this backend.
    static func agreement(_ descriptor: BackendDescriptor) -> Agreement {
        Agreement(
            backend: descriptor.name, format: descriptor.formats.upperBound, capabilities: descriptor.capabilities)
    }

    /// `given` after the defaults of the schema, so that what is given wins.
    static func settings(
        _ descriptor: BackendDescriptor, _ given: [(name: String, value: String)]
    ) throws(StorageError) -> BackendSettings {
        var values: [(name: String, value: String)] = []
        for setting in descriptor.allSettings where !setting.defaultText.isEmpty {
            values.append((setting.name, try plain(setting)))
        }
        for (name, _) in given {
            let own = name.prefix { $0 != "." }
            guard descriptor.allSettings.contains(where: { $0.name == own }) else {
                throw .settings("'\(descriptor.name)' has no setting '\(own)'")
            }
        }
        return BackendSettings(values + given)
    }

    /// A default as the node hands it over: bytes, seconds or milliseconds as a number without suffix.
    private static func plain(_ setting: SettingSchema) throws(StorageError) -> String {
        let units: [Character: UInt64]
        switch setting.kind {
        case .size: units = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
        case .seconds: units = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        case .milliseconds: units = ["s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000]
        case .boolean, .integer, .word, .text, .list, .backend: return setting.defaultText
        }
        let text = setting.defaultText
        guard let last = text.last, let unit = units[last] else { return text }
        guard let number = UInt64(text.dropLast()) else {
            throw .settings("default '\(text)' of '\(setting.name)' is no number with a unit")
        }
        return String(number * unit)
    }
}
