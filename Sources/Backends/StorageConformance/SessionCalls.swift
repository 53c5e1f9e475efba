// The calls of a session: what the kit asks of the backend, and how it judges what a read gives.
internal import Base
internal import Storage

extension Session {
    // ---- Appends and deletions ----

    /// Appends a new image of `number`; nothing if the digest is busy. True if it was not refused at once.
    @discardableResult
    func append(_ number: Int, byteCount: Int, shard: Int, stream: Stream = .fresh) throws(Failure) -> Bool {
        guard !records[number, default: RecordModel()].isBusy else { return false }
        nextVersion += 1
        records[number, default: RecordModel()].appendBegan(nextVersion, byteCount: byteCount, shard: shard)
        let image = buffer(byteCount)
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

    /// The caller's buffer of an append: the same again and again, so that a backend that looks at it later
    /// finds something else.
    private func buffer(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        if scratch.count < byteCount {
            scratch.deallocate()
            scratch = .allocate(byteCount: byteCount, alignment: 16)
        }
        return UnsafeMutableRawBufferPointer(rebasing: scratch[..<byteCount])
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

    func release(_ number: Int, _ placed: Placed, _ shard: Int) {
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
        let current = record.current
        try read(number, at: location, version: current?.version ?? 0, byteCount: current?.byteCount ?? 64, shard: shard)
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

    func judge(_ start: ReadStart, _ bytes: UnsafeRawBufferPointer?) throws(Failure) {
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
}
