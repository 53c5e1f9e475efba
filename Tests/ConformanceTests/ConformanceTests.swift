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
    _ name: String, _ subject: any ConformanceSubject, seed: UInt64, histories: Int = 40, crashPoints: Int = 300,
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
        descriptor: Memory.descriptor, settings: [("data-size", "\(256 * mebibyte)")], small: [("data-size", "\(16 * mebibyte)")])
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

@Test func referenceLogSurvivesCrashes() {
    let seed = runSeed("referenceLogSurvivesCrashes")
    let subject = LogSubject(byteCount: mebibyte / 2, seed: seed)
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
        let byteCount = finder == "crash-metadata" ? 12 * mebibyte : mebibyte / 2
        let subject = LogSubject(byteCount: byteCount, seed: seed, flaw: flaw)
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
    let result = run("blocking", KeyedSubject(isBlocking: true), seed: runSeed("blockingBackendConformsOnThreads"), histories: 10)
    #expect(result.failed.isEmpty)
    #expect(result.passed.contains("threads/histories") && result.passed.contains("threads/tags"))
}

@Test(arguments: [
    (KeyedFlaw.forgetsCommit, "crash"), (.returnsStaleBytes, "histories"), (.losesRemove, "crash"),
    (.losesRemove, "histories"), (.spoilsLentBytes, "lent-bytes"), (.answersTwice, "tags"), (.copiesLate, "round-trip"),
])
func kitFindsFlawsOfTheKeyedBackend(_ flaw: KeyedFlaw, _ finder: String) {
    let seed = runSeed("kitFindsFlawsOfTheKeyedBackend")
    let result = run("\(flaw)", KeyedSubject(flaw: flaw), seed: seed, crashPoints: 2000, cases: [finder])
    #expect(result.failed.map(\.name) == [finder])
    // A random history is shortened to what a person can read.
    for failure in result.failed where !failure.history.isEmpty { #expect(failure.history.count <= 25) }
}
