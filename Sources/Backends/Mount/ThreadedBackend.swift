// A blocking backend, which is a keyed one, on threads of its own: every call answers `pending`, no reactor ever
// waits. Operations of one digest always run on the same thread in the order in which they were started, so the inner
// shard that appended an image is the one that commits it.
internal import Base
internal import CBase
public import Storage

/// The wrapper around a backend that says `blocking`. The same contract outside, none of the blocking.
public final class ThreadedBackend: Backend, @unchecked Sendable {
    private let inner: any Backend
    private let threads: [StorageThread]
    private let queueMax: Int
    private var shards: [ThreadedShard] = []
    private let lockWord: UnsafeMutablePointer<UInt32>

    /// Starts `threads` storage threads, each with a shard of `inner`; at most about `queueMax` operations are under way.
    /// - Throws: what `inner.makeShard` throws; `device` if there is no thread to be had.
    public init(_ inner: any Backend, threads count: Int, queueMax: Int) throws(StorageError) {
        precondition(count > 0 && queueMax > 0)
        self.inner = inner
        self.queueMax = queueMax
        lockWord = .allocate(capacity: 1)
        lockWord.initialize(to: 0)
        var started: [StorageThread] = []
        do throws(StorageError) {
            for number in 0..<count { started.append(try StorageThread(inner, number: number, of: count)) }
        } catch {
            for thread in started { thread.stop() }
            throw error
        }
        threads = started
    }

    deinit { lockWord.deallocate() }

    /// The shard of one reactor: passes its calls on and answers late.
    public func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        let shard = ThreadedShard(threads, request, queueMax: max(queueMax / request.count, 16))
        apus_lock(lockWord)
        shards.append(shard)
        apus_unlock(lockWord)
        return shard
    }

    /// As the inner backend does, on the calling thread.
    public func scan(
        segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) { try inner.scan(segment: segment, of: count, visit) }

    /// As the inner backend does.
    public func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try inner.loadNamespaceBlob() }

    /// As the inner backend does.
    public func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) { try inner.storeNamespaceBlob(bytes) }

    /// As the inner backend does.
    public func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { try inner.loadPartitionMetadata() }

    /// As the inner backend does.
    public func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try inner.storePartitionMetadata(metadata)
    }

    /// The inner backend's figures, with what waits here.
    public var statistics: BackendStatistics {
        var figures = inner.statistics
        apus_lock(lockWord)
        let queued = shards.reduce(0) { $0 + $1.gauge }
        let pressure = shards.map(\.sharedPressure).max() ?? .none
        apus_unlock(lockWord)
        figures.pressure = max(figures.pressure, pressure)
        figures.details += [("storage-threads", "\(threads.count)"), ("storage-queue", "\(queued)")]
        return figures
    }

    /// Ends the threads when all that was started is done, then closes what they worked for.
    public func close() throws(StorageError) {
        for thread in threads { thread.stop() }
        try inner.close()
    }
}

/// One reactor's side. Invariants:
/// 1. An operation is free, under way on a thread, or lent (its bytes are the engine's until the turn ends).
/// 2. `underWay` counts the operations that have not come back, `bytesUnderWay` the bytes they carry; above `queueMax` or
///    `bytesMax` none but commits start.
final class ThreadedShard: BackendShard {
    private static let bufferKeptMax = 4 << 10
    private static let bytesMax = 128 << 20
    private let threads: [StorageThread]
    private let request: ShardRequest
    private let queueMax: Int
    private let home: Mailbox
    private var free: [OperationPointer] = []
    private var lent: [OperationPointer] = []
    /// Started in this turn; posted together at its end, so that a sleeping thread is woken once.
    private var started: [OperationPointer] = []
    private var underWay = 0 { didSet { apus_store_relaxed_u64(word, UInt64(underWay)) } }
    private let word: UnsafeMutablePointer<UInt64>
    private var bytesUnderWay = 0

    init(_ threads: [StorageThread], _ request: ShardRequest, queueMax: Int) {
        self.threads = threads
        self.request = request
        self.queueMax = queueMax
        home = Mailbox(wake: request.wake)
        word = .allocate(capacity: 1)
        word.initialize(to: 0)
    }

    /// The backend keeps its shards and closes first: what was under way has come back, polled or not.
    deinit {
        home.take { free.append(UnsafeMutableRawPointer($0).assumingMemoryBound(to: Operation.self)) }
        for operation in free + lent {
            operation.pointee.buffer?.deallocate()
            operation.deinitialize(count: 1)
            operation.deallocate()
        }
        word.deallocate()
    }

    /// Operations under way. Any thread.
    var gauge: Int { Int(apus_load_relaxed_u64(word)) }

    /// `pressure` for any thread.
    var sharedPressure: Pressure { threads.reduce(pressure(of: gauge)) { max($0, $1.pressure) } }

    var pressure: Pressure {
        let own = bytesUnderWay > ThreadedShard.bytesMax / 2 ? max(.high, pressure(of: underWay)) : pressure(of: underWay)
        return threads.reduce(own) { max($0, $1.pressure) }
    }

    private func pressure(of count: Int) -> Pressure {
        count >= queueMax ? .full : count >= queueMax / 4 * 3 ? .high : .none
    }

    // ---- Contract ----

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        let operation = try begin(.append, digest, tag, carrying: image.count)
        operation.pointee.stream = stream
        operation.pointee.keep(image)
        started.append(operation)
        return .pending
    }

    func read(
        _ digest: Digest, at location: Location, byteCount: Int, tag: Tag
    ) throws(StorageError) -> ReadAnswer {
        let operation = try begin(.read, digest, tag, carrying: byteCount)
        operation.pointee.location = location
        operation.pointee.byteCount = byteCount
        started.append(operation)
        return .pending
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        let operation = try begin(.remove, digest, tag)
        operation.pointee.location = location
        started.append(operation)
        return .pending
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        started.append(take(.commit, digest, tag))
        return .pending
    }

    func poll(_ receive: (borrowing Completion) -> Void) {
        home.woke()
        home.take { letter in
            let operation = UnsafeMutableRawPointer(letter).assumingMemoryBound(to: Operation.self)
            underWay -= 1
            bytesUnderWay -= operation.pointee.carried
            lent.append(operation)
            receive(Completion(tag: operation.pointee.tag, result: ThreadedShard.result(operation)))
        }
    }

    func turnEnded(sleeping: Bool) {
        for operation in lent { giveBack(operation) }
        lent.removeAll(keepingCapacity: true)
        for operation in started { thread(of: operation.pointee.digest).post(operation) }
        started.removeAll(keepingCapacity: true)
        if sleeping, underWay > 0, !home.prepareToSleep() { request.wake() }
    }

    // ---- Operations ----

    private func begin(
        _ kind: Operation.Kind, _ digest: Digest, _ tag: Tag, carrying byteCount: Int = 0
    ) throws(StorageError) -> OperationPointer {
        guard underWay < queueMax, bytesUnderWay < ThreadedShard.bytesMax else { throw .overloaded }
        let operation = take(kind, digest, tag)
        operation.pointee.carried = byteCount
        bytesUnderWay += byteCount
        return operation
    }

    private func take(_ kind: Operation.Kind, _ digest: Digest, _ tag: Tag) -> OperationPointer {
        let operation: OperationPointer
        if let kept = free.popLast() {
            operation = kept
        } else {
            operation = .allocate(capacity: 1)
            operation.initialize(to: Operation(home: home))
        }
        operation.pointee.kind = kind
        operation.pointee.digest = digest
        operation.pointee.tag = tag
        operation.pointee.outcome = .underWay
        operation.pointee.carried = 0
        underWay += 1
        return operation
    }

    private func giveBack(_ operation: OperationPointer) {
        if operation.pointee.capacity > ThreadedShard.bufferKeptMax {
            operation.pointee.buffer?.deallocate()
            operation.pointee.buffer = nil
            operation.pointee.capacity = 0
        }
        free.append(operation)
    }

    private func thread(of digest: Digest) -> StorageThread { threads[Int(digest.high >> 8) % threads.count] }

    private static func result(_ operation: OperationPointer) -> Completion.Result {
        switch operation.pointee.outcome {
        case .placed(let location): .placed(location)
        case .read: .read(operation.pointee.bytes)
        case .absent: .absent
        case .done: .done
        case .failed(let error): .failed(error)
        case .underWay: preconditionFailure("an operation comes back when it has ended")
        }
    }
}
