// apus-simulate: the simulated cluster on the command line. See --help and docs/SIMULATION.md.
internal import Glibc
internal import Simulation

func stop(_ sentence: String) -> Never {
    print("apus-simulate: \(sentence)")
    exit(2)
}

func monotonicMilliseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}

func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }

/// With so many digits behind the point.
func decimals(_ number: Double, _ digits: Int) -> String {
    var factor = 1.0
    for _ in 0..<digits { factor *= 10 }
    let scaled = UInt64((number * factor).rounded())
    let whole = scaled / UInt64(factor)
    let rest = String(scaled % UInt64(factor))
    return digits == 0 ? "\(whole)" : "\(whole)." + String(repeating: "0", count: digits - rest.count) + rest
}

var arguments = Arguments()
let words = Array(CommandLine.arguments.dropFirst())
if words.contains("--help") {
    print(Arguments.help)
    exit(0)
}
if let trouble = arguments.read(words) { stop(trouble) }
var holds = true
if let nodes = arguments.formation {
    holds = showFormation(nodes, arguments)
} else if let text = arguments.scenario {
    let counts = playScenarios(text, arguments)
    holds = counts.broken == 0
    if arguments.isTest { print("\(counts.held) passed, \(counts.broken) failed, 0 skipped") }
} else if let seed = arguments.seed {
    if arguments.shrinks { shrink(seed, arguments) } else { holds = replay(seed, arguments) }
} else {
    if arguments.seconds == nil, arguments.count == nil, arguments.counting == nil { arguments.seconds = 60 }
    var campaign = Campaign(arguments)
    holds = campaign.run()
}
exit(holds ? 0 : 1)
