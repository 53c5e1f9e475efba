import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport
import Testing

private let continuing = [(name: "on-missing-device", value: "continue")]

/// Memory that does not belong to the devices as they are.
@Suite struct WarmRefusals {
    /// A process that has written something and was killed.
    private static func killed(_ plan: WarmPlan, _ remains: Remains? = nil) throws -> Remains {
        let log = try WarmLog(plan, remains ?? plan.begin(seed: 7), seed: 7)
        for _ in 0..<200 { try log.step() }
        return log.kill()
    }

    private static func twoDevices() -> WarmPlan {
        var plan = WarmPlan()
        plan.deviceCount = 2
        return plan
    }

    /// Opens, and says why that is a cold start; empty if it is none.
    private static func reason(
        _ plan: WarmPlan, _ remains: Remains, _ settings: [(name: String, value: String)] = []
    ) throws -> String {
        var plan = plan
        plan.settings += settings
        let backend = try plan.open(remains.opener, remains.memory, LogLines(), seed: 99)
        guard backend.warmStart == nil else { return "" }
        #expect(!remains.memory.reasons.isEmpty)
        return remains.memory.reasons.joined(separator: "; ")
    }

    @Test func whatFitsIsNoReason() throws {
        let plan = WarmRefusals.twoDevices()
        #expect(try WarmRefusals.reason(plan, WarmRefusals.killed(plan)) == "")
    }

    @Test func aNewSetIsCold() throws {
        let plan = WarmPlan()
        #expect(try WarmRefusals.reason(plan, plan.begin(seed: 3)) == "there is nothing to go on from")
    }

    @Test func aDeviceOfAnEarlierSessionIsCold() throws {
        let plan = WarmRefusals.twoDevices()
        let first = try WarmRefusals.killed(plan)
        let copy = first.opener.crashed(seed: 5).device("d1")
        let second = try WarmRefusals.killed(plan, first)
        second.opener.set("d1", copy)
        #expect(try WarmRefusals.reason(plan, second) == "d1 was used since in another session, or was exchanged")
    }

    @Test func aMissingDeviceIsCold() throws {
        let plan = WarmRefusals.twoDevices()
        let remains = try WarmRefusals.killed(plan)
        remains.opener.set("d1", nil)
        #expect(try WarmRefusals.reason(plan, remains, continuing) == "the device set is not complete")
    }

    @Test func aNewDeviceIsCold() throws {
        var plan = WarmPlan()
        let remains = try WarmRefusals.killed(plan)
        plan.deviceCount = 2
        remains.opener.set("d1", SimulatedDevice(byteCount: plan.byteCount, seed: 3))
        #expect(try WarmRefusals.reason(plan, remains) == "d1 is new in the device set")
    }

    @Test func aStartWithoutMemoryForgetsTheKey() throws {
        let plan = WarmPlan()
        let remains = try WarmRefusals.killed(plan)
        try plan.open(remains.opener, nil, LogLines(), seed: 4).close()
        #expect(
            try WarmRefusals.reason(plan, remains)
                == "d0 was used since without index-type shmem, or a device was given up")
    }

    @Test func aStartThatForgetsEverythingIsCold() throws {
        let plan = WarmPlan()
        let remains = try WarmRefusals.killed(plan)
        #expect(
            try WarmRefusals.reason(plan, remains, [(name: "cold-start-empty", value: "true")])
                == "cold-start-empty forgets all records")
    }

    /// A device that has grown has more blocks; nothing else is different.
    @Test func aDeviceThatHasGrownGoesOn() throws {
        let plan = WarmPlan()
        let remains = try WarmRefusals.killed(plan)
        try remains.opener.device("d0")!.grow(to: plan.byteCount + 4 * plan.shape.blockSize)
        let log = try WarmLog(plan, remains, seed: 8)
        #expect(log.isWarm)
        #expect(log.backend.statistics.totalBytes == UInt64(28 * plan.shape.blockSize))
        #expect(try log.problems(coldSeed: 8).isEmpty)
        // And while it serves.
        try remains.opener.device("d0")!.grow(to: plan.byteCount + 6 * plan.shape.blockSize)
        _ = try log.backend.grow(to: nil)
        #expect(log.backend.statistics.totalBytes == UInt64(30 * plan.shape.blockSize))
        for _ in 0..<300 { try log.step() }
        #expect(try WarmLog(plan, log.kill(), seed: 9).problems(coldSeed: 9).isEmpty)
    }

    // ---- Memory that is not to be trusted ----

    @Test func impossiblePlacesAreNotAdopted() throws {
        let plan = WarmPlan()
        let backend = try plan.open(try WarmRefusals.killed(plan).opener, nil, LogLines(), seed: 1)
        try backend.close()
        let remains = try WarmRefusals.killed(plan)
        let opened = try plan.open(remains.opener, remains.memory, LogLines(), seed: 1)
        let warm = try #require(opened.warmStart)
        let layout = opened.core.present[0].layout
        let units = layout.unitsPerBlock
        for (device, block, unit, byteCount) in [
            (1, 0, 2, 64), (0, 24, 2, 64), (0, 0, 1, 64), (0, 0, 2, 16), (0, 0, units - 3, 64),
            (0, 23, 2, 64),   // never used
        ] {
            let place = layout.location(device: device, block: block, unit: unit)
            #expect(!warm.adopt(place, byteCount: byteCount), "\\(device) \\(block) \\(unit) \\(byteCount)")
        }
        #expect(throws: StorageError.self) { try backend.scan(segment: 0, of: 1) { _ in .live } }
        #expect(throws: StorageError.self) { try opened.scan(segment: 0, of: 1) { _ in .live } }
    }

    /// A bit of an image that lies in memory only: found when it is to be written.
    @Test func aSpoiledImageIsNotWritten() throws {
        let plan = WarmPlan()
        let log = try WarmLog(plan, plan.begin(seed: 7), seed: 7)
        #expect(try log.append(3))
        log.publish(3)
        let live = log.index.records[3].live!
        let device = log.backend.core.present[0]
        let buffer = device.buffer(of: device.layout.block(of: live.location))!
        let place = log.backend.core.buffers.bytes(buffer) + device.layout.unit(of: live.location) * LogFormat.unitSize
        place.storeBytes(of: place.load(fromByteOffset: 40, as: UInt8.self) ^ 4, toByteOffset: 40, as: UInt8.self)
        var sentence = ""
        do { _ = try WarmLog(plan, log.kill(), seed: 8) } catch StorageError.medium(let words) { sentence = words }
        #expect(sentence.contains("was in memory, and the image that the index names at byte 32 of it is not there"))
    }

    @Test func aDamagedTableIsNotTrusted() throws {
        let plan = WarmPlan()
        let log = try WarmLog(plan, plan.begin(seed: 7), seed: 7)
        for _ in 0..<100 { try log.step() }
        let table = log.memory.regions.first { $0.name == "log-table" }!.region
        table.base.storeBytes(of: 17, as: UInt64.self)
        let remains = log.kill()
        let opened = try plan.open(remains.opener, remains.memory, LogLines(), seed: 1)
        #expect(throws: StorageError.medium("the table of write buffers in shmem is damaged")) {
            try opened.warmStart?.finish()
        }
        try opened.close()
    }

    // ---- What reviews have found ----

    /// The index of a cold start that did not see all of a device must not be gone on from when the device is whole again.
    @Test func aDeviceThatWasGivenUpDuringTheColdStartIsReadAtTheNext() throws {
        let plan = WarmRefusals.twoDevices()
        let first = try WarmLog(plan, plan.begin(seed: 11), seed: 11)
        for _ in 0..<1500 { try first.step() }
        try first.close()
        let memory = SimulatedMemory(isPersistent: false, seed: 12)
        var continued = plan
        continued.settings += continuing
        let cold = try continued.open(first.opener, memory, LogLines(), seed: 13)
        first.opener.device("d1")!.inject(.readError, probability: 1)
        _ = try WarmLog.coldStart(cold, count: plan.numbers)
        try #require(cold.core.device(1)!.isFenced)
        try memory.complete()
        try? cold.close()
        first.opener.device("d1")!.heal()
        let again = try continued.open(first.opener, memory.afterKill(), LogLines(), seed: 14)
        #expect(again.warmStart == nil)
        let shown = try WarmLog.coldStart(again, count: plan.numbers)
        for (number, record) in first.index.records.enumerated() {
            guard let live = record.live else { continue }
            #expect(shown[number].live?.version == live.version, "number \(number)")
        }
    }

    /// A session may open more blocks than its superblocks have foreseen.
    @Test func aLongSessionGoesOnAfterAKill() throws {
        let plan = WarmPlan()
        let long = try WarmLog(plan, plan.begin(seed: 21), seed: 21)
        for _ in 0..<300 { try long.step() }
        long.backend.core.nextSequence += LogOpening.sequencesOfSession + 1000
        for _ in 0..<600 { try long.step() }
        let highest = long.backend.core.nextSequence
        let next = try WarmLog(plan, long.kill(), seed: 22)
        #expect(next.isWarm)
        #expect(next.backend.core.nextSequence >= highest)
        #expect(try next.problems(coldSeed: 23) == [])
        for _ in 0..<600 { try next.step() }
        #expect(try WarmLog(plan, next.kill(), seed: 24).problems(coldSeed: 25) == [])
    }

    /// A start after a kill writes what was written last, not all of the cache.
    @Test func settledBlocksAreNotWrittenAgain() throws {
        var plan = WarmPlan()
        plan.shape.blockSize = 4 << 10
        plan.settings = [
            (name: "post-write-cache", value: "\(20 * plan.shape.blockSize)"),
            (name: "defrag-free-target-pct", value: "10"),
        ]
        (plan.numbers, plan.imageSizeMax) = (60, 1500)
        let log = try WarmLog(plan, plan.begin(seed: 31), seed: 31)
        for _ in 0..<3000 { try log.step() }
        let next = try WarmLog(plan, log.kill(), seed: 32)
        let line = try #require(next.lines.all.first { $0.hasPrefix("going on from memory: ") })
        let counts = line.split(separator: " ").compactMap { Int($0) }
        try #require(counts.count == 2)
        #expect(counts[0] > 14, "there was a cache: \(line)")
        #expect(counts[1] <= 11, "\(line)")
        #expect(try next.problems(coldSeed: 33).isEmpty)
    }
}
