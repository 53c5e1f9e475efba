import Base
import Engine
import Storage
import TestSupport
import Testing
import Wire

/// A backend that says it has too much to do.
@Suite struct PressureTests {
    private let digest = Digest(low: 4, middle: 5, high: 6)

    private func pressed(_ seed: UInt64) throws -> (Harness, FakeKeyedBackend) {
        let backend = FakeKeyedBackend(seed: seed)
        backend.latePercent = 0
        return (try Harness(backend, capabilities: [.keyed]), backend)
    }

    @Test func writersWaitReadersDoNot() throws {
        let (harness, backend) = try pressed(1)
        _ = harness.ask(Request.put(digest, "v", 1))
        backend.pressure = .high
        harness.send(Request.put(digest, "v", 2), 1)
        harness.turn(advancing: 10)
        #expect(harness.answers[1] == nil && backend.images.count == 1)
        #expect(harness.ask(Request.get(digest)).integer("v") == 1)
        backend.pressure = .none
        harness.turn(advancing: 10)
        #expect(harness.answers[1]?.result == .ok)
        #expect(harness.ask(Request.get(digest)).integer("v") == 2)
        #expect(harness.namespace.total(.requestsDelayed) == 1)
    }

    @Test func theWaitIsBounded() throws {
        let (harness, backend) = try pressed(2)
        backend.pressure = .high
        harness.send(Request.put(digest, "v", 1), 1)
        harness.turn(advancing: Limits.overloadDelayMilliseconds)
        #expect(harness.answers[1]?.result == .ok, "what is only pressed still takes it")
        backend.pressure = .full
        backend.refusesAll = true
        harness.send(Request.put(digest, "v", 2), 1)
        harness.send(Request.get(digest), 2)
        harness.turn(advancing: Limits.overloadDelayMilliseconds - 1)
        #expect(harness.answers[1] == nil && harness.answers[2] == nil)
        harness.turn(advancing: 1)
        #expect(harness.answers[1]?.result == .deviceOverload && harness.answers[2]?.result == .deviceOverload)
    }

    /// Refused in the middle of the machine: the write begins again, its results once.
    @Test func aRefusedWriteBeginsAgain() throws {
        let (harness, backend) = try pressed(3)
        _ = harness.ask(Request.put(digest, "n", 5))
        backend.refusesAll = true
        harness.send(Request.count(digest, "n"), 1)
        harness.send(Request.count(digest, "n"), 2)
        for _ in 0..<3 { harness.turn(advancing: 5) }
        backend.refusesAll = false
        harness.settle()
        #expect([harness.answers[1], harness.answers[2]].map { $0?.bins.count } == [1, 1])
        #expect(Set([harness.answers[1]?.integer("n"), harness.answers[2]?.integer("n")]) == [6, 7])
    }

    /// While a write with a claim waits, compaction may move its image: it is looked up again.
    @Test func aDelayedWriteFindsAMovedImage() throws {
        let backend = FakeBackend(seed: 4)
        backend.latePercent = 0
        let harness = try Harness(backend, capabilities: [])
        _ = harness.ask(Request.put(digest, "n", 5))
        backend.refusesAll = true
        harness.send(Request.count(digest, "n"), 1)
        let from = try #require(backend.images.keys.first)
        backend.images[from + 100] = backend.images.removeValue(forKey: from)
        #expect(harness.namespace.relocate(digest, from: Location(rawValue: from), to: Location(rawValue: from + 100)))
        backend.nextLocation = from + 101
        backend.refusesAll = false
        harness.settle()
        #expect(harness.answers[1]?.integer("n") == 6 && harness.namespace.total(.recordsUnreadable) == 0)
    }

    /// A backend that finds a read's place in use by something else says corrupt: if the record has moved, it is read again.
    @Test func aCorruptPlaceIsLookedUpAgain() throws {
        let backend = FakeBackend(seed: 5)
        backend.latePercent = 100
        let harness = try Harness(backend, capabilities: [])
        harness.send(Request.put(digest, "n", 5), 1)
        harness.settle()
        let from = try #require(backend.images.keys.first)
        harness.send(Request.get(digest), 1)
        backend.corruptNext = true
        backend.images[from + 100] = backend.images.removeValue(forKey: from)
        #expect(harness.namespace.relocate(digest, from: Location(rawValue: from), to: Location(rawValue: from + 100)))
        harness.settle()
        #expect(harness.answers[1]?.integer("n") == 5)
        harness.send(Request.get(digest), 1)
        backend.corruptNext = true
        harness.settle()
        #expect(harness.answers[1]?.result == .unknown && harness.namespace.total(.recordsUnreadable) == 1)
    }
}
