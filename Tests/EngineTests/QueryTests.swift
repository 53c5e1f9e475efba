import Base
import Engine
import Storage
import TestSupport
import Testing
import Wire

/// Primary-index queries: what they answer, in which order, and how they end.
@Suite struct QueryTests {
    private func harness(_ seed: UInt64, reactors: Int = 3, late: Int = 50) throws -> (Harness, FakeBackend) {
        let backend = FakeBackend(seed: seed)
        backend.latePercent = late
        return (try Harness(backend, capabilities: [], reactors: reactors, seed: seed), backend)
    }

    private func put(_ harness: Harness, _ digest: Digest, _ value: Int64, set: String = "") {
        let write = Request.Operation(code: OperationCode.write, name: "n", value: Request.integer(value))
        harness.send(Request.write(digest, [write], set: set), 1)
        harness.settle()
        #expect(harness.answers[1]?.result == .ok)
    }

    /// Digests of a partition strictly fall.
    private func expectOrder(_ answer: QueryAnswer) {
        var last: [UInt16: Digest] = [:]
        for record in answer.records {
            let partition = record.digest.partition.number
            if let before = last[partition] { #expect(record.digest < before, "the order of resume digests") }
            last[partition] = record.digest
        }
    }

    /// Every record once, with its bins and set, over a backend that answers late, on several reactors; a set and a
    /// selection confine it.
    @Test func answersEveryRecordOnce() throws {
        let seed = runSeed("answersEveryRecordOnce")
        var random = SeededRandom(seed: seed)
        try forAWhile(1) {
            let (harness, _) = try harness(random.next(), reactors: Int.random(in: 1...6, using: &random))
            var values: [Digest: Int64] = [:]
            let partitions = UInt16.random(in: 1...40, using: &random)
            for value in 0..<Int64.random(in: 0...400, using: &random) {
                let digest = Digest.random(&random, in: UInt16.random(in: 0..<partitions, using: &random))
                values[digest] = value
                put(harness, digest, value, set: value % 3 == 0 ? "third" : "")
            }
            let all = harness.query(.everything)
            #expect(all.result == .ok)
            expectOrder(all)
            #expect(Dictionary(uniqueKeysWithValues: all.records.map { ($0.digest, $0.bins["n"]) }) == values)
            var query = QueryRequest.everything
            query.set = "third"
            let third = harness.query(query)
            #expect(Set(third.records.map { $0.bins["n"] }) == Set(values.values.filter { $0 % 3 == 0 }))
            #expect(third.records.allSatisfy { $0.set == "third" })
            query.bins = ["other"]
            #expect(harness.query(query).records.isEmpty)
            query.set = "unheard-of"
            let nothing = harness.query(query)
            #expect(nothing.records.isEmpty && nothing.result == .ok)
            query = .everything
            query.info1 = [.read, .noBins]
            let metadata = harness.query(query)
            #expect(metadata.records.count == values.count && metadata.records.allSatisfy { $0.bins.isEmpty })
        }
    }

    /// Pages: each goes on behind the last digest of every partition. Together they give every record once.
    @Test func resumesBehindADigest() throws {
        let seed = runSeed("resumesBehindADigest")
        var random = SeededRandom(seed: seed)
        let (harness, _) = try harness(random.next())
        var digests: Set<Digest> = []
        for value in 0..<500 {
            let digest = Digest.random(&random, in: UInt16(value % 7))
            digests.insert(digest)
            put(harness, digest, Int64(value))
        }
        var last: [UInt16: Digest] = [:]
        var seen: [Digest] = []
        while true {
            var query = QueryRequest()
            query.partitions = (0..<7).filter { last[$0] == nil }
            query.behind = last.values.map { $0 }
            query.recordsMax = UInt64.random(in: 1...90, using: &random)
            let page = harness.query(query)
            #expect(page.result == .ok && page.records.count <= query.recordsMax)
            expectOrder(page)
            for record in page.records { last[record.digest.partition.number] = record.digest }
            seen += page.records.map(\.digest)
            if page.records.count < query.recordsMax { break }
        }
        #expect(seen.count == digests.count && Set(seen) == digests)
    }

    /// Records come and go, and buckets split, while a scan walks: what lives throughout comes exactly once, and nothing
    /// comes twice.
    @Test func survivesChangesOnTheWay() throws {
        let seed = runSeed("survivesChangesOnTheWay")
        var random = SeededRandom(seed: seed)
        try forAWhile(1) {
            let (harness, _) = try harness(random.next(), reactors: 2, late: 20)
            let scan = QueryRequest(partitions: [0, 1])
            var lasting: Set<Digest> = []
            var passing: [Digest] = []
            for value in 0..<600 {
                let digest = Digest.random(&random, in: UInt16(value % 2))
                put(harness, digest, 1)
                if value % 3 == 0 { passing.append(digest) } else { lasting.insert(digest) }
            }
            harness.begin(scan)
            let answer = harness.finish {
                for _ in 0..<20 {
                    let fresh = Digest.random(&random, in: UInt16.random(in: 0...1, using: &random))
                    harness.send(Request.put(fresh, "n", 2), 2)
                    harness.settle()
                }
                if let gone = passing.popLast() {
                    harness.send(Request.delete(gone), 2)
                    harness.settle()
                }
                // A record that is written again stays where it is.
                if let again = lasting.randomElement(using: &random) { self.put(harness, again, 3) }
            }
            let seen = answer.records.map(\.digest)
            #expect(Set(seen).count == seen.count, "a record twice")
            #expect(lasting.isSubset(of: Set(seen)), "a record that lived throughout is missing")
            expectOrder(answer)
        }
    }

    /// A client that does not read parks its query: at most four parts are under way; when it reads again the rest comes.
    @Test(arguments: [2, 8]) func parksForAClientThatDoesNotRead(reactors: Int) throws {
        let (harness, backend) = try harness(7, reactors: reactors, late: 0)
        var random = SeededRandom(seed: 7)
        for value in 0..<3000 {
            let text = [UInt8](repeating: 0x61, count: 500)
            let write = Request.Operation(code: OperationCode.write, type: ParticleType.string, name: "s", value: text)
            harness.send(Request.write(Digest.random(&random), [write]), 1)
            harness.settle()
            #expect(harness.answers[1]?.result == .ok, "write \(value)")
        }
        harness.crowdedConnections = [1000]
        let readBefore = backend.readCount
        harness.begin(.everything)
        harness.background(1000)
        #expect(!harness.endedStreams.contains(1000))
        let parked = QueryAnswer(harness.streams[1000]!)
        // The first part was sent before its client was found crowded; the others wait.
        #expect(parked.records.count > 0 && parked.records.count < 1000)
        // Four parts of 128 KiB, and for each reactor what was read before it had no room.
        #expect(backend.readCount - readBefore < 2200, "\(backend.readCount - readBefore) records of 500 bytes were read")
        harness.crowdedConnections = []
        for shard in harness.shards { shard.drained(1000) }
        let answer = harness.finish { for shard in harness.shards { shard.drained(1000) } }
        #expect(answer.records.count == 3000 && Set(answer.records.map(\.digest)).count == 3000)
        #expect(answer.partsLargest <= Limits.streamPartSizeMax)
    }

    /// An abort ends with 15; a connection that closes ends without an answer; both leave nothing behind.
    @Test func endsWhenNobodyWantsIt() throws {
        let (harness, _) = try harness(8)
        var random = SeededRandom(seed: 8)
        for value in 0..<2000 { put(harness, Digest.random(&random), Int64(value)) }
        var query = QueryRequest.everything
        query.recordsPerSecond = 100
        query.task = 77
        harness.begin(query)
        harness.background(50)
        #expect(harness.queries.activeCount == 1 && harness.queries.abort(77) && !harness.queries.abort(77))
        let aborted = harness.finish()
        #expect(aborted.result == .queryAbort && aborted.records.count < 2000)
        #expect(harness.queries.activeCount == 0 && harness.queries.query(77)?.state == .userAborted)

        query.task = 78
        harness.begin(query, 1001)
        harness.background()
        harness.goneConnections = [1001]
        for shard in harness.shards { shard.connectionClosed(1001) }
        harness.background(200)
        #expect(harness.queries.activeCount == 0 && harness.queries.query(78)?.state == .clientGone)
        #expect(!harness.shards.contains { $0.wantsTicks }, "nothing is left under way")
    }

    /// The limit on records per second holds over all reactors.
    @Test func keepsToRecordsPerSecond() throws {
        let (harness, _) = try harness(9, late: 0)
        var random = SeededRandom(seed: 9)
        for value in 0..<500 { put(harness, Digest.random(&random), Int64(value)) }
        var query = QueryRequest.everything
        query.recordsPerSecond = 200
        let begun = harness.time.monotonic
        harness.begin(query)
        harness.background(500)
        let early = QueryAnswer(harness.streams[1000]!)
        #expect((50...110).contains(early.records.count), "\(early.records.count) have come in half a second")
        let answer = harness.finish()
        let milliseconds = harness.time.monotonic.nanoseconds(since: begun) / 1_000_000
        #expect(answer.records.count == 500)
        #expect((2300...2700).contains(milliseconds), "\(milliseconds) ms of the harness's clock")
        let throttled = harness.queries.query(1)?.value(of: .throttled) ?? 0
        #expect((1...500).contains(throttled), "a record is put off once: \(throttled)")
    }

    /// More names than are looked up one by one, some twice, some not there.
    @Test func selectsByName() throws {
        let (harness, _) = try harness(11)
        let names = (0..<40).map { "bin\($0)" }
        let writes = names.enumerated().map {
            Request.Operation(code: OperationCode.write, name: $0.element, value: Request.integer(Int64($0.offset)))
        }
        var random = SeededRandom(seed: 11)
        harness.send(Request.write(Digest.random(&random), writes), 1)
        harness.settle()
        for count in [1, 16, 17, 30] {
            var query = QueryRequest.everything
            query.bins = names.prefix(count) + ["absent", "bin0"]
            let bins = harness.query(query).records.first?.bins
            let wanted = names.prefix(count).enumerated().map { ($0.element, Int64($0.offset)) }
            #expect(bins == Dictionary(uniqueKeysWithValues: wanted))
        }
    }

    /// What makes no sense is refused with the protocol's codes, and nothing runs.
    @Test func refusesNonsense() throws {
        let (harness, _) = try harness(10)
        var random = SeededRandom(seed: 10)
        func result(_ change: (inout QueryRequest) -> Void) -> ResultCode? {
            var query = QueryRequest.everything
            change(&query)
            return harness.query(query).result
        }
        #expect(result { $0.info3 = [] } == .unsupportedFeature)
        #expect(result { $0.partitions = [] } == .unsupportedFeature)
        #expect(result { $0.partitions = [5, 5] } == .parameter)
        #expect(result { $0.partitions = [4096] } == .parameter)
        let digest = Digest.random(&random, in: 9)
        #expect(result { $0 = QueryRequest(partitions: [9], behind: [digest]) } == .parameter)
        #expect(result { $0 = QueryRequest(behind: [digest, digest]) } == .parameter)
        #expect(result { $0 = QueryRequest(behind: [digest]) } == .ok)
        #expect(result { $0.info1 = [.read, .shortQuery]; $0.recordsPerSecond = 5 } == .parameter)
        #expect(result { $0.info1 = [] } == .parameter)
        #expect(result { $0.set = String(repeating: "s", count: 64) } == .parameter)
        #expect(harness.queries.all.allSatisfy { $0.state == .done } && harness.queries.activeCount == 0)
    }

    /// A background query writes to every record of its set once, on its own, and makes none that is gone.
    @Test func writesInTheBackground() throws {
        let seed = runSeed("writesInTheBackground")
        var random = SeededRandom(seed: seed)
        let (harness, backend) = try harness(random.next())
        var ours: [Digest] = []
        for value in 0..<300 {
            let digest = Digest.random(&random)
            put(harness, digest, Int64(value), set: value % 2 == 0 ? "ours" : "")
            if value % 2 == 0 { ours.append(digest) }
        }
        var query = QueryRequest()
        query.set = "ours"
        query.info1 = []
        query.info2 = .write
        query.info3 = []
        query.operations = [Request.Operation(code: OperationCode.increment, name: "n", value: Request.integer(1000))]
        query.task = 5
        #expect(harness.query(query).result == .ok, "answered before it begins")
        for _ in 0..<20_000 where harness.queries.activeCount > 0 { harness.background() }
        let status = try #require(harness.queries.query(5))
        #expect(status.state == .done && status.value(of: .succeeded) == 150 && status.value(of: .failed) == 0)
        let after = harness.query(.everything)
        #expect(Set(after.records.compactMap { $0.bins["n"] }) == Set((0..<300).map { $0 % 2 == 0 ? 1000 + $0 : $0 }))
        #expect(backend.images.count == 300)
        query.recordsPerSecond = 10_001
        #expect(harness.query(query).result == .parameter, "above background-query-max-rps")
        query.recordsPerSecond = 0
        query.set = "unheard-of"
        #expect(harness.query(query).result == .notFound)
    }
}
