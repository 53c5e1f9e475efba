// What happens when devices fail, stall or are slow: found by a review, each with a test that failed before.
import Base
import Device
@testable import DeviceLog
import Storage
import TestSupport
import Testing

/// A log run by hand, with the insides at hand.
private final class Hand {
    let machine: SimulatedOpener
    private let log: TestLog
    let clock = TestClock()
    let backend: DeviceLogBackend
    var shards: [LogShard] = []

    init(
        _ machine: SimulatedOpener, _ paths: [String], _ settings: [(name: String, value: String)] = [],
        shards count: Int = 1
    ) throws {
        self.machine = machine
        log = TestLog(machine)
        backend = try #require(try log.open(paths, settings) as? DeviceLogBackend)
        let clock = clock
        for index in 0..<count {
            let request = ShardRequest(index: index, count: count, milliseconds: { clock.now }) {}
            shards.append(try #require(try backend.makeShard(request) as? LogShard))
        }
    }

    func append(_ number: Int, _ version: Int, shard: Int = 0) throws(StorageError) -> Location {
        let image = NumberedImage.bytes(number, version: version)
        var result: Result<AppendAnswer, StorageError> = .failure(.closed)
        image.withUnsafeBytes { bytes in
            do throws(StorageError) {
                result = .success(
                    try shards[shard].append(
                        NumberedImage.digest(number), bytes, stream: .fresh, tag: Storage.Tag(rawValue: 0)))
            } catch { result = .failure(error) }
        }
        guard case .placed(let place) = try result.get() else { preconditionFailure("a log places at once") }
        return place
    }

    func home(_ number: Int) -> Int { backend.core.home(NumberedImage.digest(number))!.slot }

    /// Turns of the first shard, `milliseconds` each; how many operations ended.
    func turns(_ count: Int, milliseconds: UInt64) -> Int {
        var ended = 0
        for _ in 0..<count {
            clock.advance(milliseconds)
            shards[0].poll { _ in ended += 1 }
            shards[0].turnEnded(sleeping: false)
        }
        return ended
    }
}

private func machine(_ count: Int, blocks: Int, _ name: String) -> SimulatedOpener {
    SimulatedOpener(count: count, byteCount: (8 << 10) + blocks * (4 << 10), seed: runSeed(name))
}

@Suite struct Trouble {
    /// What waits for a device that was given up no longer counts against `max-write-cache`.
    @Test func aStalledDeviceDoesNotHoldUpTheOthers() throws {
        let machine = machine(2, blocks: 256, "aStalledDeviceDoesNotHoldUpTheOthers")
        let hand = try Hand(machine, ["d0", "d1"], [("post-write-cache", "0")])
        machine.all[0].stall()
        var number = 0
        var refused = 0
        while refused < 2000 {
            do { _ = try hand.append(number, 0); number += 1 } catch { refused += 1 }
            hand.shards[0].turn()
        }
        hand.clock.advance(31_000)
        for _ in 0..<10 { hand.shards[0].turn(); hand.clock.advance(1000) }
        for _ in 0..<10_000 { hand.shards[0].turn(); hand.clock.advance(10) }
        #expect(throws: Never.self) { _ = try hand.append(number, 0) }
    }

    /// A record whose device was given up is newer where it went then, also when the device is back.
    @Test func whatGoesElsewhereAfterAFailureIsNewer() throws {
        let machine = machine(2, blocks: 64, "whatGoesElsewhereAfterAFailureIsNewer")
        let hand = try Hand(machine, ["d0", "d1"])
        let on0 = (0..<100).first { hand.home($0) == 0 }!
        let on1 = (0..<100).first { hand.home($0) == 1 }!
        _ = try hand.append(on1, 0)
        try hand.shards[0].commitAndWait(on1)
        _ = try hand.append(on0, 0)
        try hand.shards[0].commitAndWait(on0)
        hand.backend.core.fence(hand.backend.core.present[0], "16 reads in a row failed")
        _ = try hand.append(on0, 1)
        try hand.shards[0].commitAndWait(on0)
        let again = try TestLog(machine.crashed(seed: 5)).open(["d0", "d1"])
        let shown = try again.coldStart().filter { $0.number == on0 }
        #expect(shown.max { $0.order < $1.order }!.version == 1)
    }

    /// A flush that fails ends the device, and whoever waits is told.
    @Test func aFailedFlushIsNotRepeated() throws {
        let machine = machine(1, blocks: 64, "aFailedFlushIsNotRepeated")
        let hand = try Hand(machine, ["d0"], [("disable-odsync", "true")])
        machine.all[0].inject(.flushError, probability: 1)
        _ = try hand.append(1, 0)
        let answer = try hand.shards[0].commit(NumberedImage.digest(1), tag: Storage.Tag(rawValue: 9))
        guard case .pending = answer else { return }
        var ended = 0
        for _ in 0..<100_000 {
            hand.clock.advance(10)
            hand.shards[0].poll { _ in ended += 1 }
            hand.shards[0].turnEnded(sleeping: false)
        }
        #expect(ended == 1)
    }

    /// A slow write holds groups of a buffer that was used again in the list: the copier of the last bytes finds the
    /// new group.
    @Test func aBufferThatIsUsedAgainKeepsItsGroupsApart() throws {
        let machine = machine(1, blocks: 200, "aBufferThatIsUsedAgainKeepsItsGroupsApart")
        let hand = try Hand(machine, ["d0"], [("post-write-cache", "0")], shards: 2)
        let device = hand.backend.core.present[0]
        let stream = device.streams[0]
        for shard in hand.shards { shard.turn() }
        _ = try hand.append(0, 0, shard: 0)
        _ = try hand.shards[0].commit(NumberedImage.digest(0), tag: Storage.Tag(rawValue: 1))
        hand.shards[0].turnEnded(sleeping: true)   // its write takes long
        var number = 1
        while true {
            hand.clock.advance(1)
            do { _ = try hand.append(number, 0, shard: 1); number += 1 } catch {}
            hand.shards[1].turn()
            let now = stream.now
            guard now.isOpen, !stream.isEmpty(now) else { continue }
            let offset = now.group * 512
            let isTwin = device.locked {
                stream.pending.contains { $0.write.buffer == now.buffer && $0.write.offset == offset }
            }
            if isTwin { break }
            if number > 10_000 { return }
        }
        // An appender has reserved; somebody seals; the appender ends its copy.
        let image = NumberedImage.bytes(number)
        let units = LogFormat.units(image.count)
        guard let place = stream.reserve(units) else { return }
        let block = hand.backend.core.buffers[place.buffer].block
        device.addLive(block, units)
        let sealed = device.locked { device.seal(stream) }
        #expect(sealed == nil)
        let wanted = stream.sealedCount - 1
        let found = device.locked { device.sealedGroup(stream, buffer: place.buffer, group: place.group) }
        #expect(found!.number == wanted)
    }

    /// Another thread may be told that an image was replaced before its visit has returned.
    @Test func replacedBeforeItsVisitHasReturned() throws {
        let machine = machine(1, blocks: 64, "replacedBeforeItsVisitHasReturned")
        do {
            let hand = try Hand(machine, ["d0"])
            _ = try hand.append(1, 0)
            for number in 10..<100 {
                _ = try hand.append(number, 0); try hand.shards[0].commitAndWait(number)
                if number > 40 { _ = try hand.append(1, number) ; try hand.shards[0].commitAndWait(1) }
            }
        }
        let again = try TestLog(machine.crashed(seed: 9)).open(["d0"])
        var place: Location?
        var isReplaced = false
        try again.scan(segment: 0, of: 2) { image in
            let number = Int(image.digest.low), version = Int(image.image[Envelope.byteCount])
            guard number == 1, version == 0 else { return .live }
            place = image.location   // the index points at it now; meanwhile another thread scans segment 1
            try! again.scan(segment: 1, of: 2) { other in
                guard Int(other.digest.low) == 1, !isReplaced else { return .live }
                isReplaced = true
                return .replaces(place!, byteCount: NumberedImage.bytes(1, version: 0).count)
            }
            return .live
        }
    }

    /// Asked for again and again, beside writes that go well.
    @Test func oneBadRecordIsNoBadDevice() throws {
        let machine = machine(1, blocks: 64, "oneBadRecordIsNoBadDevice")
        let hand = try Hand(machine, ["d0"], [("post-write-cache", "0")])
        var places: [Location] = []
        for number in 0..<60 { places.append(try hand.append(number, 0)); try hand.shards[0].commitAndWait(number) }
        let device = hand.backend.core.present[0]
        // One record whose sector cannot be read, asked for again and again while everything else goes well: writes too.
        for round in 0..<20 {
            machine.all[0].inject(.readError, operationsFromNow: 1)
            let answer = try hand.shards[0].read(
                NumberedImage.digest(0), at: places[0], byteCount: NumberedImage.bytes(0).count,
                tag: Storage.Tag(rawValue: 5))
            guard case .pending = answer else { return }
            for _ in 0..<20 { hand.shards[0].turn() }
            if device.isFenced { break }
            _ = try hand.append(100 + round, 0)
            try hand.shards[0].commitAndWait(100 + round)
        }
        #expect(!device.isFenced)
    }

    /// A device held successors of another one and was given up before they lasted.
    @Test func blocksDoNotWaitForADeviceThatWasGivenUp() throws {
        // Device d1 held successors of d0's images (here: d1 was home while... the set has grown) and is fenced
        // before they last.
        let machine = machine(2, blocks: 24, "blocksDoNotWaitForADeviceThatWasGivenUp")
        let hand = try Hand(machine, ["d0", "d1"], [("post-write-cache", "0")])
        let on0 = (0..<2000).filter { hand.home($0) == 0 }
        let on1 = (0..<2000).filter { hand.home($0) == 1 }
        let d0 = hand.backend.core.present[0], d1 = hand.backend.core.present[1]
        _ = try hand.append(on1[0], 0)          // not written yet
        d0.noteForeign(d1)                       // what `release` does for an image of d0 whose home is d1
        hand.backend.core.fence(d1, "test")
        var last: Location?
        var failed = 0
        for version in 0..<4000 {
            hand.clock.advance(5)
            do {
                let now = try hand.append(on0[0], version % 200)
                let byteCount = NumberedImage.bytes(on0[0]).count
                if let last { hand.shards[0].release(NumberedImage.digest(on0[0]), at: last, byteCount: byteCount) }
                last = now
                failed = 0
            } catch { failed += 1 }
            hand.shards[0].turn()
        }
        #expect(failed < 100)
    }

    /// A commit that comes when its device has just been given up is refused, not left waiting.
    @Test func aCommitThatMeetsAFailure() throws {
        let hand = try Hand(machine(2, blocks: 64, "aCommitThatMeetsAFailure"), ["d0", "d1"])
        _ = try hand.append(0, 0)
        hand.backend.core.fence(hand.backend.core.present[hand.home(0)], "another shard")
        var failure: StorageError?
        do throws(StorageError) {
            _ = try hand.shards[0].commit(NumberedImage.digest(0), tag: Storage.Tag(rawValue: 77))
        } catch { failure = error }
        guard case .device = failure else {
            let outcome = failure.map { $0.text } ?? "nothing"
            Issue.record("the commit of an image on a device that was given up came to \(outcome)")
            return
        }
        #expect(hand.turns(100, milliseconds: 10) == 0)
    }
}
