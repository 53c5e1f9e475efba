// A small world for heartbeats and fabric links: virtual time, streams with delay that can be cut, held up and torn, and
// datagrams that get lost. Everything follows from the seed.
import Base
import Fabric
import Membership
import Testing
import TestSupport

final class HeartbeatWorld {
    /// A process, or what is left of it.
    final class Process {
        var heart: Heartbeat
        var links: FabricLinks
        let host: String
        var isUp = true
        var pausedUntil: UInt64 = 0
        var inbox: [() -> Void] = []
        var timerAt = UInt64.max
        var fabricPeers: [FabricPeer] = []
        var delivered: [(Member, FabricFrame)] = []
        var linkEvents: [String] = []
        var answers: [String] = []
        var log: [String] = []
        var clockOffset: Int64 = 0
        /// Bytes put on the network, messages put there.
        var bytesOut = 0
        var messagesOut = 0
        init(heart: Heartbeat, links: FabricLinks, host: String) {
            self.heart = heart
            self.links = links
            self.host = host
        }
        var member: Member { heart.member }
        var ids: [UInt64] { heart.neighbours.map(\.member.id.rawValue) }
        var members: [Member] { heart.neighbours.map(\.member) }
    }

    /// One connection. `ready` is when the last bytes that are under way arrive.
    private final class Wire {
        let from: Process, to: Process, isFabric: Bool
        let fromID: StreamID, toID: StreamID
        var isOpenAtFrom = true, isOpenAtTo = true
        var ready: UInt64 = 0
        /// What is under way.
        var line: [[UInt8]] = []
        /// Extra delay of everything on it: a stream that is held up.
        var clog: UInt64 = 0
        init(from: Process, to: Process, isFabric: Bool, fromID: StreamID, toID: StreamID) {
            (self.from, self.to, self.isFabric, self.fromID, self.toID) = (from, to, isFabric, fromID, toID)
        }
    }

    private struct WireName: Hashable {
        let process: ObjectIdentifier, stream: StreamID, isFabric: Bool
    }

    private var queue: [(at: UInt64, sequence: Int, action: () -> Void)] = []
    private var sequence = 0
    private(set) var now: UInt64 = 1_000_000_000
    var random: SeededRandom
    private(set) var processes: [Process] = []
    private var wires: [Wire] = []
    private var wiresByDialler: [WireName: Wire] = [:]
    private var acceptedCount: UInt64 = 0
    /// Pairs of hosts between which nothing passes, one way.
    var cuts: [(String, String)] = []
    /// Hosts without power: nothing answers, not even a refusal.
    var dark: [String] = []
    var names: [(name: String, addresses: [Address])] = []
    var datagramLoss = 0.0
    var datagramMax = 0
    /// Bytes of streams come in pieces of at most so many.
    var pieceMax = Int.max
    var withFabric = false
    var onLog: ((Process, String) -> Void)?

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    static let heartbeatPort: UInt16 = 3002, fabricPort: UInt16 = 3001

    // ---- Time ----

    private func later(_ nanoseconds: UInt64, _ action: @escaping () -> Void) {
        sequence += 1
        var child = queue.count
        queue.append((now + nanoseconds, sequence, action))
        while child > 0, before(child, (child - 1) / 2) {
            queue.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private func before(_ left: Int, _ right: Int) -> Bool {
        (queue[left].at, queue[left].sequence) < (queue[right].at, queue[right].sequence)
    }

    private func pop() -> () -> Void {
        let first = queue[0]
        now = max(now, first.at)
        queue.swapAt(0, queue.count - 1)
        queue.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < queue.count && before(child, least) { least = child }
            if least == parent { return first.action }
            queue.swapAt(parent, least)
            parent = least
        }
    }

    func run(milliseconds: UInt64) {
        let end = now + milliseconds * 1_000_000
        while let first = queue.first, first.at <= end { pop()() }
        now = end
    }

    /// Until `condition`, at most so long. Returns the milliseconds that it took; nil if it did not come true.
    func run(until condition: () -> Bool, atMost milliseconds: UInt64) -> UInt64? {
        let begin = now, end = now + milliseconds * 1_000_000
        // Once a millisecond: conditions look at everything.
        while !condition() {
            let pause = now + 1_000_000
            while let first = queue.first, first.at < pause { pop()() }
            guard pause <= end else { return nil }
            now = pause
        }
        return (now - begin) / 1_000_000
    }

    // ---- Processes ----

    func start(
        _ id: UInt64, host: String? = nil, seeds: [SeedName] = [], cluster: String = "blue", mode: HeartbeatMode = .mesh,
        tunables: HeartbeatTunables = HeartbeatTunables(), breaks: HeartbeatBreaks = []
    ) -> Process {
        let host = host ?? HeartbeatWorld.host(id)
        let member = Member(id: NodeID(rawValue: id), incarnation: random.next() | 1)
        let addresses = NodeAddresses(
            heartbeat: [Address(host: host, port: HeartbeatWorld.heartbeatPort)],
            fabric: [Address(host: host, port: HeartbeatWorld.fabricPort)])
        let settings = HeartbeatSettings(
            mode: mode, tunables: tunables, clusterName: cluster, seeds: seeds, addresses: addresses)
        var heart = Heartbeat(
            member: member, settings: settings,
            content: PulseContent(view: .none, accepted: 0, isLeaving: false, clock: 0))
        heart.breaks = breaks
        let links = FabricLinks(member: member, settings: FabricLinksSettings(clusterName: cluster, addresses: addresses))
        let process = Process(heart: heart, links: links, host: host)
        processes.append(process)
        setClock(process, offset: 0)
        return process
    }

    static func host(_ id: UInt64) -> String { "10.0.\(id / 250).\(id % 250 + 1)" }
    static func seed(_ id: UInt64) -> SeedName { SeedName(host: host(id), port: heartbeatPort) }

    func setClock(_ process: Process, offset: Int64) {
        process.clockOffset = offset
        let clock = UInt64(500_000_000_000 + Int64(now / 1_000_000) + offset)
        step(process, .content(PulseContent(view: .none, accepted: 0, isLeaving: false, clock: clock)))
    }

    /// The process ends; its kernel closes what was open.
    func kill(_ process: Process, isReset: Bool = true) {
        process.isUp = false
        for wire in wires where wire.from === process || wire.to === process {
            if wire.from === process { closeFrom(wire, tells: isReset) } else { closeTo(wire, tells: isReset) }
        }
    }

    func pause(_ process: Process, milliseconds: UInt64) {
        process.pausedUntil = now + milliseconds * 1_000_000
        later(milliseconds * 1_000_000) { [self] in
            // Its timer fires first: the worst case.
            step(process, HeartbeatEvent.timer)
            let inbox = process.inbox
            process.inbox = []
            for action in inbox { action() }
        }
    }

    func cut(_ left: String, _ right: String, bothWays: Bool = true) {
        cuts.append((left, right))
        if bothWays { cuts.append((right, left)) }
    }

    /// All streams that `process` dialled are held up for so long, whatever becomes of the process.
    func clog(_ process: Process, milliseconds: UInt64) {
        for wire in wires where wire.from === process { wire.clog = milliseconds * 1_000_000 }
    }

    /// Nothing is held up any more.
    func unclog() { for wire in wires { wire.clog = 0 } }

    private func passes(_ from: String, _ to: String) -> Bool {
        !dark.contains(from) && !dark.contains(to) && !cuts.contains { $0 == (from, to) }
    }

    private func delay() -> UInt64 { 100_000 + random.next() % 3_000_000 }

    // ---- Steps ----

    func step(_ process: Process, _ event: HeartbeatEvent) {
        guard process.isUp else { return }
        guard process.pausedUntil <= now else { return process.inbox.append { [self] in step(process, event) } }
        var effects: [HeartbeatEffect] = []
        process.heart.step(event, now: Instant(nanoseconds: now), random: &random, effects: &effects)
        for effect in effects { perform(process, effect) }
        arm(process)
    }

    func step(_ process: Process, _ event: FabricLinksEvent) {
        guard process.isUp else { return }
        guard process.pausedUntil <= now else { return process.inbox.append { [self] in step(process, event) } }
        var effects: [FabricLinksEffect] = []
        process.links.step(event, now: Instant(nanoseconds: now), random: &random, effects: &effects)
        for effect in effects { perform(process, effect) }
        arm(process)
    }

    private func arm(_ process: Process) {
        let at = min(process.heart.deadline, withFabric ? process.links.deadline : process.heart.deadline).nanoseconds
        guard at < process.timerAt || process.timerAt <= now else { return }
        guard at < .max else { return }
        process.timerAt = max(at, now)
        later(process.timerAt - now) { [self] in
            guard process.isUp, process.pausedUntil <= now else { return process.timerAt = 0 }
            process.timerAt = .max
            if process.heart.deadline.nanoseconds <= now {
                step(process, HeartbeatEvent.timer)
                precondition(process.heart.deadline.nanoseconds > now, "the heartbeat ticks without end")
            }
            if withFabric, process.links.deadline.nanoseconds <= now {
                step(process, FabricLinksEvent.timer)
                precondition(process.links.deadline.nanoseconds > now, "the links tick without end")
            }
            arm(process)
        }
    }

    private func perform(_ process: Process, _ effect: HeartbeatEffect) {
        switch effect {
        case .stream(let effect): perform(process, effect, isFabric: false)
        case .multicast(let bytes):
            process.bytesOut += bytes.count
            process.messagesOut += 1
            datagramMax = max(datagramMax, bytes.count)
            for other in processes where other.isUp && passes(process.host, other.host) {
                guard Double(random.next() % 10_000) / 10_000 >= datagramLoss else { continue }
                later(delay()) { [self] in step(other, .datagram(bytes, from: Address(host: process.host, port: 9))) }
            }
        case .resolve(let seed):
            let numeric = seed.host.allSatisfy { $0.isNumber || $0 == "." }
            let known = names.first { $0.name == seed.host }?.addresses
            let found = known ?? (numeric ? [Address(host: seed.host, port: seed.port)] : [])
            later(delay()) { [self] in step(process, .resolved(seed, found)) }
        case .answered(let answer): process.answers.append(answer)
        case .log(let line):
            process.log.append(line.text)
            onLog?(process, line.text)
        case .neighboursChanged:
            guard withFabric else { return }
            let peers = process.heart.neighbours.map { FabricPeer(member: $0.member, addresses: $0.addresses.fabric) }
            guard peers != process.fabricPeers else { return }
            process.fabricPeers = peers
            step(process, .peers(peers))
        }
    }

    private func perform(_ process: Process, _ effect: FabricLinksEffect) {
        switch effect {
        case .stream(let effect): perform(process, effect, isFabric: true)
        case .delivered(let from, let frame): process.delivered.append((from, frame))
        case .heard(let member): step(process, .evidence(member))
        case .peerConnected(let member): process.linkEvents.append("connected \(member.id)")
        case .peerLost(let member): process.linkEvents.append("lost \(member.id)")
        case .log(let line): process.log.append(line.text)
        }
    }

    // ---- Streams ----

    private func tell(_ process: Process, isFabric: Bool, _ event: StreamEvent) {
        if isFabric { step(process, FabricLinksEvent.stream(event)) } else { step(process, HeartbeatEvent.stream(event)) }
    }

    private func perform(_ process: Process, _ effect: StreamEffect, isFabric: Bool) {
        switch effect {
        case .connect(let stream, let address, let timeout): connect(process, stream, address, timeout, isFabric)
        case .send(let stream, let bytes):
            process.bytesOut += bytes.count
            process.messagesOut += 1
            let name = WireName(process: ObjectIdentifier(process), stream: stream, isFabric: isFabric)
            if let wire = wiresByDialler[name], wire.isOpenAtFrom { carry(wire, bytes) }
        case .close(let stream):
            for wire in wires where wire.isFabric == isFabric {
                if wire.from === process, wire.fromID == stream { closeFrom(wire, tells: true) }
                if wire.to === process, wire.toID == stream { closeTo(wire, tells: true) }
            }
        }
    }

    private func connect(
        _ process: Process, _ stream: StreamID, _ address: Address, _ timeout: UInt64, _ isFabric: Bool
    ) {
        later(delay()) { [self] in
            guard passes(process.host, address.host), passes(address.host, process.host) else {
                return later(timeout * 1_000_000) { [self] in
                    tell(process, isFabric: isFabric, .closed(stream, reason: "Connection timed out"))
                }
            }
            let listener = processes.last { $0.isUp && $0.host == address.host }
            guard let listener, [HeartbeatWorld.heartbeatPort, HeartbeatWorld.fabricPort].contains(address.port) else {
                return tell(process, isFabric: isFabric, .closed(stream, reason: "Connection refused"))
            }
            acceptedCount += 1
            let wire = Wire(
                from: process, to: listener, isFabric: isFabric, fromID: stream, toID: .accepted(acceptedCount))
            wires.append(wire)
            wiresByDialler[WireName(process: ObjectIdentifier(process), stream: stream, isFabric: isFabric)] = wire
            let port = UInt16(40_000 + acceptedCount % 20_000)
            tell(listener, isFabric: isFabric, .accepted(wire.toID, from: Address(host: process.host, port: port)))
            later(delay()) { [self] in
                guard wire.isOpenAtFrom else { return }
                tell(process, isFabric: isFabric, .connected(stream))
            }
        }
    }

    /// In order, in pieces, and as long as the way is cut, not at all.
    private func carry(_ wire: Wire, _ bytes: [UInt8]) {
        wire.ready = max(wire.ready, now + delay() + wire.clog)
        for begin in stride(from: 0, to: bytes.count, by: min(pieceMax, max(bytes.count, 1))) {
            let piece = Array(bytes[begin..<min(bytes.count, begin + min(pieceMax, bytes.count))])
            wire.line.append(piece)
            arrive(wire, at: wire.ready)
        }
    }

    private func arrive(_ wire: Wire, at: UInt64) {
        later(at - now) { [self] in
            guard wire.isOpenAtTo || wire.isOpenAtFrom else { return }
            guard passes(wire.from.host, wire.to.host) else {
                wire.ready = max(wire.ready, now + 20_000_000)
                return arrive(wire, at: wire.ready)
            }
            // Nobody is there any more: the kernel resets the stream, if there is power.
            guard wire.isOpenAtTo else { return reset(wire) }
            tell(wire.to, isFabric: wire.isFabric, .received(wire.toID, wire.line.removeFirst()))
        }
    }

    private func reset(_ wire: Wire) {
        later(delay()) { [self] in
            guard wire.isOpenAtFrom, passes(wire.to.host, wire.from.host) else { return }
            wire.isOpenAtFrom = false
            tell(wire.from, isFabric: wire.isFabric, .closed(wire.fromID, reason: "Connection reset by peer"))
        }
    }

    private func closeFrom(_ wire: Wire, tells: Bool) {
        guard wire.isOpenAtFrom else { return }
        wire.isOpenAtFrom = false
        guard tells else { return }
        wire.ready = max(wire.ready, now + delay())
        later(wire.ready - now) { [self] in
            guard wire.isOpenAtTo, passes(wire.from.host, wire.to.host) else { return }
            wire.isOpenAtTo = false
            tell(wire.to, isFabric: wire.isFabric, .closed(wire.toID, reason: "closed by the other end"))
        }
    }

    private func closeTo(_ wire: Wire, tells: Bool) {
        guard wire.isOpenAtTo else { return }
        wire.isOpenAtTo = false
        guard tells else { return }
        later(delay()) { [self] in
            guard wire.isOpenAtFrom, passes(wire.to.host, wire.from.host) else { return }
            wire.isOpenAtFrom = false
            tell(wire.from, isFabric: wire.isFabric, .closed(wire.fromID, reason: "closed by the other end"))
        }
    }
}
