import Base
import Device
import DeviceLog
import Storage
import TestSupport
import Testing

/// Writes bytes to a device, past any log.
private func scribble(_ device: SimulatedDevice, _ bytes: [UInt8], at offset: Int) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 4096)
    memory.copyBytes(from: bytes)
    defer { memory.deallocate() }
    guard let queue = try? device.makeQueue(depth: 1, wake: {}) else { return }
    try? queue.submit(.write(UnsafeRawBufferPointer(memory), offset: offset, durable: true), tag: 0)
    var isDone = false
    while !isDone { queue.poll { _ in isDone = true } }
}

private func copy(_ device: SimulatedDevice, byteCount: Int? = nil) -> SimulatedDevice {
    let size = byteCount ?? device.geometry.byteCount
    let made = SimulatedDevice(byteCount: size, seed: 3)
    scribble(made, device.contents(at: 0, byteCount: min(size, device.geometry.byteCount)), at: 0)
    return made
}

private let continuing = [(name: "on-missing-device", value: "continue")]

@Suite struct Opening {
    @Test func orderOfDevicesDoesNotMatter() throws {
        let log = TestLog(count: 3, seed: runSeed("orderOfDevicesDoesNotMatter"))
        let first = try log.open(["d0", "d1", "d2"])
        let locations = try first.append(0..<30)
        try first.close()
        for order in [["d2", "d0", "d1"], ["d1", "d2", "d0"]] {
            let again = try log.open(order)
            let shown = try again.coldStart(segments: 2)
            #expect(shown.count == 30 && shown.areRight)
            for (number, location) in locations.enumerated() { #expect(try again.holds(number, at: location)) }
            try again.close()
        }
    }

    @Test func settingsThatMakeNoSenseAreRefused() {
        let log = TestLog(count: 2, seed: 1)
        #expect(log.refusal([]).contains("needs either `device` or `file`"))
        #expect(log.refusal(["d0"], [(name: "file", value: "f")]).contains("has both"))
        #expect(log.refusal(["d0", "d1", "d0"]).contains("d0 is named twice"))
        #expect(log.refusal((0..<129).map { "x\($0)" }).contains("129 devices are more than 128"))
        #expect(log.refusal(["d0"], namespace: String(repeating: "n", count: 400)).contains("too long"))
        #expect(log.opener.writtenCount == 0)
    }

    @Test func everyProblemIsNamedAndNothingIsWritten() throws {
        let log = TestLog(count: 5, seed: runSeed("everyProblemIsNamed"))
        try log.open(["d0"], namespace: "other").close()
        scribble(log.opener.device("d1")!, [UInt8](repeating: 0x55, count: 512), at: 1024)
        log.opener.set("d2", SimulatedDevice(byteCount: 16 << 10, seed: 1))
        log.opener.refuse("d3", DeviceOpenError("is used by another process"))
        let written = log.opener.writtenCount
        let before = log.opener.all.map { $0.contents(at: 0, byteCount: 4096) }
        let sentence = log.refusal(["d0", "d1", "d2", "d3", "d4", "d9"])
        for part in [
            "d0: it holds the data of namespace 'other', not of 'conformance'",
            "d1: it holds data that was not written by Apus", "`apus wipe d1`",
            "d2: it has 16384 bytes, and must have at least 32768",
            "d3 is used by another process",
            "d9 does not exist",
        ] { #expect(sentence.contains(part), "\(part) is not in \(sentence)") }
        #expect(!sentence.contains("d4"))
        #expect(log.opener.writtenCount == written)
        #expect(log.opener.all.map { $0.contents(at: 0, byteCount: 4096) } == before)
    }

    @Test func aFileIsMadeOnlyWhenTheRestIsGood() throws {
        let log = TestLog(count: 1, seed: 1)
        scribble(log.opener.device("d0")!, [UInt8](repeating: 0x55, count: 512), at: 0)
        let size = [(name: "filesize", value: "\(TestLog.byteCount)")]
        #expect(log.refusal(["d0", "new"], size, as: "file").hasPrefix("d0: it holds data"))
        #expect(log.opener.device("new") == nil)
        #expect(log.refusal(["new"], as: "file").contains("new does not exist"))
        #expect(log.refusal(["new"], [(name: "filesize", value: "16384")], as: "file").contains("must have at least 32768"))
        try log.open(["new"], size, as: "file").close()
        #expect(log.opener.device("new")?.geometry.byteCount == TestLog.byteCount)
    }

    @Test func truncatedDevicesAreRefused() throws {
        let log = TestLog(count: 1, seed: 1)
        try log.open(["d0"]).close()
        log.opener.set("d0", copy(log.opener.device("d0")!, byteCount: TestLog.byteCount - 4096))
        for settings in [[], [(name: "filesize", value: "\(TestLog.byteCount)")]] {
            let sentence = log.refusal(["d0"], settings, as: "file")
            #expect(sentence.contains("it has 69632 bytes, and had 73728 when it was last used"))
        }
    }

    @Test func oneDamagedSuperblockIsNoHarmBothAre() throws {
        let log = TestLog(count: 1, seed: runSeed("damagedSuperblocks"))
        let backend = try log.open(["d0"])
        _ = try backend.append(0..<5)
        try backend.close()
        let device = log.opener.device("d0")!
        device.rot(at: 100)
        let again = try log.open(["d0"])
        #expect(try again.coldStart().count == 5)
        try again.close()
        device.rot(at: 17)
        device.rot(at: 512 + 200)
        #expect(log.refusal(["d0"]).contains("d0: both of its superblocks are damaged"))
        // Even without their magic they are known by their identity.
        for place in [0, 512] {
            scribble(device, [UInt8](repeating: 1, count: 8) + device.contents(at: place + 8, byteCount: 504), at: place)
        }
        #expect(log.refusal(["d0"]).contains("both of its superblocks are damaged"))
    }

    @Test func setsDoNotMix() throws {
        var log = TestLog(count: 4, seed: 11)
        try log.open(["d0", "d1"]).close()
        log.seed = 12
        try log.open(["d2", "d3"]).close()
        #expect(log.refusal(["d0", "d1", "d2"]).contains("d2 belongs to another device set than"))
        log.opener.set("twin", copy(log.opener.device("d1")!))
        #expect(log.refusal(["d0", "d1", "twin"]).contains("d1 is slot 1 of the set, and so is twin"))
    }

    @Test func missingDevicesStopTheStartUnlessTheSettingSays() throws {
        let log = TestLog(count: 3, seed: runSeed("missingDevices"))
        let backend = try log.open(TestLog.names(3))
        let locations = try backend.append(0..<30)
        try backend.storeNamespaceBlob([1, 2, 3])
        try backend.close()
        #expect(log.refusal(["d0", "d2"]).contains("slot 1 of the set of 3 devices is not there"))
        log.opener.refuse("d1", DeviceOpenError("does not exist: is the device attached?", isMissing: true))
        #expect(log.refusal(TestLog.names(3)).contains("d1 does not exist: is the device attached?"))
        let again = try log.open(TestLog.names(3), continuing)
        #expect(log.lines.contain("d1 does not exist: is the device attached?: going on without it"))
        #expect(log.lines.contain("its records are not there either"))
        let shown = try again.coldStart()
        #expect(shown.map(\.number).sorted() == (0..<30).filter { locations[$0].rawValue >> 37 != 1 })
        #expect(try again.loadNamespaceBlob() == [1, 2, 3])
        #expect(again.statistics.details.contains { $0 == ("storage-engine.device[1].missing", "true") })
        // What is written meanwhile wins over what the missing device has.
        let moved = try again.append(0..<30, version: 1)
        #expect(moved.allSatisfy { $0.rawValue >> 37 != 1 })
        try again.storeNamespaceBlob([4])
        try again.close()
        log.opener.refuse("d1", nil)
        let whole = try log.open(TestLog.names(3))
        let all = try whole.coldStart(segments: 3)
        for number in 0..<30 {
            #expect(all.filter { $0.number == number }.max { $0.order < $1.order }?.version == 1)
        }
        #expect(try whole.loadNamespaceBlob() == [4])
    }

    @Test func blankDevicesMakeTheSetLarger() throws {
        let log = TestLog(count: 3, seed: runSeed("blankDevices"))
        let backend = try log.open(["d0"])
        _ = try backend.append(0..<10)
        try backend.close()
        let larger = try log.open(["d2", "d0", "d1"])
        #expect(log.lines.contain("the device set has grown from 1 to 3 devices by d2, d1"))
        #expect(try larger.coldStart().count == 10)
        let locations = try larger.append(10..<40)
        #expect(Set(locations.map { $0.rawValue >> 37 }) == [0, 1, 2])
        try larger.close()
        #expect(log.refusal(["d0"]).contains("slot 1, 2 of the set of 3 devices is not there"))
        #expect(try log.open(TestLog.names(3)).coldStart(segments: 2).count == 40)
    }

    @Test func devicesAndFilesGrow() throws {
        let log = TestLog(count: 1, seed: runSeed("devicesAndFilesGrow"))
        let wanted = TestLog.byteCount + 8 * 4096
        let backend = try log.open(["d0"], as: "file")
        _ = try backend.append(0..<10)
        let before = backend.statistics.totalBytes
        let sentence = try backend.resizing?.grow(to: UInt64(wanted))
        #expect(sentence == "d0 has grown from \(TestLog.byteCount) to \(wanted) bytes")
        #expect(backend.statistics.totalBytes == before + 8 * 4096)
        #expect(throws: StorageError.self) { try backend.resizing?.grow(to: 4096) }
        #expect(try backend.resizing?.grow(to: nil) == "d0 has \(wanted) bytes as before")
        try backend.close()
        // At a start: by filesize, or because a device has become larger.
        let again = try log.open(["d0"], [(name: "filesize", value: "\(wanted + 4096)")], as: "file")
        #expect(log.lines.contain("d0 has grown from \(wanted) to \(wanted + 4096) bytes"))
        #expect(try again.coldStart().count == 10)
        #expect(again.statistics.totalBytes == before + 9 * 4096)
        try again.close()
    }

    @Test func coldStartEmptyForgetsForEver() throws {
        let log = TestLog(count: 2, seed: runSeed("coldStartEmpty"))
        let backend = try log.open(TestLog.names(2))
        _ = try backend.append(0..<40)
        try backend.close()
        let empty = try log.open(TestLog.names(2), [(name: "cold-start-empty", value: "true")])
        #expect(log.lines.contain("COLD-START-EMPTY"))
        #expect(try empty.coldStart().isEmpty)
        _ = try empty.append(100..<104)
        try empty.close()
        #expect(try log.open(TestLog.names(2)).coldStart().map(\.number).sorted() == [100, 101, 102, 103])
    }

    /// A crash at any operation while a set is made, or grows, leaves something that opens, with every record.
    @Test func settingUpSurvivesCrashes() throws {
        let seed = runSeed("settingUpSurvivesCrashes")
        for begunCount in [0, 1, 2] {
            for operation in 0..<60 {
                let log = TestLog(count: 4, seed: seed &+ UInt64(operation))
                if begunCount > 0 {
                    let begun = try log.open(TestLog.names(begunCount))
                    _ = try begun.append(0..<8)
                    try begun.storeNamespaceBlob([9])
                    try begun.close()
                }
                log.opener.prepareCrash(after: operation, seed: seed &+ UInt64(operation))
                _ = try log.open(TestLog.names(4))
                let after = TestLog(log.opener.crashed(seed: seed))
                let again = try after.open(TestLog.names(4))
                #expect(try again.coldStart().count == (begunCount > 0 ? 8 : 0))
                #expect(try again.loadNamespaceBlob() == (begunCount > 0 ? [9] : []))
                _ = try again.append(20..<30)
                try again.close()
            }
        }
    }

    @Test func placesAndFiguresAreNamed() throws {
        let log = TestLog(count: 2, seed: runSeed("placesAndFigures"))
        let backend = try log.open(["d1", "d0"])
        let locations = try backend.append(0..<10)
        for (number, location) in locations.enumerated() {
            let place = backend.locating?.place(of: location) ?? []
            let path = place.first { $0.name == "device" }!.value
            let offset = Int(place.first { $0.name == "offset" }!.value)!
            let right = NumberedImage.bytes(number)
            // The checksum is stamped; all else lies there as it was appended.
            let stored = log.opener.device(path)!.contents(at: offset, byteCount: right.count)
            #expect(stored[8...] == right[8...])
        }
        #expect(backend.locating?.place(of: Location(rawValue: 1 << 43)).isEmpty == true)
        let details = backend.statistics.details
        let names = ["used_bytes", "free_wblocks", "write_q", "writes", "read_errors", "defrag_q", "damaged_blocks"]
        for name in names {
            #expect(details.contains { $0.name == "storage-engine.device[1].\(name)" }, "\(name)")
        }
        let used = details.filter { $0.name.hasSuffix("used_bytes") }.compactMap { Int($0.value) }.reduce(0, +)
        #expect(used == (0..<10).map { (NumberedImage.bytes($0).count + 15) / 16 * 16 }.reduce(0, +))
        #expect(UInt64(used) == backend.statistics.usedBytes)
    }
}
