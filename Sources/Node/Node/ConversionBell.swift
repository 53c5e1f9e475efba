internal import Base
internal import CReactor
internal import Files
internal import Glibc
internal import Reactor
internal import Storage

/// What the thread that drives shards without a reactor sleeps on. `ring` on any thread; kept by everybody who may ring it.
final class ConversionBell: Sendable {
    private let descriptor: Int32

    init() throws(ConversionError) {
        descriptor = apus_eventfd()
        guard descriptor >= 0 else {
            throw ConversionError("no eventfd: \(errnoText()); raise the limit of open files (ulimit -n)")
        }
    }

    deinit { close(descriptor) }

    /// The one shard that a backend gets from a conversion.
    func makeShard(of backend: any Backend) throws(StorageError) -> any BackendShard {
        try backend.makeShard(
            ShardRequest(
                index: 0, count: 1, wakeDescriptor: descriptor,
                milliseconds: { SystemClock.monotonic().nanoseconds / 1_000_000 },
                wake: { [self] in _ = eventfd_write(descriptor, 1) }))
    }

    /// Returns when it was rung, or after `milliseconds`.
    func wait(milliseconds: Int32) {
        guard apus_wait_readable(descriptor, milliseconds) == 1 else { return }
        var count: eventfd_t = 0
        _ = eventfd_read(descriptor, &count)
    }
}
