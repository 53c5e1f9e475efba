// A log in memory (`storage-engine memory` with devices): every block in which something lives has a buffer from the start
// on, and keeps it until the block is dead. Writing is that of any log; a start loads what is not in memory. Invariants:
// 1. A block gets its buffer before anything in it can be read, and the table of kept memory knows of it only when all of
//    its bytes are there.
// 2. What is loaded is what the device has, stamps included.
internal import Base
internal import CBase
internal import Device
internal import Storage

extension LogCore {
    /// Keeps a block that was just read, and not changed yet. Not on a reactor; several threads, each with other blocks.
    /// - Throws: `settings` if there is no memory for it.
    func keep(_ loaded: LoadedBlock) throws(StorageError) {
        let buffer = try buffers.takeForLoad(device: loaded.device.slot, block: loaded.block)
        buffers.bytes(buffer).copyMemory(from: loaded.bytes, byteCount: shape.blockSize)
        buffers.loaded(buffer, sequence: loaded.device.lines[loaded.block].sequence)
        loaded.device.setBuffer(loaded.block, buffer)
    }

    /// Of the blocks that a cold start has loaded, those in which nothing lives give their buffers back.
    func discardDeadBlocks() {
        for device in present {
            for block in 0..<device.blockCount where device.liveUnits(block) == 0 {
                guard let buffer = device.buffer(of: block) else { continue }
                device.setBuffer(block, nil)
                buffers.discard(buffer)
            }
        }
    }

    /// Loads every block in which something lives and which is not in memory, after a start that knew what lives. What
    /// cannot be read is counted, and answers as damaged.
    /// - Throws: `device`, `settings` if there is no memory for it.
    func loadMissingBlocks() throws(StorageError) {
        let jobs = present.filter { !$0.isFenced }.flatMap { device in
            (0..<device.blockCount).filter { device.liveUnits($0) > 0 && device.buffer(of: $0) == nil }
                .map { BlockJob(device: device, block: $0) }
        }
        guard !jobs.isEmpty else { return }
        guard let member = epochs.join() else { throw .overloaded }
        let loader = try BlockLoader(
            self, present, jobs, isCold: false, slotsOfDevice: LogCore.loadSlotsOfDevice, member: member)
        while let loaded = try loader.next({ _ in }) {
            defer { loader.done(loaded) }
            if loaded.unreadableBytes > 0 {
                loaded.device.figures.add(.damagedBlocks, 1)
                logDamage("\(loaded.device.path): \(loaded.unreadableBytes) bytes of write block \(loaded.block) cannot be"
                    + " read: the records there answer 1")
            }
            try keep(loaded)
        }
    }

    private static let loadSlotsOfDevice = 4
}
