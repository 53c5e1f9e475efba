// What time brings to a shard of a device log: groups that are to be written, devices that do not answer or were given up.
internal import Base
internal import CBase
internal import Device
internal import Storage

extension LogShard {
    private static let upkeepMilliseconds: UInt64 = 500
    /// A reactor turns at least once a second.
    private static let pauseMilliseconds: UInt64 = 3000
    /// While more write buffers can be backed.
    private static let backingMilliseconds: UInt64 = 20

    /// Has groups written that are as old as `flush-max-ms` allows.
    func flushOld() {
        flushDue = LogShard.never
        for device in core.present {
            for stream in device.streams {
                let born = apus_load_acquire_u64(stream.born)
                guard born != .max else { continue }
                if nowMilliseconds >= born + core.flushMaxMilliseconds {
                    if let group = device.locked({ device.seal(stream) }) { submit(group) }
                } else {
                    flushDue = min(flushDue, born + core.flushMaxMilliseconds)
                }
            }
        }
    }

    /// Now and then: devices that do not answer, operations of devices that were given up, blocks that can be free.
    func upkeep() {
        // The process was stopped, or the machine: that was not the devices' fault.
        if nextUpkeep > 0, nowMilliseconds > nextUpkeep + LogShard.pauseMilliseconds {
            operations.forEach { $0.startedMilliseconds = nowMilliseconds }
        }
        nextUpkeep = nowMilliseconds + LogShard.upkeepMilliseconds
        guard !core.isClosed else { return }
        if core.buffers.backMore() { nextUpkeep = nowMilliseconds + LogShard.backingMilliseconds }
        var stalled = -1
        let limit = core.settings.stallMilliseconds
        operations.forEach { operation in
            if !operation.isOrphan, operation.startedMilliseconds + limit < nowMilliseconds { stalled = operation.device }
        }
        if stalled >= 0, let device = core.device(stalled), !device.isFenced {
            core.fence(device, "an operation has not been answered for more than \(limit) ms")
        }
        let fenced = core.present.filter(\.isFenced).count
        if fenced > fencedSeen { orphan() }
        fencedSeen = fenced
        for device in core.present {
            if device.figures[.retiredBlocks] > 0 { device.locked { device.reclaim() } }
            startFlush(device)
        }
    }

    /// Whoever waits for a device that was given up is told.
    private func orphan() {
        operations.forEach { operation in
            guard !operation.isOrphan, core.device(operation.device)?.isFenced == true else { return }
            operation.isOrphan = true
            guard operation.kind == .read else { return }
            let error = StorageError.device(
                errno: DeviceErrno.inputOutput, operation: "read from a device that was given up")
            ended.append(EndedOperation(tag: operation.tag, kind: .failed, error: error))
        }
    }
}
