// The control plane of persistent memory. Invariants:
// 1. Superblocks are written under `controls`, metadata under `values`: neither lock is held for long, for a reactor may
//    have to raise the floor.
// 2. Nothing is appended before the start has ended: until then no block is known to be free.
internal import Base
internal import BlockStore
public import Storage
internal import Synchronization

/// `storage-engine pmem` for a registry of backends.
public enum PMEM {
    /// What the operator writes after `storage-engine`.
    public static let name = "pmem"

    /// Records in files of persistent memory that `opener` opens. `entropy` gives bits of chance at each opening.
    public static func descriptor(
        opener: any PmemOpener, entropy: @escaping @Sendable () -> UInt64
    ) -> BackendDescriptor {
        descriptor(opener: opener, entropy: entropy, shape: PmemShape())
    }

    /// The same with other sizes, for tests.
    package static func descriptor(
        opener: any PmemOpener, entropy: @escaping @Sendable () -> UInt64, shape: PmemShape
    ) -> BackendDescriptor {
        BackendDescriptor(
            name: name, contract: .current, formats: PmemSuperblock.format...PmemSuperblock.format,
            capabilities: [.durableAtCommit, .deletesLast],
            limits: BackendLimits(
                imageSizeMax: shape.imageSizeMax, locationBits: Location.bitCount, atomicWriteSize: 8),
            medium: .own, settings: PmemSettings.schema, keepsMemory: .unwritten,
            problems: { PmemOpening($0, opener: opener, entropy: entropy, shape: shape).problems },
            open: { (request) throws(StorageError) -> any Backend in
                try PmemOpening(request, opener: opener, entropy: entropy, shape: shape).open()
            })
    }
}

/// How a namespace finds out what lives.
enum PmemStart {
    /// There is nothing.
    case empty
    /// By scans.
    case cold
    /// By its index; the blocks are walked if it was not closed in good order.
    case warm(isWalked: Bool)
}

/// See the top of the file. Any thread.
final class PmemBackend: Backend, @unchecked Sendable {
    let core: BlockCore
    let scans: PmemScans
    let warmStart: (any WarmStarting)?
    private let orders: ImageOrders
    private let paths: [String]
    private let controls: PmemControls
    private let values: PmemValues
    private let isClosed = Atomic<Bool>(false)

    /// Of the members of a set, by slot, whose superblocks are written.
    init(
        _ members: [PmemControl], _ common: PmemSuperblock, _ settings: PmemSettings, paths: [String], start: PmemStart,
        _ request: OpenRequest
    ) throws(StorageError) {
        self.paths = paths
        var shape = BlockShape()
        shape.blockSize = settings.shape.blockSize
        shape.imageSizeMax = settings.shape.imageSizeMax
        shape.hasHeaders = true
        shape.seed = UInt32(truncatingIfNeeded: common.setIdentity) ^ UInt32(truncatingIfNeeded: common.setIdentity >> 32)
        shape.livePercent = settings.defragLivePercent
        shape.canary = settings.shape.canary
        let files = members.map { one in
            BlockFile(
                slot: one.superblock.slot, region: one.region, headSize: settings.shape.headSize,
                blockCount: (one.superblock.fileByteCount - settings.shape.headSize) / settings.shape.blockSize)
        }
        let space = BlockSpace(files, blockSize: shape.blockSize)
        let controls = PmemControls(members)
        self.controls = controls
        let orders = ImageOrders(
            next: common.orderFloor - ImageOrders.step, floor: common.orderFloor, raise: { controls.raiseFloor($0) })
        self.orders = orders
        var isEmpty = false
        if case .empty = start { isEmpty = true }
        core = BlockCore(PMEM.name, BlockTable(space, isUnknown: !isEmpty), shape, orders: orders)
        values = PmemValues(members[0].region, settings.shape, seed: shape.seed)
        if case .warm(let isWalked) = start {
            scans = PmemScans(core, state: .serving, firstOrder: common.firstOrder, request.warn)
            warmStart = PmemWarmStart(try BlockAdoption(core, isWalked: isWalked), scans)
        } else {
            scans = PmemScans(core, state: isEmpty ? .serving : .cold, firstOrder: common.firstOrder, request.warn)
            warmStart = nil
        }
    }

    private func checkOpen() throws(StorageError) {
        guard !isClosed.load(ordering: .acquiring) else { throw .closed }
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        try checkOpen()
        let least = BlockCore.blocksMin(shardCount: request.count)
        guard core.space.count >= least else {
            throw .settings("the files of storage-engine pmem have \(core.space.count) blocks of"
                + " \(core.space.blockSize) bytes together: \(request.count) service-threads need at least \(least); name"
                + " further files, or take fewer service-threads")
        }
        return try core.makeShard(request)
    }

    func scan(
        segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) {
        try checkOpen()
        try scans.run(segment, of: count, visit)
    }

    // ---- Metadata ----

    var adjusting: (any Adjusting)? { core }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] {
        try checkOpen()
        return values.load(.namespaceBlob)
    }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try checkOpen()
        try StoredMetadata.check(blob: bytes)
        try values.store(.namespaceBlob, bytes)
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        try checkOpen()
        return StoredMetadata.decode(partitions: values.load(.partitions))
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try checkOpen()
        try StoredMetadata.check(partitions: metadata)
        try values.store(.partitions, StoredMetadata.encode(partitions: metadata))
    }

    // ---- Figures ----

    var statistics: BackendStatistics {
        var figures = core.statistics
        figures.allocatedBytes = UInt64(core.table.usedBlocks * core.space.blockSize)
        figures.lostPlaces = scans.damagedBlocks
        figures.scanDoneBytes = scans.doneBytes
        figures.scanTotalBytes = scans.totalBytes
        figures.details = paths.enumerated().map { ("storage-engine.file[\($0)]", $1) }
        figures.details.append(("damaged_blocks", "\(scans.damagedBlocks)"))
        return figures
    }

    var compaction: (any Compacting)? { core }
    var locating: (any Locating)? { self }

    func close() throws(StorageError) {
        guard !isClosed.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // Everything lasts already. The next session goes on where this one ends.
        if !scans.isCold { controls.lowerFloor(to: orders.next) }
        controls.unlock()
    }
}

extension PmemBackend: Locating {
    func place(of location: Location) -> [(name: String, value: String)] {
        guard let (piece, block) = core.space.find(location), let path = controls.path(slot: piece.slot) else { return [] }
        let inBlock = core.space.offset(of: location)
        let offset = controls.headSize + (block - piece.firstBlock) * core.space.blockSize + inBlock
        return [
            ("file", path), ("slot", "\(piece.slot)"), ("block", "\(block - piece.firstBlock)"),
            ("offset-in-block", "\(inBlock)"), ("offset", "\(offset)"),
        ]
    }
}

/// The superblocks of a set. Any thread; nobody waits for long.
final class PmemControls: Sendable {
    private struct State: @unchecked Sendable { let members: [PmemControl] }
    private let state: Mutex<State>
    let headSize: Int
    private let pathsBySlot: [(slot: Int, path: String)]

    init(_ members: [PmemControl]) {
        headSize = members.first?.superblock.headSize ?? 0
        pathsBySlot = members.map { ($0.superblock.slot, $0.path) }
        state = Mutex(State(members: members))
    }

    func path(slot: Int) -> String? { pathsBySlot.first { $0.slot == slot }?.path }

    /// Raises the floor of the orders, if it is lower. It is that of slot 0 that counts: a set is opened as a whole.
    func raiseFloor(_ floor: UInt64) {
        state.withLock { state in
            guard let first = state.members.first, first.superblock.orderFloor < floor else { return }
            first.rewrite { $0.orderFloor = floor }
        }
    }

    /// Others may open the files.
    func unlock() { state.withLock { state in for member in state.members { member.unlock() } } }

    /// At the end of a session.
    func lowerFloor(to floor: UInt64) {
        state.withLock { state in
            for member in state.members { member.rewrite { $0.orderFloor = floor } }
        }
    }
}

/// The metadata of a namespace. Any thread.
final class PmemValues: Sendable {
    private struct State: @unchecked Sendable { let values: KeptValues }
    private let state: Mutex<State>

    init(_ region: any MemoryRegion, _ shape: PmemShape, seed: UInt32) {
        state = Mutex(
            State(
                values: KeptValues(
                    region, offset: PmemSuperblock.valuesOffset, byteCount: PmemSuperblock.valuesByteCount(shape),
                    seed: seed)))
    }

    func load(_ kind: KeptValues.Kind) -> [UInt8] { state.withLock { $0.values[kind] } }

    func store(_ kind: KeptValues.Kind, _ value: [UInt8]) throws(StorageError) {
        try state.withLock { (state) throws(StorageError) in try state.values.store(kind, value) }
    }
}

/// The start from an index that was kept. `adopt` on any of several threads.
final class PmemWarmStart: WarmStarting {
    private let adoption: BlockAdoption
    private let scans: PmemScans

    init(_ adoption: BlockAdoption, _ scans: PmemScans) {
        self.adoption = adoption
        self.scans = scans
    }

    func adopt(_ location: Location, byteCount: Int) -> Bool { adoption.adopt(location, byteCount: byteCount) }

    func finish() throws(StorageError) { try adoption.finish() }
}
