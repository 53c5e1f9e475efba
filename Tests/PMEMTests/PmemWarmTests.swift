import Base
import BlockStore
import PMEM
import Storage
import TestSupport
import Testing

@Suite struct PmemWarm {
    private static let numbers = 24

    /// Histories that end at any persist, by a kill or a loss of power; the next process goes on from the index, or builds
    /// it from the files. What was published is there; what was not, or was released, is never met again.
    @Test func anyEndAnyStart() throws {
        var random = SeededRandom(seed: runSeed("anyEndAnyStart"))
        var starts = (warm: 0, cold: 0, moved: UInt64(0))
        try forAWhile(4, until: starts.moved > 0) {
            let isPersistent = Bool.random(using: &random)
            var world = try PmemWorld(
                new: random.next(), memory: SimulatedMemory(isPersistent: isPersistent, seed: random.next()))
            for _ in 0..<8 {
                let death: PmemWorld.Death = isPersistent && Bool.random(using: &random) ? .power : .kill
                world.schedule(death, after: Int.random(in: 0..<150, using: &random))
                for _ in 0..<300 where world.remains == nil { try world.step(PmemWarm.numbers) }
                if world.remains == nil { world.die(death) }
                starts.moved += world.backend.statistics.movedImages
                let isWarm = Int.random(in: 0..<3, using: &random) > 0
                world = try isWarm ? warm(world, &random) : cold(world, &random)
                if isWarm { starts.warm += 1 } else { starts.cold += 1 }
                try world.serve()
                try world.expectAllReadable()
                let bytes = world.index.values.reduce(0) { $0 + Envelope.storedByteCount($1.byteCount) + 16 }
                #expect(Int(world.backend.statistics.usedBytes) == bytes)
            }
        }
        print("anyEndAnyStart: \(starts)")
        #expect(starts.moved > 0)
    }

    /// Dies again while the start is under way, as often as it takes.
    private func warm(_ world: PmemWorld, _ random: inout SeededRandom) throws -> PmemWorld {
        var left = try #require(world.remains)
        while true {
            let next = try PmemWorld(left, world.shape, seed: random.next(), nextVersion: world.nextVersion)
            next.index = left.index
            if Bool.random(using: &random) { next.schedule(.kill, after: Int.random(in: 0..<6, using: &random)) }
            #expect(next.backend.warmStart != nil, "\(next.lines.all)")
            #expect(try next.warmStart())
            if let again = next.remains {
                left = again
                continue
            }
            try expectExactly(next.index, next.machine.afterKill(), world.shape)
            try expectExactly(next.index, next.machine.afterPowerFailure(seed: random.next()), world.shape)
            return next
        }
    }

    private func expectExactly(_ index: [Int: Entry], _ machine: SimulatedPmem, _ shape: PmemShape) throws {
        let world = try PmemWorld(
            Remains(machine: machine, memory: nil, index: [:], busy: nil), shape, seed: 1)
        let met = try world.coldStart(segments: 3)
        #expect(met.count == index.count)
        for one in met { #expect(index[one.number]?.location == one.location, "\(one) is not what was published") }
        #expect(world.backend.statistics.lostPlaces == 0, "\(world.lines.all)")
    }

    private func cold(_ world: PmemWorld, _ random: inout SeededRandom) throws -> PmemWorld {
        let left = try #require(world.remains)
        let fresh = SimulatedMemory(isPersistent: true, seed: random.next())
        let next = try PmemWorld(
            Remains(machine: left.machine, memory: fresh, index: [:], busy: nil), world.shape, seed: random.next(),
            nextVersion: world.nextVersion)
        #expect(next.backend.warmStart == nil)
        _ = try next.coldStart(segments: Int.random(in: 1...4, using: &random))
        for number in 0..<PmemWarm.numbers where number != left.busy {
            #expect(next.index[number]?.version == left.index[number]?.version, "record \(number)")
        }
        #expect(next.backend.statistics.lostPlaces == 0, "\(next.lines.all)")
        try expectExactly(next.index, next.machine.afterPowerFailure(seed: random.next()), world.shape)
        return next
    }

    /// A delete of an image that another shard is moving: its commit waits, so that neither copy comes back.
    @Test(arguments: [nil, BlockCanary.ignoresMoves]) func commitsWaitForMoves(_ canary: BlockCanary?) throws {
        let world = try PmemWorld(new: runSeed("commitsWaitForMoves"), canary: canary, memory: nil)
        func writeAny(shard: Int) throws {
            try world.write(Int.random(in: 0..<80, using: &world.random), payload: 300, shard: shard)
        }
        for _ in 0..<20 {
            for _ in 0..<20 { try writeAny(shard: 0) }
            world.turn()
        }
        var cameBack: [Int] = []
        var waited = 0
        world.afterRelocate = { number, to in
            // Another reactor deletes the record before the mover has released what it moved.
            world.delete(number, shard: 1)
            let answer = try? world.shards[1].commit(NumberedImage.digest(number), tag: Tag(rawValue: 5))
            if case .pending = answer { return waited += 1 }
            let after = world.machine.afterPowerFailure(seed: UInt64(number))
            let left = Remains(machine: after, memory: nil, index: [:], busy: nil)
            guard let next = try? PmemWorld(left, world.shape, seed: 1) else { return }
            let met = try? next.coldStart(segments: 1)
            if met?.contains(where: { $0.number == number }) == true { cameBack.append(number) }
        }
        for _ in 0..<2000 where waited < 8 && cameBack.isEmpty {
            try world.compact(shard: 0, byteBudget: 4096)
            let wasWaiting = world.shards[1].wantsTurns
            var ended = 0
            world.shards[1].poll { _ in ended += 1 }
            #expect(!world.shards[1].wantsTurns && (ended > 0) == wasWaiting)
            try writeAny(shard: 1)
            world.turn()
        }
        if canary == nil {
            #expect(waited > 0 && cameBack.isEmpty)
        } else {
            #expect(waited == 0 && !cameBack.isEmpty, "the mistake was not noticed")
        }
    }

    /// Memory of another time, or none: a cold start, and why.
    @Test func memoryThatDoesNotFitIsForgotten() throws {
        let seed = runSeed("memoryThatDoesNotFit")
        let memory = SimulatedMemory(isPersistent: true, seed: seed)
        let world = try PmemWorld(new: seed, memory: memory)
        #expect(memory.reasons == ["its memory holds no index to go on from"])
        for number in 0..<10 { try world.write(number, payload: 100, shard: 0) }
        world.die(.kill)
        let left = try #require(world.remains)
        // Somebody uses the files without the memory.
        let between = try PmemWorld(
            Remains(machine: left.machine, memory: nil, index: [:], busy: nil), world.shape, seed: seed &+ 1)
        _ = try between.coldStart(segments: 1)
        between.die(.kill)
        let old = try #require(left.memory)
        let next = try PmemWorld(
            Remains(machine: try #require(between.remains).machine, memory: old, index: [:], busy: nil), world.shape,
            seed: seed &+ 2)
        #expect(next.backend.warmStart == nil)
        #expect(old.reasons == ["p0 was used without this memory since"])
        _ = try next.coldStart(segments: 2)
        #expect(next.index.keys.sorted() == left.index.keys.sorted())
    }

    /// An index that points at what is not there is found out.
    @Test func indexThatDoesNotFitIsRefused() throws {
        let seed = runSeed("indexThatDoesNotFit")
        let world = try PmemWorld(new: seed, memory: SimulatedMemory(isPersistent: true, seed: seed))
        for number in 0..<10 { try world.write(number, payload: 100, shard: 0) }
        world.die(.kill)
        let left = try #require(world.remains)
        let entry = try #require(left.index.values.first)
        func start() throws -> PmemWorld {
            let again = Remains(machine: left.machine.afterKill(), memory: left.memory, index: [:], busy: nil)
            return try PmemWorld(again, world.shape, seed: seed)
        }
        for raw in [entry.location.rawValue + 1 << 36, 1 << 43, 0, entry.location.rawValue - entry.location.rawValue % 128] {
            let warm = try #require(start().backend.warmStart)
            #expect(!warm.adopt(Location(rawValue: raw), byteCount: entry.byteCount), "\(raw)")
        }
        let twice = try #require(start().backend.warmStart)
        #expect(twice.adopt(entry.location, byteCount: entry.byteCount))
        #expect(!twice.adopt(entry.location, byteCount: entry.byteCount))
        let shifted = try #require(start().backend.warmStart)
        #expect(shifted.adopt(Location(rawValue: entry.location.rawValue + 2), byteCount: 40))
        let error = #expect(throws: StorageError.self) { try shifted.finish() }
        guard case .medium(let sentence) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(sentence.contains("where 0 bytes of them are"))
    }
}
