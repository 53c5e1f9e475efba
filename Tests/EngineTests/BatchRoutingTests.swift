import Base
import Engine
import Memory
import Storage
import TestSupport
import Testing
import Wire

/// Rows of a batch meet the cluster one by one.
@Suite struct BatchRoutingTests {
    @Test(arguments: [true, false]) func rowsWaitForTheView(staysHere: Bool) throws {
        let backend = FakeBackend(seed: 3)
        backend.latePercent = 0
        let harness = try Harness(backend, capabilities: .volatile)
        let digests = (0..<20).map { Digest(low: UInt64($0) &* 0x9E37_79B9_7F4A_7C15, middle: 7, high: 9) }
        for digest in digests { #expect(harness.ask(Request.put(digest, "n", 1)).result == .ok) }
        harness.cluster.duty = { partition, isWrite in
            partition == digests[0].partition ? .refused(.unavailable) : isWrite ? .pending : .done
        }
        harness.send(batch: batch { encoder in
            for (number, digest) in digests.enumerated() {
                if number < 10 { encoder.get(UInt32(number), digest) } else { encoder.count(UInt32(number), digest) }
            }
        })
        for _ in 0..<20 { harness.turn(advancing: 1) }
        #expect(!harness.endedStreams.contains(1), "rows that write wait")
        harness.cluster.duty = staysHere ? nil : { _, _ in .refused(.unavailable) }
        for shard in harness.shards { shard.routesChanged() }
        harness.finishBatches()
        let stream = BatchAnswer(harness.streams[1]!)
        let results = Dictionary(uniqueKeysWithValues: stream.rows.map { ($0.index, $0.result) })
        #expect(stream.last == .ok && results.count == 20)
        #expect(results[0] == .unavailable && (1..<10).allSatisfy { results[$0] == .ok })
        #expect((10..<20).allSatisfy { results[$0] == (staysHere ? .ok : .unavailable) })
        #expect(!harness.shards[0].wantsTicks)
    }
}
