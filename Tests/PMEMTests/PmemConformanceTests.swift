import BlockStore
import Glibc
import PMEM
import Storage
import StorageConformance
import TestSupport
import Testing

/// How much longer than usual everything may take: `APUS_SOAK`.
private var scale: Double { getenv("APUS_SOAK").flatMap { Double(String(cString: $0)) } ?? 1 }

private func run(
    _ name: String, _ subject: PmemSubject, seed: UInt64, histories: Int = 40, crashPoints: Int = 500,
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

private let mebibyte = 1 << 20

@Suite(.serialized) struct PmemConformance {
    /// Metadata of full size needs a head of full size.
    @Test(arguments: [1, 3]) func pmemConforms(_ fileCount: Int) {
        let seed = runSeed("pmemConforms")
        let subject = PmemSubject(
            byteCount: 13 * mebibyte, blockSize: 64 << 10, headSize: 5 * mebibyte, imageSizeMax: mebibyte,
            fileCount: fileCount, seed: seed)
        let result = run(
            "pmem in \(fileCount)", subject, seed: seed, crashPoints: 500, cases: Kit.caseNames.filter { $0 != "crash" })
        #expect(result.failed.isEmpty)
        #expect(result.passed.contains("crash-metadata") && result.passed.contains("pressure"))
        #expect(result.skipped.map(\.name).contains("faults"))
    }

    @Test(arguments: [(1, 1, 0), (1, 3, 10), (4, 1, 50), (4, 3, 0), (16, 2, 0), (64, 1, 0)])
    func pmemSurvivesCrashes(_ blockKibibytes: Int, _ fileCount: Int, _ evictPercent: Int) {
        let seed = runSeed("pmemSurvivesCrashes")
        let subject = PmemSubject(
            byteCount: 16 << 10 + 32 * (blockKibibytes << 10), blockSize: blockKibibytes << 10, fileCount: fileCount,
            seed: seed, evictPercent: evictPercent)
        let result = run(
            "blocks of \(blockKibibytes) KiB in \(fileCount)", subject, seed: seed, crashPoints: 1000,
            cases: ["crash", "histories"])
        #expect(result.failed.isEmpty)
    }

    /// Full all the time: compaction and reuse at every step.
    @Test func fullSmallFileSurvivesCrashes() {
        let seed = runSeed("fullSmallFileSurvivesCrashes")
        let subject = PmemSubject(byteCount: 16 << 10 + 16 * 1024, blockSize: 1024, seed: seed)
        let result = run("small and full", subject, seed: seed, crashPoints: 5000, cases: ["crash", "histories"])
        #expect(result.failed.isEmpty)
    }

    /// Mistakes that the kit has to see.
    @Test(arguments: [(BlockCanary.answersEarly, "crash"), (.forgetsReleases, "crash"), (.forgetsReleases, "close")])
    func kitFindsMistakes(_ canary: BlockCanary, _ finder: String) {
        let seed = runSeed("kitFindsMistakes")
        let subject = PmemSubject(byteCount: 16 << 10 + 32 * 4096, blockSize: 4096, seed: seed, canary: canary)
        let result = run("\(canary)", subject, seed: seed, crashPoints: 5000, cases: [finder])
        #expect(result.failed.map(\.name) == [finder])
    }
}
