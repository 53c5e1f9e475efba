// The blocks of a namespace on one reactor. Invariants:
// 1. The open blocks belong to this shard alone: nobody else appends to them.
// 2. Bytes below `fill` of an open block are images; a location is handed out after its bytes are written, and last where
//    the medium wants that.
// 3. With headers, an image that was released is so for good before `release` returns, and one that is moved when the move
//    ends: a commit that follows a release waits for the moves of other shards that are under way.
package import Base
internal import CBase
internal import Glibc
package import Storage

/// One block that a shard appends to.
private struct OpenBlock {
    var number = -1
    var fill = 0
    var base = UnsafeMutableRawPointer(bitPattern: 16).unsafelyUnwrapped
    var location: UInt64 = 0
}

/// Where an image is going to be: its header, if it has one, then the image.
private struct Place {
    let address: UnsafeMutableRawPointer
    /// Of the address, not of the image.
    let location: UInt64
    let block: Int
}

/// A commit that waits for moves of other shards.
private struct WaitingCommit {
    let tag: Tag
    var moves: [(shard: Int, mark: UInt64)]
}

/// Appends, reads and compacts for one reactor. Reactor's thread only.
package final class BlockShard: BackendShard {
    /// Images whose index entries are fetched together.
    private static let lookAheadMax = 16
    /// Released images that are passed over in one go, and what each counts for: the line of its header.
    private static let passedMax = 64
    private static let lineSize = 64
    /// How often a shard has more blocks backed while others take them away.
    private static let growthsMax = 16
    private let core: BlockCore
    private let table: BlockTable
    private let space: BlockSpace
    private let headerSize: Int
    private let imageSizeMax: Int
    private let needsPersist: Bool
    private let member: Int
    /// Of its mark in `BlockCore.moves`.
    private let number: Int
    private let figures: ShardFigures
    private let reserveBlocks: Int
    private var fresh = OpenBlock()
    private var moved = OpenBlock()
    private var victim = -1
    private var victimLocation: UInt64 = 0
    private var isVictimSpoiled = false
    /// Nil when the victim has no further images than those in `ahead`.
    private var walker: BlockWalker?
    private let ahead: UnsafeMutablePointer<StoredImage>
    private var aheadCount = 0
    private var aheadNext = 0
    /// Something was released since this shard has last seen that nobody moves anything.
    private var hasReleased = false
    private var waitingCommits: [WaitingCommit] = []
    /// `BlockCanary.answersEarly`: what is persisted at the end of the turn.
    private var late: [(place: Place, byteCount: Int)] = []

    init(_ core: BlockCore, _ figures: ShardFigures, number: Int, member: Int, reserveBlocks: Int) {
        self.core = core
        table = core.table
        space = core.space
        headerSize = core.shape.headerSize
        imageSizeMax = core.shape.imageSizeMax
        needsPersist = core.space.needsPersist
        self.reserveBlocks = reserveBlocks
        self.figures = figures
        self.member = member
        self.number = number
        ahead = .allocate(capacity: BlockShard.lookAheadMax)
    }

    deinit { ahead.deallocate() }

    // ---- Contract ----

    package func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Storage.Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        guard image.count <= imageSizeMax else { throw .tooLarge(limitBytes: imageSizeMax) }
        guard image.baseAddress != nil else { throw .settings("an empty image") }
        let order = headerSize > 0 ? core.orders.unsafelyUnwrapped.take() : 0
        return .placed(try store(image, order: order, isMoved: stream == .moved))
    }

    /// Writes an image to a block of the stream and counts it as live.
    private func store(
        _ image: UnsafeRawBufferPointer, order: UInt64, isMoved: Bool
    ) throws(StorageError) -> Location {
        let size = headerSize + Envelope.storedByteCount(image.count)
        let place: Place
        if size > space.blockSize {
            place = try takeSpan(size)
        } else if isMoved {
            place = try reserve(size, &moved, keeping: 0)
        } else {
            place = try reserve(size, &fresh, keeping: reserveBlocks)
        }
        memcpy(place.address + headerSize, image.baseAddress.unsafelyUnwrapped, image.count)
        let location = place.location + UInt64(headerSize / BlockSpace.unitSize)
        if headerSize > 0 {
            ImageHeader.store(
                at: place.address, units: (size - headerSize) / BlockSpace.unitSize, order: order, location: location,
                seed: core.shape.seed)
        }
        if needsPersist { persist(place, headerSize + image.count) }
        table.addLive(place.block, size)
        figures.add(.liveBytes, size)
        if size > space.blockSize { table.close(place.block, filled: size) }
        return Location(rawValue: location)
    }

    private func persist(_ place: Place, _ byteCount: Int) {
        if core.shape.canary == .answersEarly { return late.append((place, byteCount)) }
        space.persist(place.location, place.address, byteCount: byteCount)
    }

    package func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        .here(UnsafeRawBufferPointer(start: space.address(location), count: byteCount))
    }

    package func prefetch(at location: Location, byteCount: Int) {
        let address = space.address(location)
        for line in 0..<min((byteCount + 63) / 64, 4) { apus_prefetch(address + 64 * line) }
    }

    package func release(_ digest: Digest, at location: Location, byteCount: Int) {
        if headerSize > 0 {
            if core.shape.canary != .forgetsReleases { core.release(location) }
            hasReleased = true
        }
        let size = headerSize + Envelope.storedByteCount(byteCount)
        table.removeLive(space.block(of: location), size)
        figures.add(.liveBytes, -size)
    }

    package func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        guard hasReleased, core.shape.canary != .ignoresMoves else { return .done }
        apus_fence()
        var moves: [(shard: Int, mark: UInt64)] = []
        for shard in 0..<core.moves.count {
            if let mark = core.moves.current(shard) { moves.append((shard, mark)) }
        }
        guard !moves.isEmpty else {
            hasReleased = false
            return .done
        }
        waitingCommits.append(WaitingCommit(tag: tag, moves: moves))
        return .pending
    }

    package func poll(_ receive: (borrowing Completion) -> Void) {
        table.epochs.turnBegan(member)
        guard !waitingCommits.isEmpty else { return }
        var ended: [Tag] = []
        waitingCommits.removeAll { commit in
            let isOver = commit.moves.allSatisfy { core.moves.isOver($0.shard, $0.mark) }
            if isOver { ended.append(commit.tag) }
            return isOver
        }
        for tag in ended { receive(Completion(tag: tag, result: .done)) }
    }

    package func turnEnded(sleeping: Bool) {
        if !late.isEmpty {
            for one in late { space.persist(one.place.location, one.place.address, byteCount: one.byteCount) }
            late = []
        }
        if sleeping { table.epochs.fellAsleep(member) }
        if space.keepsPages { table.growAhead(reserve: reserveBlocks) } else { table.discardPages() }
    }

    package var wantsTurns: Bool { !waitingCommits.isEmpty }

    // ---- Places ----

    private func reserve(_ size: Int, _ block: inout OpenBlock, keeping kept: Int) throws(StorageError) -> Place {
        if block.number < 0 || space.blockSize - block.fill < size {
            let next = try take(span: 1, keeping: kept)
            if block.number >= 0 { table.close(block.number, filled: block.fill) }
            block = OpenBlock(
                number: next, fill: 0, base: space.address(ofBlock: next), location: space.location(ofBlock: next))
        }
        let fill = block.fill
        block.fill += size
        return Place(
            address: block.base + fill, location: block.location + UInt64(fill / BlockSpace.unitSize), block: block.number)
    }

    private func takeSpan(_ size: Int) throws(StorageError) -> Place {
        let first = try take(span: (size + space.blockSize - 1) / space.blockSize, keeping: reserveBlocks)
        return Place(address: space.address(ofBlock: first), location: space.location(ofBlock: first), block: first)
    }

    private func take(span: Int, keeping kept: Int) throws(StorageError) -> Int {
        for _ in 0..<BlockShard.growthsMax {
            if let first = table.take(span: span, reserve: kept) { return first }
            guard table.grow(span: span, reserve: kept) else { throw .outOfSpace }
        }
        throw .outOfSpace
    }

    // ---- Compaction ----

    /// Looks at about `byteBudget` bytes of the emptiest block; returns how many it was.
    func compact(byteBudget: Int, arbiter: any LivenessArbiter) throws(StorageError) -> Int {
        if victim < 0 {
            guard let block = table.claimEmptiest(livePercent: core.livePercent) else { return 0 }
            victim = block
            victimLocation = space.location(ofBlock: block)
            walker = BlockWalker(core, block: block, end: table.filled(block))
        }
        var seen = 0
        while seen < byteBudget {
            if aheadNext == aheadCount { seen += lookAhead(arbiter) }
            guard aheadCount > 0 || walker != nil else { break }
            while aheadNext < aheadCount {
                let image = ahead[aheadNext]
                guard try moveIfLive(image, arbiter) else { return seen }
                aheadNext += 1
                seen += image.size
            }
        }
        if walker == nil, aheadNext == aheadCount {
            table.emptied(victim, isSpoiled: isVictimSpoiled)
            victim = -1
            figures.add(.compactedBlocks, 1)
        }
        return max(seen, 1)
    }

    /// Takes the next images of the victim, and has the index fetch what it needs for them. What was released is passed
    /// over: a line of it was looked at. Returns the bytes of these lines.
    private func lookAhead(_ arbiter: any LivenessArbiter) -> Int {
        (aheadCount, aheadNext) = (0, 0)
        var passed = 0
        while aheadCount < BlockShard.lookAheadMax, passed < BlockShard.passedMax {
            guard let image = walker?.next() else {
                isVictimSpoiled = (walker?.damagedBytes ?? 0) > 0
                walker = nil
                break
            }
            guard !image.isReleased else {
                passed += 1
                continue
            }
            (ahead + aheadCount).initialize(to: image)
            aheadCount += 1
            arbiter.prefetch(Envelope.digest(at: address(image)), stage: 0)
        }
        for number in 0..<aheadCount { arbiter.prefetch(Envelope.digest(at: address(ahead[number])), stage: 1) }
        return passed * BlockShard.lineSize
    }

    private func address(_ image: StoredImage) -> UnsafeRawPointer {
        UnsafeRawPointer(space.address(location(image)))
    }

    private func location(_ image: StoredImage) -> Location {
        Location(rawValue: victimLocation + UInt64(image.offset / BlockSpace.unitSize))
    }

    /// Moves an image of the victim if it is live; false if nothing may be moved now.
    private func moveIfLive(_ image: StoredImage, _ arbiter: any LivenessArbiter) throws(StorageError) -> Bool {
        if headerSize > 0 { core.moves.began(number) }
        defer { if headerSize > 0 { core.moves.ended(number) } }
        guard !core.hasScans else { return false }
        let source = address(image)
        let digest = Envelope.digest(at: source)
        let from = location(image)
        guard arbiter.isLive(digest, at: from) else { return true }
        let whole = Envelope.storedByteCount(image.byteCount)
        let to = try store(UnsafeRawBufferPointer(start: source, count: whole), order: image.order, isMoved: true)
        if arbiter.relocate(digest, from: from, to: to) {
            release(digest, at: from, byteCount: whole)
            figures.add(.movedImages, 1)
        } else {
            release(digest, at: to, byteCount: whole)
        }
        return true
    }
}
