// One run of a backend under the kit's hand: the kit is the engine. It keeps the index, releases what it replaces, and drives the shards
// turn by turn on one thread. Invariants:
// 1. `records` is right about everything that has been answered; `pending` holds what has not, by tag, each tag once.
// 2. What a shard lent is compared with what it was before that shard's turn ends: it must be the same.
// 3. No live image is where another one is (`occupied`; addressed backends only).
internal import Base
internal import Glibc
internal import Storage

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
private struct Lent {
    let bytes: UnsafeRawBufferPointer
    let checksum: UInt32
    let number: Int
}

final class Session {
    static let shardCount = 2
    let subject: any ConformanceSubject
    let promises: Capabilities
    let limits: BackendLimits
    private(set) var backend: any Backend
    private(set) var shards: [any BackendShard] = []
    var records: [Int: RecordModel] = [:]
    private(set) var metadata = MetadataModel()
    var pending: [UInt64: Pending] = [:]
    private var lent: [[Lent]] = Array(repeating: [], count: Session.shardCount)
    private var occupied: [Location: Int] = [:]
    private var nextTag: UInt64 = 0
    private var nextVersion: UInt64 = 0
    /// Errors that are no failure of the case.
    var tolerates: (StorageError) -> Bool = { $0 == .outOfSpace || $0 == .overloaded }
    /// Replaced images are not released but kept here (addressed backends).
    var keepsReplaced = false
    private(set) var kept: [(number: Int, placed: Placed)] = []
    /// A crash has been prepared: what is committed from here on may come after it.
    var isCrashPrepared = false

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

    private func makeShards() throws(Failure) {
        for index in 0..<Session.shardCount {
            let request = ShardRequest(index: index, count: Session.shardCount, wake: {})
            let backend = backend
            shards.append(try trying("makeShard") { () throws(StorageError) in try backend.makeShard(request) })
        }
        for shard in shards.indices { try poll(shard) }
    }

    // ---- Turns ----

    /// Ends the turn of one shard and begins its next.
    func turn(_ shard: Int, sleeping: Bool = false) throws(Failure) {
        for one in lent[shard] where crc32c(one.bytes) != one.checksum {
            throw Failure(text: "bytes lent to shard \(shard) by a read of digest \(one.number) changed before its turn ended")
        }
        lent[shard].removeAll(keepingCapacity: true)
        shards[shard].turnEnded(sleeping: sleeping)
        subject.advance()
        try poll(shard)
    }

    private func poll(_ shard: Int) throws(Failure) {
        var ended: [(Tag, Completion.Result)] = []
        shards[shard].poll { completion in ended.append((completion.tag, completion.result)) }
        for (tag, result) in ended { try finish(tag, result, shard) }
    }

    /// Turns until nothing is under way.
    func settle() throws(Failure) {
        var turns = 0
        while !pending.isEmpty {
            for shard in shards.indices { try turn(shard) }
            turns += 1
            if turns > 2000 { rest() }
            guard turns < 32_000 else {
                throw Failure(text: "no answer for half a minute to: \(pending.values.map(words).sorted().joined(separator: ", "))")
            }
        }
        for shard in shards.indices { try turn(shard) }
    }

    private func words(_ operation: Pending) -> String {
        switch operation {
        case .append(let number, _): "append of digest \(number)"
        case .deletion(let number): "removal of digest \(number)"
        case .commit(let number, _): "commit of digest \(number)"
        case .read(let start): "read of digest \(start.number)"
        }
    }

    /// A moment for other threads.
    func rest() { usleep(1000) }

    private func begin(_ operation: Pending) -> Tag {
        nextTag += 1
        pending[nextTag] = operation
        return Tag(rawValue: nextTag)
    }

    // ---- Appends and deletions ----

    /// Appends a new image of `number`; nothing if the digest is busy. True if it was not refused at once.
    @discardableResult
    func append(_ number: Int, byteCount: Int, shard: Int, stream: Stream = .fresh) throws(Failure) -> Bool {
        guard !records[number, default: RecordModel()].isBusy else { return false }
        nextVersion += 1
        records[number, default: RecordModel()].appendBegan(nextVersion, byteCount: byteCount, shard: shard)
        let image = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 16)
        defer { image.deallocate() }
        TestImage.write(number, version: nextVersion, to: image)
        let tag = begin(.append(number, shard: shard))
        let answer: AppendAnswer
        do throws(StorageError) {
            answer = try shards[shard].append(
                TestImage.digest(number), UnsafeRawBufferPointer(image), stream: stream, tag: tag)
        } catch {
            try finish(tag, .failed(error), shard)
            return false
        }
        // The bytes are the backend's own by now: it must not look at the caller's again.
        for place in image.indices { image[place] = 0xEE }
        if case .placed(let location) = answer { try finish(tag, .placed(location), shard) }
        return true
    }

    /// Deletes `number`, as the backend is told of it; nothing if the digest is busy or has no image.
    func delete(_ number: Int, shard: Int) throws(Failure) {
        guard let record = records[number], !record.isBusy, let current = record.current else { return }
        records[number]?.deletionBegan(shard: shard)
        if isKeyed {
            try remove(number, at: current.location, shard: shard)
        } else {
            records[number]?.deleted()
            release(number, current, shard)
        }
    }

    /// Removes a digest of which there is nothing.
    func deleteNothing(_ number: Int, shard: Int) throws(Failure) {
        guard isKeyed, let record = records[number], !record.isBusy, let location = record.locationBefore else { return }
        records[number]?.deletionBegan(shard: shard)
        try remove(number, at: location, shard: shard)
    }

    private func remove(_ number: Int, at location: Location, shard: Int) throws(Failure) {
        let tag = begin(.deletion(number))
        do throws(StorageError) {
            let answer = try shards[shard].remove(TestImage.digest(number), at: location, tag: tag)
            if case .pending = answer { return }
        } catch {
            return try finish(tag, .failed(error), shard)
        }
        try finish(tag, .done, shard)
    }

    private func release(_ number: Int, _ placed: Placed, _ shard: Int) {
        occupied[placed.location] = nil
        shards[shard].release(
            TestImage.digest(number), at: placed.location, byteCount: Envelope.storedByteCount(placed.byteCount))
    }

    /// Commits what `shard` did to `number`; nothing if the digest is busy.
    func commit(_ number: Int, shard: Int) throws(Failure) {
        guard let record = records[number], !record.isBusy else { return }
        let tag = begin(.commit(number, record.cover(shard: shard)))
        do throws(StorageError) {
            let answer = try shards[shard].commit(TestImage.digest(number), tag: tag)
            if case .pending = answer { return }
        } catch {
            return try finish(tag, .failed(error), shard)
        }
        try finish(tag, .done, shard)
    }

    // ---- Reads ----

    /// Reads `number` where the index says it is; of a keyed backend also if it is gone, or at the location before.
    func read(_ number: Int, shard: Int) throws(Failure) {
        guard let record = records[number], let location = record.current?.location ?? record.locationBefore else { return }
        guard isKeyed || record.current != nil else { return }
        try read(number, at: location, version: record.current?.version ?? 0, byteCount: record.current?.byteCount ?? 64, shard: shard)
    }

    /// Reads `number` at a location it has, or of a keyed backend has had.
    func read(_ number: Int, at location: Location, version: UInt64, byteCount: Int, shard: Int) throws(Failure) {
        let start = ReadStart(
            number: number, version: version, location: location, firstEvent: records[number]?.lastDone ?? -1)
        let tag = begin(.read(start))
        let answer: ReadAnswer
        do throws(StorageError) {
            answer = try shards[shard].read(
                TestImage.digest(number), at: location, byteCount: Envelope.storedByteCount(byteCount), tag: tag)
        } catch {
            return try finish(tag, .failed(error), shard)
        }
        switch answer {
        case .pending: break
        case .absent: try finish(tag, .absent, shard)
        case .here(let bytes): try finish(tag, .read(bytes), shard)
        }
    }

    private func judge(_ start: ReadStart, _ bytes: UnsafeRawBufferPointer?) throws(Failure) {
        guard let record = records[start.number] else { return }
        let found = bytes.map { TestImage.version(in: $0) ?? 0 } ?? 0
        let allowed: Set<UInt64>
        if isKeyed {
            allowed = record.readable(since: start.firstEvent)
        } else {
            let isThere = record.current?.location == start.location && record.current?.version == start.version
                || kept.contains { $0.number == start.number && $0.placed.location == start.location }
            allowed = isThere ? [start.version] : [start.version, 0]
        }
        guard let bytes else {
            if allowed.contains(0) { return }
            throw Failure(text: "a read of digest \(start.number) found nothing; version \(start.version) is there")
        }
        guard found != 0, allowed.contains(found), let facts = record.versions[found],
            TestImage.isRight(bytes, start.number, version: found, byteCount: facts.byteCount)
        else {
            let wanted = allowed.sorted().map { $0 == 0 ? "nothing" : "version \($0)" }.joined(separator: " or ")
            let what = found != 0 && record.versions[found] != nil
                ? "version \(found) or part of it" : "bytes never appended for it"
            throw Failure(text: "a read of digest \(start.number) gave \(bytes.count) bytes: \(what); wanted is \(wanted)")
        }
    }

    // ---- Answers ----

    private func finish(_ tag: Tag, _ result: Completion.Result, _ shard: Int) throws(Failure) {
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

    private func refused(_ operation: Pending, _ error: StorageError) throws(Failure) {
        switch operation {
        case .append(let number, _), .deletion(let number): records[number]?.failed()
        case .commit, .read: break
        }
        try refused("the \(words(operation))", error)
    }

    private func refused(_ what: String, _ error: StorageError) throws(Failure) {
        guard tolerates(error) else { throw Failure(text: "\(what) failed: \(error)") }
        refusals += 1
        lastRefusal = error
    }

    private(set) var refusals = 0
    private(set) var lastRefusal: StorageError?

    private func place(_ number: Int, _ location: Location, _ shard: Int) throws(Failure) {
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

    private func occupy(_ location: Location, _ number: Int) throws(Failure) {
        if let other = occupied[location] {
            throw Failure(text: "digest \(number) was placed at location \(location.rawValue), where digest \(other) is")
        }
        occupied[location] = number
    }

    // ---- Compaction ----

    /// Runs one slice of compaction on `shard`; the bytes looked at, 0 if the backend does not compact.
    @discardableResult
    func compact(shard: Int, byteBudget: Int) throws(Failure) -> Int {
        guard let compaction = backend.compaction else { return 0 }
        let arbiter = IndexArbiter(self)
        var seen = 0
        do throws(StorageError) {
            seen = try compaction.compact(on: shards[shard], byteBudget: byteBudget, arbiter: arbiter)
        } catch {
            try refused("compaction", error)
        }
        if let failure = arbiter.failure { throw failure }
        return seen
    }

    /// The entry of `number` points elsewhere now.
    func relocate(_ number: Int, _ to: Location) throws(Failure) {
        if let from = records[number]?.current?.location { occupied[from] = nil }
        try occupy(to, number)
        records[number]?.relocated(to: to)
    }

    // ---- Metadata ----

    func storeBlob(_ bytes: [UInt8]) throws(Failure) {
        metadata.blob.began(bytes)
        do throws(StorageError) {
            try backend.storeNamespaceBlob(bytes)
            metadata.blob.ended(isDurable: storesLast)
        } catch {
            try refused("storing a blob of \(bytes.count) bytes", error)
        }
    }

    func storePartitions(_ values: [[UInt8]]) throws(Failure) {
        metadata.partitions.began(values)
        do throws(StorageError) {
            try backend.storePartitionMetadata(values)
            metadata.partitions.ended(isDurable: storesLast)
        } catch {
            try refused("storing the partitions' metadata", error)
        }
    }

    /// Whether what has been stored outlasts a crash.
    private var storesLast: Bool { promises.contains(.durableAtCommit) && !isCrashPrepared }

    /// Loads the metadata and compares it with what was stored.
    func checkMetadata(after ending: Ending? = nil) throws(Failure) {
        let backend = backend
        let blob: [UInt8]
        let partitions: [[UInt8]]
        do throws(StorageError) {
            blob = try backend.loadNamespaceBlob()
            partitions = try backend.loadPartitionMetadata()
        } catch {
            guard tolerates(error), ending == nil else { throw Failure(text: "loading metadata failed: \(error)") }
            return
        }
        if let problem = metadata.problem(blob, partitions, after: ending) { throw Failure(text: problem) }
        guard ending != nil else { return }
        metadata.blob.found(blob)
        metadata.partitions.found(partitions)
    }

    // ---- The end, and again ----

    /// Lets the shards go and closes the backend. An error of `close` is thrown on as it is.
    func close() throws(Failure) -> StorageError? {
        try settle()
        letShardsGo()
        do throws(StorageError) { try backend.close() } catch { return error }
        return nil
    }

    private func letShardsGo() {
        // Releases are under way on storage threads without a tag of the kit's.
        var turns = 0
        while backend.statistics.details.contains(where: { $0.name == "storage-queue" && $0.value != "0" }), turns < 10_000 {
            for shard in shards { shard.turnEnded(sleeping: false); shard.poll { _ in } }
            turns += 1
            usleep(100)
        }
        lent = Array(repeating: [], count: Session.shardCount)
        shards = []
    }

    /// Lets everything go after a case, whatever state it is in.
    func abandon() {
        if !shards.isEmpty {
            letShardsGo()
            do throws(StorageError) { try backend.close() } catch { lastRefusal = error }
        }
        subject.end()
    }

    /// Opens the medium again and holds what a cold start meets against the model; the images of `unwanted` digests are told stale.
    func reopen(after ending: Ending, segments: Int, unwanted: Set<Int> = []) throws(Failure) {
        let subject = subject
        let again = try trying("open again") { () throws(StorageError) in try subject.reopen(after: ending) }
        shards = []
        lent = Array(repeating: [], count: Session.shardCount)
        backend = again
        pending = [:]
        kept = []
        isCrashPrepared = false
        try checkMetadata(after: ending)
        let visits = try ColdStart(self, unwanted: unwanted).run(segments: segments)
        occupied = [:]
        for number in Set(records.keys).union(visits.keys) {
            try restart(number, after: ending, visits[number] ?? [])
        }
        try makeShards()
        for number in unwanted { records[number]?.dropped() }
        for number in records.keys.sorted() { try read(number, shard: number % Session.shardCount) }
        try settle()
    }

    private func restart(_ number: Int, after ending: Ending, _ visits: [Visit]) throws(Failure) {
        let problem = records[number, default: RecordModel()].problem(after: ending, visits, promises: promises)
        if let problem { throw Failure(text: "digest \(number): \(problem)") }
        records[number, default: RecordModel()].restarted(after: ending, visits, promises: promises)
        if !isKeyed, let current = records[number]?.current { try occupy(current.location, number) }
    }
}

/// Runs `body`; its error becomes a failure that says what was being done.
func trying<Value>(_ what: String, _ body: () throws(StorageError) -> Value) throws(Failure) -> Value {
    do throws(StorageError) { return try body() } catch { throw Failure(text: "\(what) failed: \(error)") }
}
