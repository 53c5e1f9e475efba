// Locks that are open files: each ends with the process that holds it.
internal import Glibc

/// Taking such a lock. Any thread but a reactor's; may block for 3 s.
package enum FileLock {
    /// How often a lock that is held is tried again.
    static let patientTries = 150
    private static let pauseMicroseconds: UInt32 = 20_000

    /// Takes it, `LOCK_EX` or `LOCK_SH`. A process that was killed holds its lock until the kernel has taken its memory
    /// apart: who finds it held waits a little, as long as there were fewer than `triesMax()` pauses.
    /// - Returns: 0, or why not: EWOULDBLOCK if it is held for longer.
    package static func take(
        _ descriptor: Int32, _ wanted: Int32 = LOCK_EX, triesMax: () -> Int = { patientTries }
    ) -> Int32 {
        var tries = 0
        while flock(descriptor, wanted | LOCK_NB) != 0 {
            let reason = errno
            if reason == EINTR { continue }
            guard reason == EWOULDBLOCK, tries < triesMax() else { return reason }
            tries += 1
            usleep(pauseMicroseconds)
        }
        return 0
    }
}
