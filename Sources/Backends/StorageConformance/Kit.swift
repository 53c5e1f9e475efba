// The conformance kit: runs a backend through everything its contract and its capability bits promise.
internal import Base
internal import Glibc
internal import Storage

/// What a run of the kit is to do.
public struct KitSettings: Sendable {
    /// Everything random follows from it.
    public var seed: UInt64
    /// Random histories without crashes.
    public var histories = 50
    /// Operations of each of them.
    public var operationsPerHistory = 200
    /// Crashes in random histories, all together.
    public var crashPoints = 500
    /// Only the cases with these names; empty for all.
    public var cases: [String] = []

    /// The defaults, which suit a backend on a real medium: about a minute.
    public init(seed: UInt64) { self.seed = seed }
}

/// A case that failed.
public struct KitFailure: Sendable {
    /// Name of the case.
    public let name: String
    /// What went wrong, in words.
    public let text: String
    /// The seed of the run.
    public let seed: UInt64
    /// The shortest history found that fails; empty if the case is not a random one.
    public let history: [String]

    /// What an author reads.
    public var words: String {
        var lines = ["\(name): \(text)"]
        if !history.isEmpty { lines += ["  the shortest history that fails:"] + history.map { "    \($0)" } }
        lines.append("  again: --case \(name) --seed \(seed)")
        return lines.joined(separator: "\n")
    }
}

/// What became of all cases.
public struct KitResult: Sendable {
    /// Names of the cases that passed.
    public var passed: [String] = []
    /// Cases that failed.
    public var failed: [KitFailure] = []
    /// Cases that do not apply, and why.
    public var skipped: [(name: String, reason: String)] = []
    /// Crashes that were survived.
    public var crashPoints = 0

    /// The last line of a test run.
    public var summary: String { "\(passed.count) passed, \(failed.count) failed, \(skipped.count) skipped" }
}

/// Runs the cases. One thread, except where a case says otherwise.
public struct Kit {
    private let subject: any ConformanceSubject
    private let settings: KitSettings
    private let report: (String) -> Void

    /// Tests `subject`; `report` gets a line for each case, and one now and then during a long one.
    public init(_ subject: any ConformanceSubject, _ settings: KitSettings, report: @escaping (String) -> Void = { _ in }) {
        self.subject = subject
        self.settings = settings
        self.report = report
    }

    /// Runs every case that is asked for: a blocking backend goes through all of them but the crashes a second time, on
    /// storage threads.
    public func run() -> KitResult {
        var result = KitResult()
        for one in Case.all { run(one, on: subject, prefix: "", &result) }
        guard subject.capabilities.contains(.blocking) else { return result }
        let threaded = ThreadedSubject(subject)
        for one in Case.all where one.runsOnThreads { run(one, on: threaded, prefix: "threads/", &result) }
        return result
    }

    /// The names of all cases.
    public static var caseNames: [String] { Case.all.map(\.name) }

    /// Runs a case of the author's own, if it is asked for.
    func run(_ one: OwnCase, _ result: inout KitResult) {
        guard settings.cases.isEmpty || settings.cases.contains(one.name) else { return }
        let problem: String?
        do throws(StorageError) { problem = try one.body() } catch { problem = error.text }
        guard let problem else {
            result.passed.append(one.name)
            return report("passed   \(one.name)")
        }
        let failure = KitFailure(name: one.name, text: problem, seed: settings.seed, history: [])
        result.failed.append(failure)
        report("FAILED   \(failure.words)")
    }

    private func run(_ one: Case, on subject: any ConformanceSubject, prefix: String, _ result: inout KitResult) {
        let name = prefix + one.name
        guard settings.cases.isEmpty || settings.cases.contains(name) else { return }
        if let reason = one.skipped(subject.capabilities) {
            result.skipped.append((name, reason))
            return report("skipped  \(name): \(reason)")
        }
        let begun = Clock.seconds
        let context = Context(subject: subject, settings: settings, name: name, report: report)
        do throws(CaseEnd) {
            try one.body(context)
            result.passed.append(name)
            report("passed   \(name) (\(Clock.words(Clock.seconds - begun)))")
        } catch {
            switch error {
            case .skipped(let reason):
                result.skipped.append((name, reason))
                report("skipped  \(name): \(reason)")
            case .failed(let text, let history):
                let failure = KitFailure(name: name, text: text, seed: settings.seed, history: history)
                result.failed.append(failure)
                report("FAILED   \(failure.words)")
            }
        }
        result.crashPoints += context.crashPoints
    }
}

enum Clock {
    static var seconds: Double {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
    }

    static func words(_ seconds: Double) -> String { "\(Int(seconds * 1000)) ms" }
}

/// How a case ends if it does not pass.
enum CaseEnd: Error {
    case skipped(String)
    case failed(String, history: [String])
}

/// What a case works with.
final class Context {
    let subject: any ConformanceSubject
    let settings: KitSettings
    let name: String
    private let report: (String) -> Void
    private var reported = Clock.seconds
    /// Crashes that were survived.
    var crashPoints = 0

    init(subject: any ConformanceSubject, settings: KitSettings, name: String, report: @escaping (String) -> Void) {
        self.subject = subject
        self.settings = settings
        self.name = name
        self.report = report
    }

    var promises: Capabilities { subject.capabilities }

    /// Runs `body` on a fresh backend and cleans up, however it ends.
    func onSession(_ open: (any Backend)? = nil, _ body: (Session) throws(Failure) -> Void) throws(CaseEnd) {
        do throws(Failure) {
            let session = try Session(subject, open)
            defer { session.abandon() }
            try body(session)
        } catch {
            throw .failed(error.text, history: [])
        }
    }

    /// Says how far a long case has come, every two seconds.
    func progress(_ done: Int, of total: Int, _ what: String) {
        guard Clock.seconds - reported > 2 else { return }
        reported = Clock.seconds
        report("         \(name): \(done) of \(total) \(what)")
    }
}
