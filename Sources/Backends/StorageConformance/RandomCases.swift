// The cases that draw histories, run them, and shorten the first that fails.
internal import Base
internal import Storage

enum RandomCases {
    /// Histories without crashes.
    static func histories(_ context: Context) throws(CaseEnd) {
        for number in 0..<context.settings.histories {
            try run(context, number, .serving, crashes: 0)
            context.progress(number, of: context.settings.histories, "histories")
        }
    }

    /// Histories with crashes: what may be lost follows from the capability bits.
    static func crash(_ context: Context) throws(CaseEnd) {
        try crashes(context, .crashing, context.settings.crashPoints)
    }

    /// Crashes around blob and partition metadata: old or new, never mixed. Each costs many of the other kind.
    static func crashMetadata(_ context: Context) throws(CaseEnd) {
        try crashes(context, .metadata, max(context.settings.crashPoints / 25, 20))
    }

    private static func crashes(_ context: Context, _ kind: HistoryPlan.Kind, _ total: Int) throws(CaseEnd) {
        var number = 0
        while context.crashPoints < total {
            let count = min(1 + number % 5, total - context.crashPoints)
            try run(context, number, kind, crashes: count)
            context.crashPoints += count
            number += 1
            context.progress(context.crashPoints, of: total, "crashes")
        }
    }

    private static func run(
        _ context: Context, _ number: Int, _ kind: HistoryPlan.Kind, crashes: Int
    ) throws(CaseEnd) {
        let seed = TestImage.mixed(TestImage.mixed(context.settings.seed) &+ UInt64(number))
        var plan = HistoryPlan(seed: seed, kind: kind, promises: context.promises, limits: context.subject.limits)
        let operations = plan.draw(context.settings.operationsPerHistory, crashes: crashes)
        guard let first = attempt(context.subject, operations) else { return }
        let shrinker = Shrinker { attempt(context.subject, $0) }
        let (shortest, failure) = shrinker.shorten(operations, first)
        throw .failed("history \(number): \(failure.text)", history: shortest.map(\.words))
    }

    /// Runs the operations on a new backend; how it failed, and at which operation.
    private static func attempt(_ subject: any ConformanceSubject, _ operations: [Operation]) -> Shrinker.Failed? {
        var done = 0
        do throws(Failure) {
            let session = try Session(subject)
            defer { session.abandon() }
            for operation in operations {
                try session.perform(operation)
                done += 1
            }
            for number in session.records.keys.sorted() { try session.read(number, shard: number % Session.shardCount) }
            try session.settle()
            return nil
        } catch {
            return Shrinker.Failed(text: error.text, index: done)
        }
    }
}

/// Shortens a failing history: drops halves, quarters, ... single operations as long as it still fails, though not always
/// for the same reason.
struct Shrinker {
    /// How an attempt failed.
    struct Failed {
        let text: String
        /// The operation it failed at.
        let index: Int
    }

    private static let attemptsMax = 600
    private static let secondsMax = 20.0
    private let attempt: ([Operation]) -> Failed?

    init(_ attempt: @escaping ([Operation]) -> Failed?) { self.attempt = attempt }

    func shorten(_ operations: [Operation], _ first: Failed) -> ([Operation], Failed) {
        var shortest = Array(operations.prefix(first.index + 1))
        var failed = first
        var attempts = 0
        let begun = Clock.seconds
        var length = max(shortest.count / 2, 1)
        while true {
            var hasShrunk = false
            var start = 0
            while start < shortest.count {
                guard attempts < Shrinker.attemptsMax, Clock.seconds - begun < Shrinker.secondsMax else {
                    return (shortest, failed)
                }
                attempts += 1
                var shorter = shortest
                shorter.removeSubrange(start..<min(start + length, shortest.count))
                if let again = attempt(shorter) {
                    shortest = Array(shorter.prefix(again.index + 1))
                    failed = again
                    hasShrunk = true
                } else {
                    start += length
                }
            }
            if length == 1, !hasShrunk { return (shortest, failed) }
            length = max(length / 2, 1)
        }
    }
}
