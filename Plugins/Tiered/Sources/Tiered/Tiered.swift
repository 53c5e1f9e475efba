// `storage-engine tiered { hot-size 1G  cold rocksdb { ... } }`: the records that are used most in memory, all of them in
// another backend. Nothing lives here alone: what this backend holds can be thrown away at any time.
public import Storage

/// Memory over any other backend, as the registry knows it.
public enum Tiered {
    /// The setting that picks the backend below.
    static let coldSetting = "cold"

    /// What the operator writes as `storage-engine tiered`.
    public static let descriptor = BackendDescriptor(
        name: "tiered", contract: .current, formats: 1...1, capabilities: [],
        limits: BackendLimits(imageSizeMax: 8 << 20, locationBits: Location.bitCount, atomicWriteSize: 0),
        medium: .none, settings: settings,
        // All promises are those of the backend below; but its calls no longer block, the node has seen to that.
        composition: Composition(setting: coldSetting) { ($0.subtracting(.blocking), $1) },
        open: { (request) throws(StorageError) -> any Backend in try TieredBackend(request) })

    private static let settings: [SettingSchema] = [
        SettingSchema("hot-size", .size(1 << 20...1 << 47), default: "1G",
            help: "memory in bytes for the records that are used most"),
        SettingSchema(coldSetting, .backend,
            help: "the backend that holds all records, with its settings: cold rocksdb { ... }"),
    ]
}
