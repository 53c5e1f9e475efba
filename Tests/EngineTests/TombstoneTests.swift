import Base
import Engine
import Index
import Storage
import TestSupport
import Testing
import Wire

/// Deletes that were asked to last, on a log whose releases do not.
@Suite struct TombstoneTests {
    private let digest = Digest(low: 8, middle: 8, high: 8)
    private let later = RecordTime(milliseconds: 500_000_100_000)

    private func durableDelete() -> [UInt8] { Request.write(digest, [], info2: [.write, .delete, .durableDelete]) }

    private func kind(_ harness: Harness) -> RecordKind? {
        harness.namespace.index.find(digest).map { harness.namespace.index.entry($0).kind }
    }

    /// The record is gone for clients, one image is left that says so, and a new record begins anew.
    @Test func aDeletedRecordLeavesATombstone() throws {
        let backend = FakeBackend(seed: 1)
        backend.latePercent = 0
        let harness = try Harness(backend, capabilities: [.durableAtCommit])
        _ = harness.ask(Request.put(digest, "n", 1))
        #expect(harness.ask(durableDelete()).result == .ok)
        #expect(kind(harness) == .tombstone && backend.images.count == 1)
        #expect(harness.namespace.objectCount == 0 && harness.namespace.tombstoneCount == 1)
        #expect(harness.ask(Request.get(digest)).result == .notFound)
        #expect(harness.ask(durableDelete()).result == .notFound)
        #expect(harness.ask(Request.delete(digest)).result == .notFound)
        #expect(harness.ask(Request.put(digest, "n", 2)).generation == 1)
        #expect(kind(harness) == .live && backend.images.count == 1)
        #expect(harness.namespace.objectCount == 1 && harness.namespace.tombstoneCount == 0)
        #expect(harness.ask(Request.get(digest)).integer("n") == 2)
    }

    /// Without the flag, and on backends whose deletes last by themselves, nothing is left.
    @Test(arguments: [Capabilities.durableAtCommit, [.durableAtCommit, .deletesLast], .volatile])
    func otherDeletesLeaveNothing(_ promises: Capabilities) throws {
        let backend = FakeBackend(seed: 2)
        backend.latePercent = 0
        let harness = try Harness(backend, capabilities: promises)
        _ = harness.ask(Request.put(digest, "n", 1))
        let isPlain = promises == .durableAtCommit
        #expect(harness.ask(isPlain ? Request.delete(digest) : durableDelete()).result == .ok)
        #expect(kind(harness) == nil && backend.images.isEmpty && harness.namespace.tombstoneCount == 0)
    }

    /// Late answers, refusals and several writers: as many images as records and tombstones, and they agree with the index.
    @Test func tombstonesAmongLateAnswers() throws {
        var random = SeededRandom(seed: runSeed("TombstoneTests"))
        let backend = FakeBackend(seed: random.next())
        backend.failPercent = 5
        let harness = try Harness(backend, capabilities: [.durableAtCommit], reactors: 3) { $0.commitBeforeAnswer = true }
        let digests = (0..<6).map { _ in Digest.random(&random) }
        for step in 0..<4000 {
            let one = digests.randomElement(using: &random)!
            switch Int.random(in: 0..<4, using: &random) {
            case 0: harness.send(Request.write(one, [], info2: [.write, .delete, .durableDelete]), UInt64(step % 30))
            case 1: harness.send(Request.delete(one), UInt64(step % 30))
            default: harness.send(Request.put(one, "n", Int64(step)), UInt64(step % 30))
            }
            harness.turn()
        }
        harness.settle()
        let index = harness.namespace.index
        let kinds = digests.compactMap { one in index.find(one).map { index.entry($0).kind } }
        #expect(backend.images.count == kinds.count)
        #expect(harness.namespace.objectCount == kinds.count { $0 == .live })
        #expect(harness.namespace.tombstoneCount == kinds.count { $0 == .tombstone })
    }

    /// After a cold start a tombstone stays as long as an older image is on the medium, and is removed when there is none.
    @Test(arguments: [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2], [0, 2]]) func coldStart(_ order: [Int]) throws {
        let backend = FakeBackend(seed: 3)
        backend.latePercent = 0
        let before = try Harness(backend, capabilities: [])
        var images: [(location: UInt64, bytes: [UInt8])] = []
        for step in 0..<3 {
            _ = before.ask(step == 2 ? durableDelete() : Request.put(digest, "n", Int64(step)))
            let newest = try #require(backend.images.max { $0.key < $1.key })
            images.append((newest.key, newest.value))
        }
        let medium = FakeBackend(seed: 4)
        medium.latePercent = 0
        for number in order { medium.images[images[number].location] = images[number].bytes }
        let after = try Harness(medium, capabilities: [])
        let start = try ColdStart(after.namespace, recordsMax: 1 << 16, now: later, log: { Issue.record("\($0)") })
        for number in order {
            images[number].bytes.withUnsafeBytes { bytes in
                _ = start.visit(
                    ScannedImage(
                        digest: digest, location: Location(rawValue: images[number].location), image: bytes,
                        sequence: images[number].location),
                    worker: 0)
            }
        }
        start.settleTombstones()
        #expect(after.namespace.objectCount == 0 && after.namespace.tombstoneCount == 1)
        #expect(after.ask(Request.get(digest)).result == .notFound)
        while after.shards[0].backgroundSlice() != .none {}
        let isNeeded = order.count > 1
        #expect(kind(after) == (isNeeded ? .tombstone : nil))
        #expect(after.namespace.tombstoneCount == (isNeeded ? 1 : 0))
        #expect((medium.images[images[2].location] != nil) == isNeeded)
    }
}
