internal import Glibc
internal import Synchronization

/// Work that may block, for the control thread: done at once if it waits for signals, in the order it came. Any thread.
final class ControlJobs: Sendable {
    /// The control thread is told of a job by this signal.
    static let signal = SIGUSR1
    private let jobs = Mutex<[@Sendable () -> Void]>([])
    private let thread = Mutex<pthread_t?>(nil)

    /// From here on the calling thread is the control thread, and takes signals.
    func attach() { thread.withLock { $0 = pthread_self() } }

    /// Leaves a job.
    func add(_ job: @escaping @Sendable () -> Void) {
        jobs.withLock { $0.append(job) }
        thread.withLock { if let thread = $0 { _ = pthread_kill(thread, ControlJobs.signal) } }
    }

    /// Does what has come. The control thread.
    func run() {
        let all = jobs.withLock { jobs in
            defer { jobs = [] }
            return jobs
        }
        for job in all { job() }
    }
}

/// How far a start is, as `start-progress` tells it. Any thread.
final class StartProgress: Sendable {
    private let words = Mutex("phase=starting")

    /// `k=v;k=v`.
    var text: String { words.withLock { $0 } }

    /// What is being done now.
    func set(_ values: [(String, String)]) {
        let text = statisticsText([("phase", "starting")] + values)
        words.withLock { $0 = text }
    }
}
