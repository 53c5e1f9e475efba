// One shard of the reference log: it only passes on, keeps what is lent, and hands over what has ended.
internal import Base
internal import Storage

final class LogShard: BackendShard {
    private let core: LogCore
    private let number: Int
    private let wake: @Sendable () -> Void
    /// Memory that was lent in this turn.
    private var lent: [LogBuffer] = []

    init(_ core: LogCore, _ request: ShardRequest) {
        self.core = core
        wake = request.wake
        number = core.addShard(request.wake)
    }

    deinit {
        core.locked {
            core.endVictim(number)
            core.shards[number].turn = .max
        }
    }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        try core.locked { () throws(StorageError) -> AppendAnswer in
            let location = try core.append(digest, image, stream == .fresh ? core.reserve : 0)
            guard UInt8.random(in: 0..<4, using: &core.random) == 0 else { return .placed(location) }
            core.shards[number].ended.append((tag, .placed(location)))
            return .pending
        }
    }

    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        let answer = try core.locked { () throws(StorageError) -> LogReadAnswer in
            try core.read(number, digest, location, byteCount, tag)
        }
        switch answer {
        case .here(let buffer, let range):
            lent.append(buffer)
            return .here(buffer.view(range))
        case .pending: return .pending
        }
    }

    func release(_ digest: Digest, at location: Location, byteCount: Int) { core.locked { core.release(location) } }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        try core.locked { () throws(StorageError) -> DoneAnswer in try core.commit(number, tag) }
    }

    func poll(_ receive: (borrowing Completion) -> Void) {
        let (ended, others) = core.locked {
            core.shards[number].turn = core.turn
            core.harvest()
            let ended = core.shards[number].ended
            core.shards[number].ended = []
            return (ended, core.shards.filter { !$0.ended.isEmpty }.map(\.wake))
        }
        for wake in others { wake() }
        for (tag, result) in ended { receive(Completion(tag: tag, result: lend(result))) }
    }

    private func lend(_ result: LogResult) -> Completion.Result {
        switch result {
        case .placed(let location): return .placed(location)
        case .done: return .done
        case .failed(let error): return .failed(error)
        case .read(let buffer, let range):
            lent.append(buffer)
            return .read(buffer.view(range))
        }
    }

    func turnEnded(sleeping: Bool) {
        lent = []
        let isWanted = core.locked {
            core.shards[number].turn = .max
            core.pump()
            return sleeping && !core.shards[number].ended.isEmpty
        }
        if isWanted { wake() }
    }

    var pressure: Pressure { core.locked { core.pressure } }

    /// See `Compacting.compact`. The arbiter is asked without the lock: it has locks of its own.
    func compact(_ byteBudget: Int, _ arbiter: any LivenessArbiter) throws(StorageError) -> Int {
        let core = core, number = number
        let victim = try core.locked { () throws(StorageError) -> LogVictim? in try core.victim(of: number) }
        guard victim != nil else { return 0 }
        var seen = 0
        while seen < byteBudget, let (entry, digest) = core.locked({ core.nextOfVictim(number) }) {
            seen += LogFormat.entryHeaderSize + Envelope.storedByteCount(entry.byteCount)
            let from = core.location(entry.offset)
            guard arbiter.isLive(digest, at: from) else { continue }
            let copy = try core.locked { () throws(StorageError) -> Location? in try core.copy(entry, number) }
            guard let copy else { continue }
            let isFollowed = arbiter.relocate(digest, from: from, to: copy)
            core.locked { core.copied(entry, to: copy, isFollowed) }
        }
        return max(seen, 1)
    }
}
