import Base
import Engine
import Storage
import TestSupport
import Testing
import Wire

/// The engine over a backend that keeps one image per digest.
@Suite struct KeyedTests {
    private let digest = Digest(low: 1, middle: 2, high: 3)

    private func keyed(
        _ seed: UInt64, reactors: Int = 1, late: Int = 0, _ change: (inout NamespaceSettings) -> Void = { _ in }
    ) throws -> (Harness, FakeKeyedBackend) {
        let backend = FakeKeyedBackend(seed: seed)
        backend.latePercent = late
        let capabilities: Capabilities = [.keyed, .durableAtCommit, .deletesLast]
        return (try Harness(backend, capabilities: capabilities, reactors: reactors, seed: seed, change), backend)
    }

    private struct Asked { let digest: Digest, kind: Int, value: Int64 }

    /// Puts, deletes and reads of a few records from several connections: each read shows a value that was current at some
    /// moment while it was under way, with the generation of that value; in the end index and backend hold the same records.
    @Test func randomHistories() throws {
        let seed = runSeed("KeyedTests")
        var random = SeededRandom(seed: seed)
        try forAWhile(1) {
            let (harness, backend) = try keyed(random.next(), reactors: 2,
                late: [0, 50, 100].randomElement(using: &random)!) {
                $0.numbers.pendingLimit = 0
                $0.commitBeforeAnswer = true
            }
            backend.failPercent = [0, 0, 8].randomElement(using: &random)!
            let digests = (0..<3).map { _ in Digest.random(&random, in: 9) }
            var open: [UInt64: Asked] = [:]
            var nextValue: Int64 = 1
            var puts: [Int64: Digest] = [:]
            for _ in 0..<400 {
                let connection = UInt64.random(in: 1...10, using: &random)
                if open[connection] == nil {
                    let asked = Asked(
                        digest: digests.randomElement(using: &random)!, kind: Int.random(in: 0..<4, using: &random),
                            value: nextValue)
                    nextValue += 1
                    open[connection] = asked
                    switch asked.kind {
                    case 0, 1:
                        puts[asked.value] = asked.digest
                        harness.send(Request.put(asked.digest, "v", asked.value), connection)
                    case 2: harness.send(Request.delete(asked.digest), connection)
                    default: harness.send(Request.get(asked.digest), connection)
                    }
                }
                if Bool.random(using: &random) { harness.turn() }
                check(harness, &open, puts)
            }
            harness.settle()
            check(harness, &open, puts)
            #expect(open.isEmpty)
            if backend.failPercent == 0 { #expect(backend.images.count == harness.namespace.objectCount) }
            #expect(harness.namespace.total(.recordsUnreadable) == 0)
        }
    }

    private func check(_ harness: Harness, _ open: inout [UInt64: Asked], _ puts: [Int64: Digest]) {
        for (connection, asked) in open {
            guard let answer = harness.answers[connection] else { continue }
            open[connection] = nil
            harness.answers[connection] = nil
            let allowed: [ResultCode] = [.ok, .notFound, .outOfSpace, .unknown]
            #expect(allowed.contains(answer.result))
            if asked.kind == 3, answer.result == .ok {
                let value = answer.integer("v") ?? 0
                #expect(puts[value] == asked.digest, "a value that was put into this record")
                #expect(answer.generation > 0)
            }
        }
    }

    @Test func deletesAreRemovedAndCommittedBeforeTheAnswer() throws {
        let (harness, backend) = try keyed(2) { $0.commitBeforeAnswer = true }
        _ = harness.ask(Request.put(digest, "v", 1))
        #expect(backend.history == ["commit"])
        #expect(harness.ask(Request.delete(digest)).result == .ok)
        #expect(backend.history == ["commit", "remove", "commit"] && backend.images.isEmpty)
        #expect(harness.namespace.objectCount == 0)
    }

    /// A read that finds nothing while the delete is under way says so; without a delete the record is damaged.
    @Test func absentImages() throws {
        let (harness, backend) = try keyed(3)
        _ = harness.ask(Request.put(digest, "v", 1))
        backend.images = [:]
        #expect(harness.ask(Request.get(digest)).result == .unknown)
        #expect(harness.namespace.total(.recordsUnreadable) == 1)
        _ = harness.ask(Request.write(digest, [.init(code: 2, name: "v", value: Request.integer(2))],
            info3: .createOrReplace))
        #expect(harness.ask(Request.get(digest)).integer("v") == 2)
        backend.latePercent = 100
        harness.send(Request.get(digest), 1)
        harness.send(Request.delete(digest), 2)
        backend.images = [:]
        harness.send(Request.get(digest), 3)
        harness.settle()
        #expect(harness.answers[1]?.integer("v") == 2 || harness.answers[1]?.result == .notFound)
        #expect(harness.answers[3]?.result == .notFound)
        #expect(harness.answers[2]?.result == .ok)
        #expect(harness.namespace.total(.recordsUnreadable) == 1)
    }

    /// The backend replaced the image before the commit failed: the client learns of the failure, and readers see one
    /// version.
    @Test func aFailedCommitLeavesIndexAndBackendAlike() throws {
        let (harness, backend) = try keyed(4) { $0.commitBeforeAnswer = true }
        _ = harness.ask(Request.put(digest, "v", 1))
        backend.failsCommits = true
        #expect(harness.ask(Request.put(digest, "v", 2)).result == .unknown)
        let read = harness.ask(Request.get(digest))
        #expect(read.integer("v") == 2 && read.generation == 2)
    }
}
