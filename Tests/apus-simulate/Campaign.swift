// A campaign: workers side by side, what they found added up, and every failing seed named with the command that replays it.
internal import Glibc
internal import Simulation

struct Campaign {
    private struct Lane {
        var process: pid_t = 0
        var pipe: Int32 = -1
        /// The seed that it runs, and since when.
        var seed: UInt64 = 0
        var since: UInt64 = 0
        var isBusy = false
        var next: UInt64
        var left: Int
        var text: [UInt8] = []
    }
    private let arguments: Arguments
    private var lanes: [Lane] = []
    private var done = 0
    private var counting = 0
    private var repeated = 0
    private var sums = (virtual: UInt64(0), views: 0, faults: 0, strikes: 0, events: 0)
    private var failures: [(seed: UInt64, sentence: String)] = []
    private let begin = monotonicMilliseconds()
    private var lastWord: UInt64 = 0
    /// A seed that takes longer hangs: milliseconds.
    private static let hangLimit: UInt64 = 120_000

    init(_ arguments: Arguments) {
        self.arguments = arguments
        var generator = SystemRandomNumberGenerator()
        let first = arguments.from ?? UInt64.random(in: 1..<1 << 48, using: &generator)
        let jobs = arguments.jobs
        for job in 0..<jobs {
            let share = arguments.count.map { ($0 + jobs - 1 - job) / jobs } ?? Int.max
            lanes.append(Lane(next: first &+ UInt64(job), left: share))
        }
        print("seeds from \(first), \(jobs) jobs, process \(arguments.process), commit \(arguments.commit)")
    }

    /// To the end. - Returns: whether no seed failed.
    mutating func run() -> Bool {
        for lane in lanes.indices { start(lane) }
        while lanes.contains(where: { $0.pipe >= 0 }), !isEnough {
            listen()
            speak()
        }
        for lane in lanes where lane.pipe >= 0 {
            kill(lane.process, SIGKILL)
            waitpid(lane.process, nil, 0)
        }
        report()
        return failures.isEmpty
    }

    private var elapsed: UInt64 { monotonicMilliseconds() - begin }

    private var isEnough: Bool {
        if failures.count >= arguments.failuresMax { return true }
        if let seconds = arguments.seconds, elapsed >= seconds * 1000 { return true }
        if let wanted = arguments.counting, counting >= wanted { return true }
        return false
    }

    // ---- Workers ----

    private mutating func start(_ lane: Int) {
        guard lanes[lane].left > 0 else { return lanes[lane].pipe = -1 }
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { stop("no pipe can be had") }
        fflush(nil)
        let process = fork()
        guard process >= 0 else { stop("no process can be had") }
        if process == 0 {
            close(ends[0])
            work(
                ends[1], first: lanes[lane].next, stride: UInt64(lanes.count), count: lanes[lane].left, arguments)
        }
        close(ends[1])
        lanes[lane].process = process
        lanes[lane].pipe = ends[0]
        lanes[lane].since = monotonicMilliseconds()
    }

    private mutating func listen() {
        var polled = lanes.map { pollfd(fd: $0.pipe, events: Int16(POLLIN), revents: 0) }
        poll(&polled, nfds_t(polled.count), 200)
        for lane in lanes.indices where lanes[lane].pipe >= 0 {
            if polled[lane].revents != 0 {
                read(lane)
            } else if lanes[lane].isBusy, monotonicMilliseconds() - lanes[lane].since > Campaign.hangLimit {
                kill(lanes[lane].process, SIGKILL)
                end(lane, "it hangs: no end after \(Campaign.hangLimit / 1000) s")
            }
        }
    }

    private mutating func read(_ lane: Int) {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(lanes[lane].pipe, &buffer, buffer.count)
        guard count > 0 else { return end(lane, nil) }
        lanes[lane].text += buffer[..<count]
        while let place = lanes[lane].text.firstIndex(of: UInt8(ascii: "\n")) {
            let line = String(decoding: lanes[lane].text[..<place], as: UTF8.self)
            lanes[lane].text.removeFirst(place + 1)
            take(lane, line)
        }
    }

    private mutating func take(_ lane: Int, _ line: String) {
        if line.hasPrefix("S "), let seed = UInt64(line.dropFirst(2)) {
            (lanes[lane].seed, lanes[lane].since, lanes[lane].isBusy) = (seed, monotonicMilliseconds(), true)
        } else if let report = SeedReport(line: line[...]) {
            lanes[lane].isBusy = false
            lanes[lane].next = report.seed &+ UInt64(lanes.count)
            lanes[lane].left -= 1
            add(report)
        }
    }

    /// The worker is gone: done, or it died at a seed.
    private mutating func end(_ lane: Int, _ reason: String?) {
        var status: Int32 = 0
        waitpid(lanes[lane].process, &status, 0)
        close(lanes[lane].pipe)
        lanes[lane].pipe = -1
        lanes[lane].text = []
        guard lanes[lane].isBusy else { return }
        var report = SeedReport(seed: lanes[lane].seed)
        report.failure = reason ?? "trap: the process died of signal \(status & 0x7F)"
        lanes[lane].isBusy = false
        lanes[lane].next = report.seed &+ UInt64(lanes.count)
        lanes[lane].left -= 1
        add(report)
        start(lane)
    }

    private mutating func add(_ report: SeedReport) {
        done += 1
        if report.isRepeated { repeated += 1 }
        sums.virtual += report.virtualMilliseconds
        sums.views += report.views
        sums.faults += report.faults
        sums.strikes += report.strikes
        sums.events += report.events
        if let failure = report.failure {
            failures.append((report.seed, failure))
            print("seed \(report.seed) FAILS after \(done) seeds: \(failure)")
            print("  replay: scripts/simulate --seed \(report.seed)\(arguments.forReplay)   (add --shrink)")
        } else if report.isCounting {
            counting += 1
        }
    }

    // ---- Words ----

    private mutating func speak() {
        guard elapsed >= lastWord + 2000 else { return }
        lastWord = elapsed
        print("\(elapsed / 1000) s: \(summary)")
        fflush(nil)
    }

    private var hours: String { decimals(Double(sums.virtual) / 3_600_000, 2) }

    private var summary: String {
        let seconds = Double(max(1, elapsed)) / 1000
        let rate = decimals(Double(counting) / seconds / Double(lanes.count), 2)
        return "\(done) seeds, \(counting) count (\(rate) per second and job), \(hours) virtual hours,"
            + " \(sums.views) views, \(sums.faults) faults (\(sums.strikes) while a view was agreed on),"
            + " \(decimals(Double(sums.events) / seconds / 1e6, 2)) M events per second, \(repeated) run twice,"
            + " \(failures.count) failed"
    }

    private func report() {
        print("commit \(arguments.commit), process \(arguments.process)"
            + (arguments.breaks.isEmpty ? "" : ", broken: \(arguments.breaks.joined(separator: " "))"))
        print("\(elapsed / 1000) s: \(summary)")
        var usage = rusage()
        getrusage(RUSAGE_CHILDREN.rawValue, &usage)
        let seconds = Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
            + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
        print("\(decimals(seconds, 1)) s of CPU time: \(decimals(Double(counting) / max(0.01, seconds), 2)) seeds that count"
            + " per second and core")
        if let file = arguments.append { append(file) }
        if arguments.isTest { print("\(done - failures.count) passed, \(failures.count) failed, 0 skipped") }
    }

    private func append(_ file: String) {
        var now = time(nil)
        var parts = tm()
        gmtime_r(&now, &parts)
        let date = "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
        let row = "| \(date) | \(arguments.commit) | \(arguments.process) | \(done) | \(counting) | \(hours) | \(sums.views)"
            + " | \(sums.faults) | \(failures.count) |\n"
        guard let handle = fopen(file, "a") else { stop("\(file) cannot be opened") }
        fputs(row, handle)
        fclose(handle)
    }
}
