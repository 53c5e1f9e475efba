import Base
import Engine
import Storage
import TestSupport
import Testing
import Wire

/// Writes that wait: for each other, for the backend, for the cluster.
@Suite struct ClaimTests {
    private let digest = Digest(low: 1, middle: 2, high: 3)

    private func pending(
        _ seed: UInt64, reactors: Int = 2, _ change: (inout NamespaceSettings) -> Void = { _ in }
    ) throws -> (Harness, FakeBackend) {
        let backend = FakeBackend(seed: seed)
        return (try Harness(backend, capabilities: [], reactors: reactors, isAlone: false, seed: seed, change), backend)
    }

    /// Many connections on two reactors count the same few records, over a backend and a cluster that answer
    /// whenever they like: every answer is a different number, no update is lost, no image leaks.
    @Test func noUpdateIsLost() throws {
        let seed = runSeed("ClaimTests")
        var random = SeededRandom(seed: seed)
        try forAWhile(1) {
            let (harness, backend) = try pending(random.next()) { settings in
                settings.numbers.pendingLimit = 0
                settings.commitBeforeAnswer = true
            }
            harness.cluster.latePercent = 40
            backend.failPercent = [0, 10].randomElement(using: &random)!
            let digests = (0..<3).map { _ in Digest.random(&random, in: 7) }
            var counted: [Digest: [Int64]] = [:]
            var open: [UInt64: Digest] = [:]
            for _ in 0..<400 {
                let connection = UInt64.random(in: 1...12, using: &random)
                if open[connection] == nil {
                    let target = digests.randomElement(using: &random)!
                    open[connection] = target
                    harness.send(Request.count(target, "n"), connection)
                }
                if Bool.random(using: &random) { harness.turn() }
                collect(harness, &open, &counted)
            }
            harness.settle()
            collect(harness, &open, &counted)
            #expect(open.isEmpty)
            for digest in digests {
                let numbers = counted[digest] ?? []
                #expect(numbers.sorted() == Array(1...Int64(max(numbers.count, 1))).prefix(numbers.count).map { $0 })
            }
            #expect(backend.images.count == harness.namespace.objectCount)
        }
    }

    private func collect(_ harness: Harness, _ open: inout [UInt64: Digest], _ counted: inout [Digest: [Int64]]) {
        for (connection, digest) in open {
            guard let answer = harness.answers[connection] else { continue }
            open[connection] = nil
            harness.answers[connection] = nil
            if answer.result == .ok {
                #expect(answer.integer("n") != nil)
                counted[digest, default: []].append(answer.integer("n") ?? 0)
            } else {
                #expect(answer.result == .outOfSpace || answer.result == .unknown)
            }
        }
    }

    @Test func moreWaitersThanAllowedAnswer14() throws {
        let (harness, backend) = try pending(5, reactors: 1) { $0.numbers.pendingLimit = 2 }
        backend.latePercent = 100
        for connection in 1...6 { harness.send(Request.count(digest, "n"), UInt64(connection)) }
        // One owns the claim, three wait (more than two are waiting only behind the third), two are refused.
        #expect(harness.answers.values.map(\.result) == [.keyBusy, .keyBusy])
        harness.settle()
        #expect(harness.answers.values.filter { $0.result == .ok }.count == 4)
        #expect(harness.namespace.total(.failKeyBusy) == 2)
    }

    @Test func waitersTimeOutWith9() throws {
        let (harness, backend) = try pending(6, reactors: 2)
        backend.latePercent = 0
        harness.cluster.latePercent = 100
        harness.send(Request.count(digest, "n"), 2)
        harness.cluster.latePercent = 0
        harness.send(Request.count(digest, "n"), 1)
        harness.send(Request.count(digest, "n"), 3)
        let owner = harness.cluster.waiting
        harness.cluster.waiting = []
        harness.turn(advancing: 1001)
        #expect(harness.answers[1]?.result == .timeout && harness.answers[3]?.result == .timeout)
        #expect(harness.answers[2] == nil, "who owns the claim goes on")
        harness.cluster.waiting = owner
        harness.settle()
        #expect(harness.answers[2]?.integer("n") == 1)
        harness.send(Request.count(digest, "n"), 1)
        harness.settle()
        #expect(harness.answers[1]?.integer("n") == 2)
    }

    /// Results of an operate belong to its request, even if another one runs while it waits.
    @Test func answersDoNotMix() throws {
        let (harness, backend) = try pending(7, reactors: 1)
        backend.latePercent = 100
        let other = Digest(low: 9, middle: 9, high: 9)
        harness.send(Request.count(digest, "first"), 1)
        harness.send(Request.count(other, "second"), 2)
        harness.settle()
        #expect(harness.answers[1]?.bins.map(\.name) == ["first"] && harness.answers[2]?.bins.map(\.name) == ["second"])
    }

    @Test func theAnswerOfAClosedConnectionGoesNowhere() throws {
        let (harness, backend) = try pending(8, reactors: 1)
        backend.latePercent = 100
        harness.send(Request.count(digest, "n"), 1)
        harness.goneConnections = [1]
        harness.settle()
        #expect(harness.answers[1] == nil)
        harness.send(Request.count(digest, "n"), 2)
        harness.settle()
        #expect(harness.answers[2]?.integer("n") == 2, "the write itself was done")
    }

    /// A failed append changes nothing.
    @Test func failedWritesLeaveTheRecord() throws {
        let (harness, backend) = try pending(9, reactors: 1)
        backend.latePercent = 0
        harness.send(Request.put(digest, "n", 5))
        harness.settle()
        backend.failPercent = 100
        for _ in 0..<20 {
            harness.send(Request.put(digest, "n", 6))
            harness.settle()
            #expect(harness.answers[0]?.result == .outOfSpace || harness.answers[0]?.result == .unknown)
        }
        harness.send(Request.get(digest))
        #expect(harness.answers[0]?.integer("n") == 5 && harness.answers[0]?.generation == 1)
        #expect(backend.images.count == 1)
    }

    /// A record whose stored bytes are damaged answers 1, never 2; it can be deleted or replaced.
    @Test func damagedRecordsCanBeDeleted() throws {
        let (harness, backend) = try pending(10, reactors: 1)
        backend.latePercent = 0
        harness.send(Request.write(
            digest, [.init(code: 2, name: "a", value: Request.integer(1))], key: [3, 0x6B]))
        let location = try #require(backend.images.keys.first)
        // The size of the stored key: the first thing behind the image's header.
        backend.images[location]?[Envelope.byteCount + 16] ^= 0xFF
        harness.send(Request.get(digest))
        #expect(harness.answers[0]?.result == .unknown && harness.namespace.total(.recordsUnreadable) == 1)
        harness.send(Request.put(digest, "a", 2))
        #expect(harness.answers[0]?.result == .unknown)
        harness.send(Request.delete(digest))
        #expect(harness.answers[0]?.result == .ok && backend.images.isEmpty)
    }
}
