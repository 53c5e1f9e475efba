// What the operator can say about a device log, and what tests may say beside it.
internal import Device
internal import Storage

/// Mistakes that a device log can be told to make, so that tests see whether anybody would notice.
package enum LogCanary: Sendable, CaseIterable {
    /// A block is written again before the writes that emptied it last.
    case reusesEarly
    /// An image has a location before its bytes are there.
    case publishesEarly
    /// A start from kept memory does not write out what its last process had not.
    case forgetsUnwritten
    /// An image has a location before it would outlive a loss of power.
    case publishesUnpersisted
}

/// Sizes that are fixed when a device is first used, and canaries. Tests work with small ones.
package struct LogShape: Sendable {
    /// Bytes of a write block, a power of two.
    package var blockSize = 8 << 20
    /// Bytes in front of the blocks, for superblocks and metadata.
    package var headSize = 8 << 20
    /// What every flush is padded to, bytes.
    package var flushUnit = 4096
    /// Most blocks of a device: what is kept of each has a place from the start.
    package var blocksMax = 1 << 22
    /// Only in tests.
    package var canary: LogCanary?

    package init() {}
}

/// The settings of one namespace, parsed.
struct LogSettings {
    let devices: [String]
    let files: [String]
    let fileByteCount: Int
    let flushSize: Int
    let flushMaxMilliseconds: UInt64
    let writeCacheMax: Int
    let postWriteCacheMax: Int
    let defragLivePercent: Int
    let defragFreePercent: Int
    let isSyncDisabled: Bool
    let readsThroughPageCache: Bool
    let stallMilliseconds: UInt64
    let startsEmpty: Bool
    let stopsOnFailure: Bool
    let goesOnWithoutMissing: Bool
    let shape: LogShape
    /// Every block stays in memory (`storage-engine memory` with devices).
    let isResident: Bool

    init(_ settings: BackendSettings, shape: LogShape, isResident: Bool) {
        func number(_ name: String) -> Int { Int(clamping: settings.number(name) ?? 0) }
        devices = settings.list("device").filter { !$0.isEmpty }
        files = settings.list("file").filter { !$0.isEmpty }
        fileByteCount = number("filesize")
        flushSize = number("flush-size")
        flushMaxMilliseconds = UInt64(number("flush-max-ms"))
        writeCacheMax = number("max-write-cache")
        postWriteCacheMax = number("post-write-cache")
        defragLivePercent = number("defrag-lwm-pct")
        defragFreePercent = number("defrag-free-target-pct")
        isSyncDisabled = settings.flag("disable-odsync")
        readsThroughPageCache = settings.flag("read-page-cache")
        stallMilliseconds = UInt64(number("device-stall-ms"))
        startsEmpty = settings.flag("cold-start-empty")
        stopsOnFailure = settings.text("on-device-failure") == "stop"
        goesOnWithoutMissing = settings.text("on-missing-device") == "continue"
        self.shape = shape
        self.isResident = isResident
    }

    static let schema: [SettingSchema] = [
        SettingSchema("device", .list, help: "path of a raw block device; up to 128, once for each"),
        SettingSchema("file", .list, help: "path of a file in place of a device; needs filesize; up to 128, once for each"),
        SettingSchema("filesize", .size(0...1 << 41), default: "0",
            help: "bytes of each file; it is made in full; a larger value makes existing files grow"),
        SettingSchema("flush-size", .size(4096...8 << 20), default: "1M",
            help: "bytes that are gathered before they are written, unless flush-max-ms or a commit comes first"),
        SettingSchema("flush-max-ms", .milliseconds(1...1000), default: "1000", isDynamic: true,
            help: "milliseconds that a record waits in memory at most before it is written"),
        SettingSchema("max-write-cache", .size(8 << 20...1 << 40), default: "64M",
            help: "bytes waiting to be written; writes wait above half of it, then answer 18"),
        SettingSchema("post-write-cache", .size(0...1 << 40), default: "256M",
            help: "bytes of write blocks that stay in memory for reads after they were written"),
        SettingSchema("read-page-cache", .boolean, default: "false",
            help: "read through the system's page cache, past post-write-cache: for data that is read again soon"),
        SettingSchema("disable-odsync", .boolean, default: "false",
            help: "writes are made durable by a flush where needed, not each by itself"),
        SettingSchema("defrag-lwm-pct", .integer(1...99), default: "50", isDynamic: true,
            help: "a write block is defragmented only if less than this percentage of it is live;"
                + " up to 95 when blocks run short"),
        SettingSchema("defrag-free-target-pct", .integer(1...90), default: "10",
            help: "defragmentation rests while more than this percentage of the write blocks is free"),
        SettingSchema("cold-start-empty", .boolean, default: "false",
            help: "forget all records at the start; there is no way back"),
        SettingSchema("device-stall-ms", .milliseconds(1000...3_600_000), default: "30000",
            help: "a device that leaves an operation unanswered for so long is given up"),
        SettingSchema("on-device-failure", .word(["fence", "stop"]), default: "fence",
            help: "fence: a device that fails is left out, its records answer 1; stop: the node stops"),
        SettingSchema("on-missing-device", .word(["stop", "continue"]), default: "stop",
            help: "continue: start without a device of the set, its records are not there; stop: do not start"),
        SettingSchema("direct-files", .boolean, default: "true", hasEffect: false,
            help: "files are always read and written directly where their file system can"),
        SettingSchema("cache-replica-writes", .boolean, default: "false", hasEffect: false, help: "no replicas yet"),
        SettingSchema("defrag-queue-min", .integer(0...4_294_967_295), default: "0", hasEffect: false,
            help: "defragmentation runs by need, the emptiest block first"),
        SettingSchema("defrag-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "defragmentation runs by need"),
        SettingSchema("defrag-startup-minimum", .integer(0...99), default: "0", hasEffect: false,
            help: "the node serves as soon as its index is there"),
        SettingSchema("serialize-tomb-raider", .boolean, default: "false", hasEffect: false,
            help: "no tomb raider yet: tombstones are removed at a start"),
        SettingSchema("sindex-startup-device-scan", .boolean, default: "false", hasEffect: false,
            help: "no secondary indexes yet"),
        SettingSchema("tomb-raider-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "no tomb raider yet: tombstones are removed at a start"),
    ] + StandardSettings.withoutEffect
}
