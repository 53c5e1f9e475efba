// A small world for agreement alone: virtual time, messages that come late, twice, out of order or not at all, crashes that
// lose what was not stored, pauses. Everything follows from one seed.
import Base
import Fabric
import Membership

/// What can go wrong with messages and disks, and how slow they are.
struct ViewWorldSettings {
    var nodes = 3
    var views = ViewSettings(
        heartbeatIntervalMilliseconds: 50, heartbeatTimeoutIntervals: 4, startWaitMilliseconds: 500,
        startWaitMaxMilliseconds: 2_000)
    var delayMaxMilliseconds = 1.0
    var lossPercent = 0
    var duplicatePercent = 0
    var pulseLossPercent = 0
    var storeMaxMilliseconds = 5.0
    var storeFailPercent = 0
    var prepareMaxMilliseconds = 5.0
}

/// One node: what survives a crash, and what does not.
struct ViewWorldNode {
    let id: NodeID
    var incarnation: UInt64 = 0
    var views: Views?
    // What survives.
    var disk: [UInt8]?
    // What does not.
    var pendingStores: [(ticket: UInt64, bytes: [UInt8])] = []
    var storeStuck = false
    var pausedUntil: UInt64 = 0
    var saidAt: UInt64 = 0
    var said: PulseContent?
    var hears: [Member] = []
    var heard: [Int: (at: UInt64, neighbour: Neighbour)] = [:]
    var readUpTo: [Int: UInt64] = [:]
    /// Nodes that it takes for alive, and whose pulses are held up.
    var heldUp: [Int] = []
    var timerAt: UInt64 = .max
    var isLeaving = false
    var frozen: UInt64 = 0
    var blockCounter: UInt64 = 0
    var prepareFails = false
    var spoilsHash = false
    var isUnhealthy = false
    var lines: [String] = []
    var answers: [(UInt64, String)] = []

    var member: Member { Member(id: id, incarnation: incarnation) }
    var isAlive: Bool { views != nil }
    var isOpen: Bool { views?.phase == .open }
}

final class ViewWorld {
    enum Happening {
        case event(node: Int, incarnation: UInt64, ViewEvent)
        case message(from: Member, to: Int, [UInt8])
        case stored(node: Int, incarnation: UInt64, UInt64)
        case timer(node: Int, incarnation: UInt64)
        case pulse(node: Int, incarnation: UInt64)
        case restart(node: Int)
    }

    var settings: ViewWorldSettings
    var random: SeededRandom
    var machineRandom: SeededRandom
    var now: UInt64 = 1_000_000_000
    var nodes: [ViewWorldNode]
    /// Whether messages and pulses from one to another get through.
    var links: [[Bool]]
    /// Whether messages do.
    var fabric: [[Bool]]
    var breaks: ViewBreaks = []
    var oracle = ViewOracle()
    /// Called for every message that is sent: may swallow it.
    var onSend: ((Int, Member, ViewMessage) -> Bool)?
    var onEffect: ((Int, ViewEffect) -> Void)?
    var trace: [String]?
    var hash: UInt64 = 0
    var stepCount = 0
    private var heap: [(at: UInt64, serial: UInt64, what: Happening)] = []
    private var serial: UInt64 = 0

    init(_ settings: ViewWorldSettings, seed: UInt64) {
        self.settings = settings
        random = SeededRandom(seed: seed)
        machineRandom = SeededRandom(seed: seed ^ 0x5EED)
        nodes = (1...settings.nodes).map { ViewWorldNode(id: NodeID(rawValue: UInt64($0))) }
        let all = [Bool](repeating: true, count: settings.nodes)
        links = nodes.map { _ in all }
        fabric = nodes.map { _ in all }
    }

    var instant: Instant { Instant(nanoseconds: now) }
    func milliseconds(_ value: Double) -> UInt64 { UInt64(value * 1e6) }

    // ---- Queue ----

    func schedule(_ at: UInt64, _ what: Happening) {
        serial += 1
        heap.append((at, serial, what))
        var child = heap.count - 1
        while child > 0, isBefore(child, (child - 1) / 2) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private func isBefore(_ one: Int, _ other: Int) -> Bool {
        (heap[one].at, heap[one].serial) < (heap[other].at, heap[other].serial)
    }

    private func pop() -> (at: UInt64, what: Happening) {
        let first = heap[0]
        let end = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = end
            var parent = 0
            while true {
                var least = parent
                for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && isBefore(child, least) {
                    least = child
                }
                if least == parent { break }
                heap.swapAt(parent, least)
                parent = least
            }
        }
        return (first.at, first.what)
    }

    /// Until that time, or until the condition holds after a step.
    @discardableResult
    func run(milliseconds: Double, until condition: (() -> Bool)? = nil) -> Bool {
        let end = now + self.milliseconds(milliseconds)
        while let next = heap.first, next.at <= end, oracle.violation == nil {
            let (at, what) = pop()
            now = max(now, at)
            happen(what)
            if let condition, condition() { return true }
        }
        now = max(now, end)
        return condition?() ?? true
    }

    private func happen(_ what: Happening) {
        if let node = deferredNode(what), nodes[node].pausedUntil > now {
            return schedule(nodes[node].pausedUntil, what)
        }
        switch what {
        case .event(let node, let incarnation, let event):
            if nodes[node].isAlive, nodes[node].incarnation == incarnation { step(node, event) }
        case .message(let sender, let node, let bytes):
            if nodes[node].isAlive { step(node, .message(from: sender, bytes)) }
        case .stored(let node, let incarnation, let ticket): finishStore(node, incarnation, ticket)
        case .timer(let node, let incarnation):
            guard nodes[node].isAlive, nodes[node].incarnation == incarnation, nodes[node].timerAt <= now else { return }
            step(node, .timer)
        case .pulse(let node, let incarnation): pulse(node, incarnation)
        case .restart(let node): if !nodes[node].isAlive { start(node) }
        }
    }

    private func deferredNode(_ what: Happening) -> Int? {
        switch what {
        case .event(let node, _, _), .message(_, let node, _), .timer(let node, _), .pulse(let node, _): node
        case .stored, .restart: nil
        }
    }

    // ---- Life ----

    func start(_ node: Int) {
        nodes[node].incarnation = (machineRandom.next() | 1) & 0xFFFF_FFFF
        let stored = nodes[node].disk.map { try! StoredView($0) }
        var views = Views(me: nodes[node].member, stored: stored, settings: settings.views, now: instant)
        views.breaks = breaks
        nodes[node].views = views
        nodes[node].frozen = 0
        nodes[node].pausedUntil = 0
        nodes[node].isLeaving = false
        note(node, "starts as \(nodes[node].member)")
        let first = now + UInt64.random(in: 0..<50_000_000, using: &random)
        schedule(first, .pulse(node: node, incarnation: nodes[node].incarnation))
        step(node, .timer)
    }

    func crash(_ node: Int) {
        guard nodes[node].isAlive else { return }
        let kept = Int.random(in: 0...nodes[node].pendingStores.count, using: &random)
        if kept > 0 { nodes[node].disk = nodes[node].pendingStores[kept - 1].bytes }
        nodes[node].views = nil
        nodes[node].pendingStores = []
        nodes[node].heard = [:]
        nodes[node].hears = []
        nodes[node].readUpTo = [:]
        nodes[node].said = nil
        nodes[node].storeStuck = false
        nodes[node].timerAt = .max
        note(node, "crashes")
    }

    private func finishStore(_ node: Int, _ incarnation: UInt64, _ ticket: UInt64) {
        guard nodes[node].isAlive, nodes[node].incarnation == incarnation,
            let place = nodes[node].pendingStores.firstIndex(where: { $0.ticket == ticket }) else { return }
        if nodes[node].storeStuck { return }
        if Int.random(in: 0..<100, using: &random) < settings.storeFailPercent {
            nodes[node].pendingStores.remove(at: place)
            return schedule(now, .event(node: node, incarnation: incarnation, .notStored(ticket, reason: "disk full")))
        }
        nodes[node].disk = nodes[node].pendingStores[place].bytes
        nodes[node].pendingStores.removeFirst(place + 1)
        schedule(now, .event(node: node, incarnation: incarnation, .stored(ticket)))
    }

    /// One interval: says what it is, reads what others have said, judges who is gone.
    private func pulse(_ node: Int, _ incarnation: UInt64) {
        guard let views = nodes[node].views, nodes[node].incarnation == incarnation else { return }
        let interval = settings.views.heartbeatIntervalMilliseconds * 1_000_000
        schedule(now + interval, .pulse(node: node, incarnation: incarnation))
        for other in nodes.indices where other != node && nodes[other].isAlive && links[other][node] {
            guard let said = nodes[other].said, nodes[other].pausedUntil <= now,
                Int.random(in: 0..<100, using: &random) >= settings.pulseLossPercent else { continue }
            if nodes[node].heldUp.contains(other) {
                nodes[node].heard[other]?.at = now
                continue
            }
            if let read = nodes[node].readUpTo[other], read >= nodes[other].saidAt { continue }
            nodes[node].readUpTo[other] = nodes[other].saidAt
            let neighbour = Neighbour(
                member: nodes[other].member, addresses: NodeAddresses(heartbeat: [], fabric: []), content: said,
                hears: nodes[other].hears, isUnhealthy: nodes[other].isUnhealthy)
            nodes[node].heard[other] = (now, neighbour)
        }
        let timeout = interval * settings.views.heartbeatTimeoutIntervals
        for (other, known) in nodes[node].heard where known.at + timeout < now { nodes[node].heard[other] = nil }
        let neighbours = nodes[node].heard.values.map(\.neighbour).sorted { $0.member < $1.member }
        nodes[node].hears = neighbours.map(\.member)
        nodes[node].said = PulseContent(
            view: views.phase == .open ? views.view?.mark ?? .none : .none, accepted: views.accepted,
            isLeaving: nodes[node].isLeaving, clock: 0)
        nodes[node].saidAt = now
        step(node, .neighbours(neighbours))
    }

    // ---- Steps ----

    func step(_ node: Int, _ event: ViewEvent) {
        guard nodes[node].isAlive else { return }
        stepCount += 1
        var effects: [ViewEffect] = []
        nodes[node].views!.step(event, now: instant, random: &machineRandom, effects: &effects)
        for effect in effects { perform(node, effect) }
        guard let views = nodes[node].views else { return }
        hash = hash &* 31 &+ now &+ views.accepted &* 7 &+ (views.view?.mark.key ?? 0)
        let deadline = views.deadline.nanoseconds
        if deadline != .max, deadline != nodes[node].timerAt || nodes[node].timerAt <= now {
            schedule(max(deadline, now), .timer(node: node, incarnation: nodes[node].incarnation))
        }
        nodes[node].timerAt = deadline
    }

    private func soon(_ maximum: Double) -> UInt64 {
        now + UInt64(Double.random(in: 0.01...max(maximum, 0.02), using: &random) * 1e6)
    }

    private func perform(_ node: Int, _ effect: ViewEffect) {
        let incarnation = nodes[node].incarnation
        onEffect?(node, effect)
        guard nodes[node].isAlive else { return }
        oracle.see(effect, of: nodes[node], at: now)
        switch effect {
        case .send(let receiver, let bytes): carry(node, receiver, bytes)
        case .store(let ticket, let bytes):
            nodes[node].pendingStores.append((ticket, bytes))
            schedule(soon(settings.storeMaxMilliseconds), .stored(node: node, incarnation: incarnation, ticket))
        case .freeze(let number):
            nodes[node].frozen = max(nodes[node].frozen, number)
            nodes[node].blockCounter += 1
            var writer = FabricWriter()
            for word in [nodes[node].id.rawValue, incarnation, number, nodes[node].blockCounter] { writer.integer(word) }
            oracle.gave(writer.bytes, nodes[node].member, number)
            schedule(soon(1), .event(node: node, incarnation: incarnation, .block(number: number, writer.bytes)))
        case .prepare(let view, let blocks):
            let hash = blocks.flatMap(\.block).reduce(nodes[node].spoilsHash ? 1 : 0) { $0 &* 31 &+ UInt64($1) }
            let answer: ViewEvent = nodes[node].prepareFails
                ? .notPrepared(view.mark, reason: "disk full") : .prepared(view.mark, mapHash: hash)
            oracle.prepared(view.mark, nodes[node].member, hash)
            schedule(soon(settings.prepareMaxMilliseconds), .event(node: node, incarnation: incarnation, answer))
        case .answer(let token, let text): nodes[node].answers.append((token, text))
        case .log(let line):
            nodes[node].lines.append(line.text)
            note(node, line.text)
        case .open, .void, .orphan: note(node, "\(effect)")
        }
    }

    private func carry(_ node: Int, _ receiver: Member, _ bytes: [UInt8]) {
        if let onSend, let message = try? ViewMessage.decode(bytes).message, !onSend(node, receiver, message) { return }
        guard nodes[node].isAlive else { return }
        let place = Int(receiver.id.rawValue) - 1
        guard links[node][place], fabric[node][place],
            Int.random(in: 0..<100, using: &random) >= settings.lossPercent else { return }
        let sender = nodes[node].member
        schedule(soon(settings.delayMaxMilliseconds), .message(from: sender, to: place, bytes))
        if Int.random(in: 0..<100, using: &random) < settings.duplicatePercent {
            schedule(soon(1_000), .message(from: sender, to: place, bytes))
        }
    }

    func note(_ node: Int, _ text: @autoclosure () -> String) {
        if trace != nil {
            let time = String((now / 10_000) % 100_000_000)
            trace!.append("\(time.dropLast(2)).\(time.suffix(2)) node \(node + 1): \(text())")
        }
    }

    // ---- Questions ----

    /// Whether these nodes, and no others, have one open view that all know to be intact.
    func isOneView(_ places: [Int]) -> Bool {
        guard let view = nodes[places[0]].views?.view else { return false }
        let members = places.map { nodes[$0].member }.sorted(by: >)
        return view.members == members && places.allSatisfy {
            nodes[$0].isOpen && nodes[$0].views?.view == view && nodes[$0].views?.isIntact == true
        }
    }

    var living: [Int] { nodes.indices.filter { nodes[$0].isAlive } }
}
