// What statistics and pressure say. The figures are kept here, so that who asks for them need not ask RocksDB, which may
// wait for a lock of its own.
//
// Invariants:
// 1. Only storage threads ask RocksDB (`refresh`). Any thread asks the file system (`refreshSpace`), which knows by heart.
// 2. No figure that somebody asks for is older than `ageMax`, whether anything is written meanwhile or not.
// 3. The last `reserve` bytes of the file system are RocksDB's: it needs them to write out what it has in memory and to
//    merge files, without which not even a delete frees space.
internal import CRocksDB
internal import Glibc
internal import Storage
internal import Synchronization

/// Figures of one database. Any thread.
final class RocksFigures: Sendable {
    /// In nanoseconds.
    private static let ageMax: UInt64 = 100_000_000
    private let directory: String
    private let reserveMax: UInt64
    private let reserve = Atomic<UInt64>(0)
    private let free = Atomic<UInt64>(0)
    private let allocated = Atomic<UInt64>(0)
    private let isDelayed = Atomic<Bool>(false)
    private let refreshed = Atomic<UInt64>(0)
    private let spaceRefreshed = Atomic<UInt64>(0)

    /// For the database in `directory`, which may keep up to `memory` bytes that are not in its files yet.
    init(_ directory: String, memory: UInt64) throws(StorageError) {
        self.directory = directory
        reserveMax = memory
        guard refreshSpace() else {
            throw .device(errno: errno, operation: "asking how much space there is for \(directory)")
        }
    }

    // ---- Asking ----

    /// Bytes of RocksDB's files and buffers.
    var allocatedBytes: UInt64 { allocated.load(ordering: .relaxed) }

    /// RocksDB slows writers down because merging has fallen behind.
    var isWriteDelayed: Bool { isDelayed.load(ordering: .relaxed) }

    /// Bytes that images may still take on the file system.
    var availableBytes: UInt64 {
        let free = free.load(ordering: .relaxed)
        return free - min(free, reserve.load(ordering: .relaxed))
    }

    /// What this database has, and what it could have: everything on the file system that is not somebody else's.
    var capacityBytes: UInt64 { allocatedBytes + free.load(ordering: .relaxed) }

    // ---- Refreshing ----

    /// On a storage thread, before its pressure is told and after it has written.
    func refreshIfOld(_ handle: OpaquePointer) {
        if RocksFigures.isDue(refreshed) { refresh(handle) }
        refreshSpaceIfOld()
    }

    /// Any thread. Near the end every question is worth an answer of now.
    func refreshSpaceIfOld() {
        if RocksFigures.isDue(spaceRefreshed) || availableBytes < 4 * reserve.load(ordering: .relaxed) { _ = refreshSpace() }
    }

    func refresh(_ handle: OpaquePointer) {
        allocated.store(
            RocksFigures.property("rocksdb.total-sst-files-size", handle)
                + RocksFigures.property("rocksdb.cur-size-all-mem-tables", handle), ordering: .relaxed)
        let isSlow = RocksFigures.property("rocksdb.actual-delayed-write-rate", handle) > 0
            || RocksFigures.property("rocksdb.is-write-stopped", handle) > 0
        isDelayed.store(isSlow, ordering: .relaxed)
    }

    /// False if the file system does not say; the figures stay as they were.
    private func refreshSpace() -> Bool {
        var facts = statvfs()
        guard statvfs(directory, &facts) == 0 else { return false }
        let unit = UInt64(facts.f_frsize)
        free.store(UInt64(facts.f_bavail) * unit, ordering: .relaxed)
        // On a small file system a part of it must do.
        reserve.store(min(reserveMax, UInt64(facts.f_blocks) * unit / 8), ordering: .relaxed)
        return true
    }

    /// Whether figures of time `last` are too old. Of several threads that ask, one gets a yes.
    private static func isDue(_ last: borrowing Atomic<UInt64>) -> Bool {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
        let now = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
        let before = last.load(ordering: .relaxed)
        guard now &- before >= ageMax else { return false }
        return last.compareExchange(expected: before, desired: now, ordering: .relaxed).exchanged
    }

    private static func property(_ name: String, _ handle: OpaquePointer) -> UInt64 {
        var number: UInt64 = 0
        return rocksdb_property_int(handle, name, &number) == 0 ? number : 0
    }
}
