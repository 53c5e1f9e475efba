// One seed again: with a log, or shrunk, or broken into what is needed of it.
internal import Glibc
internal import Simulation

/// Replays the seed of the command line. - Returns: whether no rule was broken.
func replay(_ seed: UInt64, _ arguments: Arguments) -> Bool {
    let options = arguments.options(seed)
    var lower = options
    if let trouble = lower.set(arguments.lowered) { stop(trouble) }
    var given: GivenFaults?
    if arguments.kept != nil || lower != options {
        let whole = Run(seed: seed, options: options, breaks: arguments.breaks, maker: arguments.maker).execute()
        given = GivenFaults(whole)
        if let kept = arguments.kept { given!.faults = kept.filter { $0 < whole.faults.count }.map { whole.faults[$0] } }
    }
    let log = arguments.isQuiet ? nil : ColumnLog(hasDetails: true) { print($0) }
    let run = Run(
        seed: seed, options: lower, breaks: arguments.breaks, given: given, log: log, maker: arguments.maker)
    let result = run.execute()
    print("seed \(seed), commit \(arguments.commit), options: \(lower.differences(from: RunOptions()))")
    print("\(result.virtualNanoseconds / 1_000_000) virtual ms, \(result.counts), trace \(result.trace.value)")
    print(result.violation.map { "FAILS: \($0)" } ?? "holds")
    return result.violation == nil
}

/// Makes a failing seed small and prints what is left of it.
func shrink(_ seed: UInt64, _ arguments: Arguments) {
    let options = arguments.options(seed)
    // If the run traps, its faults are not known, and only the options can be lowered.
    let first = outcome { Run(seed: seed, options: options, breaks: arguments.breaks, maker: arguments.maker).execute() }
    guard first != .holds else { return print("seed \(seed) holds: nothing to shrink") }
    let whole = first == .trap
        ? nil : Run(seed: seed, options: options, breaks: arguments.breaks, maker: arguments.maker).execute()
    print("seed \(seed): \(whole.map { "\($0.violation!)" } ?? "a trap"); \(whole?.faults.count ?? 0) faults")
    var shrunk = Shrink(options: options, faultCount: whole?.faults.count ?? 0) { options, kept in
        var given = whole.map { GivenFaults($0) }
        if let whole { given!.faults = kept.map { whole.faults[$0] } }
        return outcome {
            Run(seed: seed, options: options, breaks: arguments.breaks, given: given, maker: arguments.maker).execute()
        } == first
    }
    shrunk.run()
    print("after \(shrunk.tries) tries, options: \(shrunk.options.differences(from: RunOptions()))")
    for place in shrunk.kept {
        guard let one = whole?.faults[place] else { continue }
        print("  \(place): at \(one.time / 1_000_000) ms \(one.fault)")
    }
    let places = shrunk.kept.map(String.init).joined(separator: ",")
    let lowered = shrunk.options.differences(from: options)
    print("replay: scripts/simulate --seed \(seed)\(arguments.forReplay)"
        + (whole == nil ? "" : " --keep \(places.isEmpty ? "none" : places)")
        + (lowered.isEmpty ? "" : " --lower \(lowered)"))
}

/// How a run ends.
private enum Outcome: Equatable {
    case holds
    case breaks(rule: UInt8)
    case trap
}

/// Runs in a process of its own, which may trap.
private func outcome(_ run: () -> RunResult) -> Outcome {
    fflush(nil)
    let process = fork()
    guard process >= 0 else { stop("no process can be had") }
    if process == 0 {
        let result = run()
        var sum: UInt8 = 0
        for byte in (result.violation?.rule ?? "").utf8 { sum = sum &* 31 &+ byte }
        _exit(result.violation == nil ? 0 : Int32(max(1, sum & 0x7F)))
    }
    var status: Int32 = 0
    waitpid(process, &status, 0)
    guard status & 0x7F == 0 else { return .trap }
    let code = UInt8(truncatingIfNeeded: status >> 8)
    return code == 0 ? .holds : .breaks(rule: code)
}

/// Plays the scenarios whose names contain `text`. - Returns: how many held, and how many did not.
func playScenarios(_ text: String, _ arguments: Arguments) -> (held: Int, broken: Int) {
    var counts = (held: 0, broken: 0)
    let wanted = namedScenarios.filter { text.isEmpty || $0.name.contains(text) }
    let log = wanted.count == 1 && !arguments.isQuiet ? ColumnLog(hasDetails: true) { print($0) } : nil
    for scenario in wanted {
        do throws(Violation) {
            try scenario.play(seed: arguments.seed ?? 1, log: log, maker: arguments.maker)
            print("holds: \(scenario.name)")
            counts.held += 1
        } catch {
            print("FAILS: \(scenario.name): \(error)")
            counts.broken += 1
        }
    }
    return counts
}

/// Lets many nodes form a cluster and rest.
func showFormation(_ nodes: Int, _ arguments: Arguments) -> Bool {
    var options = RunOptions()
    options.nodes = nodes
    options.seeds = 3
    if let trouble = options.set(arguments.settings) { stop(trouble) }
    let begin = monotonicMilliseconds()
    let log = arguments.isQuiet ? nil : ColumnLog(hasDetails: false) { print($0) }
    let result = measureFormation(
        seed: arguments.seed ?? 1, options: options, restSeconds: 5, log: log, maker: arguments.maker)
    let seconds = Double(max(1, monotonicMilliseconds() - begin)) / 1000
    print("\(result.nodes) nodes (\(options.differences(from: RunOptions()))): "
        + (result.formedNanoseconds.map { "formed after \(decimals(Double($0) / 1e9, 2)) s" } ?? "NOT formed in 120 s")
        + ", until then \(result.formation.messages) messages, \(result.formation.bytes) bytes,"
        + " \(result.formation.views) views")
    print("at rest per node and second: \(decimals(result.messagesPerSecond, 1)) messages,"
        + " \(decimals(result.bytesPerSecond / 1024, 1)) KiB; \(decimals(Double(result.events) / seconds / 1e6, 3)) M events"
        + " per real second, \(decimals(seconds, 1)) s in all")
    if let violation = result.violation { print("FAILS: \(violation)") }
    return result.violation == nil && result.formedNanoseconds != nil
}
