import Base
import Engine
import Index
import Memory
import Record
import Storage
import TestSupport
import Testing
import Wire

/// Requests for partitions that this node serves, does not serve, or may serve soon.
@Suite struct RoutingTests {
    private let digest = Digest(low: 1, middle: 2, high: 3)

    private func memory() throws -> Harness {
        let backend = FakeBackend(seed: 3)
        backend.latePercent = 0
        return try Harness(backend, capabilities: .volatile)
    }

    private static func frozen(_ partition: PartitionID, isWrite: Bool) -> EffectAnswer { isWrite ? .pending : .done }
    private static func foreign(_ partition: PartitionID, isWrite: Bool) -> EffectAnswer { .refused(.unavailable) }

    /// The cluster decides: every reactor is told.
    private func decide(_ harness: Harness, _ duty: ((PartitionID, Bool) -> EffectAnswer)?) {
        harness.cluster.duty = duty
        for shard in harness.shards { shard.routesChanged() }
    }

    @Test func whatIsNotServedAnswers11() throws {
        let harness = try memory()
        harness.cluster.duty = RoutingTests.foreign
        for frame in [Request.get(digest), Request.put(digest, "n", 1), Request.delete(digest)] {
            #expect(harness.ask(frame).result == .unavailable)
        }
        #expect(harness.namespace.index.count == 0)
        let other = Digest(low: 2, middle: 2, high: 3)
        harness.cluster.duty = { [digest] partition, _ in partition == digest.partition ? .done : .refused(.unavailable) }
        #expect(digest.partition != other.partition)
        #expect(harness.ask(Request.put(digest, "n", 1)).result == .ok)
        #expect(harness.ask(Request.put(other, "n", 1)).result == .unavailable)
    }

    /// While a view is agreed on, reads are answered and writes wait; then they go on in the order they came.
    @Test func writesWaitForTheView() throws {
        let harness = try memory()
        #expect(harness.ask(Request.put(digest, "n", 100)).result == .ok)
        decide(harness, RoutingTests.frozen)
        for connection in 1...5 { harness.send(Request.count(digest, "n"), UInt64(connection)) }
        for _ in 0..<10 { harness.turn(advancing: 10) }
        #expect((1...5).allSatisfy { harness.answers[$0] == nil })
        #expect(harness.ask(Request.get(digest)).integer("n") == 100)
        #expect(harness.shards[0].wantsTicks)
        // Another view is agreed on right after the first.
        decide(harness, RoutingTests.frozen)
        harness.turn()
        #expect((1...5).allSatisfy { harness.answers[$0] == nil })
        decide(harness, nil)
        #expect((1...5).map { harness.answers[$0]?.integer("n") } == [101, 102, 103, 104, 105])
        #expect(!harness.shards[0].wantsTicks)
    }

    @Test func whatHasMovedAwayMeanwhileAnswers11() throws {
        let harness = try memory()
        decide(harness, RoutingTests.frozen)
        harness.send(Request.put(digest, "n", 1), 1)
        decide(harness, RoutingTests.foreign)
        #expect(harness.answers[1]?.result == .unavailable && harness.namespace.index.count == 0)
    }

    @Test func aDeadlineEndsTheWaitWith9() throws {
        let harness = try memory()
        decide(harness, RoutingTests.frozen)
        harness.send(Request.put(digest, "n", 1), 1)
        harness.turn(advancing: 900)
        #expect(harness.answers[1] == nil)
        harness.send(Request.put(digest, "n", 2), 2)
        harness.turn(advancing: 200)
        #expect(harness.answers[1]?.result == .timeout && harness.answers[2] == nil)
        decide(harness, nil)
        #expect(harness.answers[2]?.result == .ok, "the other one goes on")
        #expect(harness.ask(Request.get(digest)).integer("n") == 2)
        #expect(!harness.shards[0].wantsTicks)
    }

    /// A write that waited for another one's claim is asked about again when it has it.
    @Test(arguments: [true, false]) func heirsOfAClaimAreAskedAboutAgain(staysHere: Bool) throws {
        let backend = FakeBackend(seed: 8)
        backend.latePercent = 100
        let harness = try Harness(backend, capabilities: [], isAlone: false)
        for connection in 1...3 { harness.send(Request.count(digest, "n"), UInt64(connection)) }
        decide(harness, RoutingTests.frozen)
        for _ in 0..<50 { harness.turn() }
        let first = harness.answers[1]
        #expect(first?.integer("n") == 1, "it was under way when the view was frozen")
        #expect(harness.answers[2] == nil && harness.answers[3] == nil)
        if staysHere { decide(harness, nil) } else { decide(harness, RoutingTests.foreign) }
        harness.settle()
        let expected = staysHere ? ResultCode.ok : ResultCode.unavailable
        #expect(harness.answers[2]?.result == expected && harness.answers[3]?.result == expected)
        decide(harness, nil)
        harness.send(Request.count(digest, "n"), 4)
        harness.settle()
        #expect(harness.answers[4]?.integer("n") == (staysHere ? 4 : 2), "no claim is left behind")
        #expect(backend.images.count == 1)
    }

    private final class Routes {}

    /// What went by the old routes and is under way is acknowledged later: they are in use until then.
    @Test(arguments: 0..<20) func routesAreInUseUntilTheirWritesAreAnswered(seed: UInt64) throws {
        let backend = FakeBackend(seed: seed)
        backend.latePercent = 100
        let harness = try Harness(backend, capabilities: [], isAlone: false)
        func release(_ duty: ((PartitionID, Bool) -> EffectAnswer)?) -> () -> Bool {
            harness.cluster.duty = duty
            let routes = Routes()
            harness.shards[0].routesChanged(routes)
            return { [weak routes] in routes == nil }
        }
        #expect(release(nil)(), "nothing is under way")
        for connection in [1, 4] as [UInt64] { harness.send(Request.count(digest, "n"), connection) }
        let isFirstGone = release(RoutingTests.frozen)
        #expect(!isFirstGone())
        // They wait for the next routes, one of them as heir of the claim, and must not hold those of before.
        harness.send(Request.put(Digest(low: 9, middle: 9, high: 9), "n", 1), 2)
        harness.send(Request.count(digest, "n"), 3)
        let isSecondGone = release(RoutingTests.frozen)
        for _ in 0..<50 {
            harness.turn()
            #expect(harness.answers[1] != nil || !isFirstGone())
        }
        #expect(harness.answers[1]?.result == .ok && isFirstGone() && isSecondGone())
        // What begins by newer routes holds no older ones.
        let isThirdGone = release(nil)
        #expect([2, 3, 4].allSatisfy { harness.answers[$0] == nil } && isThirdGone())
        harness.settle()
        #expect([2, 3, 4].allSatisfy { harness.answers[$0]?.result == .ok })
    }

    @Test func anHeirsDeadlineGivesTheClaimBack() throws {
        let backend = FakeBackend(seed: 8)
        backend.latePercent = 100
        let harness = try Harness(backend, capabilities: [], isAlone: false)
        for connection in 1...2 { harness.send(Request.count(digest, "n"), UInt64(connection)) }
        decide(harness, RoutingTests.frozen)
        for _ in 0..<50 { harness.turn() }
        harness.turn(advancing: 1100)
        #expect(harness.answers[2]?.result == .timeout)
        decide(harness, nil)
        harness.send(Request.count(digest, "n"), 3)
        harness.settle()
        #expect(harness.answers[3]?.integer("n") == 2)
    }

    /// Random freezes over several reactors, late backends and clusters: each write is answered once, none is lost.
    @Test func manyViews() throws {
        let seed = runSeed("RoutingTests")
        var random = SeededRandom(seed: seed)
        try forAWhile(1) {
            let backend = FakeBackend(seed: random.next())
            let harness = try Harness(backend, capabilities: [], reactors: 2, isAlone: false, seed: random.next()) {
                $0.numbers.pendingLimit = 0
            }
            harness.cluster.latePercent = 30
            let digests = (0..<3).map { _ in Digest.random(&random, in: 7) }
            var sums: [Digest: Int64] = [:]
            var open: [UInt64: Digest] = [:]
            func collect() {
                for (connection, digest) in open {
                    guard let answer = harness.answers[connection] else { continue }
                    open[connection] = nil
                    if answer.result == .ok { sums[digest, default: 0] += 1 } else { #expect(answer.result == .unavailable) }
                }
            }
            for _ in 0..<300 {
                let connection = UInt64.random(in: 1...12, using: &random)
                if open[connection] == nil {
                    open[connection] = digests.randomElement(using: &random)!
                    harness.send(Request.count(open[connection]!, "n"), connection)
                }
                if Bool.random(using: &random) { harness.turn() }
                collect()
                guard Int.random(in: 0..<10, using: &random) == 0 else { continue }
                let answer: [EffectAnswer] = [.done, .pending, .refused(.unavailable)]
                let chosen = answer.randomElement(using: &random)!
                decide(harness) { _, isWrite in isWrite ? chosen : .done }
                collect()
            }
            decide(harness, nil)
            harness.settle()
            collect()
            #expect(open.isEmpty)
            for digest in digests where sums[digest] != nil {
                harness.send(Request.get(digest), 100)
                harness.settle()
                #expect(harness.answers[100]?.integer("n") == sums[digest])
            }
        }
    }

    @Test func writesCarryTheEpochOfTheirPartition() throws {
        let backend = FakeBackend(seed: 3)
        backend.latePercent = 0
        let harness = try Harness(backend, capabilities: .volatile)
        func epochs() -> [Epoch] {
            backend.images.values.compactMap { image in
                ImageView(Block(Array(image[Envelope.byteCount...])).view)?.epoch
            }
        }
        #expect(harness.ask(Request.put(digest, "n", 1)).result == .ok)
        #expect(epochs() == [harness.namespace.epoch])
        let later = Epoch(regime: 0x12345, viewKey: 0xAB_CDEF_0123)
        harness.cluster.epoch = later
        #expect(harness.ask(Request.put(digest, "n", 2)).result == .ok)
        #expect(epochs() == [later])
    }

    // ---- Queries ----

    @Test func aQuerySaysWhichPartitionsAreElsewhere() throws {
        let harness = try memory()
        var random = SeededRandom(seed: runSeed("RoutingTests"))
        let digests = (0..<200).map { _ in Digest.random(&random) }
        for digest in digests { #expect(harness.ask(Request.put(digest, "n", 1)).result == .ok) }
        harness.cluster.duty = { partition, _ in partition.number < 2048 ? .done : .refused(.unavailable) }
        let answer = harness.query(.everything)
        #expect(answer.result == .ok)
        #expect(answer.records.count == digests.count { $0.partition.number < 2048 })
        #expect(answer.elsewhere == Set(2048..<4096))
    }

    /// A background query writes what is served here, and waits while that is being decided.
    @Test func aBackgroundQueryWritesWhatIsServedHere() throws {
        let harness = try memory()
        var random = SeededRandom(seed: runSeed("RoutingTests"))
        let digests = (0..<200).map { _ in Digest.random(&random) }
        for digest in digests { #expect(harness.ask(Request.put(digest, "n", 1)).result == .ok) }
        var query = QueryRequest()
        query.info1 = []
        query.info2 = .write
        query.info3 = []
        query.operations = [Request.Operation(code: OperationCode.increment, name: "n", value: Request.integer(1000))]
        query.task = 5
        decide(harness, RoutingTests.frozen)
        #expect(harness.query(query).result == .ok)
        harness.background(100)
        #expect(harness.queries.query(5)?.state == .active && harness.queries.query(5)?.value(of: .succeeded) == 0)
        decide(harness) { partition, _ in partition.number < 2048 ? .done : .refused(.unavailable) }
        for _ in 0..<20_000 where harness.queries.activeCount > 0 { harness.background() }
        let status = try #require(harness.queries.query(5))
        #expect(status.state == .done && status.value(of: .failed) == 0)
        #expect(status.value(of: .succeeded) == UInt64(digests.count { $0.partition.number < 2048 }))
        harness.cluster.duty = nil
        for digest in digests {
            #expect(harness.ask(Request.get(digest)).integer("n") == (digest.partition.number < 2048 ? 1001 : 1))
        }
    }
}
