internal import Glibc

/// Starts a thread that does `body`, holds what that refers to until then, and ends.
/// - Returns: 0 and the thread in `thread`, to be joined or detached by the caller; or an errno, and nothing has happened.
package func startThread(_ thread: inout pthread_t, _ body: @escaping () -> Void) -> Int32 {
    let work = Unmanaged.passRetained(ThreadWork(body))
    let reason = pthread_create(
        &thread, nil,
        { pointer in
            Unmanaged<ThreadWork>.fromOpaque(pointer!).takeRetainedValue().body()
            return nil
        }, work.toOpaque())
    if reason != 0 { work.release() }
    return reason
}

private final class ThreadWork {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}
