// The smallest honest log: an addressed, durable backend over a `BlockDevice`, for the conformance kit to hunt in. Not
// a product: one lock, one group under way at a time. Format: LogFormat.swift; invariants: LogState.swift.
internal import Base
public import Device
public import Storage

/// A way to break the log on purpose: the kit must find each.
public enum Flaw: String, CaseIterable, Sendable {
    /// A commit answers without a durable write.
    case forgetsSync
    /// Now and then a read gives the image that the digest had before.
    case returnsStaleBytes
    /// Now and then a release is not noted.
    case losesRelease
    /// A block is used again before what emptied it is durable.
    case reusesTooEarly
    /// Metadata is written over the only copy.
    case tornMetadata
    /// Recovery takes torn groups and images.
    case ignoresChecksum
}

/// See the top of the file. One lock for everything: any thread.
public final class ReferenceLogBackend: Backend, Compacting, @unchecked Sendable {
    private let core: LogCore
    private let metadata: LogMetadata

    /// What it promises.
    public static let capabilities: Capabilities = [.durableAtCommit, .deletesLast]
    /// Bytes of a block if nothing else is said.
    public static let blockSize = 32 << 10

    /// What it can hold.
    public static func limits(blockSize: Int) -> BackendLimits {
        BackendLimits(
            imageSizeMax: LogLayout.imageSizeMax(blockSize: blockSize), locationBits: Location.bitCount,
            atomicWriteSize: 512)
    }

    /// The log as a registry knows it; `open` opens `device`.
    public static func descriptor(
        device: any BlockDevice, blockSize: Int = blockSize, flaw: Flaw? = nil
    ) -> BackendDescriptor {
        BackendDescriptor(
            name: "reference-log", contract: .current, formats: LogFormat.number...LogFormat.number,
            capabilities: capabilities, limits: limits(blockSize: blockSize), medium: .own, settings: [],
            open: { (_) throws(StorageError) -> any Backend in
                try ReferenceLogBackend(device: device, blockSize: blockSize, flaw: flaw)
            })
    }

    /// Formats a device that has never been formatted, else recovers what is there. `blockSize` in bytes, at least eight
    /// sectors; the same at each start.
    /// - Throws: `device`; `settings` if the device is too small, `medium` if it holds something else.
    public init(device: any BlockDevice, blockSize: Int = blockSize, flaw: Flaw? = nil) throws(StorageError) {
        let channel = try LogChannel(device)
        // A process that died here before may have left writes that can be read but are not durable yet: what recovery
        // builds on must not vanish later.
        try channel.flush("flush at the start")
        let layout = try LogSuperblock.open(device, channel, blockSize: blockSize)
        core = try LogCore(device, layout, flaw)
        metadata = try LogMetadata(channel, layout, isWrittenInPlace: flaw == .tornMetadata)
        try core.recover(channel)
    }

    /// One shard; any number.
    public func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        guard !core.locked({ core.isClosed }) else { throw .closed }
        return LogShard(core, request)
    }

    /// Visits every live image of the segment once, in order of writing.
    public func scan(
        segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) {
        precondition(segment >= 0 && segment < count)
        guard !core.locked({ core.isClosed }) else { throw .closed }
        let channel = try LogChannel(core.device)
        for sequence in core.locked({ core.liveSequences(segment, count) }) {
            guard let decision = try visitOne(sequence, channel, visit) else { continue }
            if case .stop = decision { return }
            core.locked { core.decide(decision, sequence) }
        }
    }

    /// Nil if the image is gone, or damaged.
    private func visitOne(
        _ sequence: UInt64, _ channel: LogChannel, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) -> ScanDecision? {
        guard let (image, block, memory) = core.locked({ core.locate(sequence) }) else { return nil }
        let bytes: LogBuffer
        let range: Range<Int>
        if let memory {
            let start = image.offset - core.layout.offset(ofBlock: block)
            bytes = memory
            range = start..<(start + image.byteCount)
        } else {
            defer { core.locked { core.unpin(block) } }
            let sectors = core.sectors(image.offset, image.byteCount)
            bytes = try channel.read(sectors.lowerBound, sectors.count, "read an image")
            guard let found = core.imageRange(image.digest, image.offset, bytes) else {
                core.locked { core.damagedImages += 1 }
                return nil
            }
            range = found
        }
        return withExtendedLifetime(bytes) {
            visit(ScannedImage(
                digest: image.digest, location: core.location(image.offset), image: bytes.view(range), sequence: sequence))
        }
    }

    /// The blob of the area with the highest number that is whole.
    public func loadNamespaceBlob() throws(StorageError) -> [UInt8] {
        try checkOpen()
        return metadata.load(.namespaceBlob)
    }

    /// Written to the older area; at most 1 MiB, on a small device less.
    public func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try checkOpen()
        guard bytes.count <= LogFormat.blobSizeMax else { throw .tooLarge(limitBytes: LogFormat.blobSizeMax) }
        try metadata.store(.namespaceBlob, bytes)
    }

    /// The metadata of the area with the highest number that is whole.
    public func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        try checkOpen()
        return LogMetadata.split(metadata.load(.partitions))
    }

    /// Written to the older area in one piece; each at most 256 bytes.
    public func storePartitionMetadata(_ partitions: [[UInt8]]) throws(StorageError) {
        try checkOpen()
        guard partitions.allSatisfy({ $0.count <= LogFormat.partitionMetadataSizeMax }) else {
            throw .tooLarge(limitBytes: LogFormat.partitionMetadataSizeMax)
        }
        try metadata.store(.partitions, LogMetadata.join(partitions))
    }

    private func checkOpen() throws(StorageError) {
        guard !core.locked({ core.isClosed }) else { throw .closed }
    }

    /// Of now.
    public var statistics: BackendStatistics { core.locked { core.statistics } }

    /// Itself.
    public var compaction: (any Compacting)? { self }

    /// Nothing unless free blocks run low.
    public var wantedBytes: Int { core.locked { core.wantedBytes } }

    /// Returns 0 too while the block it wants to empty is being read.
    public func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int {
        guard let shard = shard as? LogShard else { preconditionFailure("a shard of another backend") }
        return try shard.compact(byteBudget, arbiter)
    }

    /// Waits until everything is durable.
    public func close() throws(StorageError) { try core.close() }
}
