// A worker: a process of its own that runs seed after seed and says on a pipe what came of each. If the code under test
// traps, only the worker dies, and the campaign knows which seed it was at.
internal import Glibc
internal import Simulation

/// What a worker says of a seed, on one line: words, and behind a `|` a sentence.
struct SeedReport {
    var seed: UInt64 = 0
    var isCounting = false
    var isRepeated = false
    var nodes = 0
    var views = 0
    var faults = 0
    var strikes = 0
    var events = 0
    var virtualMilliseconds: UInt64 = 0
    var failure: String?

    init(seed: UInt64) { self.seed = seed }

    init(_ result: RunResult) {
        seed = result.seed
        isCounting = result.isCounting
        nodes = result.options.nodes
        views = result.counts.views
        faults = result.counts.faults
        strikes = result.counts.strikes
        events = result.counts.events
        virtualMilliseconds = result.virtualNanoseconds / 1_000_000
        failure = result.violation.map { "\($0)" }
    }

    var line: String {
        let numbers = [isCounting ? 1 : 0, isRepeated ? 1 : 0, nodes, views, faults, strikes, events].map(String.init)
        return "D \(seed) \(virtualMilliseconds) " + numbers.joined(separator: " ") + (failure.map { "|\($0)" } ?? "") + "\n"
    }

    init?(line: Substring) {
        let parts = line.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)
        let words = parts[0].split(separator: " ")
        guard words.count == 10, words[0] == "D", let seed = UInt64(words[1]), let time = UInt64(words[2])
        else { return nil }
        let numbers = words.dropFirst(3).compactMap { Int($0) }
        guard numbers.count == 7 else { return nil }
        self.seed = seed
        virtualMilliseconds = time
        (isCounting, isRepeated, nodes, views) = (numbers[0] == 1, numbers[1] == 1, numbers[2], numbers[3])
        (faults, strikes, events) = (numbers[4], numbers[5], numbers[6])
        failure = parts.count > 1 ? String(parts[1]) : nil
    }
}

/// Runs one seed; every twentieth twice, and compares.
func runSeed(_ seed: UInt64, _ arguments: Arguments) -> SeedReport {
    let options = arguments.options(seed)
    let result = Run(seed: seed, options: options, breaks: arguments.breaks, maker: arguments.maker).execute()
    var report = SeedReport(result)
    guard seed % 20 == 0 else { return report }
    report.isRepeated = true
    let again = Run(seed: seed, options: options, breaks: arguments.breaks, maker: arguments.maker).execute()
    if again.trace != result.trace, report.failure == nil {
        report.failure = "determinism: two runs of one seed differ: trace \(result.trace.value), then \(again.trace.value)"
    }
    return report
}

/// Never returns: runs seeds `first`, `first + stride` and so on, `count` of them, until it is killed.
func work(_ pipe: Int32, first: UInt64, stride: UInt64, count: Int, _ arguments: Arguments) -> Never {
    var seed = first
    for _ in 0..<count {
        say(pipe, "S \(seed)\n")
        say(pipe, runSeed(seed, arguments).line)
        seed &+= stride
    }
    exit(0)
}

private func say(_ pipe: Int32, _ line: String) {
    var rest = Array(line.utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(pipe, $0.baseAddress, $0.count) }
        guard count > 0 else { exit(1) }
        rest = rest.dropFirst(count)
    }
}
