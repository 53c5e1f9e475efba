// Fills the index of a namespace from its medium, on threads of its own, and says how far it is.
internal import Base
internal import CBase
internal import Engine
internal import Glibc
internal import Logging
internal import Reactor
internal import Storage

/// One cold start. Main thread; `scan` on the threads.
final class ColdStartRun: @unchecked Sendable {
    private let start: ColdStart
    private let namespace: Namespace
    private let segments: Int
    private let log: Logger
    private let progress: StartProgress
    private let threads: HelperThreads
    private let begun = SystemClock.monotonic()

    private init(
        _ start: ColdStart, _ namespace: Namespace, segments: Int, _ log: Logger, _ progress: StartProgress
    ) {
        self.progress = progress
        self.start = start
        self.namespace = namespace
        self.segments = segments
        self.log = log
        threads = HelperThreads(count: segments)
    }

    /// How it ended.
    enum Outcome {
        /// The namespace can serve.
        case serves
        case stopAsked
        /// The index, or the list of sets, has no room for so many records; nothing has happened to them.
        case noRoom(Int)
    }

    /// Reads everything; `threads` at most as many as the namespace has reactors.
    static func run(
        _ namespace: Namespace, recordsMax: Int, threads: Int, _ signals: SignalSet, _ log: Logger, _ progress: StartProgress
    ) throws(StartError) -> Outcome {
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
            return .stopAsked
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
        return start.refused == 0 ? .serves : .noRoom(start.refused)
    }

    private var isStopAsked: Bool { threads.isStopAsked }

    private func workAndWait(_ signals: SignalSet) throws(StartError) {
        let error = try threads.run(
            signals, log, purpose: "a cold start", body: { [self] segment in scan(segment) },
            watch: { [self] in tellProgress() },
            note: { [self] in
                "{\(namespace.settings.name)} cold start: \(start.visited) images so far, \(start.bytes >> 20) MB\(timeLeft)"
            })
        if let error { throw StartError("namespace \(namespace.settings.name) cannot be read: \(error.text)") }
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

    private func scan(_ segment: Int) -> StorageError? {
        do throws(StorageError) {
            try namespace.backend.scan(segment: segment, of: segments) { scanned in
                isStopAsked ? .stop : start.visit(scanned, worker: segment)
            }
            return nil
        } catch {
            return error
        }
    }
}
