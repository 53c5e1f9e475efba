// Counters of one device.
internal import CBase

/// Figures that any thread reads and any shard counts.
enum DeviceFigure: Int, CaseIterable {
    case liveUnits, freeBlocks, retiredBlocks, isFenced, durableFresh
    /// Bytes that were sealed and are not written yet.
    case unwrittenBytes
    case readErrors, writeErrors, writes, partialWrites, defragReads, defragWrites, defragPartialWrites
    case movedImages, movedBytes, defraggedBlocks, damagedBlocks, damagedImages, writtenBytes
    /// Read errors since the last read that went well.
    case readErrorsInARow
    /// Block and unit of the last of them.
    case lastBadPlace
}

/// See `DeviceFigure`. Any thread.
struct DeviceFigures: @unchecked Sendable {
    private final class Words {
        let base = UnsafeMutablePointer<UInt64>.allocate(capacity: DeviceFigures.room)
        init() { base.initialize(repeating: 0, count: DeviceFigures.room) }
        deinit { base.deallocate() }
    }
    private static let room = DeviceFigure.allCases.count + 16
    private let owner = Words()
    private let words: UnsafeMutablePointer<UInt64>

    init() { words = owner.base }

    /// Whether the device was given up is asked for every append: far from what every append changes.
    @inline(__always)
    private func word(_ figure: DeviceFigure) -> UnsafeMutablePointer<UInt64> {
        words + (figure == .isFenced ? DeviceFigures.room - 1 : figure.rawValue)
    }

    @inline(__always)
    subscript(figure: DeviceFigure) -> Int {
        Int(truncatingIfNeeded: apus_load_relaxed_u64(word(figure)))
    }

    @inline(__always)
    func add(_ figure: DeviceFigure, _ amount: Int) {
        _ = apus_fetch_add_u64(word(figure), UInt64(bitPattern: Int64(amount)))
    }

    func set(_ figure: DeviceFigure, _ value: Int) {
        apus_store_release_u64(word(figure), UInt64(bitPattern: Int64(value)))
    }

    /// Whether so many fresh groups last.
    func isDurable(_ needed: UInt64) -> Bool { apus_load_acquire_u64(word(.durableFresh)) >= needed }
}
