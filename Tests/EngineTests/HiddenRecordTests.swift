import Base
import Engine
import Storage
import Testing
import Wire

/// Writing over a record that nobody sees any more.
@Suite struct HiddenRecordTests {
    private let digest = Digest(low: 5, middle: 6, high: 7)

    private func put(_ name: String, timeToLive: UInt32) -> [UInt8] {
        Request.write(
            digest, [.init(code: OperationCode.write, name: name, value: Request.integer(1))], timeToLive: timeToLive,
            set: "s")
    }

    /// Its image is not read: whether it is damaged makes no difference.
    @Test(arguments: [false, true]) func theOldImageIsNotRead(isTruncated: Bool) throws {
        let backend = FakeBackend(seed: 1)
        let engine = try Harness(backend, capabilities: .durableAtCommit)
        backend.latePercent = 0
        #expect(engine.ask(put("a", timeToLive: 5)).result == .ok)
        #expect(engine.ask(put("b", timeToLive: 5)).generation == 2)
        backend.latePercent = 100
        backend.corruptNext = true
        if isTruncated {
            engine.namespace.truncate(set: 1, to: engine.namespace.reserveTruncationTime(wall: engine.time.wall))
            engine.turn(advancing: 1)
        } else {
            engine.turn(advancing: 10_000)
        }
        engine.send(put("c", timeToLive: 1000))
        engine.settle()
        #expect(engine.answers[0]?.result == .ok && backend.corruptNext, "no read has ended with an error")
        backend.corruptNext = false
        engine.send(Request.get(digest))
        engine.settle()
        let answer = try #require(engine.answers[0])
        #expect(answer.generation == 1 && answer.bins.map(\.name) == ["c"])
    }
}
