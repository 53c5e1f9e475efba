// `storage-engine memory`: a log-structured arena. Images are appended to blocks of 1 MiB and never changed;
// what is overwritten leaves holes, and compaction moves what is left of the emptiest blocks together.
public import Storage
internal import Base
internal import CBase

/// One namespace in memory.
final class MemoryBackend: Backend, Compacting, @unchecked Sendable {
    private let blocks: BlockTable
    private let dataSize: UInt64
    private let livePercent: Int
    private let slackPercent: Int
    private let lockWord: UnsafeMutablePointer<UInt32>
    private var shards: [MemoryShard] = []
    private var reserveBlocks = 0
    private var namespaceBlob: [UInt8] = []
    private var partitionMetadata: [[UInt8]] = []

    init(_ request: OpenRequest) throws(StorageError) {
        dataSize = request.settings.number("data-size") ?? Memory.dataSizeDefault
        blocks = try BlockTable(dataSize: Int(dataSize))
        let percent = Int(request.settings.number("defrag-lwm-pct") ?? Memory.defragPercentDefault)
        livePercent = percent
        // Blocks above the threshold keep their garbage: wanting that back would be wanting it for ever.
        slackPercent = max(Memory.slackPercent, (100 - percent) * 100 / percent)
        lockWord = .allocate(capacity: 1)
        lockWord.initialize(to: 0)
    }

    deinit { lockWord.deallocate() }

    // ---- Control plane ----

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        let count = request.count
        let reserve = 2 * count + 2
        reserveBlocks = reserve
        guard blocks.count >= 2 * reserve else {
            throw .settings("data-size \(dataSize) is too small for \(count) service-threads: at least"
                + " \(2 * reserve * BlockTable.blockSize >> 20)M, or fewer service-threads")
        }
        let shard = try MemoryShard(blocks, reserveBlocks: reserve)
        apus_lock(lockWord)
        shards.append(shard)
        apus_unlock(lockWord)
        return shard
    }

    /// Finds nothing: what was in memory is gone with the process that wrote it.
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {}

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { namespaceBlob }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try StoredMetadata.check(blob: bytes)
        namespaceBlob = bytes
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { partitionMetadata }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try StoredMetadata.check(partitions: metadata)
        partitionMetadata = metadata
    }

    func close() throws(StorageError) {}

    var statistics: BackendStatistics {
        var figures = BackendStatistics()
        figures.totalBytes = dataSize
        figures.usedBytes = UInt64(liveBytes)
        // The reserve is for compaction: nobody else can append there.
        let available = max(blocks.count - blocks.usedBlocks - reserveBlocks, 0)
        figures.availableBytes = UInt64(available * BlockTable.blockSize)
        figures.pressure = available == 0 ? .full : .none
        figures.allocatedBytes = UInt64(blocks.allocatedBytes)
        for shard in shards {
            figures.movedImages += shard.movedImages
            figures.compactedBlocks += shard.compactedBlocks
        }
        return figures
    }

    private var liveBytes: Int { Int(max(shards.reduce(Int64(0)) { $0 + $1.liveBytes }, 0)) }

    // ---- Compaction ----

    var compaction: (any Compacting)? { self }

    /// Nothing while the blocks in use are within `slackPercent` of what lives, plus the open ones; then the more the
    /// further.
    var wantedBytes: Int {
        let live = liveBytes
        let spare = (2 * shards.count + 1) * BlockTable.blockSize
        let used = blocks.usedBlocks * BlockTable.blockSize
        let excess = used - spare - live - blocks.tailBytes - live / 100 * slackPercent
        guard excess > 0 else { return 0 }
        let step = max(live / 50, BlockTable.blockSize)
        return min(Memory.sliceBytes * (1 + excess / step), CompactionUrgency.pressingBytes)
    }

    func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int {
        guard let shard = shard as? MemoryShard else { preconditionFailure("a shard of another backend") }
        return try shard.compact(byteBudget: byteBudget, livePercent: livePercent, arbiter: arbiter)
    }
}

/// The memory backend as the registry knows it.
public enum Memory {
    static let imageSizeMax = 8 << 20
    static let dataSizeDefault: UInt64 = 4 << 30
    static let defragPercentDefault: UInt64 = 95
    /// Bytes of garbage, in percent of what lives, that compaction leaves alone.
    static let slackPercent = 10
    /// Bytes that one slice looks at when there is little to do: about 25 us.
    static let sliceBytes = 16 << 10

    /// What the operator writes as `storage-engine memory`.
    public static let descriptor = BackendDescriptor(
        name: "memory", contract: .current, formats: 1...1, capabilities: [.volatile],
        limits: BackendLimits(imageSizeMax: imageSizeMax, locationBits: 44, atomicWriteSize: 0), medium: .none,
        settings: settings,
        open: { (request) throws(StorageError) -> any Backend in try MemoryBackend(request) })

    private static let settings: [SettingSchema] = [
        SettingSchema("data-size", .size(16 << 20...1 << 47), default: "4G",
            help: "limit of the data in bytes; memory is taken as it is needed and given back"),
        SettingSchema("defrag-lwm-pct", .integer(1...99), default: "95",
            help: "a block is compacted only if less than this percentage of it is live"),
        SettingSchema("evict-used-pct", .integer(0...100), default: "0", hasEffect: false, help: "no eviction yet"),
        SettingSchema("commit-to-device", .boolean, default: "false", hasEffect: false, help: "no backing device yet"),
        SettingSchema("compression", .word(["none", "lz4", "snappy", "zstd"]), default: "none", hasEffect: false,
            help: "no compression yet"),
        SettingSchema("compression-acceleration", .integer(0...65537), default: "0", hasEffect: false,
            help: "no compression yet"),
        SettingSchema("compression-level", .integer(0...9), default: "0", hasEffect: false,
            help: "no compression yet"),
        SettingSchema("defrag-queue-min", .integer(0...4_294_967_295), default: "0", hasEffect: false,
            help: "compaction runs by need"),
        SettingSchema("defrag-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "compaction runs by need"),
        SettingSchema("defrag-startup-minimum", .integer(0...99), default: "0", hasEffect: false,
            help: "nothing survives a restart"),
        SettingSchema("enable-benchmarks-storage", .boolean, default: "false", hasEffect: false,
            help: "no storage histograms yet"),
        SettingSchema("flush-max-ms", .integer(0...1000), default: "1000", hasEffect: false,
            help: "no backing device yet"),
        SettingSchema("flush-size", .size(4096...8 << 20), default: "1M", hasEffect: false,
            help: "no backing device yet"),
        SettingSchema("max-write-cache", .size(0...UInt64.max), default: "64M", hasEffect: false,
            help: "no backing device yet"),
        SettingSchema("tomb-raider-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "no tombstones yet"),
    ]
}
