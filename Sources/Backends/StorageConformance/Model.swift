// What the kit knows of one digest: what was appended and deleted, in which order, and what of that must outlast a crash.
// Invariants:
// 1. `events` are in the order in which they were started; no two are under way at a time (the engine's promise).
// 2. `current` is what the last event that is done left: an image, or nothing after a deletion.
// 3. A version is in `versions` from its append on, for good: bytes of it are right bytes wherever they turn up, until it is
//    forbidden.
// 4. A version is forbidden once a promise of the backend, or an earlier restart without it, says that it cannot come back.
internal import Storage

/// One append or deletion.
struct Event {
    enum State { case underWay, done, failed }
    /// 0 for a deletion.
    let version: UInt64
    /// Which shard did it.
    let shard: Int
    var state: State
    /// A commit that covers it was answered, and the backend is durable at commit.
    var isCovered = false
}

/// Where the index says that the image of a digest is.
struct Placed: Equatable {
    let version: UInt64
    var location: Location
    let byteCount: Int
}

/// What is known of one version of a digest.
struct VersionFacts {
    let byteCount: Int
    /// The shard whose commit makes the release last; `anyShard` if a scan was told that the image is stale.
    var releasedBy: Int?
    /// Why it cannot be met any more; nil if it can.
    var forbiddenBecause: String?

    static let anyShard = -1
}

/// What a commit of one shard will have made durable when it is answered.
struct CommitCover {
    let events: [Int]
    let releases: [UInt64]
}

/// An image met by a scan.
struct Visit {
    let version: UInt64
    let location: Location
    let sequence: UInt64
}

/// See the invariants above.
struct RecordModel {
    private(set) var events: [Event] = []
    private(set) var current: Placed?
    private(set) var versions: [UInt64: VersionFacts] = [:]
    /// A location that the backend once gave for this digest.
    private(set) var locationBefore: Location?

    /// An append or a deletion is under way.
    var isBusy: Bool { events.last?.state == .underWay }

    // ---- What happens while it is open ----

    mutating func appendBegan(_ version: UInt64, byteCount: Int, shard: Int) {
        precondition(!isBusy, "the engine has one append or remove of a digest under way")
        events.append(Event(version: version, shard: shard, state: .underWay))
        versions[version] = VersionFacts(byteCount: byteCount)
    }

    mutating func deletionBegan(shard: Int) {
        precondition(!isBusy, "the engine has one append or remove of a digest under way")
        events.append(Event(version: 0, shard: shard, state: .underWay))
    }

    mutating func failed() {
        precondition(isBusy)
        events[events.count - 1].state = .failed
    }

    /// The append under way was placed; the image before, if there is one, is the caller's to release.
    mutating func placed(_ location: Location) -> Placed? {
        precondition(isBusy)
        let event = events[events.count - 1]
        let before = current
        events[events.count - 1].state = .done
        current = Placed(version: event.version, location: location, byteCount: versions[event.version]?.byteCount ?? 0)
        locationBefore = location
        if let before { versions[before.version]?.releasedBy = event.shard }
        return before
    }

    /// The deletion under way is done.
    mutating func deleted() {
        precondition(isBusy)
        events[events.count - 1].state = .done
        if let before = current { versions[before.version]?.releasedBy = events[events.count - 1].shard }
        current = nil
    }

    mutating func relocated(to location: Location) {
        current?.location = location
        locationBefore = location
    }

    /// A cold start told the backend that nobody wants the image it met.
    mutating func dropped() {
        deletionBegan(shard: VersionFacts.anyShard)
        deleted()
    }

    /// What a commit of `shard` covers if it is started now.
    func cover(shard: Int) -> CommitCover {
        let covered = events.indices.filter { events[$0].shard == shard && events[$0].state == .done }
        let releases = versions.filter { $0.value.releasedBy == shard || $0.value.releasedBy == VersionFacts.anyShard }
        return CommitCover(events: covered, releases: Array(releases.keys))
    }

    /// A commit has been answered.
    mutating func committed(_ cover: CommitCover, promises: Capabilities) {
        guard promises.contains(.durableAtCommit) else { return }
        for index in cover.events { events[index].isCovered = true }
        guard promises.contains(.deletesLast) else { return }
        let reason = "its release or removal was committed, and the backend promises deletes-last"
        for version in cover.releases { forbid(version, reason) }
    }

    private mutating func forbid(_ version: UInt64, _ reason: String) {
        if versions[version]?.forbiddenBecause == nil { versions[version]?.forbiddenBecause = reason }
    }

    // ---- What may be read ----

    /// Index of the last event that is done, -1 if there is none: what a read that begins now sees at least.
    var lastDone: Int { events.lastIndex { $0.state == .done } ?? -1 }

    /// Versions (0: nothing) that a keyed backend may give to a read that began when `lastDone` was `first`.
    func readable(since first: Int) -> Set<UInt64> {
        var allowed = Set(events[max(first, 0)...].filter { $0.state != .failed }.map(\.version))
        if first < 0 { allowed.insert(0) }
        return allowed
    }

    // ---- What may be there after the end ----

    /// Why `visits`, all that a scan met of this digest, are not what may be left after `ending`; nil if they are.
    func problem(after ending: Ending, _ visits: [Visit], promises: Capabilities) -> String? {
        for visit in visits {
            guard let reason = versions[visit.version]?.forbiddenBecause else { continue }
            return "version \(visit.version) came back: \(reason)"
        }
        if promises.contains(.keyed), visits.count > 1 {
            return "a scan met \(visits.count) images of one digest; the backend is keyed"
        }
        if let problem = RecordModel.orderProblem(visits) { return problem }
        let newest = RecordModel.newest(visits)?.version ?? 0
        switch ending {
        case .close: return problemAfterClose(newest, visits, promises)
        case .crash: return problemAfterCrash(newest, promises)
        }
    }

    /// The image with the highest sequence must be the one appended last.
    private static func orderProblem(_ visits: [Visit]) -> String? {
        let sorted = visits.sorted { $0.sequence < $1.sequence }
        for (left, right) in zip(sorted, sorted.dropFirst()) {
            if left.sequence == right.sequence ? left.version != right.version : left.version > right.version {
                return "version \(left.version) has sequence \(left.sequence),"
                    + " version \(right.version) has \(right.sequence)"
            }
        }
        return nil
    }

    /// The visit with the highest sequence.
    static func newest(_ visits: [Visit]) -> Visit? { visits.max { $0.sequence < $1.sequence } }

    private func problemAfterClose(_ newest: UInt64, _ visits: [Visit], _ promises: Capabilities) -> String? {
        let wanted = current?.version ?? 0
        // Of an append or removal that failed it is not known whether it happened.
        let failedSince = Set(events[max(lastDone, 0)...].filter { $0.state == .failed }.map(\.version))
        let others = visits.filter { $0.version != wanted && !failedSince.contains($0.version) }
        if promises.contains(.deletesLast), let back = others.first {
            return "version \(back.version) came back after close; the backend promises deletes-last"
        }
        if newest == wanted || failedSince.contains(newest) { return nil }
        if wanted == 0, !promises.contains(.deletesLast) { return nil }
        return "after close \(words(newest)) is there; \(words(wanted)) should be"
    }

    private func problemAfterCrash(_ newest: UInt64, _ promises: Capabilities) -> String? {
        guard let covered = events.lastIndex(where: { $0.isCovered }) else { return nil }
        let since = events[covered...]
        if since.contains(where: { $0.version == newest }) { return nil }
        if since.contains(where: { $0.version == 0 }), !promises.contains(.deletesLast) { return nil }
        return "after the crash \(words(newest)) is there; the last commit answered covers \(words(events[covered].version))"
    }

    private func words(_ version: UInt64) -> String { version == 0 ? "nothing" : "version \(version)" }

    /// Takes over what a cold start met, which `problem` found right.
    mutating func restarted(after ending: Ending, _ visits: [Visit], promises: Capabilities) {
        let durable = promises.contains(.durableAtCommit)
        let covered = events.last { $0.isCovered }
        let seen = Set(visits.map(\.version))
        // What a commit covers may come back in the place of something newer that none did.
        for version in Array(versions.keys) where !seen.contains(version) {
            if ending == .close || version != covered?.version { forbid(version, "it was gone at a restart") }
        }
        let newest = RecordModel.newest(visits)
        // A release that the medium has not noted is forgotten; what the engine does not want it has just said.
        for version in Array(versions.keys) {
            versions[version]?.releasedBy = version == newest?.version ? nil : VersionFacts.anyShard
        }
        current = newest.map { visit in
            Placed(version: visit.version, location: visit.location, byteCount: versions[visit.version]?.byteCount ?? 0)
        }
        if let newest { locationBefore = newest.location }
        let version = newest?.version ?? 0
        let isCovered = durable && ending == .close || covered?.version == version
        events = []
        if let covered, !isCovered { events.append(covered) }
        events.append(Event(version: version, shard: VersionFacts.anyShard, state: .done, isCovered: isCovered))
    }
}

extension RecordModel {
    /// Whether it is unknown of an append or deletion since the last that is done if it happened.
    var hasFailures: Bool { events.contains { $0.state == .failed } }
}
