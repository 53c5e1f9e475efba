// Regions over several mounts, on several threads, and on mounts that are full.
import Base
import Glibc
import Storage
import Synchronization
import SystemSegment
import TestSupport
import Testing

@Suite struct SegmentRegionTests {
    @Test(arguments: [Segment.Kind.shmem, .pmem]) func stagesLieOnTheMountsInTurn(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let mounts = ["a", "b", "c"].map { scratch.mount($0) }
        let wish = Wish(kind, mounts)
        do {
            let segment = try wish.begin(1)
            let region = try segment.region("entries", capacity: (9 << 20) + 100)
            for byteCount in [1, 65_536, 65_537, 2 << 20, (2 << 20) + 1, 7 << 20, (9 << 20) + 100] {
                #expect(region.grow(to: byteCount))
                #expect(region.backedByteCount == min((byteCount + 65_535) / 65_536 * 65_536, (9 << 20) + 100))
            }
            #expect(!region.grow(to: (9 << 20) + 101))
            for offset in 0..<(9 << 17) { region.base.storeBytes(of: offset, toByteOffset: offset * 8, as: Int.self) }
            try segment.complete()
        }
        for (number, mount) in ["a", "b", "c", "a", "b"].enumerated() {
            let size = run("stat -c %s \(scratch.path)/\(mount)/apus-*/entries.\(number)")
            #expect(size == (number < 4 ? "\(2 << 20)" : "\((1 << 20) + 100)"))
        }
        let region = try wish.begin(2).region("entries", capacity: 20 << 20)
        #expect((0..<(9 << 17)).allSatisfy { region.base.load(fromByteOffset: $0 * 8, as: Int.self) == $0 })
        #expect(region.grow(to: 13 << 20))
        #expect(region.base.load(fromByteOffset: 12 << 20, as: Int.self) == 0)
    }

    /// More than one piece of growth in one stage.
    @Test(arguments: [Segment.Kind.shmem, .pmem]) func aLargeStageGrowsInPieces(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        var wish = Wish(kind, [scratch.path])
        wish.spec.stageByteCount = 1 << 30
        do {
            let segment = try wish.begin(1)
            let region = try segment.region("entries", capacity: 100 << 30)
            #expect(region.grow(to: 40 << 20) && region.backedByteCount == 40 << 20)
            for offset in stride(from: 0, to: 40 << 20, by: 4096) {
                region.base.storeBytes(of: offset, toByteOffset: offset, as: Int.self)
            }
            try segment.complete()
        }
        #expect(run("stat -c %s \(scratch.path)/apus-*/entries.0") == "\(40 << 20)")
        let region = try wish.begin(2).region("entries", capacity: 100 << 30)
        let places = stride(from: 0, to: 40 << 20, by: 4096)
        #expect(region.backedByteCount == 40 << 20)
        #expect(places.allSatisfy { region.base.load(fromByteOffset: $0, as: Int.self) == $0 })
    }

    @Test(arguments: [Segment.Kind.shmem, .pmem]) func severalThreadsGrowAndFill(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let wish = Wish(kind, [scratch.mount("a"), scratch.mount("b")])
        let seed = runSeed("SegmentRegionTests")
        let steps = 400
        let next = Atomic<Int>(0)
        let failures = Atomic<Int>(0)
        do {
            let segment = try wish.begin(1)
            let regions = try ["entries", "lines"].map { try segment.region($0, capacity: 64 << 20) }
            onThreads(4) { thread in
                var random = SeededRandom(seed: seed &+ UInt64(thread))
                while case let number = next.add(1, ordering: .relaxed).oldValue, number < steps {
                    let region = regions[Int.random(in: 0...1, using: &random)]
                    // Each has the words of its number, spread over both regions.
                    let offset = Int.random(in: 0..<8000, using: &random) * 4096 + number * 8
                    guard region.grow(to: offset + 8) else {
                        failures.add(1, ordering: .relaxed)
                        continue
                    }
                    region.base.storeBytes(of: UInt64(number + 1), toByteOffset: offset, as: UInt64.self)
                    region.persist(offset: offset, byteCount: 8)
                }
            }
            try segment.complete()
        }
        #expect(failures.load(ordering: .relaxed) == 0)
        let segment = try wish.begin(2)
        var found = 0
        for name in ["entries", "lines"] {
            let region = try segment.region(name, capacity: 64 << 20)
            for offset in stride(from: 0, to: region.backedByteCount, by: 8) {
                let value = region.base.load(fromByteOffset: offset, as: UInt64.self)
                if value != 0 { found += 1 }
                #expect(value == 0 || Int(value - 1) * 8 == offset % 4096)
            }
        }
        #expect(found == steps)
    }

    /// A mapping that the file refuses, of MAP_SYNC on this disk for one, must not give the reserved space up before the
    /// next try: what another thread maps meanwhile would come to lie there, and be replaced. That thread reads what is
    /// not its own, then, or dies of writing beyond the end of a file.
    @Test(arguments: [Segment.Kind.shmem, .pmem]) func mappingTakesNobodysMemory(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let byteCount = 64 << 20
        let segments = try (0..<4).map { number in
            var wish = Wish(kind, [scratch.mount("\(number)")])
            wish.spec.stageByteCount = byteCount
            return try wish.begin(1)
        }
        let isDone = Atomic(false)
        let mapped = Atomic(0)
        let lost = Atomic(0)
        onThreads(2) { thread in
            if thread == 0 {
                for (segment, number) in segments.flatMap({ segment in (0..<150).map { (segment, $0) } }) {
                    guard let region = try? segment.region("region-\(number)", capacity: byteCount) else { continue }
                    if region.grow(to: 1) { mapped.add(1, ordering: .relaxed) }
                }
                isDone.store(true, ordering: .releasing)
            } else {
                while !isDone.load(ordering: .acquiring) { lost.add(lostMappings(500, byteCount), ordering: .relaxed) }
            }
        }
        let (mappedCount, lostCount) = (mapped.load(ordering: .relaxed), lost.load(ordering: .relaxed))
        #expect(mappedCount == 600)
        #expect(lostCount == 0)
    }

    /// Touching what is not there would kill the process by SIGBUS: that it goes on is what is tested.
    @Test(arguments: [Segment.Kind.shmem, .pmem]) func aFullMountIsNoMoreRoom(_ kind: Segment.Kind) throws {
        guard let small = try SmallMount("size=4M") else { return }
        let wish = Wish(kind, [small.path])
        let segment = try wish.begin(1)
        let region = try segment.region("entries", capacity: 64 << 20)
        var byteCount = 0
        while region.grow(to: byteCount + 100_000) { byteCount += 100_000 }
        #expect(byteCount > 3 << 20 && region.backedByteCount < 4 << 20)
        let backed = region.backedByteCount
        #expect(!region.grow(to: 64 << 20) && region.backedByteCount >= backed)
        memset(region.base, 0xA5, region.backedByteCount)
        #expect(wish.warned.all.filter { $0.contains("the file system is full: make it larger") }.count == 1)
        // A second region finds nothing either, and the header still has its place.
        #expect(try !segment.region("lines", capacity: 64 << 20).grow(to: 1 << 20))
        try segment.complete()
        #expect(run("mount -o remount,size=8M '\(small.path)'") != nil)
        let more = region.backedByteCount
        #expect(region.grow(to: 6 << 20) && region.backedByteCount >= 6 << 20)
        #expect((more..<6 << 20).allSatisfy { region.base.load(fromByteOffset: $0, as: UInt8.self) == 0 })
        #expect((0..<more).allSatisfy { region.base.load(fromByteOffset: $0, as: UInt8.self) == 0xA5 })
        #expect(segment.sessionKeys == [1])
    }

    /// Between `ftruncate` and the last page somebody else takes the room.
    @Test func roomThatOthersTakeMeanwhileIsNoMoreRoom() throws {
        guard let small = try SmallMount("size=64M") else { return }
        let wish = Wish(.shmem, [small.path])
        let segment = try wish.begin(1)
        let region = try segment.region("entries", capacity: 1 << 30)
        let other = try segment.region("lines", capacity: 1 << 30)
        onThreads(2) { thread in
            let mine = thread == 0 ? region : other
            var step = 24 << 20
            while step > 1 << 16 {
                let before = mine.backedByteCount
                if mine.grow(to: before + step) { memset(mine.base + before, 1, step) } else { step /= 2 }
            }
        }
        #expect(region.backedByteCount + other.backedByteCount > 60 << 20)
        memset(region.base, 2, region.backedByteCount)
        memset(other.base, 2, other.backedByteCount)
    }

    @Test func addressSpaceThatIsNotThereIsRefused() throws {
        let scratch = try Scratch(.shmem)
        let segment = try Wish(.shmem, [scratch.path]).begin(1)
        #expect(throws: StorageError.self) { try segment.region("entries", capacity: 1 << 50) }
        #expect(try segment.region("lines", capacity: 1 << 40).grow(to: 4096))
    }

    @Test func aSmallMountIsFoundOutBefore() throws {
        guard let small = try SmallMount("size=64M") else { return }
        let probe = try ShmemProbe(small.path)
        #expect(probe.isTmpfs && probe.byteCount == 64 << 20 && probe.freeByteCount <= 64 << 20)
        #expect(probe.shortage(neededByteCount: 1 << 20) == nil)
        #expect(probe.shortage()?.hasPrefix("\(small.path) has 64 MB, 64 MB of it free; the index may need 1024 MB") == true)
        guard let endless = try SmallMount("size=0") else { return }
        #expect(try ShmemProbe(endless.path).shortage(neededByteCount: .max) == nil)
        #expect(try Wish(.shmem, [endless.path]).begin(1).region("entries", capacity: 1 << 30).grow(to: 4 << 20))
        #expect(try !ShmemProbe("/proc").isTmpfs)
        #expect(throws: StorageError.self) { try ShmemProbe("/none") }
    }
}

/// Maps memory so many times, each noted in itself; how many are not what they were.
private func lostMappings(_ count: Int, _ byteCount: Int) -> Int {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    let all = (0..<count).compactMap { _ -> UnsafeMutableRawPointer? in
        guard let one = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0), one != MAP_FAILED else { return nil }
        one.storeBytes(of: one, as: UnsafeMutableRawPointer.self)
        return one
    }
    let lost = all.count { $0.load(as: UnsafeMutableRawPointer?.self) != $0 }
    for one in all { munmap(one, byteCount) }
    return lost
}

/// A thread's number and what it does.
private final class Work: Sendable {
    let number: Int
    let body: @Sendable (Int) -> Void
    init(_ number: Int, _ body: @escaping @Sendable (Int) -> Void) {
        self.number = number
        self.body = body
    }
}

/// Runs a body on several threads at once and waits for all.
func onThreads(_ count: Int, _ body: @Sendable (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
        let threads = (0..<count).map { number in
            var thread = pthread_t()
            let work = Unmanaged.passRetained(Work(number, body)).toOpaque()
            let reason = pthread_create(&thread, nil, { work in
                let work = Unmanaged<Work>.fromOpaque(work!).takeRetainedValue()
                work.body(work.number)
                return nil
            }, work)
            precondition(reason == 0)
            return thread
        }
        for thread in threads { pthread_join(thread, nil) }
    }
}
