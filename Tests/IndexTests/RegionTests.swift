// Memory that outlives the process: its twin for tests, and the arena over it.
import Base
import Index
import TestSupport
import Testing

@Suite struct SimulatedRegionTests {
    private func region() -> SimulatedRegion {
        let region = SimulatedRegion(capacity: 4096, seed: 1)
        _ = region.grow(to: 256)
        return region
    }

    private func store(_ region: SimulatedRegion, _ offset: Int, _ value: UInt64) {
        (region.base + offset).storeBytes(of: value, as: UInt64.self)
    }

    private func fates(_ region: SimulatedRegion, _ offset: Int) -> Set<UInt64> {
        Set((0..<40 as Range<UInt64>).map { seed in
            region.crashImage(seed: seed).withUnsafeBytes { $0.load(fromByteOffset: offset, as: UInt64.self) }
        })
    }

    @Test func whatWasPersistedStaysUntilItChanges() {
        let region = region()
        store(region, 0, 1)
        #expect(fates(region, 0) == [0, 1])
        region.persist(offset: 0, byteCount: 8)
        #expect(fates(region, 0) == [1] && region.changedLines().isEmpty)
        store(region, 8, 2)
        store(region, 0, 3)
        #expect(fates(region, 0) == [1, 3], "a line that changed again may show what it had")
        #expect((0..<40 as Range<UInt64>).allSatisfy { seed in
            let image = region.crashImage(seed: seed)
            return (image[0] == 3) == (image[8] == 2)
        }, "a line arrives as a whole")
        #expect(region.killImage()[0] == 3 && region.killImage()[8] == 2)
    }

    @Test func linesHaveTheirOwnFate() {
        let region = region()
        store(region, 0, 1)
        store(region, 64, 1)
        let images = (0..<80 as Range<UInt64>).map { region.crashImage(seed: $0) }
        #expect(Set(images.map { [$0[0], $0[64]] }).count == 4)
        #expect(region.crashImage(seed: 7) == region.crashImage(seed: 7))
    }

    @Test func whatWasEvictedInBetweenMaySurvive() {
        let region = region()
        store(region, 0, 1)
        region.evict(percent: 0)
        #expect(fates(region, 0) == [0, 1])
        region.evict(percent: 100)
        store(region, 0, 2)
        #expect(fates(region, 0) == [1, 2])
    }

    @Test func ignoredPersistsAreCounted() {
        let region = region()
        region.ignoredEvery = 2
        store(region, 0, 1)
        region.persist(offset: 0, byteCount: 8)
        store(region, 64, 1)
        region.persist(offset: 64, byteCount: 8)
        #expect(fates(region, 0) == [1] && fates(region, 64) == [0, 1] && region.persistCount == 2)
    }
}

@Suite struct RegionArenaTests {
    @Test func aFullRegionRefuses() throws {
        let region = SimulatedRegion(capacity: 64 + 128, seed: 1)
        let arena = try RegionArena(region)
        #expect(try arena.allocate(byteCount: 120) == 0)
        #expect(throws: IndexError.self) { try arena.allocate(byteCount: 16) }
        #expect(try arena.allocate(byteCount: 8) == 120 && arena.usedByteCount == 128)
    }

    @Test func aFullMediumRefusesUntilItHasRoom() throws {
        let region = SimulatedRegion(capacity: 4 << 20, seed: 1)
        region.room = 4096
        let arena = try RegionArena(region)
        #expect(try arena.allocate(byteCount: 4000) == 0)
        #expect(throws: IndexError.self) { try arena.allocate(byteCount: 64) }
        region.room = 8192
        #expect(try arena.allocate(byteCount: 64) == 4000 && region.backedByteCount >= 64 + 4064)
    }

    /// What was handed out stays so, whatever becomes of what was stored there.
    @Test func theCountLastsBeforeTheBytesAreUsed() throws {
        let region = SimulatedRegion(capacity: 1 << 20, seed: 1)
        _ = try RegionArena(region).allocate(byteCount: 192)
        for seed in 0..<20 as Range<UInt64> {
            let next = SimulatedRegion(capacity: 1 << 20, seed: seed, image: region.crashImage(seed: seed))
            let arena = try RegionArena(next)
            #expect(arena.usedByteCount == 192)
            #expect(try arena.allocate(byteCount: 8) == 192)
        }
    }
}
