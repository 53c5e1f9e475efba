// Work for the control thread. Invariants:
// 1. Every job that `add` has taken is done: what comes after `finish` is refused.
// 2. One job at a time: the control thread looks after its own deadline between two.
internal import Glibc
internal import Synchronization

/// Work that may block, for the control thread: done at once if it waits for signals, in the order it came. Any thread.
final class ControlJobs: Sendable {
    /// The control thread is told of a job by this signal.
    static let signal = SIGUSR1
    private struct Queue {
        var jobs: [@Sendable () -> Void] = []
        var isFinished = false
    }
    private let queue = Mutex(Queue())
    private let thread = Mutex<pthread_t?>(nil)

    /// From here on the calling thread is the control thread, and takes signals.
    func attach() { thread.withLock { $0 = pthread_self() } }

    /// Leaves a job. False: it is not taken, the node stops.
    func add(_ job: @escaping @Sendable () -> Void) -> Bool {
        let isTaken = queue.withLock { queue in
            if !queue.isFinished { queue.jobs.append(job) }
            return !queue.isFinished
        }
        if isTaken { thread.withLock { if let thread = $0 { _ = pthread_kill(thread, ControlJobs.signal) } } }
        return isTaken
    }

    /// Whether there is nothing to do.
    var isEmpty: Bool { queue.withLock { $0.jobs.isEmpty } }

    /// Does the job that came first, if there is one. The control thread.
    func runNext() {
        let job = queue.withLock { $0.jobs.isEmpty ? nil : $0.jobs.removeFirst() }
        job?()
    }

    /// Does what has come, and takes no more. The control thread.
    func finish() {
        queue.withLock { $0.isFinished = true }
        while !isEmpty { runNext() }
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
