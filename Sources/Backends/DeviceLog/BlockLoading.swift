// Brings blocks into memory one after the other, some ahead, for a scan. Invariants:
// 1. A slot is free, under way (pieces of it are being read), or ready; only a ready one is looked at.
// 2. While the log serves, a block is pinned from before its state is looked at until it is done with: its bytes stay those
//    of its sequence.
// 3. Memory of a slot is let go after the queues: no read is under way into it then.
internal import Base
internal import CBase
internal import Device
internal import Storage

/// A block and what of it could be read.
struct LoadedBlock {
    let device: LogDevice
    let block: Int
    let bytes: UnsafeMutableRawPointer
    /// Bytes that read as zero because the device did not give them.
    var unreadableBytes = 0
    /// Where the first of these is, from the front of the block.
    var firstUnreadable = -1
    /// Reads of single flush units that have failed.
    var failedReads = 0
}

/// A block that a segment looks at.
struct BlockJob {
    let device: LogDevice
    let block: Int
}

/// One thread.
final class BlockLoader {
    private static let probeSize = 64 << 10
    private static let pieceSize = 1 << 20
    /// Reads of what a larger read could not get.
    private static let repairSize = 64 << 10
    private static let slotsMax = 16
    /// Reads that fail before the rest of a block's unreadable pieces is given up: each may take a device seconds.
    private static let failedReadsMax = 64
    /// Polls without an answer after which a device is taken for dead; on a real one each waits for some milliseconds.
    private static let pollsMax = 20_000

    private final class Slot {
        enum State { case free, underWay, ready }
        let memory: DeviceMemory
        var state = State.free
        var job: BlockJob?
        var isPinned = false
        var isProbing = false
        var piecesLeft = 0
        var failed: [(offset: Int, byteCount: Int)] = []
        init(_ blockSize: Int) { memory = DeviceMemory(byteCount: blockSize) }
    }

    private let core: LogCore
    private let isCold: Bool
    private let member: Int
    private let slots: [Slot]
    private var queues: [any DeviceQueue]
    private let devices: [LogDevice]
    private let pieceSize: Int
    private var channels: [ControlChannel?]
    private var jobs: [BlockJob]
    private var nextJob = 0
    private var emptyPolls = 0

    /// `member` of the core's epochs belongs to this loader meanwhile.
    /// - Throws: `device`.
    init(
        _ core: LogCore, _ devices: [LogDevice], _ jobs: [BlockJob], isCold: Bool, slotsOfDevice: Int, member: Int
    ) throws(StorageError) {
        self.core = core
        self.isCold = isCold
        self.member = member
        self.devices = devices
        self.jobs = jobs
        let blockSize = core.shape.blockSize
        let probe = min(BlockLoader.probeSize, blockSize)
        pieceSize = min(BlockLoader.pieceSize, max(blockSize - probe, core.shape.flushUnit))
        let count = min(BlockLoader.slotsMax, max(2, slotsOfDevice * devices.count), max(jobs.count, 1))
        slots = (0..<count).map { _ in Slot(blockSize) }
        channels = devices.map { _ in nil }
        do throws(DeviceError) {
            queues = try core.opener.makeQueues(
                devices.map(\.device), depth: count * (blockSize / pieceSize + 2), wake: DeviceWake {})
        } catch {
            throw .device(errno: error.errno, operation: "make queues for a scan")
        }
    }

    deinit {
        // First what is under way: it goes into the memory of the slots.
        queues = []
        for slot in slots { unpin(slot) }
    }

    private func unpin(_ slot: Slot) {
        if slot.isPinned, let job = slot.job { job.device.unpin(job.block) }
        slot.isPinned = false
    }

    /// The next block that is in memory; nil when all are done. It is valid until `done`. `skipped` is called for each block
    /// that need not be looked at.
    /// - Throws: `device` if a device does not answer.
    func next(_ skipped: (BlockJob) -> Void) throws(StorageError) -> LoadedBlock? {
        while true {
            for slot in slots where slot.state == .free {
                while slot.state == .free, nextJob < jobs.count {
                    nextJob += 1
                    begin(jobs[nextJob - 1], slot, skipped)
                }
            }
            var hasEnded = false
            queues.first?.poll { completion in
                hasEnded = true
                ended(completion, skipped)
            }
            if let ready = slots.first(where: { $0.state == .ready }) {
                queues.first?.kick()
                emptyPolls = 0
                return finish(ready)
            }
            if nextJob == jobs.count, slots.allSatisfy({ $0.state == .free }) { return nil }
            guard !hasEnded else { continue }
            emptyPolls += 1
            guard emptyPolls < BlockLoader.pollsMax else {
                throw .device(errno: DeviceErrno.inputOutput, operation: "scan: a device does not answer")
            }
            queues.first?.wait()
        }
    }

    /// The block that `next` gave last is done with.
    func done(_ block: LoadedBlock) {
        guard let slot = slots.first(where: { $0.memory.base == block.bytes }) else { return }
        unpin(slot)
        slot.job = nil
        slot.state = .free
    }

    // ---- Reads ----

    private func begin(_ job: BlockJob, _ slot: Slot, _ skipped: (BlockJob) -> Void) {
        slot.job = job
        slot.failed = []
        guard isCold || pinAndCopy(job, slot) else {
            if slot.state != .ready { skipped(job) }
            return
        }
        guard !job.device.isFenced else {
            unpin(slot)
            return skipped(job)
        }
        slot.state = .underWay
        slot.isProbing = isCold
        if isCold {
            submit(slot, 0, min(BlockLoader.probeSize, core.shape.blockSize))
        } else {
            readRest(slot, from: 0)
        }
    }

    /// While the log serves: whether the block has to be read from the device. If it is in memory it is copied, and ready.
    private func pinAndCopy(_ job: BlockJob, _ slot: Slot) -> Bool {
        job.device.pin(job.block)
        slot.isPinned = true
        core.epochs.turnBegan(member)
        defer { core.epochs.fellAsleep(member) }
        switch job.device.stateNow(job.block) {
        case BlockState.open, BlockState.closed, BlockState.victim: break
        default:
            unpin(slot)
            return false
        }
        guard let buffer = job.device.buffer(of: job.block) else { return true }
        slot.memory.base.copyMemory(from: core.buffers.bytes(buffer), byteCount: core.shape.blockSize)
        slot.state = .ready
        return false
    }

    private func readRest(_ slot: Slot, from first: Int) {
        var offset = first
        while offset < core.shape.blockSize {
            let byteCount = min(pieceSize, core.shape.blockSize - offset)
            submit(slot, offset, byteCount)
            offset += byteCount
        }
        if slot.piecesLeft == 0 { slot.state = .ready }
    }

    private func submit(_ slot: Slot, _ offset: Int, _ byteCount: Int) {
        guard let job = slot.job, let place = devices.firstIndex(where: { $0 === job.device }),
            let number = slots.firstIndex(where: { $0 === slot })
        else { return }
        let target = UnsafeMutableRawBufferPointer(rebasing: slot.memory.bytes[offset..<(offset + byteCount)])
        let start = job.device.layout.offset(ofBlock: job.block) + offset
        let tag = UInt64(number) << 32 | UInt64(offset / core.shape.flushUnit)
        do throws(DeviceError) {
            try queues[place].submit(.read(target, offset: start), tag: tag)
            slot.piecesLeft += 1
        } catch {
            slot.failed.append((offset, byteCount))
        }
    }

    private func ended(_ completion: DeviceCompletion, _ skipped: (BlockJob) -> Void) {
        let slot = slots[Int(completion.tag >> 32)]
        guard let job = slot.job else { return }
        let offset = Int(completion.tag & 0xFFFF_FFFF) * core.shape.flushUnit
        let probeSize = min(BlockLoader.probeSize, core.shape.blockSize)
        slot.piecesLeft -= 1
        if case .failed = completion.outcome {
            slot.failed.append((offset, slot.isProbing ? probeSize : min(pieceSize, core.shape.blockSize - offset)))
        }
        guard slot.piecesLeft == 0 else { return }
        guard slot.isProbing else { return slot.state = .ready }
        slot.isProbing = false
        if slot.failed.isEmpty, isUnused(slot, probeSize) {
            slot.state = .free
            return skipped(job)
        }
        readRest(slot, from: probeSize)
    }

    /// Nothing was ever written to a block that begins with zeros, or what was written is no part of anything confirmed: the
    /// front of a block is confirmed first.
    private func isUnused(_ slot: Slot, _ byteCount: Int) -> Bool {
        let unit = core.shape.flushUnit
        guard DeviceSurvey.isZero(UnsafeRawBufferPointer(rebasing: slot.memory.view[..<unit])) else { return false }
        return !stride(from: unit, to: byteCount, by: unit).contains { LogFormat.group(at: slot.memory.base + $0) != nil }
    }

    // ---- What could not be read ----

    private func finish(_ slot: Slot) -> LoadedBlock? {
        guard let job = slot.job else { return nil }
        var loaded = LoadedBlock(device: job.device, block: job.block, bytes: slot.memory.base)
        for piece in slot.failed {
            job.device.figures.add(.readErrors, 1)
            repair(&loaded, piece.offset, piece.byteCount, step: BlockLoader.repairSize)
        }
        return loaded
    }

    /// Reads again in smaller pieces; what stays unreadable is zeros.
    private func repair(_ loaded: inout LoadedBlock, _ offset: Int, _ byteCount: Int, step: Int) {
        let unit = core.shape.flushUnit
        let step = max(step, unit)
        for start in stride(from: offset, to: offset + byteCount, by: step) {
            let size = min(step, offset + byteCount - start)
            if readAgain(&loaded, start, size) { continue }
            if size > unit, loaded.failedReads < BlockLoader.failedReadsMax {
                repair(&loaded, start, size, step: unit)
                continue
            }
            (loaded.bytes + start).initializeMemory(as: UInt8.self, repeating: 0, count: size)
            if loaded.unreadableBytes == 0 { loaded.firstUnreadable = start }
            loaded.unreadableBytes += size
            loaded.failedReads += 1
        }
    }

    private func readAgain(_ loaded: inout LoadedBlock, _ start: Int, _ size: Int) -> Bool {
        guard loaded.failedReads < BlockLoader.failedReadsMax else { return false }
        let target = UnsafeMutableRawBufferPointer(start: loaded.bytes + start, count: size)
        do throws(StorageError) {
            try channel(loaded.device).read(loaded.device.layout.offset(ofBlock: loaded.block) + start, into: target)
            return true
        } catch {
            return false
        }
    }

    private func channel(_ device: LogDevice) throws(StorageError) -> ControlChannel {
        let place = devices.firstIndex { $0 === device }!
        if let made = channels[place] { return made }
        let made = try ControlChannel(device.device, path: device.path)
        channels[place] = made
        return made
    }
}
