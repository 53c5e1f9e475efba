// One run of a backend under the kit's hand: the kit is the engine. It keeps the index, releases what it replaces, and
// drives the shards turn by turn on one thread. Invariants:
// 1. `records` is right about everything that has been answered; `pending` holds what has not, by tag, each tag once.
// 2. What a shard lent is compared with what it was before that shard's turn ends: it must be the same.
// 3. No live image is where another one is (`occupied`; addressed backends only).
internal import Base
internal import Glibc
internal import Storage
internal import Synchronization

/// Why a case failed, in words.
struct Failure: Error { let text: String }

/// An operation that has answered `pending`.
enum Pending {
    case append(Int, shard: Int)
    case deletion(Int)
    case commit(Int, CommitCover)
    case read(ReadStart)
}

/// What a read must be judged by.
struct ReadStart {
    let number: Int
    let version: UInt64
    let location: Location
    let firstEvent: Int
}

/// Bytes that a shard has lent to the kit.
struct Lent {
    let bytes: UnsafeRawBufferPointer
    let checksum: UInt32
    let number: Int
}

final class Session {
    static let shardCount = 2
    let subject: any ConformanceSubject
    let promises: Capabilities
    let limits: BackendLimits
    var backend: any Backend
    var shards: [any BackendShard] = []
    var records: [Int: RecordModel] = [:]
    var metadata = MetadataModel()
    var pending: [UInt64: Pending] = [:]
    var lent: [[Lent]] = Array(repeating: [], count: Session.shardCount)
    var occupied: [Location: Int] = [:]
    var nextTag: UInt64 = 0
    var scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
    var nextVersion: UInt64 = 0
    /// Errors that are no failure of the case.
    var tolerates: (StorageError) -> Bool = { $0 == .outOfSpace || $0 == .overloaded }
    /// Called inside `poll` whenever an operation of a shard has ended; nil: everything is gathered first.
    var whenEnded: ((_ shard: Int) throws(Failure) -> Void)?
    /// Replaced images are not released but kept here (addressed backends).
    var keepsReplaced = false
    var kept: [(number: Int, placed: Placed)] = []
    /// Errors that were tolerated.
    var refusals = 0
    var lastRefusal: StorageError?
    /// A crash has been prepared: what is committed from here on may come after it.
    var isCrashPrepared = false

    /// The shards' clock: time passes with turns only, so that a history can be repeated.
    final class Clock: Sendable { let milliseconds = Atomic<UInt64>(1_000_000) }
    private let clock = Clock()
    private static let turnMilliseconds: UInt64 = 2

    var isKeyed: Bool { promises.contains(.keyed) }

    /// Opens the backend on an empty medium, or takes one that is open.
    init(_ subject: any ConformanceSubject, _ open: (any Backend)? = nil) throws(Failure) {
        self.subject = subject
        promises = subject.capabilities
        limits = subject.limits
        if let open {
            backend = open
        } else {
            backend = try trying("open on an empty medium") { () throws(StorageError) in try subject.make() }
        }
        try makeShards()
    }

    deinit { scratch.deallocate() }

    func makeShards() throws(Failure) {
        for index in 0..<Session.shardCount {
            let clock = clock
            let request = ShardRequest(
                index: index, count: Session.shardCount, milliseconds: { clock.milliseconds.load(ordering: .relaxed) },
                wake: {})
            let backend = backend
            shards.append(try trying("makeShard") { () throws(StorageError) in try backend.makeShard(request) })
        }
        for shard in shards.indices { try poll(shard) }
    }

    // ---- Turns ----

    /// Ends the turn of one shard and begins its next, some milliseconds later.
    func turn(_ shard: Int, sleeping: Bool = false) throws(Failure) {
        clock.milliseconds.add(Session.turnMilliseconds, ordering: .relaxed)
        for one in lent[shard] where crc32c(one.bytes) != one.checksum {
            throw Failure(
                text: "bytes lent to shard \(shard) by a read of digest \(one.number) changed before its turn ended")
        }
        lent[shard].removeAll(keepingCapacity: true)
        shards[shard].turnEnded(sleeping: sleeping)
        subject.advance()
        try poll(shard)
    }

    func poll(_ shard: Int) throws(Failure) {
        guard whenEnded == nil else { return try pollGoingOn(shard) }
        var ended: [(Tag, Completion.Result)] = []
        shards[shard].poll { completion in ended.append((completion.tag, completion.result)) }
        for (tag, result) in ended { try finish(tag, result, shard) }
    }

    /// As an engine does it: what has ended goes on from inside `receive`.
    private func pollGoingOn(_ shard: Int) throws(Failure) {
        var failure: Failure?
        shards[shard].poll { completion in
            guard failure == nil else { return }
            do throws(Failure) {
                try finish(completion.tag, completion.result, shard)
                try whenEnded?(shard)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    /// Turns until nothing is under way.
    func settle() throws(Failure) {
        var turns = 0
        while !pending.isEmpty {
            for shard in shards.indices { try turn(shard) }
            turns += 1
            if turns > 2000 { rest() }
            guard turns < 32_000 else {
                let waiting = pending.values.map(words).sorted().joined(separator: ", ")
                throw Failure(text: "no answer for half a minute to: \(waiting)")
            }
        }
        for shard in shards.indices { try turn(shard) }
    }

    func words(_ operation: Pending) -> String {
        switch operation {
        case .append(let number, _): "append of digest \(number)"
        case .deletion(let number): "removal of digest \(number)"
        case .commit(let number, _): "commit of digest \(number)"
        case .read(let start): "read of digest \(start.number)"
        }
    }

    /// A moment for other threads.
    func rest() { usleep(1000) }

    func begin(_ operation: Pending) -> Tag {
        nextTag += 1
        pending[nextTag] = operation
        return Tag(rawValue: nextTag)
    }

    // ---- Answers ----

    func finish(_ tag: Tag, _ result: Completion.Result, _ shard: Int) throws(Failure) {
        guard let operation = pending.removeValue(forKey: tag.rawValue) else {
            throw Failure(text: "tag \(tag.rawValue) came back, which is not under way: twice, or never given")
        }
        if case .failed(let error) = result { return try refused(operation, error) }
        switch (operation, result) {
        case (.append(let number, _), .placed(let location)): try place(number, location, shard)
        case (.deletion(let number), .done): records[number]?.deleted()
        case (.commit(let number, let cover), .done):
            if !isCrashPrepared { records[number]?.committed(cover, promises: promises) }
        case (.read(let start), .absent): try judge(start, nil)
        case (.read(let start), .read(let bytes)):
            try judge(start, bytes)
            lent[shard].append(Lent(bytes: bytes, checksum: crc32c(bytes), number: start.number))
        default: throw Failure(text: "the \(words(operation)) was answered with the end of another kind of operation")
        }
    }

    func refused(_ operation: Pending, _ error: StorageError) throws(Failure) {
        switch operation {
        case .append(let number, _), .deletion(let number): records[number]?.failed()
        case .commit, .read: break
        }
        try refused("the \(words(operation))", error)
    }

    func refused(_ what: String, _ error: StorageError) throws(Failure) {
        guard tolerates(error) else { throw Failure(text: "\(what) failed: \(error)") }
        refusals += 1
        lastRefusal = error
    }

    func place(_ number: Int, _ location: Location, _ shard: Int) throws(Failure) {
        guard location.rawValue >> UInt64(limits.locationBits) == 0 else {
            throw Failure(text: "location \(location.rawValue) does not fit the \(limits.locationBits) bits declared")
        }
        let before = records[number]?.placed(location)
        guard !isKeyed else { return }
        try occupy(location, number)
        guard let before else { return }
        if keepsReplaced { kept.append((number, before)) } else { release(number, before, shard) }
    }

    /// Releases what `keepsReplaced` has kept.
    func releaseKept(shard: Int) {
        for one in kept { release(one.number, one.placed, shard) }
        kept = []
    }

    /// How many images `shard` has lent in this turn.
    func lentCount(_ shard: Int) -> Int { lent[shard].count }

    func occupy(_ location: Location, _ number: Int) throws(Failure) {
        if let other = occupied[location] {
            throw Failure(text: "digest \(number) was placed at location \(location.rawValue), where digest \(other) is")
        }
        occupied[location] = number
    }
}

/// Runs `body`; its error becomes a failure that says what was being done.
func trying<Value>(_ what: String, _ body: () throws(StorageError) -> Value) throws(Failure) -> Value {
    do throws(StorageError) { return try body() } catch { throw Failure(text: "\(what) failed: \(error)") }
}
