// Which nodes lose so many pulses, and come and go so often, that a view is better off without them.
internal import Base

/// What is kept of a node id, whatever its incarnation.
struct HealthRecord: Sendable {
    let id: NodeID
    /// Moving average: 0 nothing is lost, 1 everything.
    var loss = 0.0
    /// The last departures, newest last.
    var departures: [Instant] = []
    var isUnhealthy = false
    var lastTouched: Instant
}

/// Invariants:
/// 1. A node is called unhealthy only if all hold: it lost more than `lossFloor` on the average, twice as much as the
///    others' mean, and more than that mean by twice their standard deviation; and it departed `flapCount` times within
///    `flapTimeouts` timeouts. So to a node that is bad itself all the others are alike.
/// 2. It stays so until it loses less than `lossGood` and has not departed for half of that time.
/// 3. With fewer than three neighbours there is no deviation to speak of, and nobody becomes unhealthy.
struct HeartbeatHealth: Sendable {
    static let lossFloor = 0.2
    static let lossGood = 0.1
    static let flapCount = 3
    static let flapTimeouts: UInt64 = 20
    private static let weight = 1.0 / 32
    private static let countMax = 1024
    private(set) var records: [HealthRecord] = []

    private func place(_ id: NodeID) -> Int { records.lowerBound { $0.id < id } }

    private func index(of id: NodeID) -> Int? {
        let place = place(id)
        return place < records.count && records[place].id == id ? place : nil
    }

    private mutating func touch(_ id: NodeID, now: Instant) -> Int {
        let known = place(id)
        if known < records.count, records[known].id == id {
            records[known].lastTouched = now
            return known
        }
        if records.count >= HeartbeatHealth.countMax,
            let oldest = records.indices.min(by: { records[$0].lastTouched < records[$1].lastTouched }) {
            records.remove(at: oldest)
        }
        let new = place(id)
        records.insert(HealthRecord(id: id, lastTouched: now), at: new)
        return new
    }

    func isUnhealthy(_ id: NodeID) -> Bool { index(of: id).map { records[$0].isUnhealthy } ?? false }

    /// 0 to 1.
    func loss(_ id: NodeID) -> Double { index(of: id).map { records[$0].loss } ?? 0 }

    /// A pulse came, and `lost` before it did not.
    mutating func heard(_ id: NodeID, lost: UInt64, now: Instant) {
        let at = touch(id, now: now)
        miss(at, lost)
        records[at].loss -= records[at].loss * HeartbeatHealth.weight
    }

    private mutating func miss(_ at: Int, _ lost: UInt64) {
        for _ in 0..<min(lost, 64) { records[at].loss += (1 - records[at].loss) * HeartbeatHealth.weight }
    }

    /// It departed, after `lost` pulses that did not come.
    mutating func departed(_ id: NodeID, lost: UInt64, now: Instant) {
        let at = touch(id, now: now)
        miss(at, lost)
        records[at].departures = records[at].departures.suffix(HeartbeatHealth.flapCount - 1) + [now]
    }

    /// Judges the `present` ones (by id). Returns a sentence for each that has changed.
    mutating func judge(_ present: [NodeID], timeoutMilliseconds: UInt64, now: Instant) -> [String] {
        let losses = present.map { loss($0) }
        let sum = losses.reduce(0, +), squares = losses.reduce(0) { $0 + $1 * $1 }
        var sentences: [String] = []
        for (id, loss) in zip(present, losses) {
            guard let at = index(of: id) else { continue }
            let window = timeoutMilliseconds * HeartbeatHealth.flapTimeouts * 1_000_000
            if records[at].isUnhealthy {
                let quiet = records[at].departures.last.map { now.nanoseconds(since: $0) } ?? .max
                guard loss < HeartbeatHealth.lossGood, quiet >= window / 2 else { continue }
                records[at].isUnhealthy = false
                sentences.append("node \(id) is healthy again: \(percent(loss)) of its pulses are lost")
                continue
            }
            guard present.count >= 3, loss > HeartbeatHealth.lossFloor else { continue }
            let others = Double(losses.count - 1)
            let mean = (sum - loss) / others
            let deviation = max((squares - loss * loss) / others - mean * mean, 0).squareRoot()
            let recent = records[at].departures.filter { now.nanoseconds(since: $0) <= window }.count
            guard loss > mean + 2 * deviation, loss > 2 * mean, recent >= HeartbeatHealth.flapCount else { continue }
            records[at].isUnhealthy = true
            sentences.append("node \(id) is unhealthy: \(percent(loss)) of its pulses are lost (the others:"
                + " \(percent(mean)), deviation \(percent(deviation))) and it departed \(recent) times in the last"
                + " \(timeoutMilliseconds * HeartbeatHealth.flapTimeouts / 1000) s. It is left out of views where that"
                + " costs no data. Look at its network and its load")
        }
        return sentences
    }

    private func percent(_ share: Double) -> String { "\(Int(share * 100 + 0.5)) %" }
}
