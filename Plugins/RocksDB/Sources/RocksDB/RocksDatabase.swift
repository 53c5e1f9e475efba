// One open database. Keys of 20 bytes are digests, their values images; all other keys are the backend's own.
//
// Invariants:
// 1. Every write goes through the write-ahead log before its call returns, so that it survives the end of the process.
// 2. With a limit (`data-size`) the value of `live-bytes` is the sum of all images, each rounded to its unit: it changes in
//    the same batch as they do. Without one there is no such value, and a write need not know what it replaces.
// 3. `written` counts finished writes, `synced` is one of its earlier values: all writes up to it are on the medium.
internal import CRocksDB
internal import Storage
internal import Synchronization

/// The handle, with errors in the contract's words. Any thread; calls may block.
final class RocksDatabase: @unchecked Sendable {
    static let liveBytesKey = "live-bytes"
    static let figuresRefreshEvery: UInt64 = 64
    private static let digestSize = 20
    let options: RocksOptions
    /// There is a limit, so live bytes are counted.
    let countsLiveBytes: Bool
    private let handle: OpaquePointer
    private let written = Atomic<UInt64>(0)
    private let synced = Mutex<UInt64>(0)
    private let live = Atomic<Int>(0)
    private let allocated = Atomic<UInt64>(0)
    private let isDelayed = Atomic<Bool>(false)

    /// Opens the database in `directory`; makes it if there is none.
    init(_ directory: String, _ settings: BackendSettings) throws(StorageError) {
        options = RocksOptions(settings)
        countsLiveBytes = (settings.number("data-size") ?? 0) > 0
        var text: UnsafeMutablePointer<CChar>?
        guard let handle = rocksdb_open(options.options, directory, &text) else {
            options.free()
            throw RocksDatabase.error(text, "open \(directory)")
        }
        self.handle = handle
        do throws(StorageError) {
            try startCounting()
        } catch {
            close()
            throw error
        }
        refreshFigures()
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
            total = countLiveBytes()
            try store(RocksDatabase.liveBytesKey, (0..<8).map { UInt8(truncatingIfNeeded: total >> (8 * $0)) })
        }
        live.store(total, ordering: .relaxed)
    }

    private func countLiveBytes() -> Int {
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
        return total
    }

    func close() {
        rocksdb_close(handle)
        options.free()
    }

    // ---- Figures: what statistics and pressure say, without asking RocksDB, which might wait ----

    var liveBytes: Int { live.load(ordering: .relaxed) }
    var allocatedBytes: UInt64 { allocated.load(ordering: .relaxed) }
    /// RocksDB slows writers down because merging has fallen behind.
    var isWriteDelayed: Bool { isDelayed.load(ordering: .relaxed) }

    private func refreshFigures() {
        allocated.store(
            property("rocksdb.total-sst-files-size") + property("rocksdb.cur-size-all-mem-tables"), ordering: .relaxed)
        let isSlow = property("rocksdb.actual-delayed-write-rate") > 0 || property("rocksdb.is-write-stopped") > 0
        isDelayed.store(isSlow, ordering: .relaxed)
    }

    private func property(_ name: String) -> UInt64 {
        var number: UInt64 = 0
        return rocksdb_property_int(handle, name, &number) == 0 ? number : 0
    }

    // ---- Reading ----

    /// The value of a key, pinned: to be destroyed by the caller; nil if there is none.
    func pinned(_ key: UnsafeRawBufferPointer) throws(StorageError) -> OpaquePointer? {
        var text: UnsafeMutablePointer<CChar>?
        let found = rocksdb_get_pinned(
            handle, options.reading, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count, &text)
        if text != nil { throw RocksDatabase.error(text, "read") }
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
        if text != nil { throw RocksDatabase.error(text, "read \(key)") }
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
        if text != nil { throw RocksDatabase.error(text, "store \(key)") }
    }

    /// Deletes a value of the backend's own; durable when it returns.
    private func delete(_ key: String) throws(StorageError) {
        var text: UnsafeMutablePointer<CChar>?
        rocksdb_delete(handle, options.writingDurably, key, key.utf8.count, &text)
        if text != nil { throw RocksDatabase.error(text, "delete \(key)") }
    }

    /// Writes a batch, all of it or nothing. `grown` is by how much its images take more room than those before.
    /// - Returns: the number of the write, for `sync`.
    func write(_ batch: OpaquePointer, grown: Int) throws(StorageError) -> UInt64 {
        if countsLiveBytes {
            withUnsafeBytes(of: UInt64(bitPattern: Int64(grown)).littleEndian) {
                rocksdb_writebatch_merge(
                    batch, RocksDatabase.liveBytesKey, RocksDatabase.liveBytesKey.utf8.count,
                    $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        var text: UnsafeMutablePointer<CChar>?
        rocksdb_write(handle, options.writing, batch, &text)
        if text != nil { throw RocksDatabase.error(text, "write") }
        if countsLiveBytes { live.wrappingAdd(grown, ordering: .relaxed) }
        let number = written.wrappingAdd(1, ordering: .releasing).newValue
        if number % RocksDatabase.figuresRefreshEvery == 0 { refreshFigures() }
        return number
    }

    /// Everything up to write `number` is on the medium when it returns. Who waits for another's sync may find its own
    /// work done.
    func sync(upTo number: UInt64) throws(StorageError) {
        let failure: StorageError? = synced.withLock { synced in
            if synced >= number { return nil }
            let covered = written.load(ordering: .acquiring)
            var text: UnsafeMutablePointer<CChar>?
            rocksdb_flush_wal(handle, 1, &text)
            if text != nil { return RocksDatabase.error(text, "sync the write-ahead log") }
            assert(covered >= number, "a write is counted before it is synced")
            synced = covered
            return nil
        }
        if let failure { throw failure }
    }

    /// Everything written is on the medium when it returns.
    func syncAll() throws(StorageError) { try sync(upTo: written.load(ordering: .acquiring)) }

    // ---- Errors ----

    /// RocksDB's status in the contract's words; frees the text.
    static func error(_ text: UnsafeMutablePointer<CChar>?, _ operation: String) -> StorageError {
        guard let text else { return .device(errno: 0, operation: operation) }
        defer { rocksdb_free(text) }
        let status = String(cString: text)
        if status.contains("No space left") || status.contains("Disk quota exceeded") { return .outOfSpace }
        if status.hasPrefix("Invalid argument") || status.hasPrefix("Not implemented") {
            return .settings("rocksdb cannot \(operation): \(status)")
        }
        return .device(errno: 5, operation: "\(operation): \(status)")
    }
}
