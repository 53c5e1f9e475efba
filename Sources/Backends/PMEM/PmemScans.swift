// Scans. The first complete one after an opening without an index is the cold start: it finds out what lives. Invariants:
// 1. Until the cold start has ended every block is unknown: nothing can be appended.
// 2. What is found in a block lasts before anybody is shown any of it: the process before may have died between a store and
//    the moment it was safe.
// 3. What the cold start does not show, or is told that nobody wants, is released for good: no later start brings it back.
// 4. A scan while the namespace serves sees each block as a reader with turns of his own, so that what it looks at is not
//    used for something else; from its first segment to its last nothing is moved.
internal import Base
internal import BlockStore
internal import Storage
internal import Synchronization

/// All scans of one namespace. Any thread.
final class PmemScans: Sendable {
    enum State { case cold, serving, givenUp }
    private struct Progress {
        var state: State
        /// Segments that have not begun, of the scan that is under way; empty between scans.
        var waiting: [Bool] = []
        var running = 0
        var isStopped = false
    }

    private let core: BlockCore
    private let firstOrder: UInt64
    private let warn: @Sendable (String) -> Void
    private let progress: Mutex<Progress>
    private let spareReaders = Mutex<[Int]>([])
    private let done = Atomic<UInt64>(0)
    private let damaged = Atomic<UInt64>(0)
    private let warned = Atomic<UInt64>(0)
    private static let warningsMax: UInt64 = 20
    /// Bytes that the cold start has to look at; 0 if there is none.
    let totalBytes: UInt64

    init(_ core: BlockCore, state: State, firstOrder: UInt64, _ warn: @escaping @Sendable (String) -> Void) {
        self.core = core
        self.firstOrder = firstOrder
        self.warn = warn
        progress = Mutex(Progress(state: state))
        totalBytes = state == .cold ? UInt64(core.space.count * core.space.blockSize) : 0
    }

    var isCold: Bool { progress.withLock { $0.state != .serving } }
    /// Of the cold start.
    var doneBytes: UInt64 { done.load(ordering: .relaxed) }
    var damagedBlocks: UInt64 { damaged.load(ordering: .relaxed) }

    /// One segment.
    /// - Throws: `unsupported` after a cold start that was given up, `overloaded` with too many scans.
    func run(_ segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        let isCold = try begin(segment, of: count)
        var isStopped = true
        var failure: StorageError?
        do throws(StorageError) {
            let reader = try takeReader()
            defer {
                core.readerSleeps(reader)
                spareReaders.withLock { $0.append(reader) }
            }
            var part = PmemSegment(core, isCold: isCold, firstOrder: firstOrder)
            for block in PmemScans.blocks(core.space, segment, of: count) where !part.isStopped {
                core.readerBegan(reader)
                part.look(at: block, visit)
                if part.damagedBytes > 0 { note(block, part.damagedBytes, isCold) }
                if isCold { done.add(UInt64(core.space.blockSize), ordering: .relaxed) }
            }
            isStopped = part.isStopped
        } catch {
            failure = error
        }
        try end(isStopped: isStopped)
        if let failure { throw failure }
    }

    /// Every `count`-th block of each file, in each beginning at another one.
    private static func blocks(_ space: BlockSpace, _ segment: Int, of count: Int) -> some Sequence<Int> {
        space.pieces.lazy.flatMap { piece in
            stride(from: piece.firstBlock + (segment + piece.slot) % count, to: piece.blocks.upperBound, by: count)
        }
    }

    private func takeReader() throws(StorageError) -> Int {
        if let spare = spareReaders.withLock({ $0.popLast() }) { return spare }
        guard let reader = core.joinReaders() else { throw .overloaded }
        return reader
    }

    private func note(_ block: Int, _ byteCount: Int, _ isCold: Bool) {
        guard isCold else { return }
        damaged.add(1, ordering: .relaxed)
        guard warned.add(1, ordering: .relaxed).newValue <= PmemScans.warningsMax else { return }
        warn("storage-engine pmem: \(byteCount) bytes of block \(block) are not what was written: they are skipped, and the"
            + " records there may be missing")
    }

    // ---- Segments ----

    /// Whether the segment belongs to the cold start.
    private func begin(_ segment: Int, of count: Int) throws(StorageError) -> Bool {
        precondition(segment >= 0 && segment < count, "a segment is one of \(count)")
        return try progress.withLock { (progress) throws(StorageError) in
            guard progress.state != .givenUp else { throw .unsupported("a scan: the cold start was given up") }
            if progress.waiting.count != count || !progress.waiting[segment] {
                precondition(
                    progress.state == .serving || progress.waiting.isEmpty, "the segments of a cold start come once each")
                if progress.state == .serving, progress.waiting.isEmpty { core.scanBegan() }
                progress.waiting = Array(repeating: true, count: count)
            }
            progress.waiting[segment] = false
            progress.running += 1
            return progress.state == .cold
        }
    }

    private func end(isStopped: Bool) throws(StorageError) {
        try progress.withLock { (progress) throws(StorageError) in
            progress.running -= 1
            progress.isStopped = progress.isStopped || isStopped
            guard progress.running == 0, progress.isStopped || !progress.waiting.contains(true) else { return }
            if progress.state == .serving {
                core.scanEnded()
            } else if progress.isStopped {
                progress.state = .givenUp
            } else {
                try core.table.settle()
                core.startBytes = core.table.liveBytes
                progress.state = .serving
            }
            progress.isStopped = false
            progress.waiting = []
        }
    }
}

/// One segment of a scan, block by block. One thread.
struct PmemSegment {
    /// Images that are told ahead, so that whoever keeps the index can start fetching.
    private static let aheadCount = 8
    private let core: BlockCore
    private let isCold: Bool
    private let firstOrder: UInt64
    private var images: [StoredImage] = []
    /// Bytes of the block up to the end of the last image.
    private var foundBytes = 0
    private(set) var isStopped = false
    /// Of the block that was looked at last.
    private(set) var damagedBytes = 0

    init(_ core: BlockCore, isCold: Bool, firstOrder: UInt64) {
        self.core = core
        self.isCold = isCold
        self.firstOrder = firstOrder
    }

    mutating func look(at block: Int, _ visit: (ScannedImage) -> ScanDecision) {
        damagedBytes = 0
        guard core.table.mayHoldImages(block) else { return }
        images.removeAll(keepingCapacity: true)
        var walker = BlockWalker(core, block: block, end: core.space.blockSize)
        gather(&walker)
        if isCold, foundBytes > 0 { core.persist(block: block, byteCount: foundBytes) }
        for (number, image) in images.enumerated() where !isStopped {
            let next = number + PmemSegment.aheadCount
            let ahead = next < images.count ? Envelope.digest(at: walker.bytes(images[next]).baseAddress!) : nil
            show(image, walker, block, ahead, visit)
        }
    }

    /// Takes all images that count.
    private mutating func gather(_ walker: inout BlockWalker) {
        foundBytes = 0
        // What is damaged at the end of a block looks like a write that a crash cut off.
        var tornBytes = 0
        while let image = walker.next() {
            foundBytes = image.offset
            guard !image.isReleased, image.order >= firstOrder else { continue }
            let bytes = walker.bytes(image)
            guard Envelope.checksumFits(bytes) else {
                tornBytes += image.size
                if isCold { core.release(walker.location(image)) }
                continue
            }
            damagedBytes += tornBytes
            tornBytes = 0
            foundBytes += Envelope.storedByteCount(image.byteCount)
            images.append(image)
        }
        damagedBytes += walker.damagedBytes
    }

    private mutating func show(
        _ image: StoredImage, _ walker: BlockWalker, _ block: Int, _ ahead: Digest?, _ visit: (ScannedImage) -> ScanDecision
    ) {
        let bytes = walker.bytes(image)
        let digest = Envelope.digest(at: bytes.baseAddress!)
        let location = walker.location(image)
        // Before the visit: another thread may be told at once that this image was replaced.
        if isCold { core.table.adopt(block, image) }
        // Of an envelope that is whole and not understood nobody can say what it is: it stays.
        guard Envelope.fits(bytes, digest: digest) else { return damagedBytes += image.size }
        let decision = visit(
            ScannedImage(digest: digest, location: location, image: bytes, sequence: image.order, ahead: ahead))
        if case .stop = decision { isStopped = true }
        guard isCold else { return }
        switch decision {
        case .live, .stop: break
        case .replaces(let older, let byteCount): core.drop(older, byteCount: byteCount)
        case .stale: core.drop(location, byteCount: image.byteCount)
        }
    }
}
