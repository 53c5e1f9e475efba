import DeviceLog
import Glibc
import Storage
import StorageConformance
import TestSupport
import Testing

/// How much longer than usual everything may take: `APUS_SOAK`.
private var scale: Double { getenv("APUS_SOAK").flatMap { Double(String(cString: $0)) } ?? 1 }

private func run(
    _ name: String, _ subject: DeviceLogSubject, seed: UInt64, histories: Int = 40, crashPoints: Int = 500,
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

@Suite(.serialized) struct Conformance {
    /// Metadata of full size needs a head of full size; crashes among it are tried below.
    @Test(arguments: [1, 3]) func deviceLogConforms(_ deviceCount: Int) {
        let seed = runSeed("deviceLogConforms")
        let subject = DeviceLogSubject(
            byteCount: 12 * mebibyte, blockSize: 64 << 10, headSize: 5 * mebibyte, deviceCount: deviceCount, seed: seed)
        let result = run(
            "device log on \(deviceCount)", subject, seed: seed, cases: Kit.caseNames.filter { $0 != "crash" })
        #expect(result.failed.isEmpty)
    }

    /// Every block in memory.
    @Test(arguments: [1, 2]) func residentLogConforms(_ deviceCount: Int) {
        let seed = runSeed("residentLogConforms")
        let subject = DeviceLogSubject(
            byteCount: 12 * mebibyte, blockSize: 64 << 10, headSize: 5 * mebibyte, deviceCount: deviceCount, seed: seed,
            isResident: true)
        let result = run(
            "resident log on \(deviceCount)", subject, seed: seed, cases: Kit.caseNames.filter { $0 != "crash" })
        #expect(result.failed.isEmpty)
        let small = DeviceLogSubject(
            byteCount: 8 << 10 + 40 * (16 << 10), blockSize: 16 << 10, deviceCount: deviceCount, seed: seed,
            isResident: true)
        let crashes = run(
            "resident blocks on \(deviceCount)", small, seed: seed, crashPoints: 2000, cases: ["crash", "histories"])
        #expect(crashes.failed.isEmpty)
    }

    @Test(arguments: [(4, 1), (4, 3), (16, 1), (16, 2), (64, 1), (64, 3)])
    func deviceLogSurvivesCrashes(_ blockKibibytes: Int, _ deviceCount: Int) {
        let seed = runSeed("deviceLogSurvivesCrashes")
        let subject = DeviceLogSubject(
            byteCount: 8 << 10 + 40 * (blockKibibytes << 10), blockSize: blockKibibytes << 10, deviceCount: deviceCount,
            seed: seed)
        let result = run(
            "blocks of \(blockKibibytes) KiB on \(deviceCount)", subject, seed: seed, crashPoints: 2000,
            cases: ["crash", "histories"])
        #expect(result.failed.isEmpty)
    }

    /// A block that is written again too early: the kit has to see it.
    @Test func kitFindsBlocksReusedEarly() {
        let seed = runSeed("kitFindsBlocksReusedEarly")
        let subject = DeviceLogSubject(
            byteCount: 8 << 10 + 8 * (4 << 10), blockSize: 4 << 10, seed: seed, latencyTicksMax: 60, canary: .reusesEarly)
        let result = run("reuses early", subject, seed: seed, crashPoints: 60_000, cases: ["crash"])
        #expect(result.failed.map(\.name) == ["crash"])
    }

    /// The same log without the mistake.
    @Test func fullSmallLogSurvivesCrashes() {
        let seed = runSeed("fullSmallLogSurvivesCrashes")
        let subject = DeviceLogSubject(
            byteCount: 8 << 10 + 8 * (4 << 10), blockSize: 4 << 10, seed: seed, latencyTicksMax: 60)
        let result = run("small and full", subject, seed: seed, crashPoints: 10_000, cases: ["crash", "histories"])
        #expect(result.failed.isEmpty)
    }
}
