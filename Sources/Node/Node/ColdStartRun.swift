// Fills the index of a namespace from its medium, on threads of its own, and says how far it is.
internal import Base
internal import CBase
internal import Engine
internal import Glibc
internal import Logging
internal import Reactor
internal import Storage

/// One cold start. Main thread; `work` on the threads.
final class ColdStartRun: @unchecked Sendable {
    private static let noteMilliseconds = 2000
    private let start: ColdStart
    private let namespace: Namespace
    private let segments: Int
    private let outcomes: [Outcome]
    private let log: Logger
    private let progress: StartProgress
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

    private final class Work {
        let run: ColdStartRun
        let segment: Int
        init(_ run: ColdStartRun, _ segment: Int) {
            self.run = run
            self.segment = segment
        }
    }

    private let begun = SystemClock.monotonic()

    private init(
        _ start: ColdStart, _ namespace: Namespace, segments: Int, _ log: Logger, _ progress: StartProgress
    ) {
        self.progress = progress
        self.start = start
        self.namespace = namespace
        self.segments = segments
        self.log = log
        outcomes = (0..<segments).map { _ in Outcome() }
        stopWord.initialize(to: 0)
    }

    deinit { stopWord.deallocate() }

    /// Reads everything; `threads` at most as many as the namespace has reactors. True when the namespace can serve,
    /// false if a signal has asked to stop meanwhile.
    static func run(
        _ namespace: Namespace, recordsMax: Int, threads: Int, _ signals: SignalSet, _ log: Logger, _ progress: StartProgress
    ) throws(StartError) -> Bool {
        let name = namespace.settings.name
        let begun = SystemClock.now()
        let start: ColdStart
        do {
            start = try ColdStart(
                namespace, recordsMax: recordsMax, now: begun.wall, log: { log.warning(.storage, $0) })
        } catch {
            throw StartError("namespace \(name): no address space for a cold start: raise the limit (ulimit -v)")
        }
        let run = ColdStartRun(start, namespace, segments: threads, log, progress)
        try run.workAndWait(signals)
        if run.isStopAsked {
            log.info(.storage, "{\(name)} cold start: given up after \(start.visited) images, the node is to stop")
            return false
        }
        let lost = namespace.backend.statistics.lostPlaces
        start.settleTombstones(isComplete: lost == 0)
        let seconds = Double(SystemClock.monotonic().nanoseconds(since: begun.monotonic) / 1_000_000) / 1000
        let summary = "{\(name)} cold start: \(namespace.objectCount) records from \(start.visited) images"
            + " (\(start.bytes >> 20) MB) in \(seconds) s; expired \(start.expired), damaged \(start.damaged)"
        if start.damaged == 0, lost == 0 {
            log.info(.storage, summary)
        } else {
            log.warning(.storage, summary + (lost > 0 ? "; \(lost) places of the medium could not be read, see above" : ""))
        }
        guard start.refused == 0 else {
            throw StartError("namespace \(name): \(start.refused) records have no room in the index, or there are too many"
                + " sets; they are still on the medium")
        }
        return true
    }

    private var isStopAsked: Bool { apus_load_acquire_u32(stopWord) == 1 }

    private func workAndWait(_ signals: SignalSet) throws(StartError) {
        var threads: [pthread_t] = []
        for segment in 0..<segments {
            var thread = pthread_t()
            let reason = pthread_create(
                &thread, nil,
                { pointer in
                    let work = Unmanaged<Work>.fromOpaque(pointer!).takeRetainedValue()
                    work.run.scan(work.segment)
                    return nil
                }, Unmanaged.passRetained(Work(self, segment)).toOpaque())
            guard reason == 0 else {
                for thread in threads { pthread_join(thread, nil) }
                throw StartError("no thread for a cold start: \(String(cString: strerror(reason)))")
            }
            threads.append(thread)
        }
        waitWithNotes(signals)
        for thread in threads { pthread_join(thread, nil) }
        for error in outcomes.compactMap(\.error) {
            throw StartError("namespace \(namespace.settings.name) cannot be read: \(error.text)")
        }
    }

    /// A line every two seconds until all threads are done; a signal has them stop early.
    private func waitWithNotes(_ signals: SignalSet) {
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
            step = min(step * 2, 50)
            tellProgress()
            guard waited >= ColdStartRun.noteMilliseconds else { continue }
            waited = 0
            log.info(.storage, "{\(namespace.settings.name)} cold start: \(start.visited) images so far,"
                + " \(start.bytes >> 20) MB\(timeLeft)")
        }
    }

    /// How much of the medium is read, and how many seconds the rest will take at this speed, if the backend can say.
    private var part: (percent: UInt64, secondsLeft: Int)? {
        let figures = namespace.backend.statistics
        guard figures.scanTotalBytes > 0, figures.scanDoneBytes > 0 else { return nil }
        let seconds = Double(SystemClock.monotonic().nanoseconds(since: begun)) / 1e9
        let left = figures.scanTotalBytes - min(figures.scanDoneBytes, figures.scanTotalBytes)
        return (
            figures.scanDoneBytes * 100 / figures.scanTotalBytes,
            Int(seconds * Double(left) / Double(figures.scanDoneBytes)) + 1
        )
    }

    private var timeLeft: String {
        part.map { "; \($0.percent) % of the medium, about \($0.secondsLeft) s left" } ?? ""
    }

    private func tellProgress() {
        progress.set(
            [("namespace", namespace.settings.name), ("images", "\(start.visited)"), ("bytes", "\(start.bytes)")]
                + (part.map { [("pct", "\($0.percent)"), ("seconds-left", "\($0.secondsLeft)")] } ?? []))
    }

    private func scan(_ segment: Int) {
        do throws(StorageError) {
            try namespace.backend.scan(segment: segment, of: segments) { scanned in
                isStopAsked ? .stop : start.visit(scanned, worker: segment)
            }
        } catch {
            outcomes[segment].error = error
        }
        outcomes[segment].done()
    }
}
