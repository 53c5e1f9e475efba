import Base
import Engine
import Memory
import Storage
import TestSupport
import Testing
import Wire

@Suite struct BatchTests {
    private func memory(_ change: (inout NamespaceSettings) -> Void = { _ in }) throws -> Harness {
        let backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test", settings: BackendSettings([("data-size", "\(256 << 20)")]),
            agreement: Agreement(backend: "memory", format: 1, capabilities: .volatile), log: { _ in }))
        return try Harness(backend, capabilities: .volatile, change)
    }

    private func late(_ seed: UInt64, percent: Int, isAlone: Bool = true) throws -> (Harness, FakeBackend) {
        let backend = FakeBackend(seed: seed)
        backend.latePercent = percent
        return (try Harness(backend, capabilities: [], isAlone: isAlone, seed: seed), backend)
    }

    private func digests(_ count: Int) -> [Digest] {
        (0..<count).map { Digest(low: UInt64($0) &* 0x9E37_79B9_7F4A_7C15, middle: UInt64($0), high: 1) }
    }

    @Test func mixedRowsInTheirTurn() throws {
        let harness = try memory()
        let keys = digests(4)
        harness.send(batch: batch {
            $0.put(10, keys[0], 5)
            $0.get(11, keys[0])
            $0.get(12, keys[1])
            $0.count(13, keys[0])
            $0.delete(14, keys[0])
            $0.get(15, keys[0])
        })
        #expect(harness.endedStreams.contains(1), "memory answers at once")
        let answer = BatchAnswer(harness.streams[1]!)
        #expect(answer.last == .ok && answer.frames == 1)
        #expect(answer.rows == [
            BatchAnswerRow(index: 10, result: .ok, generation: 1),
            BatchAnswerRow(index: 11, result: .ok, generation: 1, codes: [1], bins: ["n": 5]),
            BatchAnswerRow(index: 12, result: .notFound, generation: 0),
            BatchAnswerRow(index: 13, result: .ok, generation: 2, codes: [1, 1], bins: ["n": 6]),
            BatchAnswerRow(index: 14, result: .ok, generation: 0),
            BatchAnswerRow(index: 15, result: .notFound, generation: 0),
        ])
        let expected: [(NamespaceCounter, UInt64)] = [
            (.batchSubReadSuccess, 1), (.batchSubReadNotFound, 2), (.batchSubWriteSuccess, 2), (.batchSubDeleteSuccess, 1),
            (.clientReadSuccess, 0), (.clientWriteSuccess, 0),
        ]
        for (counter, value) in expected { #expect(harness.namespace.total(counter) == value, "\(counter)") }
        #expect(harness.shards[0].batchCounters.value(of: .complete) == 1)
        harness.shards[0].countLatencies(end: harness.time.monotonic.advanced(byMilliseconds: 1))
        let counts = (0..<ShardCounters.latencyBuckets).map { harness.shards[0].batchCounters.latencyCount(bucket: $0) }
        #expect(counts.reduce(0, +) == 1)
    }

    @Test func errorsStopUnlessAllRowsAreAsked() throws {
        let harness = try memory()
        let keys = digests(3)
        func rows(_ batch: inout BatchEncoder) {
            batch.put(0, keys[0], 1)
            batch.get(1, keys[2])
            batch.row(2, keys[0], writeHeader, namespace: "test")
            batch.get(3, keys[0])
        }
        let plain = harness.run(batch([]) { rows(&$0) })
        #expect(plain.rows.map(\.index) == [0, 1] && plain.last == .parameter, "not found is no error")
        let withRow = harness.run(batch(.errorRows) { rows(&$0) })
        #expect(withRow.rows.map(\.index) == [0, 1, 2] && withRow.rows[2].result == .parameter && withRow.last == .parameter)
        let all = harness.run(batch { rows(&$0) })
        #expect(all.rows.map(\.result) == [.ok, .notFound, .parameter, .ok] && all.last == .ok)
    }

    @Test func rowsThatAreNotSupported() throws {
        let harness = try memory()
        let key = digests(1)[0]
        let answer = harness.run(batch {
            $0.row(0, key, writeHeader, namespace: "test")
            $0.field(.udfPackage, "m")
            $0.row(1, key, readHeader, namespace: "test")
            $0.field(.transactionID, Block([1, 0, 0, 0, 0, 0, 0, 0]).view)
            $0.row(2, key, MessageHeader(), namespace: "test")
        })
        #expect(answer.rows.map(\.result) == [.unsupportedFeature, .unsupportedFeature, .parameter] && answer.last == .ok)
        #expect(harness.namespace.total(.batchSubTsvcError) == 3)
        // Neither are those without a set, where that is not allowed.
        let strict = try memory { $0.numbers.disallowNullSetName = true }
        let refused = strict.run(batch { for row: UInt32 in 0..<2 { $0.put(row, key, 1) } })
        #expect(refused.rows.map(\.result) == [.parameter, .parameter])
    }

    /// The batch's filter is for all rows, a row's own wins; a malformed one is an error of its row. The same when every
    /// row has to wait.
    @Test(arguments: [0, 100]) func filters(latePercent: Int) throws {
        let (harness, _) = try late(9, percent: latePercent)
        let keys = digests(3)
        _ = harness.run(batch { for (number, key) in keys.enumerated() { $0.put(0, key, Int64(4 + number)) } })
        func isEqual(to value: UInt8) -> [UInt8] { [0x93, 1, 0x93, 0x51, 2, 0xA1, 0x6E, value] }
        let answer = harness.run(batch([], filter: isEqual(to: 5)) {
            $0.get(0, keys[0])
            $0.get(1, keys[1])
            $0.repeatRow(2, keys[2])
            $0.row(3, keys[2], readHeader, namespace: "test")
            $0.field(.filter, Block(isEqual(to: 6)).view)
            $0.repeatRow(4, keys[0])
            $0.count(5, keys[2])
            $0.delete(6, keys[1])
            $0.row(7, keys[0], readHeader, namespace: "test")
            $0.field(.filter, Block([0xC1]).view)
        })
        let results = Dictionary(uniqueKeysWithValues: answer.rows.map { ($0.index, $0.result) })
        #expect(results == [
            0: .filteredOut, 1: .ok, 2: .filteredOut, 3: .ok, 4: .filteredOut, 5: .filteredOut, 6: .ok,
        ])
        #expect(answer.last == .parameter, "what is filtered out stops nothing, a malformed filter does")
        #expect(harness.namespace.total(.batchSubReadFilteredOut) == 3)
        #expect(harness.namespace.total(.batchSubWriteFilteredOut) == 1)
    }

    @Test func anUnknownNamespaceEndsTheBatch() throws {
        let harness = try memory()
        let keys = digests(3)
        let answer = harness.run(batch {
            $0.put(0, keys[0], 1)
            $0.row(1, keys[1], readHeader, namespace: "nonsense")
            $0.get(2, keys[0])
        })
        #expect(answer.rows.map(\.index) == [0] && answer.last == .parameter)
    }

    @Test func limits() throws {
        let harness = try memory()
        let keys = digests(3)
        #expect(harness.run(batch { _ in }).last == .parameter, "no rows")
        harness.change { $0.batchRequestsMax = 2 }
        #expect(harness.run(batch { for key in keys { $0.get(0, key) } }).last == .batchMaxRequests)
        #expect(harness.run(batch { for key in keys[..<2] { $0.get(0, key) } }).last == .ok)
        harness.change { $0.batchIndexThreads = 0 }
        #expect(harness.run(batch { $0.get(0, keys[0]) }).last == .batchDisabled)
        #expect(harness.shards[0].batchCounters.value(of: .error) == 3)
    }

    @Test func tooManyBatchesUnderWay() throws {
        let (harness, _) = try late(1, percent: 100)
        harness.change { $0.batchBuffersPerQueueMax = 3 }
        let keys = digests(5)
        for (number, key) in keys.enumerated() { harness.send(batch: batch { $0.put(0, key, 1) }, UInt64(number)) }
        #expect(harness.endedStreams == [3, 4] && BatchAnswer(harness.streams[4]!).last == .batchQueuesFull)
        harness.finishBatches()
        for number in 0..<3 { #expect(BatchAnswer(harness.streams[UInt64(number)]!).last == .ok) }
        #expect(harness.shards[0].batchCounters.underWay == 0)
    }

    /// More rows than a turn has room for: parts of at most 128 KiB, every row once.
    @Test func aLongBatchGoesOnInSlices() throws {
        let harness = try memory()
        let keys = digests(5000)
        let puts = harness.run(batch { for (n, key) in keys.enumerated() { $0.put(UInt32(n), key, Int64(n)) } })
        #expect(puts.last == .ok && puts.rows.map(\.index) == (0..<5000).map { UInt32($0) })
        let gets = harness.run(batch { encoder in
            for round in 0..<4 {
                for (number, key) in keys.enumerated() {
                    let index = UInt32(round * 5000 + number)
                    if index == 0 { encoder.get(0, key) } else { encoder.repeatRow(index, key) }
                }
            }
        })
        #expect(gets.last == .ok && gets.rows.count == 20_000 && gets.frames > 5)
        #expect(gets.frameSizeMax <= Limits.streamPartSizeMax + MessageHeader.byteCount + FrameHeader.byteCount)
        for (number, row) in gets.rows.enumerated() {
            #expect(row.index == UInt32(number) && row.bins["n"] == Int64(number % 5000))
        }
    }

    /// Over a backend and a cluster that answer whenever they like: every row is answered once, rows of one record take
    /// effect in order, no image leaks.
    @Test func randomBatches() throws {
        let seed = runSeed("BatchTests")
        var random = SeededRandom(seed: seed)
        try forAWhile(2) {
            let (harness, backend) = try late(
                random.next(), percent: [0, 30, 100].randomElement(using: &random)!,
                isAlone: Bool.random(using: &random))
            harness.cluster.latePercent = [0, 40].randomElement(using: &random)!
            let keys = digests(40)
            var model: [Int: Int64] = [:]
            for _ in 0..<3 {
                var expected: [UInt32: (result: ResultCode, value: Int64?)] = [:]
                let count = Int.random(in: 1...700, using: &random)
                let hot = Int.random(in: 1...keys.count, using: &random)
                let frame = batch { encoder in
                    for index in 0..<UInt32(count) {
                        let key = Int.random(in: 0..<hot, using: &random)
                        switch Int.random(in: 0..<10, using: &random) {
                        case 0:
                            encoder.delete(index, keys[key])
                            expected[index] = (model[key] == nil ? .notFound : .ok, nil)
                            model[key] = nil
                        case 1...3:
                            encoder.count(index, keys[key])
                            model[key, default: 0] += 1
                            expected[index] = (.ok, model[key])
                        default:
                            encoder.get(index, keys[key])
                            expected[index] = (model[key] == nil ? .notFound : .ok, model[key])
                        }
                    }
                }
                let answer = harness.run(frame)
                #expect(answer.last == .ok && answer.rows.count == count)
                #expect(Set(answer.rows.map(\.index)).count == count)
                for row in answer.rows {
                    #expect(row.result == expected[row.index]?.result && row.bins["n"] == expected[row.index]?.value)
                }
            }
            #expect(backend.images.count == harness.namespace.objectCount && harness.namespace.objectCount == model.count)
            #expect(harness.shards[0].batchCounters.underWay == 0)
        }
    }

    @Test func aClientThatDoesNotReadParksItsBatch() throws {
        let harness = try memory()
        let keys = digests(1000)
        _ = harness.run(batch { for (number, key) in keys.enumerated() { $0.put(UInt32(number), key, 1) } })
        harness.crowdedConnections = [1]
        harness.send(batch: batch { encoder in
            for index in 0..<UInt32(50_000) {
                if index == 0 { encoder.get(index, keys[0]) } else { encoder.repeatRow(index, keys[Int(index) % 1000]) }
            }
        })
        harness.finishBatches()
        let parked = harness.streams[1]!.count
        #expect(parked < 3 * Limits.streamPartSizeMax && !harness.endedStreams.contains(1))
        #expect(harness.shards[0].batchCounters.value(of: .delay) == 1)
        #expect(harness.run(batch { $0.get(0, keys[0]) }, 2).last == .ok, "others are served")
        while !harness.endedStreams.contains(1) {
            let before = harness.streams[1]!.count
            harness.shards[0].drained(1)
            harness.finishBatches()
            #expect(harness.streams[1]!.count > before, "it goes on")
            if harness.streams[1]!.count == before { break }
        }
        let answer = BatchAnswer(harness.streams[1]!)
        #expect(answer.last == .ok && answer.rows.count == 50_000)
    }

    @Test func aClosedConnectionEndsItsBatch() throws {
        let (harness, backend) = try late(3, percent: 100)
        let keys = digests(400)
        harness.send(batch: batch { for (number, key) in keys.enumerated() { $0.put(UInt32(number), key, 1) } })
        harness.goneConnections = [1]
        harness.shards[0].connectionClosed(1)
        harness.finishBatches()
        #expect(harness.shards[0].batchCounters.underWay == 0 && !harness.endedStreams.contains(1))
        #expect((1..<400).contains(harness.namespace.objectCount), "what was under way has ended, nothing else has begun")
        #expect(backend.images.count == harness.namespace.objectCount)
        // Closed while it streams.
        let all = try memory()
        _ = all.run(batch { for (number, key) in keys.enumerated() { $0.put(UInt32(number), key, 1) } })
        all.send(batch: batch { for index in 0..<UInt32(30_000) { $0.get(index, keys[Int(index) % 400]) } })
        all.goneConnections = [1]
        all.finishBatches()
        #expect(all.shards[0].batchCounters.underWay == 0 && !all.endedStreams.contains(1))
    }

    @Test func rowsAfterTheDeadlineAnswer9() throws {
        let (harness, backend) = try late(4, percent: 0)
        let keys = digests(600)
        backend.latePercent = 100
        harness.send(batch: batch(timeout: 50) { for (number, key) in keys.enumerated() { $0.put(UInt32(number), key, 1) } })
        backend.latePercent = 0
        harness.turn(advancing: 51)
        harness.finishBatches()
        let answer = BatchAnswer(harness.streams[1]!)
        #expect(answer.rows.count == 600 && answer.last == .ok)
        let expired = 600 - Limits.batchRowsPerTurnMax
        #expect(answer.rows.filter { $0.result == .timeout }.count == expired)
        #expect(harness.namespace.total(.batchSubTsvcTimeout) == UInt64(expired))
    }

    /// A turn and a slice end after so many bytes, also of writes, which answer nothing.
    @Test func largeWritesGoOnInSlices() throws {
        let harness = try memory()
        let keys = digests(20)
        let value = Block([UInt8](repeating: 0x78, count: 200_000))
        harness.send(batch: batch {
            for (number, key) in keys.enumerated() {
                $0.row(UInt32(number), key, writeHeader, namespace: "test")
                $0.operation(OperationCode.write, ParticleType.string, "s", value.view)
            }
        })
        #expect(harness.namespace.objectCount == 2)
        _ = harness.shards[0].backgroundSlice()
        #expect(harness.namespace.objectCount == 3)
        harness.finishBatches()
        #expect(BatchAnswer(harness.streams[1]!).rows.map(\.result) == keys.map { _ in .ok })
        // Reads that a filter leaves out answer nothing, either.
        let filter: [UInt8] = [0x93, 1, 0x93, 0x51, 3, 0xA1, 0x73, 0xA2, 3, 0x79]
        harness.send(batch: batch(filter: filter) { for (number, key) in keys.enumerated() { $0.get(UInt32(number), key) } })
        #expect(harness.namespace.total(.batchSubReadFilteredOut) == 2)
        harness.finishBatches()
        #expect(harness.namespace.total(.batchSubReadFilteredOut) == 20)
    }

    /// Rows with the same filter compile it once, and the work of filters ends a turn.
    @Test func expensiveFilters() throws {
        let harness = try memory()
        let keys = digests(100)
        _ = harness.run(batch { for (number, key) in keys.enumerated() { $0.put(UInt32(number), key, 1) } })
        // And: 10,000 times true, and bin n is 1.
        let parts = 10_000
        let isOne: [UInt8] = [0x93, 1, 0x93, 0x51, 2, 0xA1, 0x6E, 1]
        let filter = [0xDC, 0x27, 0x12, 16] + [UInt8](repeating: 0xC3, count: parts) + isOne
        let before = harness.shards[0].expressionWork
        harness.send(batch: batch {
            $0.row(0, keys[0], readHeader, namespace: "test")
            $0.field(.filter, Block(filter).view)
            for (number, key) in keys.enumerated().dropFirst() { $0.repeatRow(UInt32(number), key) }
        })
        #expect(harness.namespace.total(.batchSubReadSuccess) == 1)
        harness.finishBatches()
        #expect(BatchAnswer(harness.streams[1]!).rows.map(\.result) == keys.map { _ in .ok })
        let compilation = 1 + filter.count >> 5 + filter.count << 2
        #expect(harness.shards[0].expressionWork - before == compilation + 100 * (2 * parts + 4))
    }

    /// Damaged by chance: an answer that ends, or a request that does not parse.
    @Test func damagedBatchesEnd() throws {
        let seed = runSeed("BatchTests.damaged")
        var random = SeededRandom(seed: seed)
        let keys = digests(20)
        let (harness, _) = try late(random.next(), percent: 50)
        let whole = batch { encoder in
            for index in 0..<UInt32(20) {
                switch index % 4 {
                case 0: encoder.put(index, keys[Int(index)], 1)
                case 1: encoder.count(index, keys[Int(index)])
                case 2: encoder.get(index, keys[Int(index)])
                default: encoder.repeatRow(index, keys[Int(index)])
                }
            }
        }
        forAWhile(1) {
            var frame = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                frame[Int.random(in: (FrameHeader.byteCount + 6)..<frame.count, using: &random)] =
                    UInt8.random(in: 0...255, using: &random)
            }
            let body = Block(Array(frame[FrameHeader.byteCount...]))
            guard case .request = RequestView.parse(body.view) else { return }
            let answer = harness.run(frame)
            #expect(answer.last != nil && harness.endedStreams.contains(1))
        }
    }
}
