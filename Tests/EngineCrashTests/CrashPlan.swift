// How one history goes: everything that is fixed while it lasts.
import Base
import Device
import DeviceLog
import Storage

/// Mistakes that the tests have to notice.
enum CrashCanary {
    case forgetsDurable, forgetsFlush, reusesEarly, publishesEarly, releasesWhatWasSeen
}

/// See the top of the file.
struct CrashPlan: Sendable {
    let seed: UInt64
    let canary: CrashCanary?
    let shape: LogShape
    let settings: [(name: String, value: String)]
    let geometry: DeviceGeometry
    let deviceCount: Int
    let reactors: Int
    let commits: Bool
    let isSyncDisabled: Bool
    let flushMaxMilliseconds: UInt64
    let latencyTicksMax: Int
    let pendingLimit: Int
    let recordCount: Int
    /// Bytes of the bin `pad`.
    let padSizeMax: Int
    let requestsPerStep: Int
    let crashes: Int
    let defragLivePercent: Int
    let blockCount: Int
    let prints: Bool

    init(seed: UInt64, canary: CrashCanary?, prints: Bool) {
        var random = SeededRandom(seed: seed)
        self.seed = seed
        self.canary = canary
        self.prints = prints
        let sectorSize = Int.random(in: 0..<4, using: &random) == 0 ? 4096 : 512
        let flushUnit = sectorSize == 4096 || Bool.random(using: &random) ? 4096 : 512
        let small = [4096, 4096, 8192, 8192, 16384, 32768, 65536].randomElement(using: &random)!
        let blockSize = max(small, flushUnit)
        var shape = LogShape()
        shape.blockSize = blockSize
        shape.flushUnit = flushUnit
        shape.headSize = 8 * flushUnit
        if canary == .reusesEarly { shape.canary = .reusesEarly }
        if canary == .publishesEarly { shape.canary = .publishesEarly }
        self.shape = shape
        blockCount = Int.random(in: 7...20, using: &random)
        geometry = DeviceGeometry(
            sectorSize: sectorSize, byteCount: shape.headSize + blockCount * blockSize,
            atomicWriteSize: sectorSize == 4096 || flushUnit == 4096 && Bool.random(using: &random) ? 4096 : 512)
        deviceCount = Int.random(in: 1...3, using: &random)
        reactors = Int.random(in: 1...3, using: &random)
        commits = Bool.random(using: &random)
        // Without it, only starts and closes flush.
        isSyncDisabled = Int.random(in: 0..<3, using: &random) == 0 && canary != .forgetsFlush
        flushMaxMilliseconds = [1, 5, 30, 1000].randomElement(using: &random)!
        latencyTicksMax = [0, 1, 3, 10].randomElement(using: &random)!
        pendingLimit = [0, 2, 20].randomElement(using: &random)!
        requestsPerStep = [1, 3, 8, 20].randomElement(using: &random)!
        crashes = Int.random(in: 4...24, using: &random)
        // Live bytes from a fifth of the devices to more than they hold.
        let liveBytes = deviceCount * blockCount * blockSize * Int.random(in: 20...110, using: &random) / 100
        let imageSizeMax = blockSize - 360
        defragLivePercent = [50, 75, 95].randomElement(using: &random)!
        recordCount = min(max(liveBytes / 600, 6), 60)
        padSizeMax = min(max(2 * liveBytes / recordCount - 200, 40), imageSizeMax - 200)
        settings = CrashPlan.settings(
            &random, blockSize: blockSize, flushUnit: flushUnit, deviceCount: deviceCount, flushMaxMilliseconds,
            isSyncDisabled, defragLivePercent)
    }

    private static func settings(
        _ random: inout SeededRandom, blockSize: Int, flushUnit: Int, deviceCount: Int, _ flushMaxMilliseconds: UInt64,
        _ isSyncDisabled: Bool, _ defragLivePercent: Int
    ) -> [(name: String, value: String)] {
        let flushSize = [flushUnit, blockSize / 4, blockSize].randomElement(using: &random)!
        let cached = [0, 1, 4].randomElement(using: &random)! * blockSize
        let writing = [2, 4, 16].randomElement(using: &random)! * blockSize
        let devices = (0..<deviceCount).map { (name: "file", value: CrashMedium.path($0)) }
        return devices + [
            ("flush-size", "\(max(flushSize, flushUnit))"), ("flush-max-ms", "\(flushMaxMilliseconds)"),
            ("max-write-cache", "\(writing)"), ("post-write-cache", "\(cached)"),
            ("disable-odsync", isSyncDisabled ? "true" : "false"), ("device-stall-ms", "3600000"),
            ("defrag-lwm-pct", "\(defragLivePercent)"),
            ("defrag-free-target-pct", "\([10, 30, 60].randomElement(using: &random)!)"),
            ("on-device-failure", "fence"), ("on-missing-device", "stop"), ("filesize", "0"),
        ]
    }

    /// Only when one history is looked at.
    func log(_ line: String) { if prints { print("log: \(line)") } }

    /// For people.
    var text: String {
        "blocks \(shape.blockSize), flush unit \(shape.flushUnit), \(deviceCount) devices of \(geometry.byteCount), sectors"
            + " \(geometry.sectorSize), pieces \(geometry.atomicWriteSize), \(reactors) reactors, \(recordCount) records"
            + " up to \(padSizeMax), commit-to-device \(commits), "
            + settings.dropFirst(deviceCount).map { "\($0.name) \($0.value)" }.joined(separator: ", ")
    }
}
