// One open database. Keys of 20 bytes are digests, their values images; all other keys are the backend's own.
//
// Invariants:
// 1. Every write goes through the write-ahead log before its call returns, so that it survives the end of the process.
// 2. With a limit (`data-size`) the value of `live-bytes` is the sum of all images, each rounded to its unit: it changes in
//    the same batch as they do. Without one there is no such value, and a write need not know what it replaces.
// 3. `written` counts finished writes, `synced` is one of its earlier values: all writes up to it are on the medium.
// 4. Every write of images is in the gate, so that nothing changes between look and deletion in `delete(_:ifStill:)`.
internal import Base
internal import CRocksDB
internal import Glibc
internal import Storage
internal import Synchronization

/// The handle, with errors in the contract's words. Any thread; calls may block.
final class RocksDatabase: @unchecked Sendable {
    static let liveBytesKey = "live-bytes"
    private static let digestSize = Digest.byteCount
    let options: RocksOptions
    /// There is a limit, so live bytes are counted.
    let countsLiveBytes: Bool
    private let handle: OpaquePointer
    private let written = Atomic<UInt64>(0)
    private let synced = Mutex<UInt64>(0)
    private let live = Atomic<Int>(0)
    private let deletions = Atomic<Int>(0)
    private let gate = WriteGate()
    private let figures: RocksFigures
    private let log: @Sendable (String) -> Void
    private let hasFailed = Atomic<Bool>(false)

    /// Opens the database in `directory`; makes it if there is none.
    init(
        _ directory: String, _ settings: BackendSettings, log: @escaping @Sendable (String) -> Void
    ) throws(StorageError) {
        figures = try RocksFigures(directory, memory: RocksOptions.memoryMax(settings))
        options = RocksOptions(settings)
        self.log = log
        countsLiveBytes = (settings.number("data-size") ?? 0) > 0
        var text: UnsafeMutablePointer<CChar>?
        guard let handle = rocksdb_open(options.options, directory, &text) else {
            options.free()
            throw RocksStatus.openError(text, directory)
        }
        self.handle = handle
        do throws(StorageError) {
            try startCounting()
        } catch {
            close()
            throw error
        }
        figures.refresh(handle)
    }

    /// Takes the count up where it was left; counts everything if it was not kept until now, and ends it if it is not
    /// wanted.
    private func startCounting() throws(StorageError) {
        let stored = try value(RocksDatabase.liveBytesKey)
        guard countsLiveBytes else {
            if !stored.isEmpty { try delete(RocksDatabase.liveBytesKey) }
            return
        }
        var total = stored.enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        if stored.isEmpty {
            total = try countLiveBytes()
            try store(RocksDatabase.liveBytesKey, (0..<8).map { UInt8(truncatingIfNeeded: total >> (8 * $0)) })
        }
        live.store(total, ordering: .relaxed)
    }

    private func countLiveBytes() throws(StorageError) -> Int {
        let iterator = iterator()
        defer { rocksdb_iter_destroy(iterator) }
        var total = 0
        rocksdb_iter_seek_to_first(iterator)
        while rocksdb_iter_valid(iterator) != 0 {
            var keyCount = 0, valueCount = 0
            _ = rocksdb_iter_key(iterator, &keyCount)
            _ = rocksdb_iter_value(iterator, &valueCount)
            if keyCount == RocksDatabase.digestSize { total += Envelope.storedByteCount(valueCount) }
            rocksdb_iter_next(iterator)
        }
        // An iterator also ends where it cannot read on.
        var text: UnsafeMutablePointer<CChar>?
        rocksdb_iter_get_error(iterator, &text)
        if text != nil { throw RocksStatus.error(text, "count the live bytes") }
        return total
    }

    func close() {
        rocksdb_close(handle)
        options.free()
    }

    // ---- Figures ----

    var liveBytes: Int { live.load(ordering: .relaxed) }
    /// How often a scan has deleted an image.
    var deletionCount: Int { deletions.load(ordering: .acquiring) }

    /// Figures of now, as far as they are had without waiting. Any thread.
    var figuresOfNow: RocksFigures {
        figures.refreshSpaceIfOld()
        return figures
    }

    /// On a storage thread: RocksDB slows writers down.
    var isWriteDelayed: Bool {
        figures.refreshIfOld(handle)
        return figures.isWriteDelayed
    }

    /// The file system has no room for more images; what is left RocksDB needs itself.
    var isFull: Bool { figuresOfNow.availableBytes == 0 }

    // ---- Reading ----

    /// The value of a key, pinned: to be destroyed by the caller; nil if there is none.
    func pinned(_ key: UnsafeRawBufferPointer) throws(StorageError) -> OpaquePointer? {
        var text: UnsafeMutablePointer<CChar>?
        let found = rocksdb_get_pinned(
            handle, options.reading, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count, &text)
        if text != nil { throw RocksStatus.error(text, "read") }
        return found
    }

    /// The bytes of a pinned value.
    static func bytes(_ pinned: OpaquePointer) -> UnsafeRawBufferPointer {
        var count = 0
        let start = rocksdb_pinnableslice_value(pinned, &count)
        return UnsafeRawBufferPointer(start: start, count: count)
    }

    /// A value of the backend's own; empty if there is none.
    func value(_ key: String) throws(StorageError) -> [UInt8] {
        precondition(key.utf8.count != RocksDatabase.digestSize, "that is a digest's size")
        var count = 0
        var text: UnsafeMutablePointer<CChar>?
        let found = rocksdb_get(handle, options.reading, key, key.utf8.count, &count, &text)
        if text != nil { throw RocksStatus.error(text, "read \(key)") }
        defer { rocksdb_free(found) }
        return Array(UnsafeRawBufferPointer(start: found, count: found == nil ? 0 : count))
    }

    /// An iterator over everything there is now; to be destroyed by the caller.
    func iterator() -> OpaquePointer { rocksdb_create_iterator(handle, options.scanning) }

    // ---- Writing ----

    /// Stores a value of the backend's own; durable when it returns.
    func store(_ key: String, _ bytes: [UInt8]) throws(StorageError) {
        precondition(key.utf8.count != RocksDatabase.digestSize, "that is a digest's size")
        var text: UnsafeMutablePointer<CChar>?
        bytes.withUnsafeBytes {
            rocksdb_put(
                handle, options.writingDurably, key, key.utf8.count, $0.baseAddress?.assumingMemoryBound(to: CChar.self),
                $0.count, &text)
        }
        if text != nil { throw failure(text, "store \(key)") }
    }

    /// Deletes a value of the backend's own; durable when it returns.
    private func delete(_ key: String) throws(StorageError) {
        var text: UnsafeMutablePointer<CChar>?
        rocksdb_delete(handle, options.writingDurably, key, key.utf8.count, &text)
        if text != nil { throw RocksStatus.error(text, "delete \(key)") }
    }

    /// Writes a batch, all of it or nothing. `growth` says, when no scan can delete anything any more, by how much its
    /// images take more room than those before.
    /// - Returns: the number of the write, for `sync`.
    func write(_ batch: OpaquePointer, growth: () throws(StorageError) -> Int) throws(StorageError) -> UInt64 {
        let number = try gate.write { () throws(StorageError) in try writeInGate(batch, grown: try growth()) }
        figures.refreshIfOld(handle)
        return number
    }

    /// Deletes an image of a scan if it is still there. The same bytes are the same image.
    func delete(_ digest: Digest, ifStill image: UnsafeRawBufferPointer) throws(StorageError) {
        let key = UnsafeMutableRawBufferPointer.allocate(byteCount: Digest.byteCount, alignment: 8)
        let batch: OpaquePointer = rocksdb_writebatch_create()
        defer {
            rocksdb_writebatch_destroy(batch)
            key.deallocate()
        }
        digest.store(to: key.baseAddress!)
        rocksdb_writebatch_delete(batch, key.baseAddress!.assumingMemoryBound(to: CChar.self), key.count)
        try gate.alone { () throws(StorageError) in
            guard let pinned = try pinned(UnsafeRawBufferPointer(key)) else { return }
            defer { rocksdb_pinnableslice_destroy(pinned) }
            let now = RocksDatabase.bytes(pinned)
            guard now.count == image.count, memcmp(now.baseAddress!, image.baseAddress!, now.count) == 0 else { return }
            _ = try writeInGate(batch, grown: -Envelope.storedByteCount(image.count))
            // After the deletion: who has looked at the image before sees the count change, see `RocksShard.growth`.
            deletions.wrappingAdd(1, ordering: .releasing)
        }
    }

    private func writeInGate(_ batch: OpaquePointer, grown: Int) throws(StorageError) -> UInt64 {
        if countsLiveBytes {
            withUnsafeBytes(of: UInt64(bitPattern: Int64(grown)).littleEndian) {
                rocksdb_writebatch_merge(
                    batch, RocksDatabase.liveBytesKey, RocksDatabase.liveBytesKey.utf8.count,
                    $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        var text: UnsafeMutablePointer<CChar>?
        rocksdb_write(handle, options.writing, batch, &text)
        if text != nil { throw failure(text, "write") }
        if countsLiveBytes { live.wrappingAdd(grown, ordering: .relaxed) }
        return written.wrappingAdd(1, ordering: .releasing).newValue
    }

    /// The error of a write. A full medium RocksDB gets over by itself; after other errors it takes no writes any more, and
    /// its C interface has no call that resumes.
    private func failure(_ text: UnsafeMutablePointer<CChar>?, _ operation: String) -> StorageError {
        let error = RocksStatus.error(text, operation)
        if case .device = error, !hasFailed.exchange(true, ordering: .relaxed) {
            log("\(error.text). RocksDB may refuse all writes from now on: restart the node when the cause is gone")
        }
        return error
    }

    /// Everything up to write `number` is on the medium when it returns. Who waits for another's sync may find its own
    /// work done.
    func sync(upTo number: UInt64) throws(StorageError) {
        let problem: StorageError? = synced.withLock { synced in
            if synced >= number { return nil }
            let covered = written.load(ordering: .acquiring)
            var text: UnsafeMutablePointer<CChar>?
            rocksdb_flush_wal(handle, 1, &text)
            if text != nil { return failure(text, "sync the write-ahead log") }
            assert(covered >= number, "a write is counted before it is synced")
            synced = covered
            return nil
        }
        if let problem { throw problem }
    }

    /// Everything written is on the medium when it returns.
    func syncAll() throws(StorageError) { try sync(upTo: written.load(ordering: .acquiring)) }
}
