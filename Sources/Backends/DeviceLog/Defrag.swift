// Defragmentation: the live images of the emptiest blocks move together, and the blocks are free. Invariants:
// 1. A shard has one victim at a time, and lets go of it only when it is walked to its end, empty, or its device given up.
// 2. A copy counts as live before its bytes are complete, so that its block cannot be retired under it. Then the arbiter is
//    asked to point at it: if it does, the old place is released, else the copy.
// 3. Images move only between `LogCore.beginMove` and `endMove`, and while nobody scans. A scan that has called `scanBegan`
//    may rely on it: from then on until `scanEnded` no image changes its place by defragmentation, and of each one that was
//    moved before, the copy is counted and the old place released. Loading a victim goes on meanwhile.
// 4. Nothing waits: what finds no room, no buffer or no bytes yet is taken up again by the next slice.
internal import Base
internal import CBase
internal import Device
internal import Storage

/// What one shard is about.
struct DefragWork {
    var victim: DefragVictim?
    /// Memory of victims on devices that were given up while reads into it were under way.
    var abandoned: [DefragVictim] = []
    /// Victims that nothing is under way for any more.
    var spare: [DefragVictim] = []
    var nextNumber: UInt64 = 0
    init() {}
}

/// The facet. Any thread, as its methods say.
final class LogCompaction: Compacting {
    private static let politeBytes = 32 << 10
    private let core: LogCore

    init(_ core: LogCore) { self.core = core }

    var wantedBytes: Int {
        guard !core.isClosed, !core.hasScans else { return 0 }
        return core.devices.reduce(0) { wanted, device in
            guard let device, !device.isFenced else { return wanted }
            return max(wanted, wantedBytes(device))
        }
    }

    /// From the target on more and more, until a quarter is left of what lies between it and the reserve.
    private func wantedBytes(_ device: LogDevice) -> Int {
        let choice = device.choice
        let free = device.freeSoonCount
        let target = device.freeTargetBlocks
        guard free < target else { return choice.claimedCount > 0 ? LogCompaction.politeBytes : 0 }
        guard choice.claimedCount > 0 || !choice.isResting(device) else { return 0 }
        let reserve = device.reserveBlocks
        let pressing = reserve + (target - reserve) / 4
        let span = CompactionUrgency.pressingBytes - LogCompaction.politeBytes
        return min(CompactionUrgency.pressingBytes, LogCompaction.politeBytes + span * (target - free) / (target - pressing))
    }

    func compact(
        on shard: any BackendShard, byteBudget: Int, arbiter: any LivenessArbiter
    ) throws(StorageError) -> Int {
        guard let shard = shard as? LogShard else { preconditionFailure("the shard of another backend") }
        guard !core.isClosed, !core.hasScans, core.unwrittenBytes < core.settings.writeCacheMax else { return 0 }
        var looked = 0
        // What an image costs beside its bytes is put into the balance, or slices of small ones would take too long.
        var spent = 0
        while spent < byteBudget {
            let step = shard.defragStep(arbiter)
            looked += step.looked
            spent += step.looked + step.imageCount * DefragStep.imageCost
            if step.waits { break }
        }
        return looked
    }
}

/// What a step of defragmentation came to.
struct DefragStep {
    static let imageCost = 192
    var looked = 0
    var imageCount = 0
    /// Nothing more can be done now.
    var waits = false
}

extension LogCore {
    /// Free blocks are nearly used up, and more are on their way or can be won. Any thread; cheap.
    var isShortOfBlocks: Bool {
        for device in devices {
            guard let device, device.freeCount <= device.reserveBlocks + 1, !device.isFenced else { continue }
            if device.figures[.retiredBlocks] > 0 || device.choice.mayWin(device) { return true }
        }
        return false
    }

    /// The device where blocks are needed most and something may be won.
    fileprivate var neediest: LogDevice? {
        var neediest: LogDevice?
        var least = Int.max
        for device in devices {
            guard let device, !device.isFenced, device.needsBlocks, !device.choice.isResting(device) else { continue }
            let share = device.freeSoonCount * 1024 / device.freeTargetBlocks
            if share < least { (neediest, least) = (device, share) }
        }
        return neediest
    }
}

extension LogShard {
    /// A read of a victim has ended.
    func finishVictim(_ operation: ShardOperation, _ device: LogDevice, _ errno: Int32?) {
        device.unpin(operation.block)
        if let errno {
            core.readFailed(device, errno, block: operation.block, unit: operation.unit)
        } else {
            core.wentWell(device)
        }
        let number = operation.tag.rawValue
        if let victim = defrag.victim, victim.number == number {
            return victim.readEnded(unit: operation.unit, isDone: errno == nil)
        }
        guard let place = defrag.abandoned.firstIndex(where: { $0.number == number }) else {
            preconditionFailure("a read of a victim that nobody knows")
        }
        defrag.abandoned[place].readEnded(unit: operation.unit, isDone: errno == nil)
        // Its memory stays: the ring knows it.
        if defrag.abandoned[place].readsUnderWay == 0 { defrag.spare.append(defrag.abandoned.remove(at: place)) }
    }

    /// The next little piece of work.
    func defragStep(_ arbiter: any LivenessArbiter) -> DefragStep {
        guard let victim = defrag.victim, let device = victim.device else { return beginVictim() }
        guard !device.isFenced else {
            endVictim(victim, device)
            return DefragStep(waits: true)
        }
        if device.liveUnits(victim.block) == 0 {
            endVictim(victim, device)
            return DefragStep()
        }
        victim.load(self)
        var step = DefragStep()
        if victim.windowNext == victim.window.count {
            step.looked = victim.look(arbiter)
            step.imageCount = victim.window.count
        }
        guard gather(victim, arbiter) else {
            step.waits = true
            return step
        }
        if victim.isWalked {
            guard moveBatch(victim, arbiter) else {
                step.waits = true
                return step
            }
            endVictim(victim, device)
        } else if step.looked == 0, victim.readsUnderWay > 0 || device.buffer(of: victim.block) == nil {
            step.waits = true
        }
        return step
    }

    // ---- Victims ----

    private func beginVictim() -> DefragStep {
        if let victim = defrag.victim, victim.readsUnderWay > 0 {
            // They were ahead of a victim that was empty before its end.
            guard victim.isLost else { return DefragStep(waits: true) }
            defrag.abandoned.append(victim)
            defrag.victim = nil
        }
        guard let device = core.neediest else { return DefragStep(waits: true) }
        switch device.choice.choose(device, nowMilliseconds: nowMilliseconds) {
        case .none: return DefragStep(waits: true)
        case .looking:
            return DefragStep(looked: DefragChoice.sliceLines * MemoryLayout<BlockLine>.stride, waits: true)
        case .victim(let block):
            let victim = defrag.victim ?? makeVictim()
            device.figures.add(.defragReads, 1)
            victim.begin(device, block)
            victim.load(self)
            return DefragStep(looked: LogFormat.unitSize, waits: victim.readsUnderWay > 0)
        }
    }

    private func makeVictim() -> DefragVictim {
        if let spare = defrag.spare.popLast() {
            defrag.victim = spare
            return spare
        }
        let victim = DefragVictim(number: defrag.nextNumber, blockSize: core.shape.blockSize)
        defrag.nextNumber += 1
        defrag.victim = victim
        let memory = UnsafeMutableRawBufferPointer(start: victim.memory, count: core.shape.blockSize)
        // The first queue does for all.
        queues.lazy.compactMap { $0 }.first?.prepare(memory)
        return victim
    }

    private func endVictim(_ victim: DefragVictim, _ device: LogDevice) {
        let block = victim.block
        let left = device.liveUnits(block)
        if left == 0 {
            device.figures.add(.defraggedBlocks, 1)
        } else if victim.isDamaged, !device.isFenced {
            noteDamage(victim, device, left)
        }
        device.choice.ended(
            device, block, leftUnits: left, isDamaged: victim.isDamaged, nowMilliseconds: nowMilliseconds)
        victim.end()
        device.closeBlock(block)
    }

    private func noteDamage(_ victim: DefragVictim, _ device: LogDevice, _ left: Int) {
        let block = victim.block
        guard !device.lines[block].isKnownDamaged else { return }
        device.lines[block].isKnownDamaged = true
        device.figures.add(.damagedBlocks, 1)
        let unit = max(0, victim.walker.firstDamagedUnit)
        let offset = device.layout.offset(ofBlock: block) + unit * LogFormat.unitSize
        core.logDamage("\(device.path): write block \(block) cannot be emptied: some of it cannot be read or is not what"
            + " was written, the first known at byte \(offset) of the device. \(left * LogFormat.unitSize) bytes stay in it;"
            + " what of them is damaged answers 1")
    }

    // ---- Moving ----

    /// Takes what lives in the window into batches, and moves those that are full. False: there is no room now.
    private func gather(_ victim: DefragVictim, _ arbiter: any LivenessArbiter) -> Bool {
        guard let device = victim.device else { return true }
        while victim.windowNext < victim.window.count {
            let one = victim.window[victim.windowNext]
            let from = device.layout.location(device: device.slot, block: victim.block, unit: one.image.unit)
            if arbiter.isLive(one.digest, at: from), !victim.gather(one) {
                guard moveBatch(victim, arbiter) else { return false }
                continue
            }
            victim.windowNext += 1
        }
        return true
    }

    /// Moves everything in the batch. False: the rest has to wait.
    private func moveBatch(_ victim: DefragVictim, _ arbiter: any LivenessArbiter) -> Bool {
        guard let device = victim.device else { return true }
        while !victim.batch.isEmpty {
            guard core.beginMove() else { return false }
            defer { core.endMove() }
            let count = victim.countFitting(device.streams[1])
            do throws(StorageError) {
                try moveRun(victim, device, count, arbiter)
            } catch {
                device.choice.isStuck = error == .outOfSpace
                return false
            }
            device.choice.isStuck = false
        }
        return true
    }

    /// Moves the first `count` images of the batch as one run.
    /// - Throws: `outOfSpace`, `overloaded`; nothing has changed then.
    private func moveRun(
        _ victim: DefragVictim, _ device: LogDevice, _ count: Int, _ arbiter: any LivenessArbiter
    ) throws(StorageError) {
        let images = victim.batch[..<count]
        let stream = device.streams[1]
        let units = images.reduce(LogFormat.runHeaderUnits) { $0 + $1.image.units }
        let place = try reserve(units, device, stream)
        let block = core.buffers[place.buffer].block
        let target = core.buffers.bytes(place.buffer) + place.unit * LogFormat.unitSize
        LogFormat.writeRun(
            units: units, origin: images[0].image.origin, sequence: device.lines[block].sequence, unit: place.unit,
            to: target)
        var unit = place.unit + LogFormat.runHeaderUnits
        for one in images {
            let source = victim.memory + one.image.unit * LogFormat.unitSize
            LogFormat.toggleStamp(source, sequence: victim.walker.sequence, unit: one.image.unit)
            let to = Reserved(buffer: place.buffer, group: place.group, unit: unit)
            copy(source, one.image.byteCount, to: to, device, block)
            device.addLive(block, one.image.units)
            unit += one.image.units
        }
        core.persist(place, units: LogFormat.runHeaderUnits)
        copied(units, place, device, stream)
        relocate(victim, device, images, block, place.unit + LogFormat.runHeaderUnits, arbiter)
        victim.dropBatch(count)
    }

    private func relocate(
        _ victim: DefragVictim, _ device: LogDevice, _ images: ArraySlice<WindowImage>, _ block: Int, _ first: Int,
        _ arbiter: any LivenessArbiter
    ) {
        var unit = first
        var moved = 0
        for one in images {
            let from = device.layout.location(device: device.slot, block: victim.block, unit: one.image.unit)
            let to = device.layout.location(device: device.slot, block: block, unit: unit)
            let isMoved = arbiter.relocate(one.digest, from: from, to: to)
            device.removeLive(isMoved ? victim.block : block, one.image.units)
            if isMoved { moved += 1 }
            unit += one.image.units
        }
        device.figures.add(.movedImages, moved)
        device.figures.add(.movedBytes, (unit - first) * LogFormat.unitSize)
    }
}
