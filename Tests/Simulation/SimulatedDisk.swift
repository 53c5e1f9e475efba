// The disk of one simulated machine. Invariants:
// 1. A request is kept as a whole or not at all. What was answered `stored` is kept, whatever crashes later.
// 2. Requests of one kind (the view; the partitions; system metadata) take effect in the order in which they were asked for.
// 3. A crash keeps of what is under way, of each kind, the first few requests, as chance wills.
// 4. It never comes back in an older state: a disk that lies is no disk of this world.
internal import Assembly
internal import Metadata

/// How a disk is at the moment.
package enum DiskMood: String, Sendable, CaseIterable {
    case sound
    /// Each request takes up to 3 s.
    case slow
    /// Each request is answered with an error and changes nothing.
    case failing
}

/// One request under way.
struct DiskRequest {
    let ticket: UInt64
    let content: StoreRequest
    /// It will be answered with an error.
    let fails: Bool

    /// Each kind has its own file, and its own order.
    var kind: Int {
        switch content {
        case .view: 0
        case .partitions: 1
        case .metadata: 2
        }
    }
}

struct SimulatedDisk {
    private(set) var view: [UInt8]?
    /// By name.
    private(set) var partitions: [(namespace: String, metadata: [[UInt8]])] = []
    private(set) var metadata = MetadataItems()
    private(set) var underWay: [DiskRequest] = []
    /// What it has taken since this was looked at last.
    private var changes: [PartitionsChange] = []
    /// Virtual times at which the last request of each kind is done.
    private var lastDone: [UInt64] = [0, 0, 0]
    var mood = DiskMood.sound
    var moodEnds: UInt64 = 0

    /// Takes a request; answers when it will be done.
    mutating func begin(
        _ ticket: UInt64, _ content: StoreRequest, now: UInt64, options: RunOptions, chance: inout Chance
    ) -> UInt64 {
        if now >= moodEnds { mood = .sound }
        let base = UInt64(options.diskMicroseconds) * 1000
        var duration = chance.between(base / 2, base * 2)
        if mood == .slow { duration += chance.magnitude(1_000_000, 3_000_000_000) }
        let fails = mood == .failing || chance.permille(options.diskFailPermille)
        let one = DiskRequest(ticket: ticket, content: content, fails: fails)
        underWay.append(one)
        let done = max(lastDone[one.kind] + 1, now + duration)
        lastDone[one.kind] = done
        return done
    }

    /// The request is done: true if it is durable now, nil if it is not under way any more.
    mutating func finish(_ ticket: UInt64) -> Bool? {
        guard let place = underWay.firstIndex(where: { $0.ticket == ticket }) else { return nil }
        let done = underWay.remove(at: place)
        if !done.fails { apply(done.content) }
        return !done.fails
    }

    /// The process is gone. What was under way is kept up to some request of each kind.
    mutating func crash(now: UInt64, chance: inout Chance) {
        var keeps = [true, true, true]
        for one in underWay where !one.fails {
            let goesOn = chance.below(2) == 0
            keeps[one.kind] = keeps[one.kind] && goesOn
            if keeps[one.kind] { apply(one.content) }
        }
        end(now)
    }

    /// An orderly stop: everything that was asked for is done first.
    mutating func close(now: UInt64) {
        for one in underWay where !one.fails { apply(one.content) }
        end(now)
    }

    private mutating func end(_ now: UInt64) {
        underWay = []
        lastDone = [now, now, now]
    }

    mutating func wipe() {
        precondition(underWay.isEmpty, "a disk is wiped while no process uses it")
        view = nil
        partitions = []
        metadata = MetadataItems()
    }

    /// What it has taken since the last call.
    mutating func takeChanges() -> [PartitionsChange] {
        defer { changes = [] }
        return changes
    }

    private mutating func apply(_ request: StoreRequest) {
        switch request {
        case .view(let bytes): view = bytes
        case .metadata(let items): for item in items { metadata.merge(item) }
        case .partitions(let namespaces):
            for one in namespaces {
                let known = partitions.firstIndex { $0.namespace == one.namespace }
                let before = known.map { partitions[$0].metadata } ?? []
                changes.append(PartitionsChange(namespace: one.namespace, before: before, after: one.metadata))
                if let known {
                    partitions[known] = one
                } else {
                    partitions.append(one)
                    partitions.sort { $0.namespace < $1.namespace }
                }
            }
        }
    }
}
