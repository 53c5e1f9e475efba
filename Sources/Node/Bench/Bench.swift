// The benchmark from start to result, on the calling thread.
package import Client
internal import Base
internal import CBase
internal import CReactor
internal import Glibc

/// Runs benchmarks.
package enum Bench {
    /// Runs one; prints a progress line every second to standard error unless it is quiet.
    package static func run(_ settings: BenchSettings) throws(BenchError) -> BenchResult {
        guard let seed = settings.seeds.first else { throw BenchError(message: "no server address") }
        var tend = Tend(namespace: settings.namespace)
        if settings.target == .cluster {
            tend = try discover(settings)
            if tend.partitions.orphanCount == PartitionID.count {
                throw BenchError(message: "\(seed) serves no namespace '\(settings.namespace)' (yet)")
            }
        }
        let digests = try makeDigests(settings)
        defer { digests.deallocate() }
        let shared = BenchShared(settings, digests, tend)
        let workers = (0..<settings.threads).map { BenchWorker(shared, number: $0) }
        for worker in workers { try worker.connect() }
        for worker in workers { worker.start() }
        let result = settings.isLoad ? watchLoad(shared, workers) : watchRun(shared, workers)
        for worker in workers {
            if let failure = worker.failure { throw BenchError(message: failure) }
        }
        return result
    }

    /// Asks the seeds, and whom they name, until nobody is left to ask.
    package static func discover(_ settings: BenchSettings) throws(BenchError) -> Tend {
        var tend = Tend(namespace: settings.namespace)
        var effects: [Tend.Effect] = []
        tend.seed(settings.seeds, &effects)
        var failure: BenchError?
        while let effect = effects.popLast() {
            guard case .ask(let address, let commands) = effect else { continue }
            do throws(BenchError) {
                tend.answered(address, try ClientSocket.info(address, commands), &effects)
            } catch {
                failure = error
                tend.failed(address)
            }
        }
        if tend.nodes.isEmpty { throw failure ?? BenchError(message: "nobody answered") }
        return tend
    }

    private static func makeDigests(_ settings: BenchSettings) throws(BenchError) -> UnsafeMutablePointer<Digest> {
        guard let hasher = DigestHasher() else { throw BenchError(message: "this OpenSSL has no RIPEMD-160") }
        let digests = UnsafeMutablePointer<Digest>.allocate(capacity: settings.keys)
        for key in 0..<settings.keys {
            (digests + key).initialize(to: hasher.digest(set: settings.set, key: Int64(key)))
        }
        return digests
    }

    // ---- Watching ----

    private static func total(_ workers: [BenchWorker]) -> UInt64 {
        workers.reduce(0) { $0 + apus_load_relaxed_u64($1.answered) }
    }

    private static func watchLoad(_ shared: BenchShared, _ workers: [BenchWorker]) -> BenchResult {
        shared.isRecording = true
        let begun = Reading(shared.settings, 0)
        let wanted = UInt64(shared.settings.keys * shared.settings.rounds)
        var progress = Progress(shared.settings, "of \(wanted) written")
        while total(workers) < wanted, workers.allSatisfy({ $0.failure == nil }) {
            usleep(20_000)
            progress.report(total(workers))
        }
        let ended = Reading(shared.settings, total(workers))
        for worker in workers { worker.join() }
        return result(workers, begun, ended)
    }

    private static func watchRun(_ shared: BenchShared, _ workers: [BenchWorker]) -> BenchResult {
        let settings = shared.settings
        usleep(UInt32(settings.warmUpSeconds * 1e6))
        shared.isRecording = true
        let begun = Reading(settings, total(workers))
        var progress = Progress(settings, "operations")
        let end = begun.wall + UInt64(settings.seconds * 1e9)
        while apus_monotonic_nanoseconds() < end, workers.allSatisfy({ $0.failure == nil }) {
            usleep(UInt32(min(20_000, (end &- min(apus_monotonic_nanoseconds(), end)) / 1000 + 1)))
            progress.report(total(workers))
        }
        let ended = Reading(settings, total(workers))
        shared.isRecording = false
        shared.isStopAsked = true
        for worker in workers { worker.join() }
        return result(workers, begun, ended)
    }

    private static func result(_ workers: [BenchWorker], _ begun: Reading, _ ended: Reading) -> BenchResult {
        var result = BenchResult()
        result.operations = ended.operations - begun.operations
        result.seconds = Double(ended.wall - begun.wall) / 1e9
        let operations = Double(max(result.operations, 1))
        result.ownNanosecondsPerOperation = Double(ended.own - begun.own) / operations
        if let first = begun.server, let last = ended.server {
            result.serverNanosecondsPerOperation = Double(last - first) / operations
        }
        var histogram = LatencyHistogram()
        for worker in workers {
            histogram.add(worker.histogram)
            result.errors.merge(worker.errors) { $0 + $1 }
        }
        result.percentiles = [("p50", 50.0), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("p99.99", 99.99)].map {
            ($0.0, Double(histogram.percentile($0.1)) / 1000)
        } + [("max", Double(histogram.maximum) / 1000)]
        return result
    }
}

/// All clocks and counts at one moment.
private struct Reading {
    let wall: UInt64
    let own: UInt64
    let server: UInt64?
    let operations: UInt64

    init(_ settings: BenchSettings, _ operations: UInt64) {
        self.operations = operations
        wall = apus_monotonic_nanoseconds()
        own = apus_process_nanoseconds(getpid())
        server = settings.serverProcess.map { apus_process_nanoseconds($0) }
    }
}

/// A line every second.
private struct Progress {
    private let settings: BenchSettings
    private let noun: String
    private var last = apus_monotonic_nanoseconds()
    private var lastCount: UInt64 = 0

    init(_ settings: BenchSettings, _ noun: String) {
        self.settings = settings
        self.noun = noun
    }

    mutating func report(_ count: UInt64) {
        let now = apus_monotonic_nanoseconds()
        guard !settings.isQuiet, now - last >= 1_000_000_000 else { return }
        let rate = Double(count - min(lastCount, count)) * 1e9 / Double(now - last)
        let line = "bench: \(count) \(noun), \(UInt64(rate)) per second\n"
        _ = write(STDERR_FILENO, line, line.utf8.count)
        last = now
        lastCount = count
    }
}
