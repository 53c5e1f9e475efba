// The blocks of one namespace with the shards that work on them: what `storage-engine memory` and `storage-engine pmem`
// have in common. Invariants:
// 1. All shards are made before the first is used.
// 2. While somebody scans, nothing is moved, so that no image slips past.
internal import Base
internal import CBase
package import Storage

/// Mistakes that a store of blocks can be told to make, so that tests see whether anybody would notice.
package enum BlockCanary: Sendable, CaseIterable {
    /// An image has a location, and its commit is answered, before its bytes last: that is for the end of the turn.
    case answersEarly
    /// A commit does not wait for images that are being moved.
    case ignoresMoves
    /// Images that are released are only forgotten.
    case forgetsReleases
}

/// Sizes of one namespace's blocks. Bytes.
package struct BlockShape: Sendable {
    package var blockSize = 1 << 20
    package var imageSizeMax = 8 << 20
    /// Images have headers (`ImageHeader`): they can be found without an index.
    package var hasHeaders = false
    /// Mixed into the headers' checks.
    package var seed: UInt32 = 0
    /// Blocks are compacted if at most this percentage of them is live.
    package var livePercent = 50
    /// Only in tests.
    package var canary: BlockCanary?

    package init() {}

    var headerSize: Int { hasHeaders ? ImageHeader.byteCount : 0 }
}

/// See the invariants above. Any thread.
package final class BlockCore: Compacting, Adjusting, @unchecked Sendable {
    /// Bytes of garbage, in percent of what lives, that compaction leaves alone at least.
    private static let slackPercentMin = 10
    /// Bytes that one slice looks at when there is little to do: about 25 us.
    private static let sliceBytes = 16 << 10

    package let space: BlockSpace
    package let table: BlockTable
    package let shape: BlockShape
    /// Nil without headers.
    package let orders: ImageOrders?
    private let name: String
    private let lockWord: UnsafeMutablePointer<UInt32>
    /// Word 0: scans under way; word 1: the percentage of which `BlockShape.livePercent` is the first.
    private let scanCount: UnsafeMutablePointer<UInt64>
    private var shards: [ShardFigures] = []
    private(set) var reserveBlocks = 0
    let moves = MoveMarks()
    /// What lived when the namespace began to serve, in bytes with headers.
    package var startBytes = 0

    /// `name` is the storage-engine's.
    package init(_ name: String, _ table: BlockTable, _ shape: BlockShape, orders: ImageOrders? = nil) {
        precondition(shape.hasHeaders == (orders != nil) && shape.blockSize == table.space.blockSize)
        self.name = name
        self.table = table
        space = table.space
        self.shape = shape
        self.orders = orders
        lockWord = .allocate(capacity: 1)
        lockWord.initialize(to: 0)
        scanCount = .allocate(capacity: 8)
        scanCount.initialize(repeating: 0, count: 8)
        scanCount[1] = UInt64(shape.livePercent)
    }

    deinit {
        lockWord.deallocate()
        scanCount.deallocate()
    }

    /// Blocks are compacted if at most this percentage of them is live. One thread changes it.
    package var livePercent: Int {
        get { Int(apus_load_relaxed_u64(scanCount + 1)) }
        set { apus_store_relaxed_u64(scanCount + 1, UInt64(newValue)) }
    }

    /// Blocks above the threshold keep their garbage: wanting that back would be wanting it for ever.
    private var slackPercent: Int { max(BlockCore.slackPercentMin, (100 - livePercent) * 100 / livePercent) }

    // ---- Shards ----

    /// Blocks that `shardCount` shards need at least; half of them are kept back for compaction.
    package static func blocksMin(shardCount: Int) -> Int { 2 * reserve(shardCount) }

    private static func reserve(_ shardCount: Int) -> Int { 2 * shardCount + 2 }

    /// Makes a shard; the caller has made sure of `blocksMin`.
    /// - Throws: `settings` if there are too many.
    package func makeShard(_ request: ShardRequest) throws(StorageError) -> BlockShard {
        reserveBlocks = BlockCore.reserve(request.count)
        guard let member = table.epochs.join() else {
            throw .settings("more than \(TurnEpochs.membersMax) service-threads: storage-engine \(name) has no more shards")
        }
        apus_lock(lockWord)
        let figures = ShardFigures()
        shards.append(figures)
        let number = moves.join()
        apus_unlock(lockWord)
        return BlockShard(self, figures, number: number, member: member, reserveBlocks: reserveBlocks)
    }

    /// Takes what may change while the namespace serves.
    package func adjust(_ settings: BackendSettings) {
        if let percent = settings.number("defrag-lwm-pct"), percent > 0 { livePercent = Int(percent) }
    }

    /// Has at least as many blocks backed as so many shards need to work; false if the medium has no room.
    package func back(shardCount: Int) -> Bool {
        let wanted = BlockCore.blocksMin(shardCount: shardCount)
        while table.backedBlocks < wanted {
            guard table.grow(span: wanted - table.backedBlocks, reserve: 0) else { return false }
        }
        return true
    }

    // ---- Scans ----

    /// Nothing is moved from here on. Not on a shard's thread.
    package func scanBegan() {
        apus_fetch_add_u64(scanCount, 1)
        apus_fence()
        // Nobody rings it: a move takes a microsecond, unless its thread has to wait for a processor.
        let bell = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
        bell.initialize(to: 0)
        defer { bell.deallocate() }
        for shard in 0..<moves.count {
            guard let mark = moves.current(shard) else { continue }
            while !moves.isOver(shard, mark) { apus_bell_wait(bell, 1) }
        }
    }

    package func scanEnded() { apus_fetch_add_u64(scanCount, 0 &- 1) }

    var hasScans: Bool { apus_load_acquire_u64(scanCount) > 0 }

    /// The number of somebody who looks at blocks without being a shard; nil if there are too many.
    package func joinReaders() -> Int? { table.epochs.join() }
    /// He begins to look at a block: it keeps what it holds until he begins with the next, or sleeps.
    package func readerBegan(_ member: Int) { table.epochs.turnBegan(member) }
    package func readerSleeps(_ member: Int) { table.epochs.fellAsleep(member) }

    /// The image at `location`, of so many bytes, is not wanted any more, for good. Before shards are used.
    package func drop(_ location: Location, byteCount: Int) {
        release(location)
        table.removeLive(space.block(of: location), shape.headerSize + Envelope.storedByteCount(byteCount))
    }

    /// Marks the header of an image, and has the mark last.
    package func release(_ location: Location) {
        ImageHeader.release(at: space.address(location) - ImageHeader.byteCount)
        persistHeader(location)
    }

    /// Has the header of an image last.
    func persistHeader(_ location: Location) {
        let place = space.address(location) - ImageHeader.byteCount
        space.persist(location.rawValue, place, byteCount: ImageHeader.byteCount)
    }

    /// Has the first bytes of a block last.
    package func persist(block: Int, byteCount: Int) {
        space.persist(space.location(ofBlock: block), space.address(ofBlock: block), byteCount: byteCount)
    }

    // ---- Figures ----

    /// Bytes of all images that live, headers included.
    package var liveBytes: Int { Int(max(shards.reduce(Int64(startBytes)) { $0 + $1[.liveBytes] }, 0)) }

    /// Blocks that shards could still take; what is kept back for compaction is not among them.
    package var availableBlocks: Int { max(table.usableBlocks - table.usedBlocks - reserveBlocks, 0) }

    /// What both backends say of themselves.
    package var statistics: BackendStatistics {
        var figures = BackendStatistics()
        figures.totalBytes = UInt64(space.count * space.blockSize)
        figures.usedBytes = UInt64(liveBytes)
        figures.availableBytes = UInt64(availableBlocks * space.blockSize)
        figures.pressure = availableBlocks == 0 ? .full : .none
        for shard in shards {
            figures.movedImages += UInt64(shard[.movedImages])
            figures.compactedBlocks += UInt64(shard[.compactedBlocks])
        }
        return figures
    }

    // ---- Compaction ----

    /// Nothing while the blocks in use are within `slackPercent` of what lives, plus the open ones; then the more the
    /// further.
    package var wantedBytes: Int {
        guard !hasScans else { return 0 }
        let live = liveBytes
        let spare = (2 * shards.count + 1) * space.blockSize
        let used = table.usedBlocks * space.blockSize
        let excess = used - spare - live - table.tailBytes - live / 100 * slackPercent
        guard excess > 0 else { return 0 }
        let step = max(live / 50, space.blockSize)
        return min(BlockCore.sliceBytes * (1 + excess / step), CompactionUrgency.pressingBytes)
    }

    package func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int {
        guard let shard = shard as? BlockShard else { preconditionFailure("a shard of another backend") }
        return try shard.compact(byteBudget: byteBudget, arbiter: arbiter)
    }
}
