// What a pass of expiry costs for each live record, and a delete of an expired one: an engine of one reactor over the memory
// backend, whose index is filled directly. Usage: SweepBench [MILLIONS...]; without sizes 1 and 10.
import Base
import CReactor
import Engine
import Glibc
import Index
import Memory
import Storage

/// Nobody is answered here.
private final class NoShell: EngineShell {
    func post(_ letter: UnsafeMutablePointer<Letter>, to reactor: Int) { fatalError("one reactor has no letters") }
    func wantsSlices() {}
    func stream(
        _ connection: UInt64, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64
    ) -> StreamState { .closed }
    func output(of connection: UInt64) -> OutputBuffer? { nil }
    func answered(_ connection: UInt64, isCompressionAsked: Bool) {}
}

private func mixed(_ number: UInt64) -> UInt64 {
    var value = number &* 0x9E37_79B9_7F4A_7C15
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
}

private func digest(_ number: UInt64) -> Digest {
    Digest(
        low: mixed(3 * number + 1), middle: mixed(3 * number + 2),
        high: UInt32(truncatingIfNeeded: mixed(3 * number + 3)))
}

private let seconds: UInt32 = 500_000_000

/// `count` records, of which none has expired.
private final class World {
    let namespace: Namespace
    let shard: EngineShard
    let shell = NoShell()
    var now = TurnTime(
        monotonic: Instant(nanoseconds: 1), wall: RecordTime(milliseconds: UInt64(seconds) * 1000))

    init(_ count: Int) throws {
        let agreement = Agreement(backend: "memory", format: 1, capabilities: .volatile)
        let backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test", settings: BackendSettings([("data-size", "\(8 << 30)")]), agreement: agreement,
            log: { _ in }))
        var settings = NamespaceSettings(name: "test")
        settings.numbers.nsupPeriodSeconds = 1
        namespace = try Namespace(
            settings: settings, agreement: agreement, backend: backend, index: try PrimaryIndex(heapFor: count + count / 4),
            epoch: Epoch(regime: 1, viewKey: 2), reactors: 1)
        shard = EngineShard(
            reactor: 0, of: 1, namespaces: [namespace],
            backends: [try backend.makeShard(ShardRequest(index: 0, count: 1, wake: {}))], shell: shell,
            cluster: LoneNode(), log: { _ in })
        shard.turnBegan(now)
        for number in 0..<UInt64(count) {
            var entry = IndexEntry(digest: digest(number))
            entry.byteCount = 128
            entry.voidTime = seconds + 1000 + UInt32(truncatingIfNeeded: mixed(number) % 1_000_000)
            try namespace.index.insert(digest(number), entry)
        }
    }

    /// Nanoseconds of this thread for one pass, and the longest slice of it.
    func pass(_ plan: UpkeepPlan) -> (all: UInt64, longest: UInt64, slices: Int) {
        let number = namespace.upkeep.order(plan)
        let begun = apus_clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID)
        var longest: UInt64 = 0
        var slices = 0
        while !namespace.upkeep.board.isEnded(number) {
            let before = apus_clock_nanoseconds(CLOCK_MONOTONIC)
            _ = shard.backgroundSlice()
            longest = max(longest, apus_clock_nanoseconds(CLOCK_MONOTONIC) - before)
            slices += 1
            shard.turnEnded(sleeping: false)
            shard.turnBegan(now)
        }
        return (apus_clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID) - begun, longest, slices)
    }
}

private func tenths(_ number: Double) -> String { "\((number * 10).rounded() / 10)" }

let sizes = CommandLine.arguments.dropFirst().compactMap { Int($0) }
print("| records | pass | ns a record | slices | longest slice us |")
print("|---|---|---|---|---|")
for millions in sizes.isEmpty ? [1, 10] : sizes {
    let count = millions * 1_000_000
    let world = try World(count)
    var eviction = UpkeepPlan()
    eviction.evictionScale = VoidTimeScale(low: seconds, high: seconds + 1_001_000, count: 10_000)
    var histograms = UpkeepPlan()
    histograms.histogramScale = HistogramScale(
        now: seconds, highestVoidTime: seconds + 1_001_000, recordSizeMax: 1 << 20, setCount: 0)
    for (name, plan) in [("expiry", UpkeepPlan()), ("and void-times", eviction), ("and histograms", histograms)] {
        let rounds = (0..<3).map { _ in world.pass(plan) }
        precondition(world.namespace.upkeep.board.figures.seen >= count)
        let best = rounds.min { $0.all < $1.all }!
        print("| \(millions) M | \(name) | \(tenths(Double(best.all) / Double(count))) | \(best.slices)"
            + " | \(tenths(Double(best.longest) / 1000)) |")
    }
}
