// The room of the reference log on a device of eight blocks: neither restarts nor appends may take what moves and the notes
// about releases need, or the log is stuck and `close` cannot keep the promise that a release lasts.
import Base
import Device
import ReferenceLog
import Storage
import TestSupport
import Testing

/// The log in one hand, which keeps the index: one shard, one digest for each number, one image for each digest.
private final class LogHand {
    private static let byteCount = 320 << 10
    private(set) var device: SimulatedDevice
    private var backend: ReferenceLogBackend
    private var shard: any BackendShard
    private(set) var index: [Digest: (location: Location, byteCount: Int)] = [:]

    init(seed: UInt64) throws {
        device = SimulatedDevice(byteCount: LogHand.byteCount, seed: seed)
        backend = try ReferenceLogBackend(device: device)
        shard = try LogHand.makeShard(backend)
    }

    private static func makeShard(_ backend: ReferenceLogBackend) throws -> any BackendShard {
        let shard = try backend.makeShard(ShardRequest(index: 0, count: 1, wake: {}))
        shard.poll { _ in }
        return shard
    }

    static func digest(_ number: Int) -> Digest { Digest(low: UInt64(number), middle: 0, high: 0) }

    /// False: there is no room. A digest is appended once.
    func append(_ number: Int, byteCount: Int) throws -> Bool {
        let digest = LogHand.digest(number)
        var image = [UInt8](repeating: 0, count: byteCount)
        image.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
        let answer: AppendAnswer
        do {
            answer = try image.withUnsafeBytes { bytes in
                try shard.append(digest, bytes, stream: .fresh, tag: Tag(rawValue: 1))
            }
        } catch StorageError.outOfSpace { return false }
        if case .placed(let location) = answer { index[digest] = (location, byteCount) }
        var isLate = index[digest] == nil
        while isLate {
            turn { completion in
                guard case .placed(let location) = completion.result else { return }
                index[digest] = (location, byteCount)
                isLate = false
            }
        }
        return true
    }

    /// Appends images of one size until there is no room; how many.
    @discardableResult
    func fill(from number: Int, byteCount: Int) throws -> Int {
        var next = number
        while try append(next, byteCount: byteCount) {
            next += 1
            // Now and then, lest more waits to be written than the log takes.
            if next % 64 == 0 { try commit() }
        }
        return next - number
    }

    func release(_ digest: Digest) {
        guard let image = index.removeValue(forKey: digest) else { return }
        shard.release(digest, at: image.location, byteCount: Envelope.storedByteCount(image.byteCount))
    }

    func commit() throws {
        guard case .pending = try shard.commit(LogHand.digest(0), tag: Tag(rawValue: 2)) else { return }
        var isDone = false
        while !isDone { turn { if $0.tag.rawValue == 2 { isDone = true } } }
    }

    func turn(_ receive: (borrowing Completion) -> Void = { _ in }) {
        shard.turnEnded(sleeping: false)
        shard.poll(receive)
    }

    /// Empties one block.
    func compact() throws {
        let arbiter = HandArbiter(index.mapValues(\.location))
        while backend.wantedBytes == 0 { turn() }
        while try backend.compact(on: shard, byteBudget: 64 << 10, arbiter: arbiter) == 0 { turn() }
        for (digest, location) in arbiter.locations { index[digest]?.location = location }
    }

    /// Closes or crashes, opens again, and finds what the index has: no more, no less.
    func restart(crash seed: UInt64? = nil) throws {
        if let seed {
            device = device.crashed(seed: seed)
        } else {
            shard.turnEnded(sleeping: true)
            try backend.close()
        }
        backend = try ReferenceLogBackend(device: device)
        var found: [Digest: Location] = [:]
        try backend.scan(segment: 0, of: 1) { image in
            found[image.digest] = image.location
            return .live
        }
        #expect(Set(found.keys) == Set(index.keys))
        for (digest, location) in found { index[digest]?.location = location }
        shard = try LogHand.makeShard(backend)
    }
}

private final class HandArbiter: LivenessArbiter {
    private(set) var locations: [Digest: Location]

    init(_ locations: [Digest: Location]) { self.locations = locations }

    func prefetch(_ digest: Digest, stage: Int) {}

    func isLive(_ digest: Digest, at location: Location) -> Bool { locations[digest] == location }

    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard isLive(digest, at: from) else { return false }
        locations[digest] = to
        return true
    }
}

/// Little is written between one restart and the next: the log goes on where it was, and no restart costs a block.
@Test(arguments: [false, true]) func restartsCostTheLogNoRoom(_ isCrash: Bool) throws {
    let seed = runSeed("restartsCostTheLogNoRoom")
    let log = try LogHand(seed: seed)
    for number in 0..<40 {
        try #require(try log.append(number, byteCount: 500))
        if number % 2 == 1 { log.release(LogHand.digest(number - 1)) }
        try log.commit()
        try log.restart(crash: isCrash ? seed &+ UInt64(number) : nil)
    }
    #expect(log.index.count == 20)
}

/// What a note has opened is not for appends: the next note, and the one after it, would have no room.
@Test func appendsLeaveTheLogRoomForNotes() throws {
    let log = try LogHand(seed: runSeed("appendsLeaveTheLogRoomForNotes"))
    var next = try log.fill(from: 0, byteCount: 4000)
    for round in 0..<12 {
        next += try log.fill(from: next, byteCount: 48)
        // One in each block: none is emptied.
        log.release(LogHand.digest(round % 6 * 7 + round / 6))
    }
    try log.restart()
    #expect(log.index.count == next - 12)
}

/// More is released at once than there is room for notes. The blocks that it empties are wiped while the log closes: the
/// notes about what was in them are not needed then.
@Test func logClosesWithMoreNotesThanRoom() throws {
    let log = try LogHand(seed: runSeed("logClosesWithMoreNotesThanRoom"))
    try log.fill(from: 0, byteCount: 48)
    #expect(log.index.count > 2000)
    for digest in log.index.keys.sorted(by: { $0.low < $1.low }) { log.release(digest) }
    try log.restart()
    #expect(log.index.isEmpty)
}

/// A block has been emptied, but a crash comes before it is wiped: the moves need not be made again.
@Test func crashesLeaveTheLogRoomForMoves() throws {
    var random = SeededRandom(seed: runSeed("crashesLeaveTheLogRoomForMoves"))
    for _ in 0..<20 {
        let log = try LogHand(seed: random.next())
        let count = try log.fill(from: 0, byteCount: 3000)
        for number in stride(from: 0, to: count, by: 7) { log.release(LogHand.digest(number)) }
        try log.commit()
        for _ in 0..<6 {
            try log.compact()
            try log.commit()
            try log.restart(crash: random.next())
        }
    }
}
