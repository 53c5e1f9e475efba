// Scans: at a start after a clean close, and while the backend serves.
internal import Base
internal import Storage
internal import Synchronization

enum ScanCases {
    /// Digests written, some twice, some deleted; everything has been answered.
    private static func fill(_ session: Session, _ count: Int) throws(Failure) {
        session.refuseNothing()
        for number in 0..<count { try session.append(number, byteCount: 64 + number * 3, shard: number % 2) }
        try session.settle()
        for number in stride(from: 0, to: count, by: 3) {
            try session.append(number, byteCount: 90 + number, shard: (number + 1) % 2)
        }
        try session.settle()
        for number in stride(from: 1, to: count, by: 3) { try session.delete(number, shard: number % 2) }
        try session.settle()
    }

    /// Everything placed is there after close, also when nothing was committed, and again after more of the same.
    static func close(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            try fill(session, 60)
            try session.closeAndReopen(segments: 1)
            try session.closeAndReopen(segments: 4)
            try fill(session, 30)
            try session.closeAndReopen(segments: 3)
            try session.scanAndCompare(segments: 1)
        }
    }

    /// Every live image is visited once over all segments; by a volatile backend none.
    static func once(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            try session.scanAndCompare(segments: 1)
            try fill(session, 150)
            for segments in [1, 4, 7] { try session.scanAndCompare(segments: segments) }
        }
    }

    /// The same with each segment on a thread of its own.
    static func onThreads(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            try fill(session, 150)
            let collector = Collector(session)
            StorageConformance.onThreads(4) { collector.scan(segment: $0, of: 4) }
            try session.compare(try collector.result())
        }
    }

    /// Of an addressed backend the newest image of a digest has the highest sequence, also after compaction and a restart.
    static func sequence(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for round in 0..<12 {
                for number in 0..<10 { try session.append(number, byteCount: 300 + round, shard: (round + number) % 2) }
                try session.settle()
                try session.compact(shard: round % 2, byteBudget: 4096)
            }
            try session.scanAndCompare(segments: 1)
            try session.winBack(slices: 4)
            try session.scanAndCompare(segments: 2)
            try session.closeAndReopen(segments: 1)
            try session.scanAndCompare(segments: 1)
        }
    }

    /// A keyed backend deletes what a scan calls stale.
    static func stale(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<40 { try session.append(number, byteCount: 100, shard: number % 2) }
            try session.closeAndReopen(segments: 2, unwanted: Set(stride(from: 0, to: 40, by: 2)))
            try session.scanAndCompare(segments: 1)
            try session.closeAndReopen(segments: 1)
            if let number = (0..<40).first(where: { ($0 % 2 == 0) != (session.records[$0]?.current == nil) }) {
                throw Failure(
                    text: "every second digest was called stale; digest \(number) is not as it should be after a restart")
            }
        }
    }

    /// What a scan calls stale a client may have replaced while the engine was looking: the new image stays.
    static func staleReplaced(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<40 { try session.append(number, byteCount: 100, shard: number % 2) }
            try session.settle()
            try callStale(session, replacing: { $0 % 4 == 0 }, deleting: { $0 % 4 == 1 })
            for number in 0..<40 { try session.readEverywhere(number) }
            try session.settle()
            try session.scanAndCompare(segments: 2)
            try session.closeAndReopen(segments: 1)
            try session.scanAndCompare(segments: 1)
        }
    }

    /// Scans; the visits of the digests in `replacing` write them anew and then call stale what they were shown, those of
    /// `deleting` only call it stale.
    private static func callStale(
        _ session: Session, replacing: (Int) -> Bool, deleting: (Int) -> Bool
    ) throws(Failure) {
        var failure: Failure?
        var replaced: Set<Int> = []
        let backend = session.backend
        try trying("scan") { () throws(StorageError) in
            try backend.scan(segment: 0, of: 1) { image in
                guard let number = TestImage.number(of: image.digest) else { return .live }
                // The new image comes later in the same scan, if the backend shows it at all.
                guard replacing(number) else { return deleting(number) ? .stale : .live }
                guard replaced.insert(number).inserted else { return .live }
                let before = crc32c(image.image)
                do throws(Failure) {
                    try session.append(number, byteCount: 100 + number % 3, shard: number % 2)
                    try session.settle()
                    try session.commit(number, shard: number % 2)
                    try session.settle()
                } catch {
                    failure = failure ?? error
                }
                if crc32c(image.image) != before {
                    failure = failure ?? Failure(text: "the image lent to a visit of digest \(number) changed meanwhile")
                }
                return .stale
            }
        }
        if let failure { throw failure }
        for number in session.records.keys where deleting(number) { session.records[number]?.dropped() }
    }

    /// The parts of a scan share the work: no part has it all, however many digests there are.
    static func segments(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<400 {
                try session.append(number, byteCount: 200, shard: number % 2)
                if number % 16 == 15 { try session.settle() }
            }
            try session.settle()
            var visits = [0, 0, 0, 0]
            let backend = session.backend
            for segment in visits.indices {
                try trying("scan") { () throws(StorageError) in
                    try backend.scan(segment: segment, of: visits.count) { _ in
                        visits[segment] += 1
                        return .live
                    }
                }
            }
            guard visits.count(where: { $0 > 0 }) >= 2 else {
                throw Failure(text: "of 4 segments one does all the work; they visited \(visits) images")
            }
        }
    }

    /// After `stop` nothing more is visited, and the backend works on.
    static func stop(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            try fill(session, 50)
            var visits = 0
            let backend = session.backend
            try trying("scan") { () throws(StorageError) in
                try backend.scan(segment: 0, of: 1) { _ in
                    visits += 1
                    return visits < 3 ? .live : .stop
                }
            }
            guard visits == 3 else { throw Failure(text: "the third visit answered stop; there were \(visits)") }
            try session.scanAndCompare(segments: 1)
        }
    }

    /// While another thread scans, images come and go; those that stay are visited exactly once.
    static func whileWriting(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<300 { try session.append(number, byteCount: 200, shard: number % 2) }
            try session.settle()
            // The collector knows only what stays, so that the two threads share nothing.
            let staying = (0..<300).filter { $0 % 3 == 0 }
            let collector = Collector(session, only: Set(staying))
            let running = Atomic<Bool>(true)
            var failure: Failure?
            StorageConformance.onThreads(2) { thread in
                if thread == 0 {
                    for segment in 0..<2 { collector.scan(segment: segment, of: 2) }
                    running.store(false, ordering: .releasing)
                } else {
                    do throws(Failure) { try churn(session, while: running) } catch { failure = error }
                }
            }
            if let failure { throw failure }
            let met = try collector.result()
            for number in staying { try session.compare(number, met[number] ?? []) }
            try session.settle()
            try session.scanAndCompare(segments: 1)
        }
    }

    /// Appends and deletes digests that are not multiples of three, at least a few hundred times.
    private static func churn(_ session: Session, while running: borrowing Atomic<Bool>) throws(Failure) {
        session.tolerates = { $0 == .overloaded || $0 == .outOfSpace }
        var step = 0
        while step < 300 || running.load(ordering: .acquiring) && step < 20_000 {
            let number = step % 100 * 3 + 1 + step % 2
            if step % 5 == 4 {
                try session.delete(number, shard: step % 2)
            } else {
                try session.append(number, byteCount: 100 + step % 200, shard: step % 2)
            }
            if step % 16 == 15 { for shard in 0..<Session.shardCount { try session.turn(shard) } }
            step += 1
        }
    }
}

/// What scans on several threads have met. Any thread.
private final class Collector: @unchecked Sendable {
    private struct State {
        var met: [Int: [Visit]] = [:]
        var failure: Failure?
    }

    private let state = Mutex(State())
    private let backend: any Backend
    private let records: [Int: RecordModel]
    private let only: Set<Int>?

    /// Judges by what `session` knows now; of other digests than `only`, if that is given, by nothing.
    init(_ session: Session, only: Set<Int>? = nil) {
        backend = session.backend
        records = session.records
        self.only = only
    }

    func scan(segment: Int, of count: Int) {
        do throws(StorageError) {
            try backend.scan(segment: segment, of: count) { visit($0) }
        } catch {
            state.withLock { $0.failure = Failure(text: "scan of segment \(segment) failed: \(error)") }
        }
    }

    private func visit(_ image: ScannedImage) -> ScanDecision {
        if let only, let number = TestImage.number(of: image.digest), !only.contains(number) { return .live }
        return state.withLock { state in
            do throws(Failure) {
                let (number, version) = try records.identify(image)
                state.met[number, default: []].append(
                    Visit(version: version, location: image.location, sequence: image.sequence))
                return .live
            } catch {
                state.failure = state.failure ?? error
                return .stop
            }
        }
    }

    /// All visits, when every scan is over.
    func result() throws(Failure) -> [Int: [Visit]] {
        let state = state.withLock { $0 }
        if let failure = state.failure { throw failure }
        return state.met
    }
}
