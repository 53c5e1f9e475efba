// An arena in memory that a later process may find again. Invariants:
// 1. The first 64 bytes of the region belong to the arena: how many bytes behind them are handed out. That count is stored,
//    and lasts, before the bytes are used: so what is not handed out reads as zero.
// 2. The region is backed ahead of what is handed out (`growAhead`, by a thread that may wait; a small step by who finds
//    nothing left): where the medium is full the arena says `outOfSpace`, and nothing is touched that is not there.
package import Base
internal import CBase

/// See the invariants above.
package final class RegionArena: Arena, @unchecked Sendable {
    private static let headerSize = 64
    private static let stepSize = 1 << 20
    private static let aheadMin = 4 << 20
    private static let aheadMax = 256 << 20
    package let base: UnsafeMutableRawPointer
    package let needsPersist: Bool
    private let region: any MemoryRegion
    private let lockWord: UnsafeMutablePointer<UInt32>

    /// Goes on with what is in `region`, or begins in an empty one.
    package init(_ region: any MemoryRegion) throws(IndexError) {
        self.region = region
        base = region.base + RegionArena.headerSize
        needsPersist = region.needsPersist
        guard region.grow(to: RegionArena.headerSize) else { throw .outOfSpace }
        lockWord = .allocate(capacity: 1)
        lockWord.initialize(to: 0)
    }

    deinit { lockWord.deallocate() }

    package var usedByteCount: Int { Int(truncatingIfNeeded: apus_load_relaxed_u64(region.base)) }

    /// Whether all that is said to be handed out is there: what a region that was found holds may be anything.
    var isUsedBacked: Bool {
        usedByteCount >= 0 && usedByteCount <= region.backedByteCount - RegionArena.headerSize
    }

    /// Makes all that an earlier process has stored last.
    func persistUsed() {
        if needsPersist { region.persist(offset: 0, byteCount: RegionArena.headerSize + usedByteCount) }
    }

    package func allocate(byteCount: Int) throws(IndexError) -> Int {
        precondition(byteCount > 0 && byteCount % 8 == 0)
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        let offset = usedByteCount
        let end = RegionArena.headerSize + offset + byteCount
        guard end <= region.capacity else { throw .outOfSpace }
        if end > region.backedByteCount {
            let wanted = min(end + RegionArena.stepSize, region.capacity)
            guard region.grow(to: wanted) || region.grow(to: end) else { throw .outOfSpace }
        }
        apus_store_release_u64(region.base, UInt64(offset + byteCount))
        region.persist(offset: 0, byteCount: 8)
        return offset
    }

    /// Backs what will be handed out soon. May take long; any thread but a reactor's. False: the medium has no room.
    package func growAhead() -> Bool {
        let used = RegionArena.headerSize + usedByteCount
        let ahead = min(max(used / 8, RegionArena.aheadMin), RegionArena.aheadMax)
        let wanted = min(used + ahead, region.capacity)
        return region.backedByteCount >= wanted || region.grow(to: wanted)
    }

    package func persist(offset: Int, byteCount: Int) {
        if needsPersist { region.persist(offset: RegionArena.headerSize + offset, byteCount: byteCount) }
    }
}
