import Base
import BlockStore
import PMEM
import Storage
import TestSupport
import Testing

private let shape = PmemWorld.smallShape()
private let fileByteCount = shape.headSize + 24 * shape.blockSize
private let sized = [(name: "filesize", value: "\(fileByteCount)")]

private struct TestSet {
    let machine: SimulatedPmem
    var seed: UInt64 = 1
    let lines = LogLines()

    func open(
        _ paths: [String], _ settings: [(name: String, value: String)] = [], namespace: String = "conformance",
        memory: (any KeptMemory)? = nil
    ) throws(StorageError) -> any Backend {
        try PmemTestOpening.open(descriptor, settings + files(paths), lines, namespace: namespace, memory: memory)
    }

    private var descriptor: BackendDescriptor {
        let seed = seed
        return PMEM.descriptor(opener: machine, entropy: { seed }, shape: shape)
    }

    private func files(_ paths: [String]) -> [(name: String, value: String)] { paths.map { ("file", $0) } }

    /// Why it does not open; what can be told before is the same.
    func refusal(
        _ paths: [String], _ settings: [(name: String, value: String)] = [], namespace: String = "conformance"
    ) -> String {
        let request = PmemTestOpening.request(descriptor, settings + files(paths), lines, namespace: namespace)
        let before = descriptor.problems(request)
        do throws(StorageError) {
            _ = try descriptor.open(request)
            #expect(before.isEmpty)
            return ""
        } catch {
            #expect(before == [error.text])
            return error.text
        }
    }

    var images: [[UInt8]] { machine.paths.map { machine.region($0)!.killImage() } }
}

extension Backend {
    fileprivate func append(_ numbers: some Sequence<Int>, version: Int = 1) throws -> [Location] {
        let shard = try makeShard(ShardRequest(index: 0, count: 2, wake: {}))
        return try numbers.map { number in
            let image = NumberedImage.bytes(number, version: version, payload: 50 + number)
            let answer = try image.withUnsafeBytes {
                try shard.append(NumberedImage.digest(number), $0, stream: .fresh, tag: Tag(rawValue: 0))
            }
            guard case .placed(let location) = answer else { throw StorageError.closed }
            return location
        }
    }

    fileprivate func coldStart(segments: Int = 1) throws -> [Met] {
        var met: [Met] = []
        for segment in 0..<segments {
            try scan(segment: segment, of: segments) { image in
                met.append(
                    Met(
                        number: Int(image.digest.low), version: NumberedImage.version(image.image),
                        location: image.location, order: image.sequence))
                return .live
            }
        }
        return met
    }
}

@Suite struct PmemOpeningTests {
    @Test func settingsThatMakeNoSenseAreRefused() {
        let set = TestSet(machine: SimulatedPmem(seed: 1))
        #expect(set.refusal([]).contains("needs `file` settings"))
        #expect(set.refusal(["a", "b", "a"], sized).contains("a is named twice"))
        #expect(set.refusal((0..<129).map { "x\($0)" }, sized).contains("129 files are more than 128"))
        #expect(set.refusal(["a"], sized, namespace: String(repeating: "n", count: 400)).contains("too long"))
        #expect(set.refusal(["a"]).contains("a does not exist: with a filesize it would be made"))
        #expect(set.machine.paths.isEmpty && set.machine.persistCount == 0)
    }

    @Test func everyProblemIsNamedAndNothingIsStored() throws {
        let set = TestSet(machine: SimulatedPmem(seed: runSeed("everyProblemIsNamed")))
        try set.open(["other"], sized, namespace: "other").close()
        set.machine.set("foreign", [UInt8](repeating: 0x55, count: fileByteCount))
        set.machine.set("small", [UInt8](repeating: 0, count: 20_000))
        set.machine.set("large", [UInt8](repeating: 0, count: fileByteCount + 4096))
        set.machine.set("inUse", [UInt8](repeating: 0, count: fileByteCount))
        set.machine.refuse("inUse", PmemOpenError("is used by process 17"))
        let (before, persists) = (set.images, set.machine.persistCount)
        let sentence = set.refusal(["other", "foreign", "small", "large", "inUse", "new"], sized)
        for part in [
            "other: it holds the data of namespace 'other', not of 'conformance'",
            "foreign: it holds data that was not written by Apus", "small: it has 20000 bytes, and must have at least",
            "large: it has \(fileByteCount + 4096) bytes, and filesize says \(fileByteCount): a file keeps its size",
            "inUse is used by process 17",
        ] { #expect(sentence.contains(part), "\(part) is not in \(sentence)") }
        #expect(!sentence.contains("new"))
        #expect(set.images == before && set.machine.persistCount == persists && set.machine.region("new") == nil)
    }

    @Test func setsStayTogether() throws {
        var set = TestSet(machine: SimulatedPmem(seed: runSeed("setsStayTogether")), seed: 11)
        let backend = try set.open(["a", "b", "c"], sized)
        let locations = try backend.append(0..<30)
        #expect(Set(locations.map { $0.rawValue >> 37 }).count > 1, "blocks are taken from each file in turn")
        #expect(set.machine.locked == ["a", "b", "c"])
        try backend.close()
        #expect(set.machine.locked.isEmpty)
        #expect(throws: StorageError.closed) { try backend.storeNamespaceBlob([1]) }
        for order in [["c", "a", "b"], ["b", "c", "a"]] {
            let again = try set.open(order)
            let met = try again.coldStart(segments: 2)
            #expect(met.map(\.location.rawValue).sorted() == locations.map(\.rawValue).sorted())
            try again.close()
        }
        #expect(set.refusal(["a", "c"]).contains("slot 1 of the set of 3 files is not there: name its file"))
        set.seed = 12
        try set.open(["x"], sized).close()
        #expect(set.refusal(["a", "b", "c", "x"]).contains("x belongs to another set of files than"))
        set.machine.set("twin", set.machine.region("b")!.killImage())
        #expect(set.refusal(["a", "b", "c", "twin"]).contains("b is slot 1 of the set, and so is twin: one is a copy"))
        set.machine.set("c", Array(set.machine.region("c")!.killImage().dropLast(4096)))
        #expect(set.refusal(["a", "b", "c"]).contains("it was truncated, and records are missing"))
    }

    @Test func blankFilesMakeTheSetLarger() throws {
        let set = TestSet(machine: SimulatedPmem(seed: runSeed("blankFiles")))
        let backend = try set.open(["a"], sized)
        _ = try backend.append(0..<10)
        let before = backend.statistics.totalBytes
        try backend.close()
        let larger = try set.open(["b", "a"], sized)
        #expect(set.lines.contain("the set has grown from 1 to 2 files by b"))
        #expect(try larger.coldStart().count == 10)
        #expect(larger.statistics.totalBytes == 2 * before)
        #expect(larger.statistics.details.prefix(2).map(\.value) == ["b", "a"])
        try larger.close()
        #expect(set.refusal(["a"]).contains("slot 1 of the set of 2 files is not there"))
    }

    @Test func damagedSuperblocksAreTold() throws {
        let set = TestSet(machine: SimulatedPmem(seed: runSeed("damagedSuperblocks")))
        let backend = try set.open(["a"], sized)
        _ = try backend.append(0..<5)
        try backend.close()
        let base = set.machine.region("a")!.base
        base.storeBytes(of: 0xFF, toByteOffset: 200, as: UInt8.self)
        let again = try set.open(["a"])
        #expect(try again.coldStart().count == 5)
        try again.close()
        for place in [300, 4396] { base.storeBytes(of: 0xFF, toByteOffset: place, as: UInt8.self) }
        #expect(set.refusal(["a"]).contains("a: both of its superblocks are damaged"))
    }

    @Test func coldStartEmptyForgetsForEver() throws {
        let set = TestSet(machine: SimulatedPmem(seed: runSeed("coldStartEmpty")))
        let backend = try set.open(["a"], sized)
        _ = try backend.append(0..<40)
        try backend.close()
        let empty = try set.open(["a"], [(name: "cold-start-empty", value: "true")])
        #expect(set.lines.contain("COLD-START-EMPTY"))
        #expect(try empty.coldStart().isEmpty)
        _ = try empty.append(100..<104)
        try empty.close()
        #expect(try set.open(["a"]).coldStart().map(\.number).sorted() == [100, 101, 102, 103])
    }

    /// Numbers go on over sessions, however they end: the newest image of a digest is the newest for good.
    @Test func ordersAreNeverUsedTwice() throws {
        var set = TestSet(machine: SimulatedPmem(seed: runSeed("ordersAreNeverUsedTwice")))
        var last: UInt64 = 0
        for session in 1...6 {
            let backend = try set.open(["a"], session == 1 ? sized : [])
            let met = try backend.coldStart()
            let newest = met.map(\.order).max() ?? 0
            #expect(newest >= last && met.filter { $0.order == newest }.allSatisfy { $0.version == session - 1 })
            last = newest
            _ = try backend.append(0..<3, version: session)
            if session % 2 == 0 { try backend.close() } else { set = TestSet(machine: set.machine.afterKill()) }
        }
        #expect(last > ImageOrders.step, "a session that ends without a close leaves its floor")
    }

    /// A crash at any persist while a set is made, or grows, leaves something that opens, with every record.
    @Test func settingUpSurvivesCrashes() throws {
        let seed = runSeed("settingUpSurvivesCrashes")
        for begunCount in [0, 1, 2] {
            for persist in 0..<48 {
                let set = TestSet(machine: SimulatedPmem(seed: seed &+ UInt64(persist)))
                let names = ["a", "b", "c"]
                if begunCount > 0 {
                    let begun = try set.open(Array(names.prefix(begunCount)), sized)
                    _ = try begun.append(0..<8)
                    try begun.storeNamespaceBlob([9])
                    try begun.close()
                }
                set.machine.prepareCrash(after: persist, seed: seed &+ UInt64(persist))
                _ = try set.open(names, sized)
                let after = TestSet(machine: set.machine.afterPowerFailure(seed: seed))
                let again = try after.open(names, sized)
                #expect(try again.coldStart().count == (begunCount > 0 ? 8 : 0))
                #expect(try again.loadNamespaceBlob() == (begunCount > 0 ? [9] : []))
                _ = try again.append(20..<30)
                try again.close()
            }
        }
    }

    /// What is spoiled in the middle of a block is told, and all else is there; what is torn at its end is not.
    @Test func damageIsTold() throws {
        let set = TestSet(machine: SimulatedPmem(seed: runSeed("damageIsTold")))
        let backend = try set.open(["a"], sized)
        let locations = try backend.append(0..<5)
        for location in locations {
            let place = backend.locating?.place(of: location) ?? []
            let offset = Int(place.first { $0.name == "offset" }!.value)!
            let number = locations.firstIndex(of: location)!
            let stored = UnsafeRawBufferPointer(start: set.machine.region("a")!.base + offset, count: 86 + number)
            #expect(stored.elementsEqual(NumberedImage.bytes(number, version: 1, payload: 50 + number)))
        }
        #expect(backend.locating?.place(of: Location(rawValue: 1 << 43)).isEmpty == true)
        let base = set.machine.region("a")!.base + shape.headSize
        func spoil(_ number: Int, _ offset: Int) {
            let place = base + Int(locations[number].rawValue) * 16 + offset
            place.storeBytes(of: ~place.load(as: UInt8.self), as: UInt8.self)
        }
        func start() throws -> (numbers: [Int], lost: UInt64, isTold: Bool) {
            let copy = TestSet(machine: set.machine.afterKill())
            let again = try copy.open(["a"])
            let numbers = try again.coldStart().map(\.number)
            return (numbers, again.statistics.lostPlaces, copy.lines.contain("are not what was written"))
        }
        spoil(4, 40)
        #expect(try start() == ([0, 1, 2, 3], 0, false))
        spoil(1, 40)
        #expect(try start() == ([0, 2, 3], 1, true))
        // A header, so that the walk has to find the next image.
        spoil(2, -16)
        #expect(try start() == ([0, 3], 1, true))
    }

    @Test func fullFilesRefuseAndRecover() throws {
        let world = try PmemWorld(new: runSeed("fullFiles"), memory: nil)
        var count = 0
        while try world.write(count, payload: 700, shard: count % 2) { count += 1 }
        #expect(count > 40 && world.backend.statistics.availableBytes == 0)
        #expect(world.backend.statistics.pressure == .full)
        try world.expectAllReadable()
        for number in 0..<count where number % 3 > 0 { world.delete(number, shard: number % 2) }
        for _ in 0..<500 {
            try world.compact(shard: 0, byteBudget: 4096)
            world.turn()
        }
        for number in 0..<count / 4 { #expect(try world.write(1000 + number, payload: 700, shard: 0)) }
        try world.expectAllReadable()
        #expect(world.backend.statistics.movedImages > 0)
    }

    /// The files are let go with the backend and its shards.
    @Test func nothingIsKeptAfterTheEnd() throws {
        weak var region: SimulatedRegion?
        do {
            let set = TestSet(machine: SimulatedPmem(seed: 1))
            let backend = try set.open(["a"], sized)
            _ = try backend.append(0..<10)
            _ = try backend.coldStart()
            region = set.machine.region("a")
            try backend.close()
        }
        #expect(region == nil)
    }

    @Test func tooSmallForItsShardsIsRefused() throws {
        let set = TestSet(machine: SimulatedPmem(seed: 1))
        let backend = try set.open(["a"], sized)
        let error = #expect(throws: StorageError.self) {
            _ = try backend.makeShard(ShardRequest(index: 0, count: 40, wake: {}))
        }
        guard case .settings(let text) = error else { return }
        #expect(text.contains("40 service-threads need at least 164"))
    }
}
