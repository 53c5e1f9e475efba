import Base
import Engine
import Index
import Memory
import Storage
import TestSupport
import Testing
import Wire

/// Filters of single requests, and expression operations: results, the order of checks, what is read for them.
@Suite struct FilterTests {
    private let digest = Digest(low: 1, middle: 2, high: 3)
    private typealias Operation = Request.Operation

    // Expressions as a client packs them.
    private let isFive = bytes(hex: "9301935102a16105")
    private let isSix = bytes(hex: "9301935102a16106")
    private let isMissing = bytes(hex: "9301935102a17a06")
    private let isInBirds = bytes(hex: "93019146a6036269726473")
    private let isInFish = bytes(hex: "93019146a50366697368")
    private let matches = bytes(hex: "940701a15e935103a173")
    private let malformed = bytes(hex: "9301935102a161")
    private let later = bytes(hex: "9301957f02009110935104a16c01")

    private func harness() throws -> Harness {
        let agreement = Agreement(backend: "memory", format: 1, capabilities: .volatile)
        let backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test", settings: BackendSettings([("data-size", "\(64 << 20)")]), agreement: agreement,
            log: { _ in }))
        return try Harness(backend, capabilities: .volatile)
    }

    private func put(_ value: Int64, filter: [UInt8]? = nil, info2: Info2 = .write, generation: UInt32 = 0) -> [UInt8] {
        Request.write(
            digest, [Operation(code: OperationCode.write, name: "a", value: Request.integer(value))], info2: info2,
            generation: generation, set: "birds", filter: filter)
    }

    private func get(
        _ filter: [UInt8], info1: Info1 = [.read, .getAllBins], set: String = "", key: [UInt8] = []
    ) -> [UInt8] {
        Request.write(digest, [], info1: info1, info2: [], set: set, key: key, filter: filter)
    }

    private func delete(_ filter: [UInt8]) -> [UInt8] {
        Request.write(digest, [], info2: [.write, .delete], filter: filter)
    }

    @Test func filtersOfReads() throws {
        let engine = try harness()
        #expect(engine.ask(get(isFive)).result == .notFound)
        #expect(engine.ask(get(malformed)).result == .parameter)
        #expect(engine.ask(get([])).result == .parameter)
        #expect(engine.ask(get(bytes(hex: "05"))).result == .parameter, "a filter is boolean")
        #expect(engine.ask(get(later)).result == .unsupportedFeature)
        #expect(engine.ask(put(5)).result == .ok)
        let answer = engine.ask(get(isFive))
        #expect(answer.result == .ok && answer.integer("a") == 5)
        for filter in [isSix, isMissing, isInFish, bytes(hex: "9100"), bytes(hex: "c2")] {
            #expect(engine.ask(get(filter)).result == .filteredOut)
            #expect(engine.ask(get(filter, info1: [.read, .noBins])).result == .filteredOut)
        }
        for filter in [isFive, isInBirds, bytes(hex: "c3")] {
            #expect(engine.ask(get(filter, info1: [.read, .noBins])).result == .ok)
        }
        // The set comes before the filter, the filter before the key.
        #expect(engine.ask(get(isSix, set: "fish")).result == .parameter)
        #expect(engine.ask(get(isSix, key: [1, 0])).result == .filteredOut)
        #expect(engine.ask(get(isFive, key: [1, 0])).result == .unsupportedFeature)
        #expect(engine.namespace.total(.clientReadFilteredOut) == 11)
    }

    @Test func filtersOfWritesAndDeletes() throws {
        let engine = try harness()
        // No record, no filter; but a malformed one comes before everything.
        #expect(engine.ask(put(1, filter: malformed)).result == .parameter)
        #expect(engine.ask(put(5, filter: isSix)).generation == 1)
        #expect(engine.ask(put(6, filter: isSix)).result == .filteredOut)
        #expect(engine.ask(put(6, filter: isInFish)).result == .filteredOut)
        // Generation and existence come first.
        #expect(engine.ask(put(6, filter: isSix, info2: [.write, .generation], generation: 9)).result == .generation)
        #expect(engine.ask(put(6, filter: isSix, info2: [.write, .createOnly])).result == .recordExists)
        #expect(engine.ask(put(6, filter: isFive)).generation == 2)
        #expect(engine.ask(delete(isFive)).result == .filteredOut)
        #expect(engine.ask(delete(isInFish)).result == .filteredOut)
        #expect(engine.ask(delete(malformed)).result == .parameter)
        #expect(engine.ask(delete(isSix)).result == .ok)
        #expect(engine.ask(delete(isSix)).result == .notFound)
        #expect(engine.namespace.total(.clientWriteFilteredOut) == 2)
        #expect(engine.namespace.total(.clientDeleteFilteredOut) == 2)
        // Text is matched outside of the partition's lock.
        let text = Request.write(
            digest, [Operation(code: OperationCode.write, type: 3, name: "s", value: [65])], filter: matches)
        #expect(engine.ask(text).result == .ok)
        #expect(engine.ask(text).generation == 2)
    }

    /// A replace needs the old image only for a filter that metadata do not decide.
    @Test func filtersOfReplaces() throws {
        let engine = try harness()
        func replace(_ filter: [UInt8]) -> ResultCode {
            engine.ask(Request.write(
                digest, [Operation(code: OperationCode.write, name: "b", value: Request.integer(1))],
                info3: .createOrReplace, set: "birds", filter: filter)).result
        }
        #expect(engine.ask(put(5)).result == .ok)
        #expect(replace(isSix) == .filteredOut)
        #expect(replace(isInFish) == .filteredOut)
        #expect(replace(isFive) == .ok)
        #expect(replace(isFive) == .filteredOut)
        #expect(replace(isInBirds) == .ok)
    }

    /// Over a backend that answers everything late: what metadata decide is answered at once, the rest after the read; the
    /// filter lives as long as the request.
    @Test func metadataDecideBeforeTheRead() throws {
        let backend = FakeBackend(seed: 1)
        let engine = try Harness(backend, capabilities: [])
        engine.send(put(5))
        engine.settle()
        #expect(engine.answers[0]?.result == .ok)
        backend.latePercent = 100
        for frame in [get(isInFish), delete(isInFish), put(6, filter: isInFish)] {
            #expect(engine.ask(frame).result == .filteredOut)
        }
        for (connection, frame) in [get(isSix), put(6, filter: isSix), delete(isSix), get(isFive)].enumerated() {
            engine.send(frame, UInt64(connection))
            #expect(engine.answers[UInt64(connection)] == nil)
        }
        // So many others that the cache throws all out.
        for number in 0..<5000 {
            let other = bytes(hex: "93019246cd") + [UInt8(number >> 8), UInt8(number & 255)]
            engine.send(get(other + [1]), 9)
        }
        engine.settle()
        #expect((0..<3).map { engine.answers[UInt64($0)]?.result } == [.filteredOut, .filteredOut, .filteredOut])
        #expect(engine.answers[3]?.integer("a") == 5)
    }

    /// Many requests of two reactors for one record, over backends that answer late or fail: every one is answered, and what
    /// was not filtered out is what the filter let through.
    @Test(arguments: [false, true]) func filtersUnderChance(isKeyed: Bool) throws {
        let seed = runSeed("FilterTests.chance")
        var random = SeededRandom(seed: seed)
        let addressed = FakeBackend(seed: seed)
        let backend: any Backend = isKeyed ? FakeKeyedBackend(seed: seed) : addressed
        addressed.failPercent = 10
        let engine = try Harness(
            backend, capabilities: isKeyed ? [.keyed, .durableAtCommit, .deletesLast] : [], reactors: 2, seed: seed)
        var passed = 0
        var stopped = 0
        for round in 0..<500 {
            var isRead = [Bool](repeating: false, count: 8)
            for connection in 0..<8 {
                let filter = [isFive, isInBirds, isInFish, matches].randomElement(using: &random)!
                let value = Int64.random(in: 5...6, using: &random)
                isRead[connection] = filter == isFive && Bool.random(using: &random)
                let frames = [put(value, filter: filter), delete(filter), put(value)]
                engine.send(isRead[connection] ? get(isFive) : frames.randomElement(using: &random)!, UInt64(connection))
                if Bool.random(using: &random) { engine.turn() }
            }
            engine.settle()
            for connection in 0..<8 {
                let answer = try #require(engine.answers[UInt64(connection)], "round \(round)")
                passed += answer.result == .ok ? 1 : 0
                stopped += answer.result == .filteredOut ? 1 : 0
                if isRead[connection], answer.result == .ok { #expect(answer.integer("a") == 5) }
            }
        }
        #expect(passed > 500 && stopped > 500, "\(passed) passed, \(stopped) filtered out")
    }

    // ---- Operations ----

    private func expression(_ code: UInt8, _ name: String, _ packed: String, flags: UInt8 = 0) -> Operation {
        Operation(code: code, type: ParticleType.blob, name: name, value: [0x92] + bytes(hex: packed) + [flags])
    }

    private let sum = "9314935102a16101"  // a + 1

    @Test func expressionReads() throws {
        let engine = try harness()
        #expect(engine.ask(put(5)).result == .ok)
        func read(_ operations: [Operation], info2: Info2 = []) -> Answer {
            engine.ask(Request.write(digest, operations, info1: .read, info2: info2))
        }
        let read7 = OperationCode.expressionRead
        #expect(read([expression(read7, "r", sum)]).integer("r") == 6)
        #expect(read([expression(read7, "r", "9100")]).result == .notApplicable)
        #expect(read([expression(read7, "r", "9100", flags: 16)]).bins.isEmpty)
        let null = read([expression(read7, "r", "9100", flags: 16)], info2: .respondAllOperations).bins
        #expect(null.map(\.type) == [ParticleType.null])
        for flags in [1, 2, 4, 8, 32] as [UInt8] {
            #expect(read([expression(read7, "r", sum, flags: flags)]).result == .parameter)
        }
        #expect(read([expression(read7, "r", "9314935102a161")]).result == .parameter)
        #expect(read([expression(read7, "r", "957f02009110935104a16c")]).result == .unsupportedFeature)
        #expect(read([expression(read7, "a name of sixteen", sum)]).result == .binName)
        var wrongType = expression(read7, "r", sum)
        wrongType.type = ParticleType.string
        #expect(read([wrongType]).result == .parameter)
        let typed: [(String, UInt8, [UInt8])] = [
            ("c3", 17, [1]), ("cb4004000000000000", 2, bytes(hex: "4004000000000000")),
            ("a20378", 3, [0x78]), ("a20478", 4, [0x78]),
            ("927e920102", 20, [0x92, 1, 2]), ("810102", 19, [0x81, 1, 2]), ("c0", 0, []), ("9146", 3, Array("birds".utf8)),
        ]
        for (packed, type, value) in typed {
            let bin = read([expression(read7, "r", packed)]).bins.first
            #expect(bin?.type == type && bin?.value == value, "\(packed)")
        }
        // Beside others, many of them, and with results larger than the expression cache holds.
        let many = [Operation](repeating: expression(read7, "r", sum), count: 30) + [Operation(code: 1, type: 0, name: "a")]
        #expect(read(many).bins.count == 31)
        let large = [0xC6, 0, 0x0C, 0, 0, 4] + [UInt8](repeating: 7, count: 0x0C0000 - 1)
        let answer = read([Operation(code: read7, type: 4, name: "r", value: [0x92] + large + [0])])
        #expect(answer.bins.first?.value == Array(large[6...]))
    }

    @Test func expressionWrites() throws {
        let engine = try harness()
        let (read7, modify) = (OperationCode.expressionRead, OperationCode.expressionModify)
        func write(_ operations: [Operation], info1: Info1 = [], info2: Info2 = [], info3: Info3 = []) -> Answer {
            engine.ask(Request.write(
                digest, operations, info1: info1, info2: info2.union(.write), info3: info3, set: "birds"))
        }
        // A new record: its bins are those that the operations before have made.
        #expect(write([expression(modify, "b", sum)]).result == .notApplicable)
        let made = write(
            [Operation(code: 2, name: "a", value: Request.integer(5)), expression(modify, "b", sum),
                expression(read7, "r", "9314935102a16201")],
            info1: .read, info2: .respondAllOperations)
        #expect(made.bins.map(\.name) == ["a", "b", "r"] && made.integer("r") == 7)
        #expect(engine.ask(Request.get(digest)).integer("b") == 6)
        func result(_ name: String, _ packed: String, _ flags: UInt8) -> ResultCode {
            write([expression(modify, name, packed, flags: flags)]).result
        }
        #expect(result("a", sum, 1) == .binExists)
        #expect(result("a", sum, 1 | 8) == .ok)
        #expect(result("c", sum, 2) == .binNotFound)
        #expect(result("c", sum, 2 | 8) == .ok)
        #expect(result("c", sum, 3) == .parameter)
        #expect(result("c", sum, 32) == .parameter)
        #expect(result("c", "9100", 0) == .notApplicable)
        #expect(result("c", "9100", 16) == .ok)
        #expect(result("a", "c0", 0) == .notApplicable)
        #expect(result("a", "c0", 8) == .ok)
        #expect(engine.ask(Request.get(digest)).bins.map(\.name) == ["a", "b"])
        #expect(result("b", "c0", 4) == .ok)
        #expect(result("a", sum, 0) == .ok)
        #expect(result("c", sum, 1) == .ok)
        let answer = engine.ask(Request.get(digest))
        #expect(answer.integer("a") == 6 && answer.integer("b") == nil && answer.integer("c") == 7)
        // The literal's bytes are in the record, not in the expression.
        #expect(result("s", "a6036269726473", 0) == .ok)
        #expect(engine.ask(Request.get(digest)).bins.last?.value == Array("birds".utf8))
        #expect(write([expression(modify, "a", sum)], info3: .createOrReplace).result == .parameter)
        #expect(write([expression(read7, "a", sum)]).result == .parameter, "a read without the flag")
        let all = Operation(code: OperationCode.read, type: 0, name: "")
        #expect(write([expression(read7, "r", sum), all], info1: [.read, .getAllBins]).result == .parameter)
        // Metadata of the record before the write: its last update is the one of the write before.
        let since = write([expression(modify, "t", "9143"), expression(read7, "r", "9143")], info1: .read)
        #expect(since.integer("r") == 0)
        // The last bin goes, and the record with it.
        let nothing = ["a", "c", "s", "t"].map { expression(modify, $0, "c0", flags: 4) }
        #expect(write(nothing).result == .ok)
        #expect(engine.ask(Request.get(digest)).result == .notFound)
    }
}
