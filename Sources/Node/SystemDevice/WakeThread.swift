// Wakes an owner that has no descriptor: a thread that sleeps on an eventfd and calls. Invariants:
// 1. The descriptor is open from `init` to the end of `stop`.
// 2. After `stop` nothing is called any more, unless `stop` itself ran inside the call.
internal import CUring
internal import Device
internal import Glibc
internal import Synchronization

/// See the invariants above. Any thread.
final class WakeThread: Sendable {
    /// Signal it, and the owner is woken.
    let descriptor: Int32
    private let wake: DeviceWake
    private let isStopped = Atomic<Bool>(false)
    private let thread = Mutex<pthread_t?>(nil)

    init(_ wake: DeviceWake) throws(DeviceError) {
        self.wake = wake
        descriptor = apus_blocking_eventfd()
        guard descriptor >= 0 else { throw .failed(errno: errno) }
        var made = pthread_t()
        let body = Unmanaged.passRetained(self)
        let reason = pthread_create(
            &made, nil,
            { pointer in
                Unmanaged<WakeThread>.fromOpaque(pointer!).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
        guard reason == 0 else {
            body.release()
            throw .failed(errno: reason)
        }
        let kept = made
        thread.withLock { $0 = kept }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    private func run() {
        while true {
            apus_eventfd_sleep(descriptor)
            if isStopped.load(ordering: .acquiring) { return }
            wake.call()
        }
    }

    /// Ends the thread. Once.
    func stop() {
        isStopped.store(true, ordering: .releasing)
        apus_eventfd_raise(descriptor)
        guard let thread = thread.withLock({ $0 }) else { return }
        if pthread_equal(thread, pthread_self()) != 0 { pthread_detach(thread) } else { pthread_join(thread, nil) }
    }
}
