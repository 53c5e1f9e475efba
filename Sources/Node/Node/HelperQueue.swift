// A thread that does what may block for others, in order. Invariants:
// 1. Jobs run one at a time, in the order they came.
// 2. After `finish` has returned nothing runs any more.
internal import CReactor
internal import Files
internal import Glibc
internal import Reactor
internal import Synchronization

/// See the invariants above. Any thread.
final class HelperQueue: @unchecked Sendable {
    private struct Jobs {
        var jobs: [@Sendable () -> Void] = []
        var isFinished = false
    }
    private let jobs = Mutex(Jobs())
    private let wake = HelperQueue.makeWake()
    private let thread = Mutex<pthread_t?>(nil)
    private let name: String

    private static func makeWake() -> UnsafeMutablePointer<sem_t> {
        let wake = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
        sem_init(wake, 0, 0)
        return wake
    }

    /// `name` is the thread's, 15 bytes at most.
    init(name: String) { self.name = name }

    deinit {
        sem_destroy(wake)
        wake.deallocate()
    }

    /// Leaves a job; the thread begins with the first. After `finish` it is not taken.
    func add(_ job: @escaping @Sendable () -> Void) {
        let isTaken = jobs.withLock { jobs in
            if !jobs.isFinished { jobs.jobs.append(job) }
            return !jobs.isFinished
        }
        guard isTaken else { return }
        thread.withLock { if $0 == nil { $0 = start() } }
        sem_post(wake)
    }

    private func start() -> pthread_t {
        var made = pthread_t()
        let reason = startThread(&made) { [self] in run() }
        precondition(reason == 0, "no thread for \(name): \(errnoText(reason))")
        return made
    }

    private func run() {
        apus_name_thread(name)
        while true {
            while sem_wait(wake) != 0 {}
            let (job, isFinished) = jobs.withLock { jobs in
                (jobs.jobs.isEmpty ? nil : jobs.jobs.removeFirst(), jobs.isFinished && jobs.jobs.isEmpty)
            }
            job?()
            if isFinished { return }
        }
    }

    /// Takes no more jobs, does those that have come, and ends the thread.
    func finish() {
        jobs.withLock { $0.isFinished = true }
        sem_post(wake)
        if let thread = thread.withLock({ $0 }) { pthread_join(thread, nil) }
    }

    /// Takes no more jobs and forgets those that have come. The one at hand may go on for a while.
    func abandon() {
        jobs.withLock { jobs in
            jobs.isFinished = true
            jobs.jobs = []
        }
        sem_post(wake)
        if let thread = thread.withLock({ $0 }) { pthread_detach(thread) }
    }
}
