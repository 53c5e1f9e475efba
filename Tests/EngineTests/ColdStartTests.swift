import Base
import Engine
import Index
import Storage
import TestSupport
import Testing
import Wire

/// An index from what a medium holds.
@Suite struct ColdStartTests {
    private let later = RecordTime(milliseconds: 500_000_100_000)

    /// Every record written through one engine is served by another that only has the images.
    @Test func recordsComeBackWithSetKeyAndGeneration() throws {
        var random = SeededRandom(seed: runSeed("ColdStartTests"))
        let backend = FakeKeyedBackend(seed: 1)
        backend.latePercent = 0
        let before = try Harness(backend, capabilities: [.keyed])
        let digests = (0..<500).map { _ in Digest.random(&random) }
        for (number, digest) in digests.enumerated() {
            let operation = Request.Operation(code: OperationCode.write, name: "n", value: Request.integer(Int64(number)))
            for _ in 0...(number % 3) {
                _ = before.ask(Request.write(digest, [operation], set: "set\(number % 5)", key: [3, UInt8(number % 256)]))
            }
        }
        let after = try Harness(backend, capabilities: [.keyed])
        let start = try ColdStart(after.namespace, recordsMax: 1 << 16, now: later, log: { Issue.record("\($0)") })
        try backend.scan(segment: 0, of: 1) { start.visit($0, worker: 0) }
        #expect(start.visited == 500 && start.damaged == 0 && after.namespace.objectCount == 500)
        for (number, digest) in digests.enumerated() {
            let answer = after.ask(Request.get(digest))
            #expect(answer.integer("n") == Int64(number) && answer.generation == UInt32(number % 3 + 1))
        }
        let wrongKey = after.ask(Request.write(digests[7], [], info1: [.read, .getAllBins], info2: [], key: [3, 99]))
        #expect(wrongKey.result == .keyMismatch)
        var name = "set2"
        let id = name.withUTF8 { after.namespace.sets.id(of: UnsafeRawBufferPointer($0)) }
        #expect(id.map { after.namespace.counters[0].setObjects($0) } == 100)
    }

    /// The clock of a node never starts below what it has written.
    @Test func theRecordClockGoesOn() throws {
        let backend = FakeKeyedBackend(seed: 2)
        backend.latePercent = 0
        let digest = Digest(low: 1, middle: 1, high: 1)
        let before = try Harness(backend, capabilities: [.keyed])
        before.turn(advancing: 1_000_000)
        _ = before.ask(Request.put(digest, "n", 1))
        let written = try #require(before.namespace.index.find(digest).map { before.namespace.index.entry($0).lastUpdate })
        let after = try Harness(backend, capabilities: [.keyed])
        let start = try ColdStart(after.namespace, recordsMax: 1 << 16, now: later, log: { _ in })
        try backend.scan(segment: 0, of: 1) { start.visit($0, worker: 0) }
        let other = Digest(low: 2, middle: 2, high: 2)
        _ = after.ask(Request.put(other, "n", 1))
        let issued = try #require(after.namespace.index.find(other).map { after.namespace.index.entry($0).lastUpdate })
        #expect(issued >= written)
    }

    /// Expired records of a keyed backend are deleted there; damaged ones are left and not served.
    @Test func expiredAndDamaged() throws {
        let backend = FakeKeyedBackend(seed: 3)
        backend.latePercent = 0
        let before = try Harness(backend, capabilities: [.keyed])
        let digests = (1...3).map { Digest(low: $0, middle: 0, high: 0) }
        for (number, digest) in digests.enumerated() {
            let operation = Request.Operation(code: OperationCode.write, name: "n", value: Request.integer(1))
            _ = before.ask(Request.write(digest, [operation], timeToLive: number == 0 ? 50 : 5000))
        }
        backend.images[digests[1]]?[60] ^= 1
        let after = try Harness(backend, capabilities: [.keyed])
        let start = try ColdStart(after.namespace, recordsMax: 1 << 16, now: later, log: { _ in })
        try backend.scan(segment: 0, of: 1) { start.visit($0, worker: 0) }
        #expect(start.expired == 1 && start.damaged == 1 && after.namespace.objectCount == 1)
        #expect(Set(backend.images.keys) == [digests[1], digests[2]])
        #expect(after.ask(Request.get(digests[1])).result == .notFound)
    }

    /// In a log the image written last wins, in whatever order the scan meets them, and the loser's place is told.
    @Test func theNewestImageOfALogWins() throws {
        var random = SeededRandom(seed: runSeed("ColdStartTests.log"))
        let backend = FakeBackend(seed: 4)
        backend.latePercent = 0
        let digest = Digest(low: 8, middle: 8, high: 8)
        var images: [(location: UInt64, bytes: [UInt8])] = []
        let before = try Harness(backend, capabilities: [])
        for value in 1...5 {
            _ = before.ask(Request.put(digest, "n", Int64(value)))
            let newest = try #require(backend.images.max { $0.key < $1.key })
            images.append((newest.key, newest.value))
        }
        for _ in 0..<20 {
            let after = try Harness(FakeBackend(seed: 5), capabilities: [])
            let start = try ColdStart(after.namespace, recordsMax: 1 << 16, now: later, log: { _ in })
            var live: Set<UInt64> = []
            for (location, bytes) in images.shuffled(using: &random) {
                let decision = Block(bytes).view.withAnswer { bytes in
                    start.visit(
                        ScannedImage(
                            digest: digest, location: Location(rawValue: location), image: bytes, sequence: location),
                        worker: 0)
                }
                switch decision {
                case .live: live.insert(location)
                case .replaces(let old, let byteCount):
                    #expect(live.remove(old.rawValue) != nil && byteCount > 0)
                    live.insert(location)
                case .stale, .stop: break
                }
            }
            #expect(live == [images[4].location])
            let entry = try #require(after.namespace.index.find(digest).map { after.namespace.index.entry($0) })
            #expect(entry.location == images[4].location && entry.generation == 5)
            #expect(after.namespace.counters[0].setObjects(0) == 1)
        }
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func withAnswer<Answer>(_ body: (UnsafeRawBufferPointer) -> Answer) -> Answer { body(self) }
}
