// A start that goes on from kept memory (`OpenRequest.memory`): no scan; the index says what lives, the kept write buffers
// hold what the last process had not written. Invariants:
// 1. Until `finish` has written everything, nothing that lives in the kept buffers changes, nor does their table: a process
//    that dies meanwhile leaves it all to the next one.
// 2. `finish` writes in two rounds. First the unwritten blocks that something lives in, whole: every live image lasts then,
//    and nothing that lasted before is gone. Only then all kept blocks again without what is dead: images that were
//    superseded, or complete and never published. This start does not show them, so no later cold start may.
// 3. Blocks without a kept buffer are written, and hold nothing that was on its way into the index: their buffers were
//    evicted some blocks later (`LogCore.keptCachedMin`). That is not checked; an image for which it is not true was never
//    answered, and may come back at a later cold start.
// 4. In memory that is persisted every image was, before its location was given out, and its run header; group headers
//    and padding need not be there, and are not looked at.
internal import Base
internal import CBase
internal import Device
internal import Storage
internal import Synchronization

/// A block that is in a kept buffer.
private final class KeptBlock: Sendable {
    let device: LogDevice
    let rewrite: BlockRewrite
    let buffer: Int
    let state: KeptEntry.State
    /// Unit in the upper half, units in the lower.
    let adopted = Mutex<[UInt64]>([])

    init(_ device: LogDevice, _ entry: KeptEntry, buffer: Int, identity: UInt32, wasClosed: Bool) {
        self.device = device
        self.buffer = buffer
        state = wasClosed ? .settled : entry.state
        rewrite = BlockRewrite(
            layout: device.layout, block: entry.block, sequence: entry.sequence, identity: identity)
    }
}

/// See the invariants above.
final class LogWarmStart: WarmStarting {
    private let core: LogCore
    private let progress: ScanProgress
    /// By slot.
    private let devices: [LogDevice?]
    private let kept: [KeptBlock]
    private let problem: String?
    private let sequences: Range<UInt64>

    /// `wasClosed`: everything in the buffers was written out.
    init(_ core: LogCore, _ progress: ScanProgress, wasClosed: Bool, firstSequence: UInt64) {
        self.core = core
        self.progress = progress
        devices = core.devices
        problem = core.buffers.memory.problem
        sequences = min(max(firstSequence, 1), core.nextSequence)..<core.nextSequence
        var kept: [KeptBlock] = []
        for (buffer, entry) in core.buffers.memory.entries where !wasClosed || core.isResident {
            guard let device = core.device(entry.slot), entry.block < device.blockCount,
                device.lines[entry.block].sequence == entry.sequence, device.buffer(of: entry.block) == nil
            else { continue }
            device.setBuffer(entry.block, kept.count)
            kept.append(
                KeptBlock(device, entry, buffer: buffer, identity: core.identity, wasClosed: wasClosed))
        }
        self.kept = kept
    }

    func adopt(_ location: Location, byteCount: Int) -> Bool {
        let slot = LogLayout.device(of: location)
        guard problem == nil, slot < devices.count, let device = devices[slot], byteCount >= Envelope.byteCount else {
            return false
        }
        let block = device.layout.block(of: location)
        let unit = device.layout.unit(of: location)
        let units = LogFormat.units(byteCount)
        guard block < device.blockCount, unit >= LogFormat.groupHeaderUnits,
            unit + units <= device.layout.unitsPerBlock, sequences.contains(device.lines[block].sequence),
            device.adoptLive(block, units)
        else { return false }
        if let number = device.buffer(of: block), kept[number].state != .settled {
            kept[number].adopted.withLock { $0.append(UInt64(unit) << 32 | UInt64(units)) }
        }
        return true
    }

    func finish() throws(StorageError) {
        if let problem { throw .medium(problem) }
        let written = try writeOut()
        core.buffers.start(keeping: staying())
        for device in core.present {
            let units = (0..<device.blockCount).reduce(0) { $0 + device.liveUnits($1) }
            device.figures.set(.liveUnits, units)
        }
        core.settleBlocks()
        if core.isResident { try core.loadMissingBlocks() }
        progress.warmed()
        core.log("going on from memory: \(kept.count) write blocks were in it, \(written) of them were written again")
    }

    /// A log in memory keeps the buffers of blocks in which something lives.
    private func staying() -> [(buffer: Int, device: Int, block: Int)] {
        kept.compactMap { one in
            let block = one.rewrite.block
            let stays = core.isResident && one.device.liveUnits(block) > 0 && one.buffer < core.buffers.count
            one.device.setBuffer(block, stays ? one.buffer : nil)
            return stays ? (one.buffer, one.device.slot, block) : nil
        }
    }

    // ---- Writing out ----

    /// The two rounds; how many blocks were written.
    private func writeOut() throws(StorageError) -> Int {
        let scratch = DeviceMemory(byteCount: core.shape.blockSize)
        var channels: [ControlChannel?] = devices.map { _ in nil }
        var count = 0
        // What one block has to do with must not keep the others from lasting.
        var failure: StorageError?
        for one in kept where one.state == .inUse && core.shape.canary != .forgetsUnwritten {
            do throws(StorageError) {
                let (all, live) = try images(one)
                if !live.isEmpty { try writeAgain(one, all, scratch, &channels) }
            } catch {
                failure = failure ?? LogWarmStart.explained(error, one)
            }
        }
        if let failure { throw failure }
        for one in kept where one.state != .settled && core.shape.canary != .forgetsUnwritten {
            let (all, live) = try images(one)
            if one.state == .written, all.count == live.count { continue }
            try writeAgain(one, live, scratch, &channels)
            count += 1
            // The same bytes where something lives: also a process that dies in the middle leaves all of that.
            if core.isResident {
                core.buffers.bytes(one.buffer).copyMemory(from: scratch.base, byteCount: core.shape.blockSize)
                core.buffers.memory.persist(one.buffer, offset: 0, byteCount: core.shape.blockSize)
            }
        }
        return count
    }

    private static func explained(_ error: StorageError, _ one: KeptBlock) -> StorageError {
        guard case .device(let errno, let operation) = error else { return error }
        return .device(
            errno: errno,
            operation: "\(operation): write block \(one.rewrite.block) of \(one.device.path), which was in memory, cannot be"
                + " written (bring the device in order; or give up what was not written, with `apus shm remove`);"
                + " the write")
    }

    /// All images in a kept buffer, and those of them that live.
    /// - Throws: `medium` if an image that the index points at is not there.
    private func images(_ one: KeptBlock) throws(StorageError) -> (all: [StayingImage], live: [StayingImage]) {
        let all = one.rewrite.images(in: core.buffers.bytes(one.buffer))
        var live: [StayingImage] = []
        var place = 0
        for adopted in one.adopted.withLock({ $0.sorted() }) {
            let unit = Int(adopted >> 32)
            while place < all.count, all[place].unit < unit { place += 1 }
            guard place < all.count, all[place].unit == unit, all[place].units == Int(adopted & 0xFFFF_FFFF) else {
                throw .medium("write block \(one.rewrite.block) of \(one.device.path) was in memory, and the image that the"
                    + " index names at byte \(unit * LogFormat.unitSize) of it is not there")
            }
            live.append(all[place])
            place += 1
        }
        return (all, live)
    }

    private func writeAgain(
        _ one: KeptBlock, _ images: [StayingImage], _ scratch: DeviceMemory, _ channels: inout [ControlChannel?]
    ) throws(StorageError) {
        let byteCount = one.rewrite.build(images, from: core.buffers.bytes(one.buffer), into: scratch.base)
        let slot = one.device.slot
        if channels[slot] == nil { channels[slot] = try ControlChannel(one.device.device, path: one.device.path) }
        try channels[slot]?.write(
            UnsafeRawBufferPointer(rebasing: scratch.view[..<byteCount]),
            one.device.layout.offset(ofBlock: one.rewrite.block))
    }
}
