// What the command line says.
internal import Simulation

struct Arguments {
    var process = processes[0].name
    var seed: UInt64?
    /// The seed from which a campaign counts.
    var from: UInt64?
    var seconds: UInt64?
    var count: Int?
    var counting: Int?
    var jobs = 2
    var settings = ""
    var lowered = ""
    var kept: [Int]?
    var breaks: [String] = []
    var scenario: String?
    var formation: Int?
    var failuresMax = 5
    var commit = "unknown"
    var append: String?
    var shrinks = false
    var isQuiet = false
    var isTest = false

    static let help = """
        apus-simulate: runs of a simulated cluster, each from one seed.
          (no option)            seeds from a random one on, until --seconds or --count
          --time 45m             so long (s, m, h); also --seconds N
          --count N              so many seeds; --counting N: so many that count (3 nodes, 3 view changes, 5 faults in them)
          --from S               the first seed of a campaign
          --jobs N               processes side by side (2)
          --failures N           stop after so many failing seeds (5)
          --seed S               replays one seed with a log in columns; --quiet only says how it ends
          --set a=1,b=2          options in place of drawn ones
          --keep 3,7 --lower ..  replays a shrunk run: only these of its faults, these options lower
          --shrink               makes a failing seed small (with --seed)
          --break NAME           a canary: switches one rule of the machines off
          --scenario NAME        plays the scenarios whose names contain NAME ("" plays all)
          --formation N          N nodes form and rest
          --append FILE          adds a line about the campaign to a table; --commit X names the code
          --process NAME         what runs: \(processes.map(\.name).joined(separator: ", "))
          --test                 the last line is 'N passed, N failed, N skipped'
        """

    /// A sentence if they cannot be understood.
    mutating func read(_ words: [String]) -> String? {
        var place = 0
        while place < words.count {
            let word = words[place]
            place += 1
            if setFlag(word) { continue }
            guard place < words.count else { return "\(word) is not known, or lacks its value: see --help" }
            if let trouble = set(word, words[place]) { return trouble }
            place += 1
        }
        return processes.contains { $0.name == process } ? nil : "no process is called \(process)"
    }

    private mutating func setFlag(_ word: String) -> Bool {
        switch word {
        case "--shrink": shrinks = true
        case "--quiet": isQuiet = true
        case "--test": isTest = true
        default: return false
        }
        return true
    }

    private mutating func set(_ word: String, _ value: String) -> String? {
        let number = value.hasPrefix("0x") ? UInt64(value.dropFirst(2), radix: 16) : UInt64(value)
        switch word {
        case "--process": process = value
        case "--set": settings = value
        case "--lower": lowered = value
        case "--break": breaks.append(value)
        case "--scenario": scenario = value
        case "--commit": commit = value
        case "--append": append = value
        case "--keep": kept = value.split(separator: ",").compactMap { Int($0) }
        case "--time": return setTime(value)
        case "--seed", "--from", "--seconds", "--count", "--counting", "--jobs", "--failures", "--formation":
            guard let number else { return "\(word) needs a number, not \(value)" }
            setNumber(word, number)
        default: return "\(word) is not known: see --help"
        }
        return nil
    }

    private mutating func setNumber(_ word: String, _ number: UInt64) {
        let small = Int(clamping: number)
        switch word {
        case "--seed": seed = number
        case "--from": from = number
        case "--seconds": seconds = number
        case "--count": count = small
        case "--counting": counting = small
        case "--jobs": jobs = max(1, small)
        case "--failures": failuresMax = max(1, small)
        default: formation = max(1, min(small, 2000))
        }
    }

    private mutating func setTime(_ value: String) -> String? {
        let units: [(Character, UInt64)] = [("s", 1), ("m", 60), ("h", 3600)]
        guard let unit = units.first(where: { $0.0 == value.last }), let number = UInt64(value.dropLast()) else {
            return "--time needs a time like 90s, 45m, 4h, not \(value)"
        }
        seconds = number * unit.1
        return nil
    }

    /// The options of a seed: drawn, then what --set says.
    func options(_ seed: UInt64) -> RunOptions {
        var options = RunOptions.drawn(seed: seed)
        if let trouble = options.set(settings) { stop(trouble) }
        return options
    }

    var maker: ProcessMaker { processes.first { $0.name == process }!.maker }

    /// The options of the command line that a replay needs, too.
    var forReplay: String {
        (process == processes[0].name ? "" : " --process \(process)")
            + (settings.isEmpty ? "" : " --set \(settings)") + breaks.map { " --break \($0)" }.joined()
    }
}
