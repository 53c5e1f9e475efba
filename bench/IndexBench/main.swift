// The primary index against the memory it lies in: look-ups that cannot overlap, because each key comes from the answer
// before, next to dependent random reads over as many bytes. Usage: IndexBench [--json] [MILLIONS...], or
// IndexBench --adopt [MILLIONS...] (Adoption.swift).
import Base
import CReactor
import Glibc
import Index

private let operations = 1_000_000
private let batch = 16

/// The digest of record `number`: well mixed, and needs no memory that would disturb the measurement.
@inline(__always)
func digest(_ number: UInt64) -> Digest {
    func mix(_ value: UInt64) -> UInt64 {
        var mixed = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
    let seed = number &* 0x9E37_79B9_7F4A_7C15
    return Digest(low: mix(seed), middle: mix(seed &+ 1), high: UInt32(truncatingIfNeeded: mix(seed &+ 2)))
}

private func nanoseconds(_ count: Int, _ body: () -> Void) -> Double {
    let begun = apus_clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID)
    body()
    return Double(apus_clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - begun) / Double(count)
}

private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

nonisolated(unsafe) private var sink: UInt64 = 0

/// One size: everything in one index and one array of the same bytes.
private struct Measurement {
    var millions: Int
    var hit = 0.0
    var batched = 0.0
    var miss = 0.0
    var twoReads = 0.0
    /// Median of the rounds' ratios.
    var hitToReads = 0.0
    var bytesPerRecord = 0.0
}

private func chained(_ index: PrimaryIndex, _ count: UInt64) -> Double {
    var number: UInt64 = 1
    let spent = nanoseconds(operations) {
        // The turn's number goes in as well: a walk by the answers alone soon runs in a circle that fits into a cache.
        for turn in 0..<UInt64(operations) {
            guard let reference = index.find(digest(number)) else { fatalError("record \(number) is not there") }
            number = (index.entry(reference).location &+ turn) % count
        }
    }
    sink &+= number
    precondition(number < count)
    return spent
}

private func inBatches(_ index: PrimaryIndex, _ count: UInt64, _ random: inout SeededRandom) -> Double {
    let digests = UnsafeMutablePointer<Digest>.allocate(capacity: batch)
    defer { digests.deallocate() }
    var start = random.next()
    return nanoseconds(operations) {
        for _ in 0..<(operations / batch) {
            for place in 0..<batch {
                start = start &* 6_364_136_223_846_793_005 &+ 1
                digests[place] = digest((start >> 20) % count)
            }
            for place in 0..<batch { index.prefetchBucket(digests[place]) }
            for place in 0..<batch { index.prefetchEntry(digests[place]) }
            for place in 0..<batch {
                guard let reference = index.find(digests[place]) else { fatalError("a record is not there") }
                start &+= index.entry(reference).location
            }
        }
        sink &+= start
    }
}

private func misses(_ index: PrimaryIndex, _ count: UInt64) -> Double {
    var number = count
    return nanoseconds(operations) {
        for _ in 0..<operations {
            number += index.find(digest(number)) == nil ? 1 : 2
        }
        sink &+= number
    }
}

/// An array of random line numbers over as many bytes as the index has, in the same kind of memory.
private struct Lines {
    private let arena: HeapArena
    private let base: UnsafeMutableRawPointer
    private let count: UInt64

    init(byteCount: Int, _ random: inout SeededRandom) throws {
        let lines = byteCount / 64
        arena = try HeapArena(capacity: lines * 64)
        base = arena.base + (try arena.allocate(byteCount: lines * 64))
        count = UInt64(lines)
        for line in 0..<lines { (base + line * 64).storeBytes(of: random.next() % count, as: UInt64.self) }
    }

    /// Two dependent reads for each operation.
    func twoReads() -> Double {
        var line: UInt64 = 1
        let spent = nanoseconds(operations) {
            for turn in 0..<UInt64(operations) {
                line = ((base + Int(line) * 64).load(as: UInt64.self) &+ turn) % count
                line = ((base + Int(line) * 64).load(as: UInt64.self) &+ turn) % count
            }
        }
        sink &+= line
        return spent
    }
}

/// Rounds of all measurements in turn: on a shared machine what is compared must be measured side by side.
private func measure(_ millions: Int) throws -> Measurement {
    var random = SeededRandom(seed: UInt64(millions))
    let count = UInt64(millions) * 1_000_000
    let index = try PrimaryIndex(heapFor: Int(count) * 2)
    for number in 0..<count {
        var entry = IndexEntry(digest: digest(number))
        entry.location = random.next() % count
        try index.insert(digest(number), entry)
    }
    let lines = try Lines(byteCount: Int(index.usedBytes), &random)
    var result = Measurement(millions: millions)
    result.bytesPerRecord = Double(index.usedBytes) / Double(count)
    let rounds = (0..<7).map { _ in
        (reads: lines.twoReads(), hit: chained(index, count), batch: inBatches(index, count, &random),
            miss: misses(index, count))
    }
    result.twoReads = median(rounds.map(\.reads))
    result.hit = median(rounds.map(\.hit))
    result.batched = median(rounds.map(\.batch))
    result.miss = median(rounds.map(\.miss))
    result.hitToReads = median(rounds.map { $0.hit / $0.reads })
    return result
}

func rounded(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }

private func report(_ results: [Measurement], json: Bool) {
    if json {
        let rows = results.map {
            "{\"millions\": \($0.millions), \"hit_ns\": \(rounded($0.hit)), \"batch_ns\": \(rounded($0.batched)),"
                + " \"miss_ns\": \(rounded($0.miss)), \"two_reads_ns\": \(rounded($0.twoReads)),"
                + " \"bytes_per_record\": \(rounded($0.bytesPerRecord))}"
        }
        return print("[\(rows.joined(separator: ", "))]")
    }
    print("| records | two reads | hit, chained | to reads | hit in a batch of 16 | to hit | miss | bytes |")
    print("|---|---|---|---|---|---|---|---|")
    for one in results {
        print("| \(one.millions) M | \(rounded(one.twoReads)) ns | \(rounded(one.hit)) ns"
            + " | \(rounded(one.hitToReads))"
            + " | \(rounded(one.batched)) ns | \(rounded(one.batched / one.hit)) | \(rounded(one.miss)) ns"
            + " | \(rounded(one.bytesPerRecord)) |")
    }
    let hits = results.map(\.hit)
    print("\nslowest hit to fastest: \(rounded(hits.max()! / hits.min()!)) (bar 1.2);"
        + " hit to two reads: \(rounded(results.map(\.hitToReads).max()!)) (bar 1.4);"
        + " batch to hit: \(rounded(results.map { $0.batched / $0.hit }.max()!)) (bar 0.5);"
        + " bytes per record: \(rounded(results.map(\.bytesPerRecord).max()!)) (bar 52);"
        + " the two reads themselves, slowest to fastest:"
        + " \(rounded(results.map(\.twoReads).max()! / results.map(\.twoReads).min()!))")
}

let words = CommandLine.arguments.dropFirst()
let sizes = words.compactMap { Int($0) }
if words.contains("--adopt") {
    try measureAdoption(sizes.isEmpty ? [10] : sizes)
    exit(0)
}
private var results: [Measurement] = []
for millions in sizes.isEmpty ? [10, 14, 19, 40] : sizes {
    let progress = "measuring \(millions) million records\n"
    _ = write(STDERR_FILENO, progress, progress.utf8.count)
    results.append(try measure(millions))
}
report(results, json: words.contains("--json"))
