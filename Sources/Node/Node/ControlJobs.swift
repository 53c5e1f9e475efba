internal import Synchronization

/// Work that may block, for the control thread: done within a second, in the order it came. Any thread.
final class ControlJobs: Sendable {
    private let jobs = Mutex<[@Sendable () -> Void]>([])

    /// Leaves a job.
    func add(_ job: @escaping @Sendable () -> Void) { jobs.withLock { $0.append(job) } }

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
