// The trace of a run: what its hash covers.
internal import Assembly
internal import Fabric
internal import Membership

extension World {
    /// Adds an event that is being delivered to a process.
    func record(_ node: Int, _ event: ClusterEvent) {
        trace.add(now)
        trace.add(UInt64(node) << 8 | code(event))
        switch event {
        case .timer, .leave, .settings: break
        case .heartbeat(let event), .fabric(let event): record(event)
        case .datagram(let bytes, let from):
            trace.add(from.host)
            trace.add(bytes)
        case .resolved(let seed, let addresses):
            trace.add(seed.host)
            trace.add(UInt64(addresses.count))
        case .published(let number), .stored(let number), .notStored(let number, _): trace.add(number)
        case .command(let token, let command): trace.add("\(token) \(command)")
        case .changeMetadata(let token, let changes, _): trace.add("\(token) \(changes)")
        case .timesReserved(let ticket, let times):
            trace.add(ticket)
            for time in times { trace.add(time) }
        }
    }

    private func code(_ event: ClusterEvent) -> UInt64 {
        switch event {
        case .timer: 1
        case .heartbeat: 2
        case .fabric: 3
        case .datagram: 4
        case .resolved: 5
        case .published: 6
        case .stored: 7
        case .notStored: 8
        case .command: 9
        case .leave: 10
        case .settings: 11
        case .changeMetadata: 12
        case .timesReserved: 13
        }
    }

    private func record(_ event: StreamEvent) {
        switch event {
        case .accepted(let stream, _): trace.add(stream.rawValue &+ 1 << 32)
        case .connected(let stream): trace.add(stream.rawValue &+ 2 << 32)
        case .received(let stream, let bytes):
            trace.add(stream.rawValue &+ 3 << 32)
            trace.add(bytes)
        case .closed(let stream, let reason):
            trace.add(stream.rawValue &+ 4 << 32)
            trace.add(reason)
        }
    }
}
