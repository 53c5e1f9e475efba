// One simulated connection. Invariants:
// 1. Bytes of one direction arrive in the order they were sent, in any pieces.
// 2. An end hears of the other's close after all that was sent before it, unless the connection was reset: then what was
//    not received is lost.
// 3. An end belongs to one run of one process: a later run of the node never hears of it.
internal import Fabric

/// Heartbeat or fabric: each has its own port, and its own names of streams.
enum Channel: Int, Sendable {
    case heartbeat = 0
    case fabric = 1

    var port: UInt16 { self == .heartbeat ? 3002 : 3001 }

    init?(port: UInt16) {
        switch port {
        case 3002: self = .heartbeat
        case 3001: self = .fabric
        default: return nil
        }
    }
}

/// A process's side of a connection.
struct ConnectionEnd {
    let node: Int
    let run: Int
    let channel: Channel
    let stream: StreamID
    var isOpen = true
}

/// One direction of a connection.
struct Pipe {
    /// What is under way, by the time it is due.
    private var segments: [(due: UInt64, bytes: [UInt8])] = []
    private var first = 0
    private(set) var heldBytes = 0
    private(set) var lastDue: UInt64 = 0
    /// When the sender's close arrives, and what it is called; nil while it is open. A local one is what the receiver's own
    /// shell says: it needs no network.
    private(set) var finish: (due: UInt64, reason: String, isLocal: Bool)?
    /// It was due and could not pass.
    var isStalled = false

    var isEmpty: Bool { first == segments.count }

    /// When the bytes arrive; nil if the pipe is closed already, and they are lost.
    mutating func append(_ bytes: [UInt8], due: UInt64) -> UInt64? {
        guard finish == nil else { return nil }
        lastDue = max(lastDue, due)
        heldBytes += bytes.count
        segments.append((lastDue, bytes))
        return lastDue
    }

    /// The next piece that is due.
    mutating func take(now: UInt64) -> [UInt8]? {
        guard first < segments.count, segments[first].due <= now else { return nil }
        let bytes = segments[first].bytes
        segments[first].bytes = []
        first += 1
        heldBytes -= bytes.count
        if first == segments.count {
            segments.removeAll(keepingCapacity: true)
            first = 0
        }
        return bytes
    }

    mutating func notBefore(_ time: UInt64) { lastDue = max(lastDue, time) }

    /// The sender is gone; the close comes behind the bytes.
    mutating func close(due: UInt64, reason: String, isLocal: Bool) -> UInt64? {
        guard finish == nil else { return nil }
        lastDue = isLocal ? due : max(lastDue, due)
        finish = (lastDue, reason, isLocal)
        return lastDue
    }

    /// Loses everything behind some byte.
    mutating func tear(_ chance: inout Chance) {
        guard !isEmpty else { return }
        let kept = chance.between(first, segments.count - 1)
        var last = segments[kept]
        last.bytes = Array(last.bytes.prefix(chance.below(last.bytes.count + 1)))
        segments = Array(segments[first..<kept]) + (last.bytes.isEmpty ? [] : [last])
        first = 0
        heldBytes = segments.reduce(0) { $0 + $1.bytes.count }
    }

    mutating func discard() {
        segments = []
        first = 0
        heldBytes = 0
    }
}

struct Connection {
    enum State { case connecting, accepted, open, over }
    var state = State.connecting
    /// Who dialled, and who accepted.
    var dialler: ConnectionEnd
    var acceptor: ConnectionEnd?
    let target: Int
    /// What listens at the port that was dialled.
    let port: Channel
    /// From the dialler, and to it.
    var pipes = (Pipe(), Pipe())

    subscript(pipe direction: Int) -> Pipe {
        get { direction == 0 ? pipes.0 : pipes.1 }
        _modify {
            if direction == 0 { yield &pipes.0 } else { yield &pipes.1 }
        }
    }

    /// Who receives what goes in `direction`.
    func receiver(_ direction: Int) -> ConnectionEnd? { direction == 0 ? acceptor : dialler }
    func sender(_ direction: Int) -> ConnectionEnd? { direction == 0 ? dialler : acceptor }

    mutating func closeEnd(isDialler: Bool) {
        if isDialler { dialler.isOpen = false } else { acceptor?.isOpen = false }
    }
}
