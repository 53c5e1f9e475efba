import Glibc
import Memory
import ReferenceLog
import Storage
import StorageConformance
import TestSupport
import Testing

/// How much longer than usual everything may take: `APUS_SOAK`.
private var scale: Double { getenv("APUS_SOAK").flatMap { Double(String(cString: $0)) } ?? 1 }

/// Runs the kit; prints a line for each case that takes long, and what failed.
private func run(
    _ name: String, _ subject: any ConformanceSubject, seed: UInt64, histories: Int = 40, crashPoints: Int = 500,
    cases: [String] = []
) -> KitResult {
    var settings = KitSettings(seed: seed)
    settings.histories = Int(Double(histories) * scale)
    settings.crashPoints = Int(Double(crashPoints) * scale)
    settings.cases = cases
    let result = Kit(subject, settings) { print("\(name): \($0)") }.run()
    print("\(name): \(result.summary), \(result.crashPoints) crashes")
    return result
}

private func allCases(but left: [String]) -> [String] { Kit.caseNames.filter { !left.contains($0) } }

private let mebibyte = 1 << 20

@Test func memoryConforms() {
    let subject = VolatileSubject(
        descriptor: Memory.descriptor, settings: [("data-size", "\(256 * mebibyte)")],
        small: [("data-size", "\(16 * mebibyte)")])
    let result = run("memory", subject, seed: runSeed("memoryConforms"), histories: 100)
    #expect(result.failed.isEmpty)
    #expect(result.passed.contains("histories") && result.passed.contains("pressure"))
}

@Test func referenceLogConforms() {
    let seed = runSeed("referenceLogConforms")
    let whole = run("log", LogSubject(byteCount: 12 * mebibyte, seed: seed), seed: seed, cases: allCases(but: ["crash"]))
    #expect(whole.failed.isEmpty)
    #expect(whole.passed.contains("faults") && whole.passed.contains("crash-metadata") && whole.passed.contains("pressure"))
}

/// The histories of the kit are short: it takes small blocks for crashes to meet moves, wipes and a device that is full.
@Test(arguments: [(52, 4), (64, 4), (320, 32), (512, 32)])
func referenceLogSurvivesCrashes(_ kibibytes: Int, _ blockKibibytes: Int) {
    let seed = runSeed("referenceLogSurvivesCrashes")
    let subject = LogSubject(byteCount: kibibytes << 10, blockSize: blockKibibytes << 10, seed: seed)
    let result = run("small log", subject, seed: seed, crashPoints: 10_000, cases: ["crash", "histories"])
    #expect(result.failed.isEmpty)
    #expect(result.crashPoints >= 10_000 || scale < 1)
}

/// Cases that may find a flaw: if another one did, the case that should have is blind to it.
@Test(arguments: [
    (Flaw.forgetsSync, ["crash"]),
    (.returnsStaleBytes, ["histories", "crash"]),
    (.losesRelease, ["crash", "histories"]),
    (.reusesTooEarly, ["crash"]),
    (.tornMetadata, ["crash-metadata"]),
    (.ignoresChecksum, ["crash"]),
])
func kitFindsFlawsOfTheLog(_ flaw: Flaw, _ finders: [String]) {
    let seed = runSeed("kitFindsFlawsOfTheLog")
    for finder in finders {
        // Small blocks, so that flaws of wiping show soon; metadata needs a device of some size.
        let subject = finder == "crash-metadata"
            ? LogSubject(byteCount: 12 * mebibyte, seed: seed, flaw: flaw)
            : LogSubject(byteCount: 64 << 10, blockSize: 4 << 10, seed: seed, flaw: flaw)
        let result = run("\(flaw)", subject, seed: seed, histories: 200, crashPoints: 10_000, cases: [finder])
        #expect(result.failed.map(\.name) == [finder])
    }
}

@Test func everyFlawOfTheLogIsTried() { #expect(Flaw.allCases.count == 6) }

@Test func keyedBackendConforms() {
    let result = run("keyed", KeyedSubject(), seed: runSeed("keyedBackendConforms"), crashPoints: 5000)
    #expect(result.failed.isEmpty)
    #expect(result.skipped.map(\.name).sorted() == ["at-once", "scan-sequence", "two-versions"])
}

@Test func blockingBackendConformsOnThreads() {
    let seed = runSeed("blockingBackendConformsOnThreads")
    let result = run("blocking", KeyedSubject(isBlocking: true), seed: seed, histories: 10)
    #expect(result.failed.isEmpty)
    #expect(result.passed.contains("threads/histories") && result.passed.contains("threads/tags"))
}

@Test(arguments: [
    (KeyedFlaw.forgetsCommit, "crash"), (.returnsStaleBytes, "histories"), (.losesRemove, "crash"),
    (.losesRemove, "histories"), (.spoilsLentBytes, "lent-bytes"), (.answersTwice, "tags"), (.copiesLate, "round-trip"),
    (.hidesErrors, "faults"), (.scansTwice, "scan-once"), (.ignoresStale, "scan-stale"),
    (.deletesReplaced, "scan-stale-replaced"),
])
func kitFindsFlawsOfTheKeyedBackend(_ flaw: KeyedFlaw, _ finder: String) {
    let seed = runSeed("kitFindsFlawsOfTheKeyedBackend")
    let result = run("\(flaw)", KeyedSubject(flaw: flaw), seed: seed, crashPoints: 2000, cases: [finder])
    #expect(result.failed.map(\.name) == [finder])
    // A random history is shortened to what a person can read; that of the faults is fixed.
    for failure in result.failed where !failure.history.isEmpty { #expect(failure.history.count <= 40) }
}

/// Fewer promises: what the log keeps beyond them is no finding.
@Test(arguments: [[], Capabilities.durableAtCommit, .deletesLast]) func fewerPromisesConform(_ promises: Capabilities) {
    let seed = runSeed("fewerPromisesConform")
    let subject = LogSubject(byteCount: mebibyte / 2, seed: seed, promises: promises)
    let result = run(
        "promises \(promises.names)", subject, seed: seed, crashPoints: 3000, cases: ["crash", "histories", "close"])
    #expect(result.failed.isEmpty && result.passed.count == 3)
}

/// A log that never syncs keeps every promise but the one it does not make.
@Test func flawsOutsideThePromisesAreNone() {
    let seed = runSeed("flawsOutsideThePromisesAreNone")
    let subject = LogSubject(byteCount: mebibyte / 2, seed: seed, flaw: .forgetsSync, promises: [])
    let result = run("forgetsSync, promised nothing", subject, seed: seed, crashPoints: 3000, cases: ["crash", "histories"])
    #expect(result.failed.isEmpty)
}

@Test func directoryBackendConforms() {
    let seed = runSeed("directoryBackendConforms")
    let good = run(
        "file", DirectorySubject(descriptor: FileBackend.descriptor()), seed: seed, histories: 5, crashPoints: 60)
    #expect(good.failed.isEmpty)
    #expect(good.passed.contains("crash") && good.passed.contains("threads/histories"))
    #expect(good.skipped.map(\.name).contains("pressure"))
    let bad = run(
        "file, flawed", DirectorySubject(descriptor: FileBackend.descriptor(flaw: .writesAtCloseOnly)), seed: seed,
        crashPoints: 200, cases: ["crash"])
    #expect(bad.failed.map(\.name) == ["crash"])
}

@Test func sameSeedGivesTheSameFailure() {
    func words() -> [String] {
        let subject = LogSubject(byteCount: mebibyte / 2, seed: 7, flaw: .losesRelease)
        return run("again", subject, seed: 7, crashPoints: 2000, cases: ["crash"]).failed.map(\.words)
    }
    let first = words()
    #expect(first.count == 1)
    #expect(words() == first)
}

@Test func programsExitWithTheRightCode() {
    func main(_ arguments: [String], _ flaw: KeyedFlaw? = nil) -> Int32 { Kit.main(arguments) { KeyedSubject(flaw: flaw) } }
    #expect(main(["--help"]) == 0)
    #expect(main(["--list"]) == 0)
    #expect(main(["--case", "round-trip", "--case", "tags", "--seed", "1"]) == 0)
    #expect(main(["--case", "tags", "--seed", "1"], .answersTwice) == 1)
    for wrong in [["--nonsense"], ["--seed"], ["--histories", "many"], ["--case", "no-such-case"]] {
        #expect(main(wrong) == 64)
    }
}
