// A device log on one reactor. Invariants:
// 1. What this shard has submitted to a device is in `operations` until its end was polled.
// 2. A location is handed out when its bytes are in the buffer, and before they are written.
// 3. A read of the device pins its block until the turn in which it ended is over.
internal import Base
internal import CBase
internal import Device
internal import Storage

/// Something that `poll` hands over.
struct EndedOperation {
    enum Kind { case read, done, failed }
    let tag: Tag
    let kind: Kind
    var memory = UnsafeRawBufferPointer(start: nil, count: 0)
    var error = StorageError.closed
}

/// An image that `LogCanary.publishesEarly` has put off.
private struct LateCopy {
    let image: [UInt8]
    let place: Reserved
    let device: LogDevice
    let block: Int
}

/// Shard's thread only.
final class LogShard: BackendShard {
    static let queueDepth = 1024
    private static let queueDepthMin = 32
    private static let operationsMax = 16_384
    static let never = UInt64.max
    private static let writeAttemptsMax: UInt8 = 3

    // Members go in the order in which they are declared: the queues first, which may have transfers under way, then the
    // memory of those.
    /// The queue that kicks, polls and waits for all.
    private let first: (any DeviceQueue)?
    let queues: [(any DeviceQueue)?]
    let core: LogCore
    let number: Int
    let member: Int
    let mail: ShardMail
    let milliseconds: @Sendable () -> UInt64
    let pool = ReadPool()
    var operations = OperationTable()
    var lent = LentMemory()
    var ended: ContiguousArray<EndedOperation> = []
    private var delivered: ContiguousArray<EndedOperation> = []
    /// Blocks to unpin and memory to give back at the end of the turn.
    private var finishedReads: ContiguousArray<(device: Int, block: Int, memory: ReadMemory)> = []
    /// Reads of memory that had to wait for a turn with more room.
    private var lateReads: ContiguousArray<(tag: Tag, location: Location, byteCount: Int)> = []
    /// Writes that the queue had no room for.
    private var waitingWrites: [GroupWrite] = []
    private var prepared: [Bool]
    /// When a group that this shard began is due to be written.
    var flushDue = LogShard.never
    var nextUpkeep: UInt64 = 0
    private(set) var nowMilliseconds: UInt64 = 0
    var fencedSeen = 0
    var defrag = DefragWork()
    /// What was appended last, and where: it is often what is committed next.
    private var lastAppend = (digest: Digest(low: 0, middle: 0, high: 0), slot: -1)
    /// `LogCanary.publishesEarly`, and what is copied late because of it.
    private let publishesEarly: Bool
    private var lateCopies: [LateCopy] = []

    init(_ core: LogCore, _ request: ShardRequest) throws(StorageError) {
        self.core = core
        guard let member = core.epochs.join() else {
            throw .settings("more than \(TurnEpochs.membersMax) service-threads: storage-engine device has no more shards")
        }
        self.member = member
        mail = ShardMail(wake: request.wake)
        number = core.addShard(mail)
        milliseconds = request.milliseconds
        publishesEarly = core.shape.canary == .publishesEarly
        prepared = Array(repeating: false, count: core.buffers.count)
        do throws(DeviceError) {
            let present = core.present
            // Together not more than a ring takes.
            let depth = max(LogShard.queueDepthMin, min(LogShard.queueDepth, LogShard.operationsMax / max(present.count, 1)))
            let made = try core.opener.makeQueues(
                present.map(\.device), depth: depth,
                wake: DeviceWake(descriptor: request.wakeDescriptor, call: request.wake))
            var bySlot: [(any DeviceQueue)?] = Array(repeating: nil, count: core.devices.count)
            for (device, queue) in zip(present, made) { bySlot[device.slot] = queue }
            queues = bySlot
            first = made.first
        } catch {
            throw .device(errno: error.errno, operation: "make a queue for the devices")
        }
        first?.prepare(pool.region)
        nowMilliseconds = milliseconds()
    }

    deinit { lent.release() }

    // ---- Appends ----

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        guard !core.isClosed else { throw .closed }
        guard image.count <= core.imageSizeMax, let source = image.baseAddress else {
            throw .tooLarge(limitBytes: core.imageSizeMax)
        }
        guard core.unwrittenBytes < core.settings.writeCacheMax else { throw .overloaded }
        guard let device = core.home(digest) else {
            throw .device(errno: DeviceErrno.inputOutput, operation: "append: every device was given up")
        }
        let units = LogFormat.units(image.count)
        let place = try reserve(units, device, device.streams[0], isDelete: stream == .deleted)
        let block = core.buffers[place.buffer].block
        lastAppend = (digest, device.slot)
        device.addLive(block, units)
        if publishesEarly {
            lateCopies.append(LateCopy(image: Array(image), place: place, device: device, block: block))
        } else {
            copy(source, image.count, to: place, device, block)
            copied(units, place, device, device.streams[0])
        }
        return .placed(device.layout.location(device: device.slot, block: block, unit: place.unit))
    }

    /// Only as a canary: what `append` should have done before it gave the location away.
    private func copyLate() {
        let copies = lateCopies
        lateCopies = []
        for late in copies {
            late.image.withUnsafeBytes { copy($0.baseAddress!, $0.count, to: late.place, late.device, late.block) }
            copied(LogFormat.units(late.image.count), late.place, late.device, late.device.streams[0])
        }
    }

    /// Puts an image into its reserved units.
    func copy(_ source: UnsafeRawPointer, _ byteCount: Int, to place: Reserved, _ device: LogDevice, _ block: Int) {
        let target = core.buffers.bytes(place.buffer) + place.unit * LogFormat.unitSize
        target.copyMemory(from: source, byteCount: byteCount)
        let end = LogFormat.units(byteCount) * LogFormat.unitSize
        if end > byteCount { (target + byteCount).initializeMemory(as: UInt8.self, repeating: 0, count: end - byteCount) }
        LogFormat.toggleStamp(target, sequence: device.lines[block].sequence, unit: place.unit)
        core.persist(place, units: end / LogFormat.unitSize)
    }

    /// Units of the open block of a stream, which may become a new block.
    func reserve(
        _ units: Int, _ device: LogDevice, _ stream: LogStream, isDelete: Bool = false
    ) throws(StorageError) -> Reserved {
        while true {
            if let place = stream.reserve(units) { return place }
            var writes: [GroupWrite] = []
            do throws(StorageError) {
                try device.openBlock(stream, units: units, isDelete: isDelete, writes: &writes)
            } catch {
                for write in writes { submit(write) }
                throw error
            }
            for write in writes { submit(write) }
        }
    }

    /// All bytes of reserved units are in the buffer.
    func copied(_ units: Int, _ place: Reserved, _ device: LogDevice, _ stream: LogStream) {
        let begin = stream.firstUnit(place.group)
        if place.unit == begin + LogFormat.groupHeaderUnits { noteBorn(stream) }
        let counter = core.buffers.counter(place.buffer, group: place.group)
        if apus_fetch_add_u32(counter, UInt32(units)) &+ UInt32(units) == 0 {
            let group = device.locked { device.sealedGroup(stream, buffer: place.buffer, group: place.group) }
            guard let group else { preconditionFailure("a group was completed twice") }
            return submit(group)
        }
        guard (place.unit + units - begin) * LogFormat.unitSize >= core.settings.flushSize else { return }
        let group = device.locked { stream.now.group == place.group ? device.seal(stream) : nil }
        if let group { submit(group) }
    }

    private func noteBorn(_ stream: LogStream) {
        apus_store_release_u64(stream.born, nowMilliseconds)
        flushDue = min(flushDue, nowMilliseconds + core.flushMaxMilliseconds)
    }

    // ---- Reads ----

    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        guard !core.isClosed else { throw .closed }
        guard let device = core.device(LogLayout.device(of: location)) else {
            throw .device(errno: DeviceErrno.noDevice, operation: "read a record of a missing device")
        }
        let block = device.layout.block(of: location)
        let unit = device.layout.unit(of: location)
        guard block < device.blockCount, byteCount >= Envelope.byteCount,
            unit + LogFormat.units(byteCount) <= device.layout.unitsPerBlock
        else { throw .corrupt(location) }
        guard let buffer = device.buffer(of: block) else {
            try readDevice(device, block, unit, byteCount, tag)
            return .pending
        }
        guard let copy = lent.take(byteCount) else {
            device.pin(block)
            lateReads.append((tag, location, byteCount))
            return .pending
        }
        copy.copyMemory(from: core.buffers.bytes(buffer) + unit * LogFormat.unitSize, byteCount: byteCount)
        LogFormat.toggleStamp(copy, sequence: device.lines[block].sequence, unit: unit)
        return .here(UnsafeRawBufferPointer(start: copy, count: byteCount))
    }

    private func readDevice(
        _ device: LogDevice, _ block: Int, _ unit: Int, _ byteCount: Int, _ tag: Tag
    ) throws(StorageError) {
        guard !device.isFenced else {
            throw .device(errno: DeviceErrno.inputOutput, operation: "read from \(device.path), which was given up")
        }
        let sector = device.layout.sectorSize
        let start = device.layout.offset(ofBlock: block) + unit * LogFormat.unitSize
        let begin = start / sector * sector
        let end = (start + byteCount + sector - 1) / sector * sector
        let memory = pool.take(end - begin)
        let operation = ShardOperation(
            kind: .read, device: device.slot, startedMilliseconds: nowMilliseconds, tag: tag, block: block, unit: unit,
            byteCount: byteCount, skip: start - begin, memory: memory)
        let target = UnsafeMutableRawBufferPointer(start: memory.base, count: memory.byteCount)
        device.pin(block)
        guard submit(.read(target, offset: begin), operation, device.slot) else {
            device.unpin(block)
            pool.giveBack(memory)
            throw .overloaded
        }
    }

    /// Starts an operation; false if the queue has no room now.
    func submit(_ operation: DeviceOperation, _ record: ShardOperation, _ slot: Int) -> Bool {
        guard let queue = queues[slot] else { return false }
        let number = operations.add(record)
        do throws(DeviceError) {
            try queue.submit(operation, tag: number)
            return true
        } catch {
            guard case .queueFull = error else { preconditionFailure("a device refuses an operation: \(error)") }
            _ = operations.take(number)
            return false
        }
    }

    // ---- Writes ----

    /// Has a complete group written.
    func submit(_ write: GroupWrite) {
        guard let device = core.device(write.device) else { return }
        let block = core.buffers[write.buffer].block
        let bytes = core.buffers.bytes(write.buffer)
        // Of a log in memory there are too many to prepare all.
        if !prepared[write.buffer], !core.isResident {
            prepared[write.buffer] = true
            first?.prepare(UnsafeMutableRawBufferPointer(start: bytes, count: core.buffers.blockSize))
        }
        let operation = ShardOperation(
            kind: .write, device: write.device, startedMilliseconds: nowMilliseconds, write: write)
        let source = UnsafeRawBufferPointer(start: bytes + write.offset, count: write.byteCount)
        let offset = device.layout.offset(ofBlock: block) + write.offset
        guard submit(.write(source, offset: offset, durable: write.isDurable), operation, write.device) else {
            return waitingWrites.append(write)
        }
        let isWhole = write.byteCount >= core.settings.flushSize
        if write.stream == 0 {
            device.figures.add(isWhole ? .writes : .partialWrites, 1)
        } else {
            device.figures.add(isWhole ? .defragWrites : .defragPartialWrites, 1)
        }
        device.figures.add(.writtenBytes, write.byteCount)
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        guard !core.isClosed else { throw .closed }
        // Where it was appended, even if that device was given up meanwhile.
        guard let device = lastAppend.digest == digest ? core.device(lastAppend.slot) : core.home(digest) else {
            throw .device(errno: DeviceErrno.inputOutput, operation: "commit: every device was given up")
        }
        let (isPending, write) = try device.locked { () throws(StorageError) -> (Bool, GroupWrite?) in
            guard !device.isGivenUp else {
                throw .device(errno: DeviceErrno.inputOutput, operation: "commit on \(device.path), which was given up")
            }
            let needed = device.streams[0].neededCount
            guard device.streams[0].durableCount < needed else { return (false, nil) }
            device.wait(CommitWaiter(needed: needed, shard: number, tag: tag))
            return (true, device.groupForWaiters())
        }
        if let write { submit(write) }
        guard isPending else { return .done }
        startFlush(device)
        return .pending
    }

    func startFlush(_ device: LogDevice) {
        guard device.beginFlush() else { return }
        let operation = ShardOperation(kind: .flush, device: device.slot, startedMilliseconds: nowMilliseconds)
        if !submit(.flush, operation, device.slot) { core.tell(device.flushed(false), nil) }
    }

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        guard let device = core.device(LogLayout.device(of: location)) else { return }
        let block = device.layout.block(of: location)
        if let home = core.home(digest), home !== device { device.noteForeign(home) }
        device.removeLive(block, LogFormat.units(byteCount))
    }

    // ---- Turns ----

    func poll(_ receive: (borrowing Completion) -> Void) {
        core.epochs.turnBegan(member)
        nowMilliseconds = milliseconds()
        if operations.underWay > 0 { first?.poll { finish($0) } }
        if nowMilliseconds >= flushDue { flushOld() }
        if nowMilliseconds >= nextUpkeep { upkeep() }
        for (tag, error) in mail.take() { end(tag, error) }
        if core.hasLeftWrites { for write in core.takeLeftWrites() { submit(write) } }
        if !waitingWrites.isEmpty { retryWrites() }
        if !lateReads.isEmpty { readLate() }
        guard !ended.isEmpty else { return }
        // `receive` may call the shard again: what ends then is for the next turn.
        swap(&ended, &delivered)
        for place in delivered.indices {
            let one = delivered[place]
            receive(Completion(tag: one.tag, result: result(one)))
        }
        delivered.removeAll(keepingCapacity: true)
    }

    private func result(_ one: EndedOperation) -> Completion.Result {
        switch one.kind {
        case .read: .read(one.memory)
        case .done: .done
        case .failed: .failed(one.error)
        }
    }

    private func end(_ tag: Tag, _ error: StorageError?) {
        if let error {
            ended.append(EndedOperation(tag: tag, kind: .failed, error: error))
        } else {
            ended.append(EndedOperation(tag: tag, kind: .done))
        }
    }

    func turnEnded(sleeping: Bool) {
        if publishesEarly { copyLate() }
        for read in finishedReads {
            core.device(read.device)?.unpin(read.block)
            pool.giveBack(read.memory)
        }
        finishedReads.removeAll(keepingCapacity: true)
        lent.endTurn()
        first?.turnEnded(sleeping: sleeping)
        guard sleeping else { return }
        core.epochs.fellAsleep(member)
        if !lateReads.isEmpty || !ended.isEmpty || !mail.isEmpty { mail.wake() }
    }

    /// A group of its own is to be written in time, or an operation may stall.
    var wantsTurns: Bool { flushDue != LogShard.never || !waitingWrites.isEmpty }

    var pressure: Pressure { core.pressure }

    // ---- What has ended ----

    private func finish(_ completion: DeviceCompletion) {
        let operation = operations.take(completion.tag)
        var errno: Int32?
        if case .failed(let number) = completion.outcome { errno = number }
        guard let device = core.device(operation.device) else { return }
        switch operation.kind {
        case .read: finishRead(operation, device, errno)
        case .write: finishWrite(operation, device, errno)
        case .flush:
            if let errno {
                // What it was to make last may be lost already: another flush that goes well would prove nothing.
                device.figures.add(.writeErrors, 1)
                return core.fence(device, "a flush failed with error \(errno)")
            }
            core.tell(device.flushed(true), nil)
            startFlush(device)
        case .victim: finishVictim(operation, device, errno)
        case .free: preconditionFailure("a free operation has ended")
        }
    }

    private func finishRead(_ operation: ShardOperation, _ device: LogDevice, _ errno: Int32?) {
        finishedReads.append((operation.device, operation.block, operation.memory))
        if let errno {
            core.readFailed(device, errno, block: operation.block, unit: operation.unit)
            guard !operation.isOrphan else { return }
            let error = StorageError.device(errno: errno, operation: "read from \(device.path)")
            return ended.append(EndedOperation(tag: operation.tag, kind: .failed, error: error))
        }
        core.wentWell(device)
        guard !operation.isOrphan else { return }
        let image = operation.memory.base! + operation.skip
        LogFormat.toggleStamp(image, sequence: device.lines[operation.block].sequence, unit: operation.unit)
        ended.append(
            EndedOperation(
                tag: operation.tag, kind: .read,
                memory: UnsafeRawBufferPointer(start: image, count: operation.byteCount)))
    }

    private func finishWrite(_ operation: ShardOperation, _ device: LogDevice, _ errno: Int32?) {
        guard var write = operation.write else { return }
        if let errno {
            device.figures.add(.writeErrors, 1)
            write.attempts += 1
            guard write.attempts < LogShard.writeAttemptsMax, !device.isFenced else {
                return core.fence(
                    device, "writing \(write.byteCount) bytes failed \(write.attempts) times with error \(errno)")
            }
            core.warn("writing \(write.byteCount) bytes to \(device.path) failed with error \(errno): trying again")
            return waitingWrites.append(write)
        }
        core.wentWell(device)
        let (done, next) = device.written(write)
        core.tell(done, nil)
        if let next { submit(next) }
        startFlush(device)
    }

    private func retryWrites() {
        let writes = waitingWrites
        waitingWrites = []
        for write in writes where core.device(write.device)?.isFenced == false { submit(write) }
    }

    private func readLate() {
        let reads = lateReads
        lateReads = []
        for read in reads {
            if let device = core.device(LogLayout.device(of: read.location)) {
                let block = device.layout.block(of: read.location)
                finishedReads.append((device.slot, block, ReadMemory(base: nil, byteCount: 0, slot: -1)))
            }
            do throws(StorageError) {
                // The location tells everything; the digest does not matter here.
                let answer = try self.read(
                    Digest(low: 0, middle: 0, high: 0), at: read.location, byteCount: read.byteCount, tag: read.tag)
                guard case .here(let bytes) = answer else { continue }
                ended.append(EndedOperation(tag: read.tag, kind: .read, memory: bytes))
            } catch {
                ended.append(EndedOperation(tag: read.tag, kind: .failed, error: error))
            }
        }
    }
}
