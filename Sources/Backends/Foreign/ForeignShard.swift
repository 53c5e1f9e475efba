// One shard of a plugin. Invariants:
// 1. `handle` is the plugin's until `end`, which the backend calls once, when the shard's thread has let go of it.
// 2. Every operation that the plugin was told of and that answered `pending` stands in `underWay`, and nothing else does.
// 3. `completions` is all zero between two calls of the plugin's poll.
internal import Base
internal import CBackend
internal import Storage

/// The data plane of a plugin. The shard's thread only, except `end`.
final class ForeignShard: BackendShard, @unchecked Sendable {
    private static let completionsMax = 16
    private let plugin: Plugin
    private let border: Border
    private var handle: UnsafeMutableRawPointer?
    /// Kept for the plugin, which holds it as `wake_context`.
    private let wake: WakeBox
    private var underWay = UnderWay()
    private let digestBytes = UnsafeMutablePointer<UInt8>.allocate(capacity: Digest.byteCount)
    private let failure = UnsafeMutablePointer<apus_error>.allocate(capacity: 1)
    private let completions = UnsafeMutablePointer<apus_completion>.allocate(capacity: ForeignShard.completionsMax)

    /// Takes over the shard that the plugin has made.
    init(_ plugin: Plugin, _ border: Border, _ handle: UnsafeMutableRawPointer, _ wake: WakeBox) {
        self.plugin = plugin
        self.border = border
        self.handle = handle
        self.wake = wake
        clearCompletions(ForeignShard.completionsMax)
    }

    deinit {
        precondition(handle == nil, "the backend ends a shard before it goes")
        digestBytes.deallocate()
        failure.deallocate()
        completions.deallocate()
    }

    /// Has the plugin end its shard. Any thread; nothing is called afterwards.
    func end() {
        guard let ending = handle else { preconditionFailure("a shard ends once") }
        handle = nil
        plugin.table.pointee.end_shard(ending)
    }

    // ---- Contract ----

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        let handle = try prepare(digest)
        guard image.count <= border.limits.imageSizeMax else { throw .tooLarge(limitBytes: border.limits.imageSizeMax) }
        guard let bytes = image.baseAddress, image.count > 0 else { throw .unsupported("an empty image") }
        let ticket = underWay.begin(.append, tag)
        var location: UInt64 = 0
        let status = plugin.table.pointee.append(
            handle, digestBytes, bytes, UInt64(image.count), UInt32(stream.rawValue), ticket, &location, failure)
        guard try isDone(status, ticket, "append") else { return .pending }
        return .placed(try border.location(location, "append"))
    }

    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        let handle = try prepare(digest)
        let ticket = underWay.begin(.read, tag, location: location.rawValue)
        var image = apus_bytes(bytes: nil, size: 0)
        let status = plugin.table.pointee.read(
            handle, digestBytes, location.rawValue, UInt64(byteCount), ticket, &image, failure)
        if status == APUS_ABSENT {
            _ = underWay.end(ticket)
            return .absent
        }
        guard try isDone(status, ticket, "read", at: location.rawValue) else { return .pending }
        return .here(try border.image(image, "read"))
    }

    func prefetch(at location: Location, byteCount: Int) {
        guard let handle, let prefetch = plugin.table.pointee.prefetch else { return }
        prefetch(handle, location.rawValue, UInt64(byteCount))
    }

    func release(_ digest: Digest, at location: Location, byteCount: Int) {
        guard let handle, let release = plugin.table.pointee.release else { return }
        digest.store(to: digestBytes)
        release(handle, digestBytes, location.rawValue, UInt64(byteCount))
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        guard let remove = plugin.table.pointee.remove else { throw .unsupported("remove: the backend is not keyed") }
        let handle = try prepare(digest)
        let ticket = underWay.begin(.remove, tag)
        let status = remove(handle, digestBytes, location.rawValue, ticket, failure)
        return try isDone(status, ticket, "remove") ? .done : .pending
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        let handle = try prepare(digest)
        let ticket = underWay.begin(.commit, tag)
        let status = plugin.table.pointee.commit(handle, digestBytes, ticket, failure)
        return try isDone(status, ticket, "commit") ? .done : .pending
    }

    /// The plugin has returned before `receive` runs: whatever `receive` calls here, the plugin is not re-entered.
    func poll(_ receive: (borrowing Completion) -> Void) {
        guard let poll = plugin.table.pointee.poll else { return }
        let capacity = ForeignShard.completionsMax
        // A plugin that always says "more" does not hold the thread for ever.
        for _ in 0...underWay.count / capacity + 1 {
            guard let handle else { return }
            let filled = Int(poll(handle, completions, UInt32(capacity)))
            if filled > capacity { _ = border.breach("poll filled \(filled) of \(capacity) completions") }
            for number in 0..<min(filled, capacity) { finish(completions[number], receive) }
            clearCompletions(min(filled, capacity))
            if filled < capacity { return }
        }
    }

    func turnEnded(sleeping: Bool) {
        guard let handle, let turnEnded = plugin.table.pointee.turn_ended else { return }
        turnEnded(handle, sleeping ? 1 : 0)
    }

    var pressure: Pressure {
        guard let handle, let pressure = plugin.table.pointee.pressure else { return .none }
        return border.pressure(pressure(handle))
    }

    // ---- Answers ----

    /// Digest and error are ready for a call.
    private func prepare(_ digest: Digest) throws(StorageError) -> UnsafeMutableRawPointer {
        guard let handle else { throw .closed }
        digest.store(to: digestBytes)
        UnsafeMutableRawPointer(failure).initializeMemory(
            as: UInt8.self, repeating: 0, count: MemoryLayout<apus_error>.size)
        return handle
    }

    /// True: done. False: the operation goes on.
    private func isDone(
        _ status: Int32, _ ticket: UInt64, _ slot: String, at location: UInt64 = 0
    ) throws(StorageError) -> Bool {
        let mayPend = plugin.table.pointee.poll != nil && !border.capabilities.contains(.volatile)
        if status == APUS_PENDING, mayPend { return false }
        _ = underWay.end(ticket)
        if status == APUS_PENDING { throw border.breach("\(slot) answered APUS_PENDING, which it cannot end") }
        guard status == APUS_DONE else { throw border.error(status, failure.pointee, slot, at: location) }
        return true
    }

    private func finish(_ completion: apus_completion, _ receive: (borrowing Completion) -> Void) {
        guard let operation = underWay.end(completion.tag) else {
            _ = border.breach("poll gave a tag that is not under way")
            return
        }
        receive(Completion(tag: operation.tag, result: result(completion, operation)))
    }

    private func result(_ completion: apus_completion, _ operation: UnderWay.Operation) -> Completion.Result {
        let slot = "poll, for \(operation.kind),"
        do throws(StorageError) {
            switch (completion.status, operation.kind) {
            case (APUS_DONE, .append): return .placed(try border.location(completion.location, slot))
            case (APUS_DONE, .read): return .read(try border.image(completion.image, slot))
            case (APUS_ABSENT, .read): return .absent
            case (APUS_DONE, .remove), (APUS_DONE, .commit): return .done
            default: throw border.error(completion.status, completion.error, slot, at: operation.location)
            }
        } catch {
            return .failed(error)
        }
    }

    private func clearCompletions(_ count: Int) {
        UnsafeMutableRawPointer(completions).initializeMemory(
            as: UInt8.self, repeating: 0, count: count * MemoryLayout<apus_completion>.stride)
    }
}

/// What a plugin's shard holds as `wake_context`.
final class WakeBox: Sendable {
    let wake: @Sendable () -> Void

    init(_ wake: @escaping @Sendable () -> Void) { self.wake = wake }
}
