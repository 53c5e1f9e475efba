// What an operator may write inside `storage-engine <name> { ... }`, and what comes of it.

/// One setting of a backend's own, as it appears in `storage-engine <name> { ... }`.
public struct SettingSchema: Sendable {
    /// What the operator writes.
    public let name: String
    /// How its value is read.
    public let kind: Kind
    /// Value if it is left out, as text; empty for none.
    public let defaultText: String
    /// One line for the operator, unit included.
    public let help: String
    /// False if the backend knows the setting but does nothing with it yet: the node logs a note.
    public let hasEffect: Bool
    /// True if it may change while the node serves (`set-config`). For a setting of a backend's own: `Adjusting` is told.
    public let isDynamic: Bool

    /// How a value is read.
    public enum Kind: Sendable, Equatable {
        /// `true` or `false`.
        case boolean
        /// Whole number within bounds.
        case integer(ClosedRange<UInt64>)
        /// Bytes, with K, M, G, T suffixes, within bounds.
        case size(ClosedRange<UInt64>)
        /// Seconds, or with s, m, h, d suffixes.
        case seconds(ClosedRange<UInt64>)
        /// Milliseconds, or with s, m, h, d suffixes.
        case milliseconds(ClosedRange<UInt64>)
        /// One of these words.
        case word([String])
        /// Any text.
        case text
        /// Any text, and the setting may appear several times.
        case list
        /// The name of another backend and its own settings: `cold rocksdb { ... }`. Opened by `OpenRequest.openPart`.
        case backend
    }

    /// Describes one setting.
    public init(
        _ name: String, _ kind: Kind, default defaultText: String = "", hasEffect: Bool = true,
        isDynamic: Bool = false, help: String
    ) {
        self.hasEffect = hasEffect
        self.isDynamic = isDynamic
        self.name = name
        self.kind = kind
        self.defaultText = defaultText
        self.help = help
    }
}

/// Settings as parsed by the backend's schema: each value in its plain form (bytes, milliseconds, `true`,
/// text).
public struct BackendSettings: Sendable {
    /// Values by name, in the order they were written; defaults are filled in.
    public let values: [(name: String, value: String)]

    /// Wraps parsed values.
    public init(_ values: [(name: String, value: String)]) { self.values = values }

    /// The last value of `name`, if there is one and it is not empty.
    public func text(_ name: String) -> String? {
        values.last { $0.name == name && !$0.value.isEmpty }?.value
    }

    /// The value of `name` as a number; nil if it is absent or no number.
    public func number(_ name: String) -> UInt64? { text(name).flatMap { UInt64($0) } }

    /// All values of a list setting.
    public func list(_ name: String) -> [String] { values.filter { $0.name == name }.map(\.value) }

    /// Whether `name` is `true`.
    public func flag(_ name: String) -> Bool { text(name) == "true" }

    /// The settings of the backend that setting `name`, a `Kind.backend`, has picked: they stand here as `name.setting`.
    public func part(_ name: String) -> BackendSettings {
        let prefix = name + "."
        return BackendSettings(
            values.filter { $0.name.hasPrefix(prefix) }
                .map { (name: String($0.name.dropFirst(prefix.count)), value: $0.value) })
    }
}

/// Settings that the node gives to every backend of a kind; a backend that lists one of that name itself keeps its own.
public enum StandardSettings {
    /// Helper threads of a blocking backend.
    public static let storageThreads = "storage-threads"
    /// Operations that may be under way on them.
    public static let storageQueueMax = "storage-queue-max"
    /// Where a backend with `Medium.directory` keeps its files.
    public static let directory = "directory"
    /// Writes are answered when they are durable.
    public static let commitToDevice = "commit-to-device"
    /// Thresholds of the namespace in percent of the backend's capacity, 0 for never.
    package static let stopWritesUsed = "stop-writes-used-pct"
    package static let stopWritesAvailable = "stop-writes-avail-pct"
    package static let stopUpdatesUsed = "stop-updates-used-pct"
    package static let stopUpdatesAvailable = "stop-updates-avail-pct"
    package static let evictUsed = "evict-used-pct"
    /// Those that a namespace has once, whatever its backend is made of.
    static let ofNamespaces: [String] = [
        commitToDevice, stopWritesUsed, stopWritesAvailable, stopUpdatesUsed, stopUpdatesAvailable, evictUsed,
    ]

    /// Whether the node itself sees to that setting, whatever the backend is.
    package static func isOfNamespace(_ name: String) -> Bool {
        ofNamespaces.contains { name == $0 || name == "storage-engine." + $0 }
    }

    /// Settings of the original that the built-in backends know and that do nothing yet, alike for all of them.
    package static let withoutEffect = [
        SettingSchema("compression", .word(["none", "lz4", "snappy", "zstd"]), default: "none", hasEffect: false,
            help: "no compression yet"),
        SettingSchema("compression-acceleration", .integer(0...65537), default: "0", hasEffect: false,
            help: "no compression yet"),
        SettingSchema("compression-level", .integer(0...9), default: "0", hasEffect: false, help: "no compression yet"),
        SettingSchema("enable-benchmarks-storage", .boolean, default: "false", hasEffect: false,
            help: "no storage histograms yet"),
    ]

    /// What the node adds to the settings of a backend with these properties.
    public static func settings(
        _ capabilities: Capabilities, _ medium: Medium, isComposition: Bool
    ) -> [SettingSchema] {
        var settings: [SettingSchema] = []
        if medium == .directory {
            settings.append(SettingSchema(directory, .text,
                help: "directory of the namespace's files; without it, a directory of the namespace's in work-directory"))
        }
        if capabilities.contains(.durableAtCommit) || isComposition {
            settings.append(SettingSchema(commitToDevice, .boolean, default: "false",
                help: "answer writes and deletes when they are durable"))
        }
        if capabilities.contains(.blocking) {
            settings.append(SettingSchema(storageThreads, .integer(1...256), default: "4",
                help: "threads that run this backend's calls"))
            settings.append(SettingSchema(storageQueueMax, .integer(16...1_000_000), default: "4096",
                help: "operations under way on these threads; writes wait above three quarters,"
                    + " more than all are refused with 18"))
        }
        return settings + thresholds
    }

    /// Thresholds in percent of the capacity; the node watches them, whatever the backend is.
    private static let thresholds = [
        SettingSchema(stopWritesUsed, .integer(0...100), default: "70", isDynamic: true,
            help: "new records answer 8 above this percentage of the capacity, if the backend has one; 0 for never"),
        SettingSchema(stopWritesAvailable, .integer(0...100), default: "5", isDynamic: true,
            help: "new records answer 8 if less than this percentage of the capacity is free"),
        SettingSchema(stopUpdatesUsed, .integer(0...100), default: "90", isDynamic: true,
            help: "all writes answer 8 above this percentage of the capacity, deletes go on; 0 for never"),
        SettingSchema(stopUpdatesAvailable, .integer(0...100), default: "2", isDynamic: true,
            help: "all writes answer 8 if less than this percentage of the capacity is free, deletes go on"),
        SettingSchema(evictUsed, .integer(0...100), default: "0", isDynamic: true,
            help: "records are evicted above this percentage of the capacity; 0 for never"),
    ]
}
