// How often the others send: nodes with unequal intervals lose each other again and again, and each thinks that it is right.
internal import Base
internal import Fabric

/// The interval of a peer by its own clock and the numbers of its pulses, so that what is lost or late does not count.
struct HeartbeatPace: Sendable {
    /// What a number of pulses says.
    enum Verdict: Equatable, Sendable {
        case even
        /// Milliseconds between two of its pulses.
        case uneven(UInt64)
    }
    private static let window = 16
    /// So many of them far off: a pause, or a clock that was set, is one.
    private static let offMin = 12
    private var last: (sequence: UInt64, clock: UInt64)?
    private var (count, slow, fast): (Int, Int, Int) = (0, 0, 0)
    private var sum: UInt64 = 0
    /// What was told of last: one that wavers a little is told of with one number.
    private var said: UInt64 = 0

    /// A pulse. A verdict at each `window` pulses: whether most came at less than half, or at more than twice `interval`.
    mutating func heard(sequence: UInt64, clock: UInt64, intervalMilliseconds interval: UInt64) -> Verdict? {
        defer { last = (sequence, clock) }
        guard let last, sequence > last.sequence, clock >= last.clock else { return nil }
        let gap = (clock - last.clock) / (sequence - last.sequence)
        count += 1
        // Both fit into 41 bits.
        sum += gap
        if gap > 2 * interval { slow += 1 }
        if 2 * gap < interval { fast += 1 }
        guard count == HeartbeatPace.window else { return nil }
        let mean = sum / UInt64(count)
        let isOff = max(slow, fast) >= HeartbeatPace.offMin
        (count, slow, fast, sum) = (0, 0, 0, 0)
        guard isOff else { return .even }
        if mean < said - said / 4 || mean > said + said / 4 { said = mean }
        return .uneven(said)
    }
}

extension Heartbeat {
    /// Says whose interval is not this node's.
    mutating func judgePace(_ index: Int, _ pulse: Pulse) {
        let verdict = peers.all[index].pace.heard(
            sequence: pulse.sequence, clock: pulse.content.clock, intervalMilliseconds: interval)
        guard let verdict else { return }
        let id = peers.all[index].member.id
        guard case .uneven(let milliseconds) = verdict else { return notices.clear("pace \(id)") }
        notice("pace \(id)", "node \(id) sends a heartbeat about every \(milliseconds) ms, and heartbeat.interval is"
            + " \(interval) ms here: make interval and timeout equal on all nodes, or look at the load of that one")
    }
}
