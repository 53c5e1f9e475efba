// Pieces of the world that are wrong unnoticed: the disk, the clock, shrinking.
@testable import Simulation
import Assembly
import Base
import Testing

@Suite struct DiskTests {
    private let options = RunOptions()

    private func begin(_ disk: inout SimulatedDisk, _ ticket: UInt64, _ byte: UInt8, _ chance: inout Chance) -> UInt64 {
        disk.begin(ticket, .view([byte]), now: 0, options: options, chance: &chance)
    }

    @Test func whatIsAnsweredIsKept() {
        for seed in UInt64(0)..<100 {
            var chance = Chance(seed: seed, "disk")
            var disk = SimulatedDisk()
            let first = begin(&disk, 1, 1, &chance)
            let second = begin(&disk, 2, 2, &chance)
            #expect(second > first, "requests of a kind keep their order")
            #expect(disk.finish(1) == true)
            disk.crash(now: 0, chance: &chance)
            #expect(disk.view == [1] || disk.view == [2])
            #expect(disk.finish(2) == nil, "a crashed request is never answered")
        }
    }

    @Test func aCrashKeepsThePrefixOfWhatIsUnderWay() {
        var seen = [0, 0, 0, 0]
        for seed in UInt64(0)..<200 {
            var chance = Chance(seed: seed, "disk")
            var disk = SimulatedDisk()
            for ticket in UInt64(1)...3 { _ = begin(&disk, ticket, UInt8(ticket), &chance) }
            disk.crash(now: 0, chance: &chance)
            seen[Int(disk.view?[0] ?? 0)] += 1
        }
        #expect(seen.allSatisfy { $0 > 5 }, "\(seen)")
    }

    @Test func aFailingDiskChangesNothing() {
        var chance = Chance(seed: 1, "disk")
        var disk = SimulatedDisk()
        disk.mood = .failing
        disk.moodEnds = 10
        _ = begin(&disk, 1, 1, &chance)
        #expect(disk.finish(1) == false)
        #expect(disk.view == nil)
        _ = disk.begin(2, .view([2]), now: 11, options: options, chance: &chance)
        #expect(disk.finish(2) == true)
        #expect(disk.view == [2])
    }

    @Test func namespacesAreKeptByName() {
        var chance = Chance(seed: 1, "disk")
        var disk = SimulatedDisk()
        for (ticket, name) in [(UInt64(1), "b"), (2, "a"), (3, "b")] {
            let request = StoreRequest.partitions([(namespace: name, metadata: [[UInt8(ticket)]])])
            _ = disk.begin(ticket, request, now: 0, options: options, chance: &chance)
            #expect(disk.finish(ticket) == true)
        }
        #expect(disk.partitions.map(\.namespace) == ["a", "b"])
        #expect(disk.partitions[1].metadata == [[3]])
    }
}

@Suite struct ClockTests {
    @Test func deadlinesAreNeverEarly() {
        var chance = Chance(seed: 5, "clock")
        for _ in 0..<2000 {
            let clock = NodeClock(
                offset: chance.between(1 << 45, 1 << 50), driftPartsPerMillion: chance.between(0, 1000) - 500,
                wallOffsetMilliseconds: 0)
            let now = chance.below(UInt64(1) << 40)
            let deadline = Instant(nanoseconds: clock.monotonic(now) + chance.magnitude(1, 100_000_000_000))
            guard let virtual = clock.virtual(deadline) else {
                Issue.record("out of reach")
                continue
            }
            #expect(clock.monotonic(virtual) >= deadline.nanoseconds)
            #expect(clock.monotonic(virtual) < deadline.nanoseconds + 10_000, "it rings in time")
        }
    }

    /// However long it stands, and whatever was planned: seed 120945360289417 was woken 31 s early, and its clock went back.
    @Test(arguments: [0, -500, 500]) func aSuspendedMachineShowsNoTime(drift: Int) {
        var clock = NodeClock(offset: 1 << 45, driftPartsPerMillion: drift, wallOffsetMilliseconds: 0)
        let before = clock.monotonic(1000)
        clock.stands(at: 1000)
        clock.goesOn(at: 9_000_001_000)
        #expect(clock.monotonic(9_000_001_000) == before)
        #expect(clock.monotonic(9_000_002_000) > before)
        clock.goesOn(at: 9_000_009_000)
        #expect(clock.monotonic(9_000_001_000) == before, "it did not stand")
    }

    @Test func theWallClockSteps() {
        var clock = NodeClock(offset: 1 << 45, driftPartsPerMillion: 0, wallOffsetMilliseconds: 0)
        let before = clock.reading(0)
        clock.stepWall(milliseconds: -40_000)
        #expect(clock.reading(0).wall.milliseconds == before.wall.milliseconds - 40_000)
        #expect(clock.reading(0).monotonic == before.monotonic)
    }
}

@Suite struct QueueTests {
    @Test func whatIsDueComesInOrder() {
        var chance = Chance(seed: 3, "queue")
        var queue = EventQueue<Int>()
        var planned: [(time: UInt64, number: Int)] = []
        var last = (time: UInt64(0), number: -1)
        for number in 0..<5000 {
            let time = last.time + chance.below(50)
            queue.push(number, at: time)
            planned.append((time, number))
            guard chance.below(3) == 0, let next = queue.pop() else { continue }
            #expect(next.time > last.time || next.time == last.time && next.element > last.number)
            #expect(next.time == planned[next.element].time)
            last = (next.time, next.element)
        }
    }
}

@Suite struct ShrinkTests {
    @Test func onlyWhatIsNeededIsLeft() {
        var options = RunOptions()
        options.nodes = 9
        options.lossPermille = 200
        var shrink = Shrink(options: options, faultCount: 90) { options, kept in
            options.nodes >= 4 && kept.contains(17) && kept.contains(63)
        }
        shrink.run()
        #expect(shrink.kept == [17, 63])
        #expect(shrink.options.nodes == 4)
        #expect(shrink.options.lossPermille == 0)
    }

    @Test func aFailureThatNeedsNoFaultIsLeftWithNone() {
        var shrink = Shrink(options: RunOptions(), faultCount: 31) { _, _ in true }
        shrink.run()
        #expect(shrink.kept.isEmpty)
    }
}
