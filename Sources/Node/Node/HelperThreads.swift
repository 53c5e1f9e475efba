// Threads that do a long piece of work at a start, while the main thread listens to signals and says how far it is.
internal import Base
internal import CBase
internal import Files
internal import Glibc
internal import Logging
internal import Reactor
internal import Storage

/// So many threads, once. Main thread; `isStopAsked` on any.
final class HelperThreads: @unchecked Sendable {
    private static let noteMilliseconds = 2000
    private static let waitMilliseconds = 50
    private let outcomes: [Outcome]
    private let stopWord = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)

    /// What one thread ended with; `error` is read after it was joined.
    private final class Outcome: @unchecked Sendable {
        var error: StorageError?
        private let word = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
        init() { word.initialize(to: 0) }
        deinit { word.deallocate() }
        var isDone: Bool { apus_load_acquire_u32(word) == 1 }
        func done() { apus_store_release_u32(word, 1) }
    }

    init(count: Int) {
        outcomes = (0..<count).map { _ in Outcome() }
        stopWord.initialize(to: 0)
    }

    deinit { stopWord.deallocate() }

    /// A signal has asked to stop: the threads should end soon.
    var isStopAsked: Bool { apus_load_acquire_u32(stopWord) == 1 }

    /// Runs `body` on each thread with its number and waits for all. `watch` is called every few milliseconds, `note` gives
    /// a line for the log every two seconds; `purpose` is for messages.
    /// - Returns: the error of the first thread that had one.
    func run(
        _ signals: SignalSet, _ log: Logger, purpose: String, body: @escaping (Int) -> StorageError?,
        watch: () -> Void = {}, note: () -> String
    ) throws(StartError) -> StorageError? {
        var threads: [pthread_t] = []
        for (number, outcome) in outcomes.enumerated() {
            var thread = pthread_t()
            let reason = startThread(&thread) {
                outcome.error = body(number)
                outcome.done()
            }
            guard reason == 0 else {
                for thread in threads { pthread_join(thread, nil) }
                throw StartError("no thread for \(purpose): \(errnoText(reason))")
            }
            threads.append(thread)
        }
        wait(signals, log, watch, note)
        for thread in threads { pthread_join(thread, nil) }
        return outcomes.compactMap(\.error).first
    }

    private func wait(_ signals: SignalSet, _ log: Logger, _ watch: () -> Void, _ note: () -> String) {
        var signals = signals
        var waited = 0
        var step = 1
        while !outcomes.allSatisfy(\.isDone) {
            switch signals.wait(milliseconds: step) {
            case SIGTERM, SIGINT: apus_store_release_u32(stopWord, 1)
            case SIGHUP: log.reopen()
            default: break
            }
            waited += step
            step = min(step * 2, HelperThreads.waitMilliseconds)
            watch()
            guard waited >= HelperThreads.noteMilliseconds else { continue }
            waited = 0
            log.info(.storage, note())
        }
    }
}
