// Going on with an index of an earlier process: how long the walk takes for each record, on memory as tmpfs gives it (4 KiB
// pages that this process has not touched yet). Usage: IndexBench --adopt [MILLIONS...]
import Base
import CReactor
import Glibc
import Index

/// A nameless file in /dev/shm, mapped anew for each walk.
private final class SharedFile: MemoryRegion, @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let capacity: Int
    let descriptor: Int32
    var backedByteCount: Int { capacity }
    var needsPersist: Bool { false }

    init(_ descriptor: Int32, capacity: Int) {
        self.descriptor = descriptor
        self.capacity = capacity
        base = mmap(nil, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        precondition(base != MAP_FAILED, "the file could not be mapped")
    }

    deinit { munmap(base, capacity) }

    static func make(_ name: String, capacity: Int) -> SharedFile {
        let path = "/dev/shm/apus-index-bench-\(getpid())-\(name)"
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
        unlink(path)
        precondition(descriptor >= 0 && ftruncate(descriptor, capacity) == 0, "no file could be made in /dev/shm")
        return SharedFile(descriptor, capacity: capacity)
    }

    func grow(to byteCount: Int) -> Bool { byteCount <= capacity }
    func persist(offset: Int, byteCount: Int) {}
}

/// What the threads of one walk share: thread `number` of `count` takes each count-th partition.
private final class Walk: @unchecked Sendable {
    let index: PrimaryIndex
    let count: Int
    private let recordCounts: UnsafeMutablePointer<Int>

    init(_ index: PrimaryIndex, threads: Int) {
        self.index = index
        count = threads
        recordCounts = .allocate(capacity: threads)
        recordCounts.initialize(repeating: 0, count: threads)
    }

    deinit { recordCounts.deallocate() }

    func run(_ number: Int) {
        var locations: UInt64 = 0
        for partition in stride(from: number, to: PartitionID.count, by: count) {
            do {
                recordCounts[number] += try index.adoptPartition(PartitionID(UInt16(partition))) { record in
                    locations &+= record.entry.location
                    return true
                }.recordCount
            } catch { fatalError("\(error)") }
        }
        precondition(locations > 0)
    }

    var recordCount: Int { (0..<count).reduce(0) { $0 + recordCounts[$1] } }
}

private struct Part {
    let walk: Walk
    let number: Int
}

private func now(_ clock: clockid_t = CLOCK_MONOTONIC) -> Double { Double(apus_clock_nanoseconds(clock)) }

/// Nanoseconds of one round.
private struct Spent {
    /// By the clock: attaching, the walk, and its end.
    var all: Double
    var end: Double
    /// Of all processors together.
    var processor: Double
}

private func adopt(_ entries: SharedFile, _ lines: SharedFile, threads: Int, _ records: Int) throws -> Spent {
    let entryRegion = SharedFile(entries.descriptor, capacity: entries.capacity)
    let lineRegion = SharedFile(lines.descriptor, capacity: lines.capacity)
    let (begun, processorBegun) = (now(), now(CLOCK_PROCESS_CPUTIME_ID))
    let index = try PrimaryIndex(attachingTo: RegionArena(entryRegion), lines: RegionArena(lineRegion))
    let walk = Walk(index, threads: threads)
    var others: [pthread_t] = []
    for number in 1..<max(threads, 1) {
        let part = UnsafeMutablePointer<Part>.allocate(capacity: 1)
        part.initialize(to: Part(walk: walk, number: number))
        var thread = pthread_t()
        let code = pthread_create(&thread, nil, { argument in
            let part = argument!.assumingMemoryBound(to: Part.self)
            part.pointee.walk.run(part.pointee.number)
            part.deinitialize(count: 1)
            part.deallocate()
            return nil
        }, part)
        precondition(code == 0)
        others.append(thread)
    }
    walk.run(0)
    for thread in others { pthread_join(thread, nil) }
    let walked = now()
    _ = index.finishAdoption()
    let ended = now()
    precondition(walk.recordCount == records && index.count == records)
    return Spent(all: ended - begun, end: ended - walked, processor: now(CLOCK_PROCESS_CPUTIME_ID) - processorBegun)
}

/// Prints a line for each size: the best of five rounds, with one thread and with two.
func measureAdoption(_ sizes: [Int]) throws {
    print("| records | threads | ns a record | of processors | all together | of that the end |")
    print("|---|---|---|---|---|---|")
    for millions in sizes {
        let count = millions * 1_000_000
        let entries = SharedFile.make("entries", capacity: count * 50 + (8 << 20))
        let lines = SharedFile.make("lines", capacity: count * 20 + (16 << 20))
        let index = try PrimaryIndex(entries: RegionArena(entries), lines: RegionArena(lines))
        for number in 0..<UInt64(count) {
            var entry = IndexEntry(digest: digest(number))
            entry.location = number + 1
            try index.insert(digest(number), entry)
        }
        for threads in [1, 2] {
            let rounds = try (0..<5).map { _ in try adopt(entries, lines, threads: threads, count) }
            let best = rounds.min { $0.all < $1.all }!
            print("| \(millions) M | \(threads) | \(rounded(best.all / Double(count)))"
                + " | \(rounded(best.processor / Double(count))) | \(rounded(best.all / 1e6)) ms"
                + " | \(rounded(best.end / 1e6)) ms |")
        }
    }
}
