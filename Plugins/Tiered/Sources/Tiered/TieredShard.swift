// The data plane: every call goes on to the shard below, reads only if memory does not have the answer. Tags and answers
// pass through.
//
// Invariants:
// 1. `underWay` names the appends, removes and reads that the shard below has answered `pending`, until `poll` ends them.
// 2. The cache has learned of the end of an operation when the engine does.
// 3. `lent` keeps the images alive whose bytes were given out in this turn.
internal import Base
internal import Storage

/// One reactor's side; used on that reactor only. Never blocks.
final class TieredShard: BackendShard {
    let cold: any BackendShard
    private let cache: HotCache
    private var underWay: [Tag: Operation] = [:]
    private var lent: [HotImage] = []

    /// What the cache learns from when it ends.
    private enum Operation {
        /// With a copy of the image, unless it is too large for the cache.
        case append(Digest, HotImage?)
        case remove(Digest)
        case read(Digest, Location, changes: UInt32)
    }

    init(_ cold: any BackendShard, _ cache: HotCache) {
        self.cold = cold
        self.cache = cache
    }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        let answer = try cold.append(digest, image, stream: stream, tag: tag)
        let copy = image.count <= cache.imageSizeMax ? HotImage(copying: image) : nil
        switch answer {
        case .placed(let location): placed(digest, location, copy)
        case .pending: begin(tag, .append(digest, copy))
        }
        return answer
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        switch cache.find(digest, at: location) {
        case .image(let image):
            lent.append(image)
            return .here(image.bytes)
        case .nothing(let changes):
            let answer = try cold.read(digest, at: location, byteCount: byteCount, tag: tag)
            // What the backend below answers at once it has in memory itself: that is not kept twice.
            if case .pending = answer { begin(tag, .read(digest, location, changes: changes)) }
            return answer
        }
    }

    func prefetch(at location: Location, byteCount: Int) { cold.prefetch(at: location, byteCount: byteCount) }

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        cache.drop(digest, at: location)
        cold.release(digest, at: location, byteCount: byteCount)
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        let answer = try cold.remove(digest, at: location, tag: tag)
        switch answer {
        case .done: cache.drop(digest)
        case .pending: begin(tag, .remove(digest))
        }
        return answer
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer { try cold.commit(digest, tag: tag) }

    func poll(_ receive: (borrowing Completion) -> Void) {
        cold.poll { completion in
            ended(completion)
            receive(completion)
        }
    }

    func turnEnded(sleeping: Bool) {
        lent.removeAll(keepingCapacity: true)
        cold.turnEnded(sleeping: sleeping)
    }

    var wantsTurns: Bool { cold.wantsTurns }

    var pressure: Pressure { cold.pressure }

    // ---- Keeping the cache ----

    private func begin(_ tag: Tag, _ operation: Operation) {
        let before = underWay.updateValue(operation, forKey: tag)
        assert(before == nil, "two operations under way have the same tag")
    }

    /// An image has its location: the engine does not know it yet, and will read what stands here now.
    private func placed(_ digest: Digest, _ location: Location, _ image: HotImage?) {
        if let image { cache.put(digest, at: location, image) } else { cache.drop(digest) }
    }

    private func ended(_ completion: borrowing Completion) {
        guard let operation = underWay.removeValue(forKey: completion.tag) else { return }
        switch (operation, completion.result) {
        case (.append(let digest, let image), .placed(let location)): placed(digest, location, image)
        // What stands below after a failure only the backend below knows.
        case (.append(let digest, _), _), (.remove(let digest), _): cache.drop(digest)
        case (.read(let digest, let location, let changes), .read(let image)):
            // A damaged image is the engine's to report; kept here, it would stay damaged when the medium has recovered.
            guard image.count <= cache.imageSizeMax, Envelope.fits(image, digest: digest), Envelope.checksumFits(image)
            else { return }
            cache.fill(digest, at: location, HotImage(copying: image), unlessChangedSince: changes)
        case (.read, _): return
        }
    }
}
