internal import Storage

/// What `apus backends` prints.
enum BackendListing {
    /// A block of lines for each backend.
    static func summary(_ registry: BackendRegistry) -> String {
        let blocks = registry.descriptors.map { descriptor in
            ([descriptor.name] + properties(descriptor).map { "  " + $0 }
                + ["  settings: \(descriptor.allSettings.map(\.name).joined(separator: ", "))"]).joined(separator: "\n")
        }
        return blocks.joined(separator: "\n\n") + "\n\nAll about one of them: apus backends NAME"
    }

    /// Everything about one backend.
    static func details(_ descriptor: BackendDescriptor) -> String {
        var lines = [descriptor.name] + properties(descriptor).map { "  " + $0 }
        lines += ["", "  In a configuration: storage-engine \(descriptor.name) { ... } with", ""]
        for setting in descriptor.allSettings {
            let fallback = setting.defaultText.isEmpty ? "no default" : "default \(setting.defaultText)"
            let effect = setting.hasEffect ? "" : " (known, no effect yet)"
            lines.append("    \(setting.name)  \(form(setting.kind)); \(fallback)\(effect)")
            lines.append("        \(setting.help)")
        }
        return lines.joined(separator: "\n")
    }

    private static func properties(_ descriptor: BackendDescriptor) -> [String] {
        let formats = descriptor.formats
        let range = formats.count == 1 ? "\(formats.lowerBound)" : "\(formats.lowerBound) to \(formats.upperBound)"
        let names = descriptor.capabilities.names
        var lines = [
            "promises: \(names.isEmpty ? "nothing beyond the contract" : names.joined(separator: ", "))",
            "contract \(descriptor.contract.text), format of the medium \(range), medium: \(medium(descriptor.medium))",
            "limits: records up to \(descriptor.limits.imageSizeMax) bytes, \(descriptor.limits.locationBits) location bits,"
                + " atomic writes of \(descriptor.limits.atomicWriteSize) bytes",
        ]
        if let composition = descriptor.composition {
            lines.append("works over the backend that its setting '\(composition.setting)' picks,"
                + " and promises what that one does")
        }
        return lines
    }

    private static func medium(_ medium: Medium) -> String {
        switch medium {
        case .none: "none of its own"
        case .directory: "files in a directory"
        case .own: "its own"
        }
    }

    private static func form(_ kind: SettingSchema.Kind) -> String {
        switch kind {
        case .boolean: "true or false"
        case .integer(let bounds): "a number from \(bounds.lowerBound) to \(bounds.upperBound)"
        case .size(let bounds): "bytes (K, M, G, T, P) from \(bounds.lowerBound) to \(bounds.upperBound)"
        case .seconds(let bounds): "seconds (m, h, d) from \(bounds.lowerBound) to \(bounds.upperBound)"
        case .milliseconds(let bounds): "milliseconds (s, m, h, d) from \(bounds.lowerBound) to \(bounds.upperBound)"
        case .word(let words): "one of \(words.joined(separator: ", "))"
        case .text: "text"
        case .list: "text, several times"
        case .backend: "a storage-engine with its settings in { }"
        }
    }
}
