// Walks an index that outlived its process, on threads of its own.
internal import Base
internal import Engine
internal import Logging
internal import Reactor
internal import Storage

/// One warm start. Main thread.
enum WarmStartRun {
    /// How it ended.
    enum Outcome {
        /// The namespace can serve.
        case serves
        /// The backend has nothing to go on from.
        case cold
        /// A signal has asked to stop; what is in the memory is as good as before.
        case stopAsked
        /// The memory is damaged: the index has to be built from the medium.
        case untrusted(String)
    }

    /// Walks with `threads`, at most as many as the namespace has reactors.
    static func run(
        _ namespace: Namespace, threads: Int, _ signals: SignalSet, _ log: Logger
    ) throws(StartError) -> Outcome {
        guard let backend = namespace.backend.warmStart else { return .cold }
        let name = namespace.settings.name
        let begun = SystemClock.monotonic()
        let start = WarmStart(namespace, backend)
        let helpers = HelperThreads(count: threads)
        let failure = try helpers.run(
            signals, log, purpose: "a warm start",
            body: { number in
                do throws(StorageError) {
                    try start.adopt(worker: number, of: threads) { helpers.isStopAsked }
                    return nil
                } catch {
                    return error
                }
            }, note: { "{\(name)} warm start: walking the index" })
        if helpers.isStopAsked { return .stopAsked }
        do throws(StorageError) {
            if let failure { throw failure }
            try start.finish()
        } catch {
            if case .medium(let sentence) = error { return .untrusted(sentence) }
            throw StartError("namespace \(name) does not open: \(error.text)")
        }
        let seconds = Double(SystemClock.monotonic().nanoseconds(since: begun) / 1_000_000) / 1000
        let repaired = start.repaired > 0 ? "; \(start.repaired) handles of an interrupted change were cleared" : ""
        log.info(.storage, "{\(name)} warm start: \(namespace.objectCount) records in \(seconds) s\(repaired)")
        return .serves
    }
}
