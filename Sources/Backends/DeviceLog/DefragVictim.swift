// One block that is being emptied by one shard. Invariants:
// 1. Its bytes are looked at in memory of the shard's own, as long as a block: piece by piece copied from the buffer that
//    holds the block, or read from the device; each read pins the block.
// 2. Images were walked past, then are in `window`, then, if they live, in `batch`, then moved: none is lost if moving has
//    to wait. Of an image in the batch it was once true that no write of it was under way: whatever is appended of it later
//    goes to a block of a higher sequence than `origin`, so it may be moved at any later time.
// 3. All images of a batch were first written in the same block, and fit into one with the headers.
// 4. The memory is not used for another victim while reads into it are under way.
internal import Base
internal import CBase
internal import Device
internal import Storage

/// An image that was walked past.
struct WindowImage: BitwiseCopyable {
    let image: WalkedImage
    let digest: Digest
}

/// See the invariants above. Its shard's thread only.
final class DefragVictim {
    private static let pieceSizeMin = 128 << 10
    private static let piecesMax = 64
    /// Pieces that are read ahead.
    private static let aheadMax = 4
    static let windowMax = 16
    private static let batchMax = 16
    private static let batchByteCount = 64 << 10

    /// Comes back with its reads.
    let number: UInt64
    let memory: UnsafeMutableRawPointer
    private let pieceSize: Int
    private let pieceCount: Int
    private(set) var device: LogDevice?
    /// Whose reads may still be under way.
    private var readFrom: LogDevice?
    private(set) var block = 0
    private(set) var walker: BlockWalker
    private(set) var readsUnderWay = 0
    private var nextPiece = 0
    /// A bit for each piece that is here.
    private var arrived: UInt64 = 0
    private var isUnreadable = false
    private var hasSpoiled = false
    /// Its first group says that nothing in it was moved there.
    private var isFresh = false
    /// The image at the walker's place is not here as a whole.
    private var wantsMore = false
    var window: [WindowImage] = []
    var windowNext = 0
    private(set) var batch: [WindowImage] = []
    private(set) var batchUnits = 0

    init(number: UInt64, blockSize: Int) {
        self.number = number
        memory = .allocate(byteCount: blockSize, alignment: 4096)
        pieceSize = min(blockSize, max(DefragVictim.pieceSizeMin, blockSize / DefragVictim.piecesMax))
        pieceCount = blockSize / pieceSize
        walker = BlockWalker(memory, sequence: 0, loadedUnits: 0)
        window.reserveCapacity(DefragVictim.windowMax)
        batch.reserveCapacity(DefragVictim.batchMax)
    }

    deinit { memory.deallocate() }

    /// Begins with a claimed block.
    func begin(_ device: LogDevice, _ block: Int) {
        precondition(self.device == nil && readsUnderWay == 0 && batch.isEmpty)
        self.device = device
        readFrom = device
        self.block = block
        walker = BlockWalker(memory, sequence: device.lines[block].sequence, loadedUnits: 0)
        (nextPiece, arrived, isUnreadable, hasSpoiled, wantsMore, isFresh) = (0, 0, false, false, false, false)
        window.removeAll(keepingCapacity: true)
        windowNext = 0
    }

    func end() {
        device = nil
        dropBatch(batch.count)
    }

    /// Reads into the memory are under way, and may never end.
    var isLost: Bool { readsUnderWay > 0 && readFrom?.isFenced == true }

    /// Something in the block is not what was written.
    var isDamaged: Bool { walker.damagedUnits > 0 || isUnreadable || hasSpoiled }

    // ---- Loading ----

    private var isLoaded: Bool { (~arrived).trailingZeroBitCount >= pieceCount }
    var isWalked: Bool { isLoaded && walker.unit >= walker.loadedUnits && windowNext == window.count }

    /// Brings in what the walker is about to need.
    func load(_ shard: LogShard) {
        guard let device else { return }
        while nextPiece < pieceCount, readsUnderWay < DefragVictim.aheadMax {
            let offset = nextPiece * pieceSize
            let walkedBytes = walker.unit * LogFormat.unitSize
            if let buffer = device.buffer(of: block) {
                guard offset <= walkedBytes || wantsMore else { break }
                (memory + offset).copyMemory(from: shard.core.buffers.bytes(buffer) + offset, byteCount: pieceSize)
                arrived |= 1 << UInt64(nextPiece)
                wantsMore = false
            } else {
                guard wantsMore || offset < walkedBytes + DefragVictim.aheadMax * pieceSize,
                    submitPiece(shard, device, offset)
                else { break }
            }
            nextPiece += 1
        }
        let units = min((~arrived).trailingZeroBitCount, pieceCount) * pieceSize / LogFormat.unitSize
        walker.loadedUnits = units
    }

    private func submitPiece(_ shard: LogShard, _ device: LogDevice, _ offset: Int) -> Bool {
        let operation = ShardOperation(
            kind: .victim, device: device.slot, startedMilliseconds: shard.nowMilliseconds, tag: Tag(rawValue: number),
            block: block, unit: offset / LogFormat.unitSize, byteCount: pieceSize)
        let target = UnsafeMutableRawBufferPointer(start: memory + offset, count: pieceSize)
        device.pin(block)
        let place = device.layout.offset(ofBlock: block) + offset
        guard shard.submit(.read(target, offset: place), operation, device.slot) else {
            device.unpin(block)
            return false
        }
        readsUnderWay += 1
        return true
    }

    /// A read has ended. What the device does not give counts as zeros.
    func readEnded(unit: Int, isDone: Bool) {
        readsUnderWay -= 1
        let offset = unit * LogFormat.unitSize
        if !isDone {
            isUnreadable = true
            (memory + offset).initializeMemory(as: UInt8.self, repeating: 0, count: pieceSize)
        }
        arrived |= 1 << UInt64(offset / pieceSize)
    }

    // ---- Walking ----

    /// Fills the window with the next images; bytes looked at, and the arbiter has begun to fetch what it will be asked.
    func look(_ arbiter: any LivenessArbiter) -> Int {
        precondition(windowNext == window.count)
        window.removeAll(keepingCapacity: true)
        windowNext = 0
        let begin = walker.unit
        let isPartial = !isLoaded
        if begin == 0, walker.loadedUnits > 0, let group = LogFormat.group(at: memory) {
            isFresh = group.sequence == walker.sequence && group.stream == 0
        }
        while window.count < DefragVictim.windowMax, let image = walker.next(isPartial: isPartial) {
            let place = memory + image.unit * LogFormat.unitSize
            let digest = Envelope.digest(at: place)
            // Without the header of its run nobody knows when a moved image was written.
            guard Envelope.fits(UnsafeRawBufferPointer(start: place, count: image.byteCount), digest: digest),
                isFresh || image.origin != walker.sequence
            else {
                hasSpoiled = true
                continue
            }
            arbiter.prefetch(digest, stage: 0)
            window.append(WindowImage(image: image, digest: digest))
        }
        for one in window { arbiter.prefetch(one.digest, stage: 1) }
        if walker.unit == begin, walker.unit < walker.loadedUnits { wantsMore = true }
        if walker.unit > begin { wantsMore = false }
        return (walker.unit - begin) * LogFormat.unitSize
    }

    // ---- Batches ----

    /// Takes an image into the batch; false if the batch has to be moved first.
    func gather(_ one: WindowImage) -> Bool {
        guard let device else { return false }
        let units = one.image.units
        if let first = batch.first {
            let unitsMax = min(
                DefragVictim.batchByteCount / LogFormat.unitSize,
                device.layout.unitsPerBlock - LogFormat.groupHeaderUnits - LogFormat.runHeaderUnits)
            guard first.image.origin == one.image.origin, batch.count < DefragVictim.batchMax, batchUnits + units <= unitsMax
            else { return false }
        }
        batch.append(one)
        batchUnits += units
        return true
    }

    func dropBatch(_ count: Int) {
        for one in batch[..<count] { batchUnits -= one.image.units }
        batch.removeFirst(count)
    }

    /// How many images of the batch go into what is left of the open block; all of them if none does.
    func countFitting(_ stream: LogStream) -> Int {
        guard let device else { return 0 }
        let now = stream.now
        guard now.isOpen else { return batch.count }
        var room = device.layout.unitsPerBlock - now.units - LogFormat.runHeaderUnits
        var count = 0
        while count < batch.count, batch[count].image.units <= room {
            room -= batch[count].image.units
            count += 1
        }
        return count == 0 ? batch.count : count
    }
}
