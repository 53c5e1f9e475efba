import Base
import Engine
import Index
import Memory
import Storage
import TestSupport
import Testing
import Wire

/// Single requests over the memory backend: results and the order of their checks.
@Suite struct RecordRuleTests {
    private let digest = Digest(low: 1, middle: 2, high: 3)

    private func harness(_ change: (inout NamespaceSettings) -> Void = { _ in }) throws -> Harness {
        let agreement = Agreement(backend: "memory", format: 1, capabilities: .volatile)
        let backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test", settings: BackendSettings([("data-size", "\(64 << 20)")]), agreement: agreement,
            log: { _ in }))
        return try Harness(backend, capabilities: .volatile, change)
    }

    @Test func writeReadDelete() throws {
        let engine = try harness()
        #expect(engine.ask(Request.get(digest)).result == .notFound)
        #expect(engine.ask(Request.put(digest, "a", 7)).generation == 1)
        #expect(engine.ask(Request.put(digest, "b", 8)).generation == 2)
        let answer = engine.ask(Request.get(digest))
        #expect(answer.integer("a") == 7 && answer.integer("b") == 8 && answer.generation == 2)
        #expect(engine.ask(Request.put(digest, "c", 9, info3: .createOrReplace)).result == .ok)
        #expect(engine.ask(Request.get(digest)).bins.map(\.name) == ["c"])
        #expect(engine.ask(Request.delete(digest)).result == .ok)
        #expect(engine.ask(Request.delete(digest)).result == .notFound)
        #expect(engine.namespace.objectCount == 0)
    }

    @Test func existenceComesBeforeGeneration() throws {
        let engine = try harness()
        func put(_ info2: Info2, _ info3: Info3 = [], generation: UInt32 = 0) -> ResultCode {
            engine.ask(Request.write(
                digest, [.init(code: 2, name: "a", value: Request.integer(1))], info2: [.write, info2], info3: info3,
                generation: generation)).result
        }
        #expect(put(.generation, .updateOnly, generation: 9) == .notFound)
        #expect(put(.generation, generation: 1) == .generation)
        #expect(put(.generation, generation: 0) == .ok)
        #expect(put([.createOnly, .generation], generation: 9) == .recordExists)
        #expect(put(.generation, generation: 1) == .ok)
        #expect(put(.generationGreater, generation: 2) == .generation)
        #expect(put(.generationGreater, generation: 3) == .ok)
    }

    @Test func setsCannotChange() throws {
        let engine = try harness()
        func put(_ set: String) -> ResultCode {
            engine.ask(Request.write(
                digest, [.init(code: 2, name: "a", value: Request.integer(1))], set: set)).result
        }
        #expect(put("one") == .ok && put("one") == .ok && put("two") == .parameter && put("") == .ok)
        #expect(put(String(repeating: "x", count: 64)) == .parameter)
    }

    @Test func keysAreComparedOnceStored() throws {
        let engine = try harness()
        func put(_ key: [UInt8]) -> ResultCode {
            engine.ask(Request.write(
                digest, [.init(code: 2, name: "a", value: Request.integer(1))], key: key)).result
        }
        #expect(put([3, 0x6B]) == .ok && put([3, 0x6B]) == .ok && put([3, 0x6C]) == .keyMismatch)
        #expect(put([3]) == .unsupportedFeature && put([1, 0, 0]) == .unsupportedFeature)
        let delete = Request.write(digest, [], info2: [.write, .delete], key: [3, 0x6C])
        #expect(engine.ask(delete).result == .keyMismatch)
    }

    @Test func expiredRecordsAreNotThere() throws {
        let engine = try harness()
        let write = Request.write(
            digest, [.init(code: 2, name: "a", value: Request.integer(1))], timeToLive: 10)
        #expect(engine.ask(write).result == .ok)
        engine.turn(advancing: 9_000)
        #expect(engine.ask(Request.get(digest)).result == .ok)
        engine.turn(advancing: 2_000)
        #expect(engine.ask(Request.get(digest)).result == .notFound)
        let update = Request.write(digest, [.init(code: 2, name: "b", value: Request.integer(2))], info3: .updateOnly)
        #expect(engine.ask(update).result == .notFound)
        #expect(engine.ask(Request.put(digest, "b", 2)).generation == 1, "a new life")
        #expect(engine.ask(Request.get(digest)).bins.map(\.name) == ["b"])
        #expect(engine.namespace.objectCount == 1)
    }

    @Test func readTouchRenewsALife() throws {
        let engine = try harness { $0.numbers.readTouchPercent = 80 }
        let write = Request.write(
            digest, [.init(code: 2, name: "a", value: Request.integer(1))], timeToLive: 100)
        #expect(engine.ask(write).result == .ok)
        for _ in 0..<200 {
            engine.turn(advancing: 50_000)
            let answer = engine.ask(Request.get(digest))
            #expect(answer.result == .ok && answer.generation == 1, "touched, but not changed")
        }
        #expect(engine.namespace.total(.readTouchSuccess) == 200)
        engine.turn(advancing: 50_000)
        #expect(engine.ask(Request.get(digest, timeToLive: .max)).result == .ok)
        engine.turn(advancing: 51_000)
        #expect(engine.ask(Request.get(digest)).result == .notFound, "the last read did not touch")
    }

    /// First nothing can be created, then nothing changed; reads and deletes go on.
    @Test func overflowHasTwoSteps() throws {
        let engine = try harness()
        let other = Digest(low: 77, middle: 1, high: 2)
        let update = Request.put(digest, "a", 8, info3: .updateOnly)
        #expect(engine.ask(Request.put(digest, "a", 7)).result == .ok)
        engine.namespace.overflow = .creates
        #expect(engine.ask(Request.put(other, "a", 7)).result == .outOfSpace)
        #expect(engine.ask(Request.put(other, "a", 7, info3: .updateOnly)).result == .notFound)
        #expect(engine.ask(Request.put(other, "a", 7, info3: .createOrReplace)).result == .outOfSpace)
        #expect(engine.ask(Request.delete(other)).result == .notFound)
        #expect(engine.ask(Request.put(digest, "a", 7)).result == .ok && engine.ask(update).result == .ok)
        #expect(engine.namespace.objectCount == 1 && engine.namespace.sets.count == 0)
        engine.namespace.overflow = .updates
        #expect(engine.ask(Request.put(digest, "a", 7)).result == .outOfSpace)
        #expect(engine.ask(update).result == .outOfSpace)
        #expect(engine.ask(Request.get(digest)).integer("a") == 8)
        #expect(engine.ask(Request.delete(digest)).result == .ok)
        engine.namespace.overflow = .none
        #expect(engine.ask(Request.put(other, "a", 7)).result == .ok)
    }

    @Test func unknownNamespaceAndLaterFeatures() throws {
        let engine = try harness()
        let elsewhere = Request.write(digest, [.init(code: 2, name: "a")], namespace: "other")
        #expect(engine.ask(elsewhere).result == .namespace)
        #expect(engine.ask(Request.write(digest, [], info1: [.read, .batch], info2: [])).result == .parameter)
        #expect(engine.ask(Request.write(digest, [.init(code: 4, type: 4, name: "l")])).result == .unsupportedFeature)
    }

    /// An operate that fails half-way leaves the record as it was.
    @Test func allOrNothing() throws {
        let engine = try harness()
        #expect(engine.ask(Request.put(digest, "a", 7)).result == .ok)
        let operate = Request.write(digest, [
            .init(code: 5, name: "a", value: Request.integer(1)),
            .init(code: 9, type: 3, name: "a", value: [0x78]),
        ])
        #expect(engine.ask(operate).result == .incompatibleType)
        let answer = engine.ask(Request.get(digest))
        #expect(answer.integer("a") == 7 && answer.generation == 1)
    }

    @Test func lastUpdateNeverGoesBack() throws {
        let engine = try harness()
        engine.send(Request.put(digest, "a", 1))
        let first = engine.namespace.index.entry(try #require(engine.namespace.index.find(digest))).lastUpdate
        engine.time.wall.milliseconds -= 3_600_000
        engine.turn()
        engine.send(Request.put(digest, "a", 2))
        let second = engine.namespace.index.entry(try #require(engine.namespace.index.find(digest))).lastUpdate
        #expect(second >= first)
    }

    @Test func readTouchAndDeleteNeedNoSetName() throws {
        let engine = try harness {
            $0.numbers.disallowNullSetName = true
            $0.numbers.readTouchPercent = 80
        }
        let write = Request.write(
            digest, [.init(code: 2, name: "a", value: Request.integer(1))], timeToLive: 100, set: "s")
        #expect(engine.ask(write).result == .ok)
        engine.turn(advancing: 50_000)
        #expect(engine.ask(Request.get(digest)).result == .ok)
        #expect(engine.namespace.total(.readTouchSuccess) == 1 && engine.namespace.total(.readTouchError) == 0)
        #expect(engine.ask(Request.put(digest, "b", 1)).result == .parameter)
        #expect(engine.ask(Request.delete(digest)).result == .ok)
    }

    @Test func aRefusedWriteMakesNoSet() throws {
        let engine = try harness { $0.numbers.recordSizeMax = 500 }
        let big = Request.write(
            digest, [.init(code: 2, type: 3, name: "a", value: [UInt8](repeating: 0x78, count: 600))], set: "ghost")
        #expect(engine.ask(big).result == .recordTooBig && engine.namespace.sets.count == 0)
    }

    /// Reads may name a bin many times; what they answer together is bounded.
    @Test func answersAreBounded() throws {
        let engine = try harness { $0.numbers.recordSizeMax = 1 << 20 }
        let value = [UInt8](repeating: 0x78, count: 1_000_000)
        #expect(engine.ask(Request.write(digest, [.init(code: 2, type: 3, name: "a", value: value)])).result == .ok)
        func read(_ times: Int, info2: Info2 = []) -> Answer {
            let reads = (0..<times).map { _ in Request.Operation(code: OperationCode.read, type: 0, name: "a") }
            return engine.ask(Request.write(digest, reads, info1: .read, info2: info2))
        }
        #expect(read(10).bins.count == 10 && read(140).result == .recordTooBig)
        #expect(read(140, info2: .write).result == .recordTooBig)
        #expect(read(1).bins.count == 1, "nothing is left over")
    }

    /// The field that holds it has 40 bits.
    @Test func aClockFarInTheFutureIsCut() throws {
        #expect(RecordTime(unixMilliseconds: .max).milliseconds == RecordTime.latestMilliseconds)
        let engine = try harness()
        engine.time.wall = RecordTime(unixMilliseconds: .max)
        engine.turn()
        let write = Request.write(
            digest, [.init(code: 2, name: "a", value: Request.integer(1))], timeToLive: 300_000_000)
        #expect(engine.ask(write).result == .ok && engine.ask(Request.put(digest, "a", 2)).result == .ok)
    }
}
