// What the operator can say about persistent memory, and what tests may say beside it.
package import BlockStore
internal import Storage

/// Sizes that are fixed when a file is first used, and canaries. Tests work with small ones.
package struct PmemShape: Sendable {
    /// Bytes of a block, a power of two.
    package var blockSize = 1 << 20
    /// Bytes in front of the blocks, for superblocks and metadata.
    package var headSize = 8 << 20
    /// Largest image in bytes; one that is larger than a block takes several.
    package var imageSizeMax = 8 << 20
    /// Only in tests.
    package var canary: BlockCanary?

    package init() {}
}

/// The settings of one namespace, parsed.
struct PmemSettings {
    let files: [String]
    let fileByteCount: Int
    let defragLivePercent: Int
    let startsEmpty: Bool
    let shape: PmemShape

    init(_ settings: BackendSettings, shape: PmemShape) {
        files = settings.list("file").filter { !$0.isEmpty }
        fileByteCount = Int(clamping: settings.number("filesize") ?? 0)
        defragLivePercent = Int(clamping: settings.number("defrag-lwm-pct") ?? 50)
        startsEmpty = settings.flag("cold-start-empty")
        self.shape = shape
    }

    private static let lasting = "a write lasts when it is answered"

    static let schema: [SettingSchema] = [
        SettingSchema("file", .list,
            help: "path of a file on a file system in persistent memory (mounted with dax); up to 128, once for each"),
        SettingSchema("filesize", .size(0...1 << 41), default: "0",
            help: "bytes of each file; one that is not there is made in full"),
        SettingSchema("defrag-lwm-pct", .integer(1...99), default: "50", isDynamic: true,
            help: "a block is compacted only if less than this percentage of it is live"),
        SettingSchema("cold-start-empty", .boolean, default: "false",
            help: "forget all records at the start; there is no way back"),
        SettingSchema("commit-to-device", .boolean, default: "false",
            help: "a write always lasts when it is answered; true: a delete does, too, while compaction is at work"),
        SettingSchema("defrag-queue-min", .integer(0...4_294_967_295), default: "0", hasEffect: false,
            help: "compaction runs by need"),
        SettingSchema("defrag-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "compaction runs by need"),
        SettingSchema("defrag-startup-minimum", .integer(0...99), default: "0", hasEffect: false,
            help: "the node serves as soon as its index is there"),
        SettingSchema("direct-files", .boolean, default: "true", hasEffect: false,
            help: "persistent memory has no page cache"),
        SettingSchema("disable-odsync", .boolean, default: "false", hasEffect: false, help: lasting),
        SettingSchema("flush-max-ms", .milliseconds(0...1000), default: "1000", hasEffect: false, help: lasting),
        SettingSchema("flush-size", .size(4096...8 << 20), default: "1M", hasEffect: false, help: lasting),
        SettingSchema("max-write-cache", .size(0...1 << 40), default: "64M", hasEffect: false, help: lasting),
        SettingSchema("serialize-tomb-raider", .boolean, default: "false", hasEffect: false,
            help: "needs no tombstones: deletes last"),
        SettingSchema("sindex-startup-device-scan", .boolean, default: "false", hasEffect: false,
            help: "no secondary indexes yet"),
        SettingSchema("tomb-raider-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "needs no tombstones: deletes last"),
    ] + StandardSettings.withoutEffect
}
