// Scans. The first complete one after an opening is the cold start: it finds out what lives. Invariants:
// 1. Until the cold start has ended every block is unknown: nothing can be appended. A fresh set has none.
// 2. At the cold start only the groups and images of one sequence count in a block: that of its first group. Groups of a
//    later use behind it were never confirmed: groups are confirmed in their order. Did they hide the first, the next use
//    could spoil them alone, and the hidden would come back. Only if the first group is damaged the highest sequence counts;
//    if it was never written and so hides others, they are hidden for good: an empty first group says which one counts.
//    Later it is the sequence that the block's line says.
// 3. From the first segment of a later scan to the end of its last one nothing is moved (`LogCore.hasScans`), so that no
//    image slips past. A segment that is stopped or fails ends the whole scan.
internal import Base
internal import CBase
internal import Device
internal import Storage
internal import Synchronization

/// Which segments of which scan are under way. Any thread.
final class ScanProgress: Sendable {
    enum Kind { case cold, serving }
    private struct State {
        /// Nothing is known of the blocks yet.
        var isCold: Bool
        /// It will be, by a start from kept memory.
        var isWarmAwaited: Bool
        var isGivenUp = false
        /// Segments that have not begun, of the scan that is under way; empty between scans.
        var waiting: [Bool] = []
        var running = 0
        var isStopped = false
        var highestSequence: UInt64 = 0
    }
    private let state: Mutex<State>
    private let core: LogCore

    init(_ core: LogCore, isCold: Bool, isWarmAwaited: Bool) {
        self.core = core
        state = Mutex(State(isCold: isCold, isWarmAwaited: isWarmAwaited))
    }

    var isCold: Bool { state.withLock { $0.isCold } }

    /// A start from kept memory has found out about all blocks.
    func warmed() {
        state.withLock { state in
            precondition(state.isWarmAwaited, "nothing was gone on from, or twice")
            (state.isCold, state.isWarmAwaited) = (false, false)
        }
    }

    /// - Throws: `unsupported` after a cold start that was given up, and before a start from kept memory has ended.
    func begin(_ segment: Int, of count: Int) throws(StorageError) -> Kind {
        precondition(segment >= 0 && segment < count, "a segment is one of \(count)")
        return try state.withLock { (state) throws(StorageError) in
            guard !state.isGivenUp else { throw .unsupported("a scan: the cold start was given up") }
            guard !state.isWarmAwaited else { throw .unsupported("a scan: the log goes on from memory") }
            let isNew = state.waiting.count != count || !state.waiting[segment]
            if isNew {
                precondition(!state.isCold || state.waiting.isEmpty, "the segments of a cold start come once each")
                if !state.isCold, state.waiting.isEmpty { core.scanBegan() }
                state.waiting = Array(repeating: true, count: count)
            }
            state.waiting[segment] = false
            state.running += 1
            return state.isCold ? .cold : .serving
        }
    }

    /// `settle` is called when this was the last segment of the cold start, with the highest sequence that was seen.
    func end(
        isStopped: Bool, highestSequence: UInt64, _ settle: (UInt64) throws(StorageError) -> Void
    ) throws(StorageError) {
        try state.withLock { (state) throws(StorageError) in
            state.running -= 1
            state.isStopped = state.isStopped || isStopped
            state.highestSequence = max(state.highestSequence, highestSequence)
            guard state.running == 0, state.isStopped || !state.waiting.contains(true) else { return }
            if !state.isCold {
                core.scanEnded()
            } else if state.isStopped {
                state.isGivenUp = true
            } else {
                try settle(state.highestSequence)
                state.isCold = false
            }
            state.isStopped = false
            state.waiting = []
        }
    }
}

/// Walks some images ahead of the one that is visited, so that whoever keeps the index can start fetching.
private struct ScanWindow {
    private static let aheadMax = 8
    /// A ring: `count` images from `first` on.
    private var images: [WalkedImage] = []
    private var first = 0
    private var count = 0

    init() { images.reserveCapacity(ScanWindow.aheadMax) }

    /// The next image, and the one that has come into the window for it; nil when both walker and window are at their end.
    mutating func next(_ walker: inout BlockWalker) -> (image: WalkedImage, ahead: WalkedImage?)? {
        while images.count < ScanWindow.aheadMax, let image = walker.next() {
            images.append(image)
            count += 1
        }
        guard count > 0 else { return nil }
        let image = images[first]
        let ahead = images.count == ScanWindow.aheadMax ? walker.next() : nil
        if let ahead { images[first] = ahead } else { count -= 1 }
        first = first + 1 < images.count ? first + 1 : 0
        return (image, ahead)
    }
}

/// One segment of a scan. One thread.
struct ScanSegment {
    /// Blocks in a row of which nothing can be read before a device is given up.
    private static let unreadableMax = 8
    /// Threads of a cold start from which on each reads fewer blocks ahead.
    private static let manySegments = 4

    let core: LogCore
    let kind: ScanProgress.Kind
    let segment: Int
    let count: Int
    let firstSequence: UInt64
    let doneBytes: ScanFigures
    private(set) var highestSequence: UInt64 = 0
    private(set) var isStopped = false
    /// By slot.
    private var unreadableInARow: [Int]

    init(
        _ core: LogCore, _ kind: ScanProgress.Kind, segment: Int, of count: Int, firstSequence: UInt64,
        _ figures: ScanFigures
    ) {
        self.core = core
        self.kind = kind
        self.segment = segment
        self.count = count
        self.firstSequence = firstSequence
        doneBytes = figures
        unreadableInARow = Array(repeating: 0, count: core.devices.count)
    }

    /// Every `count`-th block of each device, on each beginning at another one, the devices in turn.
    private func jobs(_ devices: [LogDevice]) -> [BlockJob] {
        let counts = devices.map { device in device.locked { device.blockCount } }
        return stride(from: 0, to: counts.max() ?? 0, by: count).flatMap { first in
            zip(devices, counts).compactMap { device, blockCount in
                let block = first + (segment + device.slot) % count
                return block < blockCount ? BlockJob(device: device, block: block) : nil
            }
        }
    }

    /// - Throws: `device`.
    mutating func run(member: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        let devices = core.present
        let loader = try BlockLoader(
            core, devices, jobs(devices), isCold: kind == .cold, slotsOfDevice: count >= ScanSegment.manySegments ? 2 : 3,
            member: member)
        let blockSize = core.shape.blockSize
        let isCold = kind == .cold
        let figures = doneBytes
        while !isStopped, let loaded = try loader.next({ _ in if isCold { figures.add(blockSize) } }) {
            defer { loader.done(loaded) }
            if isCold { figures.add(blockSize) }
            try note(loaded)
            try look(at: loaded, visit)
        }
    }

    /// - Throws: `settings` if a log in memory finds no memory for the block.
    private mutating func look(
        at loaded: LoadedBlock, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) {
        let device = loaded.device
        guard let sequence = sequence(of: loaded) else { return }
        if kind == .cold {
            device.lines[loaded.block].sequence = sequence
            if core.isResident { try core.keep(loaded) }
        }
        var walker = BlockWalker(loaded.bytes, sequence: sequence, loadedUnits: device.layout.unitsPerBlock)
        var spoiledCount = 0
        var window = ScanWindow()
        while !isStopped, let (image, ahead) = window.next(&walker) {
            let place = loaded.bytes + image.unit * LogFormat.unitSize
            LogFormat.toggleStamp(place, sequence: sequence, unit: image.unit)
            let bytes = UnsafeRawBufferPointer(start: place, count: image.byteCount)
            let digest = Envelope.digest(at: place)
            guard Envelope.fits(bytes, digest: digest) else {
                spoiledCount += 1
                continue
            }
            // Before the visit: another thread may be told at once that this image was replaced.
            if kind == .cold { device.addLive(loaded.block, image.units) }
            let decision = visit(
                ScannedImage(
                    digest: digest,
                    location: device.layout.location(device: device.slot, block: loaded.block, unit: image.unit),
                    image: bytes, sequence: image.order,
                    ahead: ahead.map { Envelope.digest(at: loaded.bytes + $0.unit * LogFormat.unitSize) }))
            follow(decision, device, loaded.block, image)
        }
        noteDamage(loaded, walker, spoiledCount, sequence)
    }

    /// At a cold start the image counts as live already.
    private mutating func follow(_ decision: ScanDecision, _ device: LogDevice, _ block: Int, _ image: WalkedImage) {
        if case .stop = decision { isStopped = true }
        guard kind == .cold else { return }
        switch decision {
        case .live: break
        case .replaces(let location, let byteCount):
            guard let other = core.device(LogLayout.device(of: location)) else { return }
            other.removeLive(other.layout.block(of: location), LogFormat.units(byteCount))
        case .stale, .stop: device.removeLive(block, image.units)
        }
    }

    /// The sequence that counts for a block; nil if nothing in it does.
    private mutating func sequence(of loaded: LoadedBlock) -> UInt64? {
        guard kind == .cold else {
            let line = UnsafeRawPointer(loaded.device.lines + loaded.block)
            let sequence = apus_load_acquire_u64(line + MemoryLayout<BlockLine>.offset(of: \.sequence)!)
            return sequence > 0 ? sequence : nil
        }
        var highest: UInt64 = 0
        var hidesOthers = false
        for offset in stride(from: 0, to: core.shape.blockSize, by: core.shape.flushUnit) {
            guard let found = group(in: loaded, at: offset)?.sequence else { continue }
            hidesOthers = hidesOthers || highest > 0 && found != highest
            highest = max(highest, found)
        }
        highestSequence = max(highestSequence, highest)
        if let first = group(in: loaded, at: 0)?.sequence { return first >= max(firstSequence, 1) ? first : nil }
        guard highest >= max(firstSequence, 1) else { return nil }
        if hidesOthers { hideForGood(loaded, but: highest) }
        return highest
    }

    /// Writes an empty first group of this sequence where none was ever written. Without it the next use of the block could
    /// spoil the groups of this sequence, lose its own first one in a crash, and so bring back what is hidden now. Its first
    /// sector is there or not, so that one of two first groups counts from now on. A front that is damaged or cannot be read
    /// is left alone: it may be in order the next time.
    private func hideForGood(_ loaded: LoadedBlock, but sequence: UInt64) {
        let front = UnsafeRawBufferPointer(start: loaded.bytes, count: core.shape.flushUnit)
        guard loaded.unreadableBytes == 0, DeviceSurvey.isZero(front) else { return }
        let device = loaded.device
        LogFormat.writeGroup(
            GroupHeader(
                units: LogFormat.groupHeaderUnits, sequence: sequence, block: loaded.block, unit: 0, identity: core.identity,
                stream: Int(sequence % 2)),
            to: loaded.bytes)
        let sector = UnsafeRawBufferPointer(rebasing: front[..<device.layout.sectorSize])
        do throws(StorageError) {
            let channel = try ControlChannel(device.device, path: device.path)
            try channel.write(sector, device.layout.offset(ofBlock: loaded.block))
        } catch {
            core.logDamage("\(device.path): the front of write block \(loaded.block) cannot be written: \(error.text)")
        }
    }

    /// The group of this very place, whatever its sequence.
    private func group(in loaded: LoadedBlock, at offset: Int) -> GroupHeader? {
        guard let group = LogFormat.group(at: loaded.bytes + offset), group.block == loaded.block,
            group.identity == core.identity, group.unit == offset / LogFormat.unitSize
        else { return nil }
        return group
    }

    // ---- Damage ----

    /// Bytes in front of and between the groups of a block, where groups must have been: each begins where the one before
    /// ends.
    private func lostBytes(_ loaded: LoadedBlock, _ sequence: UInt64) -> (count: Int, first: Int) {
        var (count, first, expected, offset) = (0, 0, 0, 0)
        while offset < core.shape.blockSize {
            guard let group = group(in: loaded, at: offset), group.sequence == sequence else {
                offset += core.shape.flushUnit
                continue
            }
            if offset > expected {
                if count == 0 { first = expected }
                count += offset - expected
            }
            offset += max(loaded.device.layout.padded(group.units * LogFormat.unitSize), core.shape.flushUnit)
            expected = offset
        }
        return (count, first)
    }

    private mutating func note(_ loaded: LoadedBlock) throws(StorageError) {
        let device = loaded.device
        let isLost = loaded.unreadableBytes == core.shape.blockSize
        unreadableInARow[device.slot] = isLost ? unreadableInARow[device.slot] + 1 : 0
        guard loaded.unreadableBytes > 0 else { return }
        device.figures.add(.damagedBlocks, 1)
        let offset = device.layout.offset(ofBlock: loaded.block) + loaded.firstUnreadable
        core.logDamage("\(device.path): \(loaded.unreadableBytes) bytes of write block \(loaded.block) cannot be read, the"
            + " first at byte \(offset) of the device: the records there are skipped")
        let count = unreadableInARow[device.slot]
        guard count >= ScanSegment.unreadableMax, kind == .cold, !device.isFenced else { return }
        guard core.settings.goesOnWithoutMissing else {
            throw .device(
                errno: DeviceErrno.inputOutput,
                operation: "cold start: nothing of \(count) write blocks in a row of \(device.path) can be read"
                    + " (`on-missing-device continue` starts without it)")
        }
        core.fence(device, "nothing of \(count) write blocks in a row can be read")
    }

    private func noteDamage(_ loaded: LoadedBlock, _ walker: BlockWalker, _ spoiledCount: Int, _ sequence: UInt64) {
        let device = loaded.device
        device.figures.add(.damagedImages, spoiledCount)
        guard kind == .cold else { return }
        let lost = lostBytes(loaded, sequence)
        guard walker.damagedUnits > 0 || spoiledCount > 0 || lost.count > 0 else { return }
        if loaded.unreadableBytes == 0 { device.figures.add(.damagedBlocks, 1) }
        let first = walker.damagedUnits > 0 ? walker.firstDamagedUnit * LogFormat.unitSize : lost.first
        let offset = device.layout.offset(ofBlock: loaded.block) + first
        core.logDamage("\(device.path): write block \(loaded.block) holds"
            + " \(walker.damagedUnits * LogFormat.unitSize + lost.count) bytes that are not what was written, the first near"
            + " byte \(offset) of the device, and \(spoiledCount) spoiled envelopes: they are skipped (a write that a crash"
            + " cut off looks the same)")
    }
}

/// How far the cold start is. Any thread.
final class ScanFigures: Sendable {
    private let done = Atomic<UInt64>(0)
    let totalBytes: UInt64

    init(totalBytes: UInt64) { self.totalBytes = totalBytes }

    func add(_ byteCount: Int) { done.add(UInt64(byteCount), ordering: .relaxed) }
    var doneBytes: UInt64 { done.load(ordering: .relaxed) }
}
