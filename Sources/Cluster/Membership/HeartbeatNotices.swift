// Things that somebody should look at: told once a minute, listed while they go on.
internal import Base
internal import Fabric

struct HeartbeatNotices: Sendable {
    private struct Notice: Sendable {
        let key: String
        var text: String
        var logged: Instant
        var until: Instant
    }
    private static let countMax = 32
    private static let logEverySeconds: UInt64 = 60
    private var all: [Notice] = []

    /// Notes it; true if it is to be logged now.
    mutating func note(_ key: String, _ text: String, now: Instant, forMilliseconds milliseconds: UInt64) -> Bool {
        let until = now.advanced(byMilliseconds: milliseconds)
        if let at = all.firstIndex(where: { $0.key == key }) {
            all[at].text = text
            all[at].until = until
            guard now.nanoseconds(since: all[at].logged) >= HeartbeatNotices.logEverySeconds * 1_000_000_000 else {
                return false
            }
            all[at].logged = now
            return true
        }
        if all.count >= HeartbeatNotices.countMax { all.removeFirst() }
        all.append(Notice(key: key, text: text, logged: now, until: until))
        return true
    }

    mutating func clear(_ key: String) { all.removeAll { $0.key == key } }

    /// Those that a minute has not renewed are over, and may be logged anew.
    mutating func expire(_ now: Instant) { all.removeAll { $0.until <= now } }

    func sentences(_ now: Instant) -> [String] { all.filter { $0.until > now }.map(\.text) }
}

extension Heartbeat {
    /// Something that goes on until it is fixed.
    mutating func notice(_ key: String, _ text: String) {
        let span = max(60_000, 4 * timeout)
        if notices.note(key, text, now: now, forMilliseconds: span) { log(.warning, text) }
    }
}
