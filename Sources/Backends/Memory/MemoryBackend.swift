// `storage-engine memory`: a log-structured arena. Images are appended to blocks of 1 MiB and never changed;
// what is overwritten leaves holes, and compaction moves what is left of the emptiest blocks together.
internal import BlockStore
internal import Base
public import Storage
internal import Synchronization

/// One namespace in memory.
final class MemoryBackend: Backend, @unchecked Sendable {
    private let core: BlockCore
    private let dataSize: UInt64
    /// Nil in ordinary memory.
    private let kept: MemoryKept?
    let warmStart: (any WarmStarting)?
    private struct Values {
        var namespaceBlob: [UInt8] = []
        var partitionMetadata: [[UInt8]] = []
    }
    private let values = Mutex(Values())

    init(_ request: OpenRequest) throws(StorageError) {
        let asked = request.settings.number("data-size") ?? Memory.dataSizeDefault
        var shape = BlockShape()
        shape.imageSizeMax = Memory.imageSizeMax
        shape.livePercent = Int(request.settings.number("defrag-lwm-pct") ?? Memory.defragPercentDefault)
        guard let memory = request.memory else {
            dataSize = asked
            let space = try BlockSpace(dataSize: Int(asked), blockSize: shape.blockSize)
            core = BlockCore(Memory.name, BlockTable(space, isUnknown: false), shape)
            (kept, warmStart) = (nil, nil)
            return
        }
        let isWarm = !memory.sessionKeys.isEmpty
        let opened = try MemoryKept(memory, asked, request, isWarm: isWarm)
        dataSize = opened.dataSize
        kept = opened
        let space = BlockSpace(opened.data, byteCount: Int(dataSize), blockSize: shape.blockSize)
        core = BlockCore(Memory.name, BlockTable(space, isUnknown: isWarm), shape)
        warmStart = isWarm ? MemoryWarmStart(try BlockAdoption(core, isWalked: false), opened.problem) : nil
    }

    // ---- Control plane ----

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        let least = BlockCore.blocksMin(shardCount: request.count)
        let megabytes = least * core.space.blockSize >> 20
        guard core.space.count >= least else {
            throw .settings("data-size \(dataSize) is too small for \(request.count) service-threads: at least"
                + " \(megabytes)M, or fewer service-threads")
        }
        guard let kept, !core.back(shardCount: request.count) else { return try core.makeShard(request) }
        throw .settings("there is no room in \(kept.medium) for the \(megabytes) MB that \(request.count) service-threads"
            + " need at least: enlarge it, or take index-type heap")
    }

    /// Finds nothing: what was in memory is gone with the process that wrote it, or gone on from by `warmStart`.
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {}

    var adjusting: (any Adjusting)? { core }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] {
        kept?.load(.namespaceBlob) ?? values.withLock { $0.namespaceBlob }
    }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try StoredMetadata.check(blob: bytes)
        if let kept { return try kept.store(.namespaceBlob, bytes) }
        values.withLock { $0.namespaceBlob = bytes }
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        guard let kept else { return values.withLock { $0.partitionMetadata } }
        return StoredMetadata.decode(partitions: kept.load(.partitions))
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try StoredMetadata.check(partitions: metadata)
        if let kept { return try kept.store(.partitions, StoredMetadata.encode(partitions: metadata)) }
        values.withLock { $0.partitionMetadata = metadata }
    }

    func close() throws(StorageError) {}

    var statistics: BackendStatistics {
        var figures = core.statistics
        figures.totalBytes = dataSize
        figures.allocatedBytes = UInt64(core.table.allocatedBytes)
        return figures
    }

    var compaction: (any Compacting)? { core }
}

/// The memory backend as the registry knows it.
public enum Memory {
    static let name = "memory"
    static let imageSizeMax = 8 << 20
    static let dataSizeDefault: UInt64 = 4 << 30
    static let defragPercentDefault: UInt64 = 95

    /// What the operator writes as `storage-engine memory`.
    public static let descriptor = BackendDescriptor(
        name: name, contract: .current, formats: 1...1, capabilities: [.volatile],
        limits: BackendLimits(imageSizeMax: imageSizeMax, locationBits: 44, atomicWriteSize: 0), medium: .none,
        settings: settings, keepsMemory: .records,
        open: { (request) throws(StorageError) -> any Backend in try MemoryBackend(request) })

    private static let settings: [SettingSchema] = [
        SettingSchema("data-size", .size(16 << 20...1 << 47), default: "4G",
            help: "limit of the data in bytes; memory is taken as it is needed, and given back but with index-type shmem or"
                + " pmem"),
        SettingSchema("defrag-lwm-pct", .integer(1...99), default: "95", isDynamic: true,
            help: "a block is compacted only if less than this percentage of it is live"),
        SettingSchema("commit-to-device", .boolean, default: "false", hasEffect: false, help: "no backing device yet"),
        SettingSchema("defrag-queue-min", .integer(0...4_294_967_295), default: "0", hasEffect: false,
            help: "compaction runs by need"),
        SettingSchema("defrag-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "compaction runs by need"),
        SettingSchema("defrag-startup-minimum", .integer(0...99), default: "0", hasEffect: false,
            help: "the node serves as soon as its index is there"),
        SettingSchema("flush-max-ms", .integer(0...1000), default: "1000", hasEffect: false,
            help: "no backing device yet"),
        SettingSchema("flush-size", .size(4096...8 << 20), default: "1M", hasEffect: false,
            help: "no backing device yet"),
        SettingSchema("max-write-cache", .size(0...UInt64.max), default: "64M", hasEffect: false,
            help: "no backing device yet"),
        SettingSchema("tomb-raider-sleep", .integer(0...4_294_967_295), default: "1000", hasEffect: false,
            help: "no tombstones yet"),
    ] + StandardSettings.withoutEffect
}
