// Between a scan that deletes an image if it is still the one it has visited, and the writers that may put another in its
// place: many writers are in the gate at a time, or one deletion.
internal import Glibc
internal import Storage

/// A lock for readers and writers, where the readers are the storage threads that write. Any thread; may block.
final class WriteGate: @unchecked Sendable {
    private let lock = UnsafeMutablePointer<pthread_rwlock_t>.allocate(capacity: 1)

    init() {
        var attributes = pthread_rwlockattr_t()
        pthread_rwlockattr_init(&attributes)
        // A deletion waits only for the writes that have begun, however many follow.
        pthread_rwlockattr_setkind_np(&attributes, Int32(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
        pthread_rwlock_init(lock, &attributes)
        pthread_rwlockattr_destroy(&attributes)
    }

    deinit {
        pthread_rwlock_destroy(lock)
        lock.deallocate()
    }

    /// Beside other writers.
    func write<Value>(_ body: () throws(StorageError) -> Value) throws(StorageError) -> Value {
        pthread_rwlock_rdlock(lock)
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }

    /// While nobody writes.
    func alone<Value>(_ body: () throws(StorageError) -> Value) throws(StorageError) -> Value {
        pthread_rwlock_wrlock(lock)
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }
}
