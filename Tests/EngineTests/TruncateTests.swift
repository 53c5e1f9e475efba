import Base
@testable import Engine
import Index
import Memory
import Storage
import TestSupport
import Testing
import Wire

/// Truncation times: who sees what, and what the walk removes.
@Suite struct TruncateTests {
    private let digests = (0..<40).map { Digest(low: UInt64($0) &* 0x9E37_79B9_7F4A_7C15, middle: 7, high: 9) }

    private func put(_ digest: Digest, _ value: Int64, set: String) -> [UInt8] {
        Request.write(digest, [.init(code: 2, name: "v", value: Request.integer(value))], set: set)
    }

    private func setID(_ harness: Harness, _ name: String) -> UInt16 {
        var name = name
        return name.withUTF8 { harness.namespace.sets.makeID(for: UnsafeRawBufferPointer($0))! }
    }

    private func voidTime(_ harness: Harness, _ digest: Digest) -> UInt32? {
        harness.namespace.index.find(digest).map { harness.namespace.index.entry($0).voidTime }
    }

    /// Background work on all reactors until there is none, and everything under way has ended.
    private func sweep(_ harness: Harness) {
        for _ in 0..<100_000 {
            harness.settle()
            let isBusy = harness.shards.reduce(false) { busy, shard in
                if case .none = shard.backgroundSlice() { return busy }
                return true
            }
            if !isBusy, !harness.shards.contains(where: \.wantsTicks), !harness.namespace.isTruncating(set: 0) { return }
            harness.turn()
        }
        Issue.record("the walk does not end")
    }

    private func memory(_ change: (inout NamespaceSettings) -> Void = { _ in }) throws -> Harness {
        let agreement = Agreement(backend: "memory", format: 1, capabilities: .volatile)
        let backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test", settings: BackendSettings([("data-size", "\(64 << 20)")]), agreement: agreement,
            log: { _ in }))
        return try Harness(backend, capabilities: .volatile, change)
    }

    @Test func olderIsGoneNewerStays() throws {
        let engine = try memory()
        let one = setID(engine, "one")
        for digest in digests[..<20] { #expect(engine.ask(put(digest, 1, set: "one")).result == .ok) }
        for digest in digests[20...] { #expect(engine.ask(put(digest, 1, set: "two")).result == .ok) }
        let time = engine.namespace.reserveTruncationTime(wall: engine.time.wall)
        // Written after the time was taken, before it is in force.
        #expect(engine.ask(put(digests[0], 2, set: "one")).result == .ok)
        engine.namespace.truncate(set: one, to: time)
        #expect(engine.ask(Request.get(digests[0])).integer("v") == 2)
        for digest in digests[1..<20] {
            #expect(engine.ask(Request.get(digest)).result == .notFound)
            #expect(engine.ask(Request.delete(digest)).result == .notFound)
        }
        for digest in digests[20...] { #expect(engine.ask(Request.get(digest)).result == .ok) }
        #expect(engine.ask(put(digests[1], 3, set: "one")).generation == 1)
        #expect(engine.namespace.isTruncating(set: one))
        sweep(engine)
        #expect(!engine.namespace.isTruncating(set: one))
        #expect(engine.namespace.objectCount == 22 && engine.namespace.objectCount(set: one) == 2)
        #expect(engine.namespace.total(.truncatedRecords) == 18)
    }

    @Test func wholeNamespaceAndUndo() throws {
        let engine = try memory()
        for digest in digests { #expect(engine.ask(put(digest, 1, set: "one")).result == .ok) }
        engine.namespace.truncate(set: 0, to: engine.namespace.reserveTruncationTime(wall: engine.time.wall))
        #expect(engine.ask(Request.get(digests[3])).result == .notFound)
        engine.namespace.truncate(set: 0, to: 0)
        #expect(engine.namespace.truncation.isEmpty)
        #expect(engine.ask(Request.get(digests[3])).result == .ok, "what was not removed yet is back")
        sweep(engine)
        #expect(engine.namespace.objectCount == digests.count)
        // Taking one time back leaves the others.
        let one = setID(engine, "one")
        engine.namespace.truncate(set: one, to: engine.namespace.reserveTruncationTime(wall: engine.time.wall))
        engine.namespace.truncate(set: 0, to: 0)
        #expect(engine.ask(Request.get(digests[3])).result == .notFound)
    }

    /// No clock of a node goes below a truncation time; what a clock elsewhere has issued can.
    @Test func writesBelowTheTimeAreForbidden() throws {
        let engine = try memory()
        let one = setID(engine, "one")
        engine.namespace.truncation.set(
            one, to: engine.time.wall.milliseconds + 10_000, setCount: engine.namespace.sets.count)
        #expect(engine.ask(put(digests[0], 1, set: "one")).result == .forbidden)
        #expect(engine.ask(put(digests[0], 1, set: "two")).result == .ok)
        #expect(engine.ask(Request.delete(digests[1])).result == .notFound)
        engine.time.wall.milliseconds += 20_000
        engine.turn()
        #expect(engine.ask(put(digests[2], 1, set: "one")).result == .ok)
    }

    /// One request after another, over backends that answer late, with truncates and slices of the walk in between: every
    /// read agrees with a model, and in the end index and backend hold what the model does.
    @Test(arguments: [false, true]) func randomHistories(isKeyed: Bool) throws {
        let seed = runSeed("TruncateTests \(isKeyed)")
        var random = SeededRandom(seed: seed)
        try forAWhile(1) {
            let fake = FakeBackend(seed: random.next())
            let keyed = FakeKeyedBackend(seed: random.next())
            keyed.latePercent = [0, 50, 100].randomElement(using: &random)!
            fake.latePercent = keyed.latePercent
            let backend: any Backend = isKeyed ? keyed : fake
            let capabilities: Capabilities = isKeyed ? [.keyed, .durableAtCommit, .deletesLast] : [.durableAtCommit]
            let engine = try Harness(backend, capabilities: capabilities, reactors: 2, seed: random.next())
            let sets = ["one", "two"]
            let ids = sets.map { setID(engine, $0) }
            var model: [Int: Int64] = [:]
            for step in 0..<300 {
                let number = Int.random(in: 0..<digests.count, using: &random)
                let connection = UInt64.random(in: 1...4, using: &random)
                switch Int.random(in: 0..<20, using: &random) {
                case 0..<9:
                    engine.send(put(digests[number], Int64(step), set: sets[number % 2]), connection)
                    engine.settle()
                    #expect(engine.answers[connection]?.result == .ok)
                    model[number] = Int64(step)
                case 9..<11:
                    engine.send(Request.delete(digests[number]), connection)
                    engine.settle()
                    #expect(engine.answers[connection]?.result == (model[number] == nil ? .notFound : .ok))
                    model[number] = nil
                case 11..<17:
                    engine.send(Request.get(digests[number]), connection)
                    engine.settle()
                    #expect(engine.answers[connection]?.integer("v") == model[number])
                case 17:
                    let which = Int.random(in: 0..<3, using: &random)
                    engine.namespace.truncate(
                        set: which == 2 ? 0 : ids[which], to: engine.namespace.reserveTruncationTime(wall: engine.time.wall))
                    for old in model.keys where which == 2 || old % 2 == which { model[old] = nil }
                default:
                    for shard in engine.shards { _ = shard.backgroundSlice() }
                    engine.turn(advancing: UInt64.random(in: 0...2, using: &random))
                }
            }
            sweep(engine)
            #expect(engine.namespace.index.count - engine.namespace.tombstoneCount == model.count)
            #expect(engine.namespace.objectCount == model.count)
            for (number, value) in model {
                engine.send(Request.get(digests[number]), 1)
                engine.settle()
                #expect(engine.answers[1]?.integer("v") == value)
            }
            let images = isKeyed ? keyed.images.count : fake.images.count
            #expect(images == (isKeyed ? model.count : engine.namespace.index.count))
        }
    }

    /// A write that is under way keeps its record from the walk; the walk waits for it.
    @Test func theWalkWaitsForClaims() throws {
        let backend = FakeBackend(seed: 1)
        backend.latePercent = 100
        let engine = try Harness(backend, capabilities: [.durableAtCommit], seed: 1)
        engine.send(put(digests[0], 1, set: "one"), 1)
        engine.settle()
        engine.send(put(digests[0], 2, set: "one"), 1)
        let time = engine.namespace.reserveTruncationTime(wall: engine.time.wall)
        engine.namespace.truncate(set: 0, to: time)
        for shard in engine.shards { _ = shard.backgroundSlice() }
        #expect(engine.namespace.isTruncating(set: 0))
        sweep(engine)
        #expect(engine.answers[1]?.result == .ok)
        #expect(backend.images.count == engine.namespace.index.count)
    }

    // ---- Settings of sets ----

    @Test func limitsAndLivesOfSets() throws {
        let engine = try memory()
        let one = setID(engine, "one")
        engine.namespace.setValues.set(one, .stopWritesCount, to: 2)
        engine.namespace.setValues.set(one, .defaultTimeToLive, to: 77)
        #expect(engine.ask(put(digests[0], 1, set: "one")).result == .ok)
        #expect(voidTime(engine, digests[0]) == engine.time.wall.seconds + 77)
        #expect(engine.ask(put(digests[1], 1, set: "one")).result == .ok)
        #expect(engine.ask(put(digests[2], 1, set: "one")).result == .forbidden)
        #expect(engine.ask(put(digests[1], 2, set: "one")).result == .ok, "a change is no new record")
        #expect(engine.ask(put(digests[2], 1, set: "two")).result == .ok && voidTime(engine, digests[2]) == 0)
        #expect(engine.ask(Request.delete(digests[0])).result == .ok)
        #expect(engine.ask(put(digests[3], 1, set: "one")).result == .ok)
        engine.namespace.setValues.set(one, .stopWritesCount, to: 0)
        engine.namespace.setValues.set(one, .stopWritesSize, to: 1)
        #expect(engine.ask(put(digests[4], 1, set: "one")).result == .forbidden)
        engine.namespace.setValues.set(one, .stopWritesSize, to: 1 << 20)
        #expect(engine.ask(put(digests[4], 1, set: "one")).result == .ok)
    }

    @Test func settingsInForceAtOnce() throws {
        let engine = try memory()
        var numbers = engine.namespace.live.current.pointee
        numbers.recordSizeMax = 16
        var retired: RetiredSettings? = engine.namespace.live.change(to: numbers)
        #expect(engine.ask(put(digests[0], 1, set: "one")).result == .recordTooBig)
        numbers.recordSizeMax = 1 << 20
        withExtendedLifetime(retired) { retired = engine.namespace.live.change(to: numbers) }
        #expect(engine.ask(put(digests[0], 1, set: "one")).result == .ok)
    }
}
