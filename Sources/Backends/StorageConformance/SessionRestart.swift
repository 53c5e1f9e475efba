// The end of a session's backend, clean or not, and its next start.
internal import Glibc
internal import Storage

extension Session {
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

    /// Opens the medium again and holds what a cold start meets against the model; the images of `unwanted` digests are
    /// called stale.
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
