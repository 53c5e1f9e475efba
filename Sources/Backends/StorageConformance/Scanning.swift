// Scans as the engine makes them: at a cold start, where the decisions say what lives, and while the backend serves. And the
// index as compaction sees it.
internal import Base
internal import Glibc
internal import Storage

/// The index at a cold start: builds what `Session.reopen` judges.
final class ColdStart {
    private let session: Session
    private(set) var visits: [Int: [Visit]] = [:]
    private var failure: Failure?

    private let unwanted: Set<Int>

    init(_ session: Session, unwanted: Set<Int> = []) {
        self.session = session
        self.unwanted = unwanted
    }

    /// Scans all segments; the visits by digest.
    func run(segments: Int) throws(Failure) -> [Int: [Visit]] {
        for segment in 0..<segments {
            let backend = session.backend
            try trying("scan") { () throws(StorageError) in
                try backend.scan(segment: segment, of: segments) { self.visit($0) }
            }
            if let failure { throw failure }
        }
        return visits
    }

    private func visit(_ image: ScannedImage) -> ScanDecision {
        do throws(Failure) {
            let (number, version) = try session.records.identify(image)
            let visit = Visit(version: version, location: image.location, sequence: image.sequence)
            let before = RecordModel.newest(visits[number] ?? [])
            if visits[number]?.contains(where: { $0.location == visit.location }) == true, !session.isKeyed {
                throw Failure(text: "a scan met location \(visit.location.rawValue) twice")
            }
            visits[number, default: []].append(visit)
            if unwanted.contains(number) { return .stale }
            guard let before else { return .live }
            guard visit.sequence > before.sequence else { return .stale }
            let byteCount = session.records[number]?.versions[before.version]?.byteCount ?? 0
            return .replaces(before.location, byteCount: Envelope.storedByteCount(byteCount))
        } catch {
            failure = failure ?? error
            return .stop
        }
    }
}

/// The kit's index as compaction asks it.
final class IndexArbiter: LivenessArbiter {
    private let session: Session
    private(set) var failure: Failure?

    init(_ session: Session) { self.session = session }

    func prefetch(_ digest: Digest, stage: Int) {}

    func isLive(_ digest: Digest, at location: Location) -> Bool {
        guard let number = TestImage.number(of: digest) else { return false }
        return session.records[number]?.current?.location == location
    }

    func relocate(_ digest: Digest, from: Location, to: Location) -> Bool {
        guard let number = TestImage.number(of: digest), isLive(digest, at: from) else { return false }
        do throws(Failure) { try session.relocate(number, to) } catch { failure = failure ?? error }
        return true
    }
}

extension [Int: RecordModel] {
    /// Which digest and version a scan has met; every byte is looked at.
    func identify(_ image: ScannedImage) throws(Failure) -> (number: Int, version: UInt64) {
        guard let number = TestImage.number(of: image.digest), let record = self[number] else {
            throw Failure(text: "a scan met digest \(image.digest), which was never appended")
        }
        guard let version = TestImage.version(in: image.image), let facts = record.versions[version] else {
            throw Failure(text: "a scan met an image of digest \(number) that was never appended for it")
        }
        guard TestImage.isRight(image.image, number, version: version, byteCount: facts.byteCount) else {
            throw Failure(text: "a scan met a damaged image of digest \(number), version \(version)")
        }
        return (number, version)
    }
}

extension Session {
    /// Scans while the backend serves and nothing is under way: every live image must be met exactly once.
    func scanAndCompare(segments: Int) throws(Failure) {
        try settle()
        var met: [Int: [Visit]] = [:]
        var failure: Failure?
        for segment in 0..<segments {
            let backend = backend
            try trying("scan") { () throws(StorageError) in
                try backend.scan(segment: segment, of: segments) { image in
                    do throws(Failure) {
                        let (number, version) = try self.records.identify(image)
                        met[number, default: []].append(
                            Visit(version: version, location: image.location, sequence: image.sequence))
                        return .live
                    } catch {
                        failure = failure ?? error
                        return .stop
                    }
                }
            }
        }
        if let failure { throw failure }
        try compare(met)
    }

    /// Holds all visits of a scan against the index.
    func compare(_ met: [Int: [Visit]]) throws(Failure) {
        if promises.contains(.volatile) {
            guard met.isEmpty else {
                throw Failure(text: "a volatile backend visits nothing, this one visited \(met.count) digests")
            }
            return
        }
        for number in records.keys.sorted() {
            try compare(number, met[number] ?? [])
        }
    }

    /// Holds the visits of one digest against the index.
    func compare(_ number: Int, _ visits: [Visit]) throws(Failure) {
        guard let record = records[number] else { return }
        guard let current = record.current else {
            guard isKeyed, !visits.isEmpty, !record.hasFailures else { return }
            throw Failure(text: "a scan met digest \(number), which was removed")
        }
        // A keyed backend may count its versions anew for a scan; of an addressed one the location says which image it is.
        let times = isKeyed
            ? visits.count : visits.count { $0.version == current.version && $0.location == current.location }
        guard times == 1 else { throw Failure(text: "a scan met the live image of digest \(number) \(times) times") }
        guard RecordModel.newest(visits)?.version == current.version || record.hasFailures else {
            throw Failure(
                text: "of digest \(number), version \(current.version) is the newest;"
                    + " a scan gives another the highest sequence")
        }
    }
}

/// Runs `body` on `count` threads, each with its number, and waits for all.
func onThreads(_ count: Int, _ body: @escaping (Int) -> Void) {
    let threads: [pthread_t?] = (0..<count).map { number in
        let job = Unmanaged.passRetained(ThreadJob { body(number) })
        var thread = pthread_t()
        let reason = pthread_create(
            &thread, nil,
            { pointer in
                Unmanaged<ThreadJob>.fromOpaque(pointer!).takeRetainedValue().body()
                return nil
            }, job.toOpaque())
        if reason == 0 { return thread }
        job.release()
        body(number)
        return nil
    }
    for thread in threads { if let thread { pthread_join(thread, nil) } }
}

private final class ThreadJob {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}
