// Figures of a device log.
internal import Base
internal import Storage

extension DeviceLogBackend {
    var statistics: BackendStatistics {
        var all = BackendStatistics()
        let blockSize = core.shape.blockSize
        for device in core.present where !device.isFenced {
            let free = device.freeCount
            all.totalBytes += UInt64(device.blockCount * blockSize)
            all.usedBytes += UInt64(max(0, device.figures[.liveUnits]) * LogFormat.unitSize)
            all.availableBytes += UInt64(max(0, free - device.reserveBlocks) * blockSize)
            all.allocatedBytes += UInt64(max(0, device.blockCount - free) * blockSize)
        }
        for device in core.present {
            all.movedImages += UInt64(device.figures[.movedImages])
            all.compactedBlocks += UInt64(device.figures[.defraggedBlocks])
        }
        let missing = core.devices.count - core.present.count
        all.lostPlaces = UInt64(missing + core.present.reduce(0) { $0 + $1.figures[.damagedBlocks] + $1.figures[.isFenced] })
        all.pressure = core.pressure
        all.scanDoneBytes = figures.doneBytes
        all.scanTotalBytes = figures.totalBytes
        all.fatal = core.fatal
        all.details = paths.enumerated().flatMap { details($0, $1) }
        return all
    }

    /// Of the `order`-th device of the configuration.
    private func details(_ order: Int, _ path: String) -> [(name: String, value: String)] {
        let prefix = "storage-engine.\(names)[\(order)]"
        guard let device = core.present.first(where: { $0.path == path }) else {
            return [(prefix, path), ("\(prefix).missing", "true")]
        }
        let figures = device.figures
        let flushSize = core.settings.flushSize
        let values: [(String, Int)] = [
            ("slot", device.slot), ("used_bytes", max(0, figures[.liveUnits]) * LogFormat.unitSize),
            ("free_wblocks", figures[.freeBlocks]), ("read_errors", figures[.readErrors]),
            ("write_errors", figures[.writeErrors]),
            ("defrag_q", device.choice.claimedCount),
            ("write_q", (max(0, figures[.unwrittenBytes]) + flushSize - 1) / flushSize), ("writes", figures[.writes]),
            ("partial_writes", figures[.partialWrites]), ("defrag_reads", figures[.defragReads]),
            ("defrag_writes", figures[.defragWrites]), ("defrag_partial_writes", figures[.defragPartialWrites]),
            ("damaged_blocks", figures[.damagedBlocks]), ("damaged_images", figures[.damagedImages]),
            ("retired_wblocks", figures[.retiredBlocks]),
        ]
        return [(prefix, path)] + values.map { ("\(prefix).\($0.0)", "\($0.1)") }
            + [("\(prefix).fenced", device.isFenced ? "true" : "false")]
    }
}

extension LogCore {
    /// How close the log is to refusing appends. Any thread; cheap.
    var pressure: Pressure {
        let unwritten = unwrittenBytes
        let most = settings.writeCacheMax
        if unwritten >= most { return .full }
        return unwritten > most / 2 || isShortOfBlocks ? .high : .none
    }
}
