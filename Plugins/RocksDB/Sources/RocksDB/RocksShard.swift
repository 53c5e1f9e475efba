// The data plane: one shard for each storage thread. The appends and removes of one turn go into one batch, which `poll`
// writes: one entry in the write-ahead log for all of them.
//
// Invariants:
// 1. `waiting` names the operations in `batch`, in order; both are empty after `write`.
// 2. `grown` is by how many stored bytes the batch changes the live bytes, if no scan has deleted anything since the
//    database had `deletionsSeen`; `changes` says what each digest in the batch will take. Without a limit nobody asks for
//    either.
// 3. `lent` holds what reads have given out in this turn, and is empty after `turnEnded`.
internal import Base
internal import CRocksDB
internal import Storage

/// One storage thread's side of the database; used on that thread only. Calls may block.
final class RocksShard: BackendShard {
    /// Batches do not grow beyond this many bytes, or one more image.
    private static let batchBytesMax = 1 << 20
    private let database: RocksDatabase
    private let versions: VersionCounter
    private let dataSize: Int
    private let wake: @Sendable () -> Void
    private let key = UnsafeMutableRawBufferPointer.allocate(byteCount: Digest.byteCount, alignment: 8)
    private let batch: OpaquePointer = rocksdb_writebatch_create()
    private var batchBytes = 0
    private var grown = 0
    private var changes: [(digest: Digest, storedByteCount: Int)] = []
    private var deletionsSeen = 0
    private var waiting: [(tag: Tag, result: Completion.Result)] = []
    private var ended: [(tag: Tag, result: Completion.Result)] = []
    private var handedOver: [(tag: Tag, result: Completion.Result)] = []
    private var lent: [OpaquePointer] = []
    private var lastWrite: UInt64 = 0

    init(_ database: RocksDatabase, _ versions: VersionCounter, dataSize: Int, wake: @escaping @Sendable () -> Void) {
        self.database = database
        self.versions = versions
        self.dataSize = dataSize
        self.wake = wake
    }

    deinit {
        takeBack()
        rocksdb_writebatch_destroy(batch)
        key.deallocate()
    }

    // ---- Appends and removes ----

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        let limit = RocksDB.limits.imageSizeMax
        guard image.count <= limit else { throw .tooLarge(limitBytes: limit) }
        if database.isFull { throw .outOfSpace }
        let after = Envelope.storedByteCount(image.count)
        let growth = after - (try countedBytes(digest))
        if dataSize > 0, growth > 0, database.liveBytes + grown + growth > dataSize { throw .outOfSpace }
        digest.store(to: key.baseAddress!)
        rocksdb_writebatch_put(
            batch, characters(UnsafeRawBufferPointer(key)), key.count, characters(image), image.count)
        if dataSize > 0 { changes.append((digest, after)) }
        add(.placed(versions.next()), tag, byteCount: image.count, growth: growth)
        return .pending
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        let before = try countedBytes(digest)
        digest.store(to: key.baseAddress!)
        rocksdb_writebatch_delete(batch, characters(UnsafeRawBufferPointer(key)), key.count)
        if dataSize > 0 { changes.append((digest, 0)) }
        add(.done, tag, byteCount: 0, growth: -before)
        return .pending
    }

    private func characters(_ bytes: UnsafeRawBufferPointer) -> UnsafePointer<CChar>? {
        bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    }

    /// What the image of `digest` adds to the live bytes now; 0 if there is none, or nobody counts.
    private func countedBytes(_ digest: Digest) throws(StorageError) -> Int {
        guard database.countsLiveBytes else { return 0 }
        if waiting.isEmpty { deletionsSeen = database.deletionCount }
        digest.store(to: key.baseAddress!)
        guard let pinned = try database.pinned(UnsafeRawBufferPointer(key)) else { return 0 }
        defer { rocksdb_pinnableslice_destroy(pinned) }
        return Envelope.storedByteCount(RocksDatabase.bytes(pinned).count)
    }

    /// By how much the batch changes the live bytes, asked in the gate: if a scan has deleted what an append was to replace,
    /// all is counted anew.
    private func growth() throws(StorageError) -> Int {
        guard database.countsLiveBytes, deletionsSeen != database.deletionCount else { return grown }
        var growth = 0
        for change in changes { growth += change.storedByteCount - (try countedBytes(change.digest)) }
        return growth
    }

    private func add(_ result: Completion.Result, _ tag: Tag, byteCount: Int, growth: Int) {
        waiting.append((tag, result))
        grown += growth
        batchBytes += byteCount
        if batchBytes >= RocksShard.batchBytesMax { write() }
    }

    /// Writes the batch; what was waiting in it has ended then, one way or the other.
    private func write() {
        guard !waiting.isEmpty else { return }
        do throws(StorageError) {
            lastWrite = try database.write(batch) { () throws(StorageError) in try growth() }
            ended += waiting
        } catch {
            ended += waiting.map { ($0.tag, .failed(error)) }
        }
        rocksdb_writebatch_clear(batch)
        waiting.removeAll(keepingCapacity: true)
        changes.removeAll(keepingCapacity: true)
        grown = 0
        batchBytes = 0
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        write()
        try database.sync(upTo: lastWrite)
        return .done
    }

    // ---- Reads ----

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        digest.store(to: key.baseAddress!)
        guard let pinned = try database.pinned(UnsafeRawBufferPointer(key)) else { return .absent }
        lent.append(pinned)
        let image = RocksDatabase.bytes(pinned)
        guard Envelope.fits(image, digest: digest) else { throw .corrupt(location) }
        return .here(image)
    }

    private func takeBack() {
        for pinned in lent { rocksdb_pinnableslice_destroy(pinned) }
        lent.removeAll(keepingCapacity: true)
    }

    // ---- Turns ----

    func poll(_ receive: (borrowing Completion) -> Void) {
        write()
        // What is received may lead to calls, which may end more.
        swap(&ended, &handedOver)
        for (tag, result) in handedOver { receive(Completion(tag: tag, result: result)) }
        handedOver.removeAll(keepingCapacity: true)
    }

    func turnEnded(sleeping: Bool) {
        takeBack()
        if !waiting.isEmpty || !ended.isEmpty { wake() }
    }

    var pressure: Pressure { database.isWriteDelayed ? .high : .none }
}
