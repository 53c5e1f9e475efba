// The simulated world: a virtual clock, machines, a network, and faults. Invariants:
// 1. All chance comes from one seed, split by name. The same seed, options and faults give the same run, event by event.
// 2. A process sees nothing of the world but its events; all that it does comes as effects, carried out in their order.
// 3. A paused process gets nothing. What its kernel would keep for it waits, and comes at once when it goes on.
// 4. Checkers see every snapshot at the moment it is published.
internal import Assembly
internal import Base
internal import Fabric
internal import Membership
internal import Metadata

/// What is planned.
enum Happening {
    case timer(node: Int, run: Int)
    case accept(connection: Int)
    case connected(connection: Int)
    case refused(connection: Int)
    case connectTimeout(connection: Int)
    case deliver(connection: Int, direction: Int)
    case datagram(node: Int, from: Int, [UInt8])
    case resolved(node: Int, run: Int, SeedName)
    case stored(node: Int, run: Int, ticket: UInt64)
    case published(node: Int, run: Int, serial: UInt64)
    case reserved(node: Int, run: Int, ticket: UInt64, [UInt64])
    case resume(node: Int, run: Int)
    case start(node: Int)
    case endOfGrace(node: Int, run: Int)
    case fault(Fault)
}

/// What a run has seen so far.
package struct WorldCounts: Sendable, Equatable {
    package var events = 0
    package var messages = 0
    package var bytes = 0
    /// Views that somebody opened.
    package var views = 0
    package var faults = 0
    /// Faults that struck while some node was agreeing on a view.
    package var strikes = 0
}

package final class World {
    package let seed: UInt64
    package let options: RunOptions
    package internal(set) var now: UInt64 = 0
    package internal(set) var nodes: [SimulatedNode] = []
    package internal(set) var counts = WorldCounts()
    package internal(set) var trace = TraceHash()
    package internal(set) var violation: Violation?
    /// Every fault that struck.
    package private(set) var faults: [TimedFault] = []
    package var checkers: Checkers
    package var log: ColumnLog?
    /// Called after a node has published that it is agreeing on a view: the moment to strike.
    package var whenFrozen: ((Int) -> Void)?
    var queue = EventQueue<Happening>()
    var network: Network
    var connections: [Connection] = []
    var chance: Chance
    private let maker: ProcessMaker
    /// What the processes say.
    private(set) var needsFabric = true
    private let breaks: [String]
    private var effects: [ClusterEffect] = []
    /// Nothing goes wrong by itself, and no fault strikes.
    private var isQuiet = true
    /// Rises whenever a process goes by another snapshot, starts or ends.
    package private(set) var changeCount = 0
    /// A machine that asks for its timer again and again at one moment is broken.
    private var busy = (time: UInt64(0), count: 0)
    private static let busyLimit = 100_000
    /// Unsent bytes at which the shell closes a stream.
    var streamLimit = 64 << 20

    package init(seed: UInt64, options: RunOptions, breaks: [String] = [], maker: @escaping ProcessMaker) {
        self.seed = seed
        self.options = options
        self.maker = maker
        self.breaks = breaks
        network = Network(count: options.nodes, options: options, seed: seed)
        network.calm(now: 0)
        chance = Chance(seed: seed, "world")
        checkers = Checkers(options: options)
        var machines = Chance(seed: seed, "machines")
        nodes = (0..<options.nodes).map { World.machine($0, options: options, seed: seed, &machines) }
    }

    private static func machine(
        _ number: Int, options: RunOptions, seed: UInt64, _ chance: inout Chance
    ) -> SimulatedNode {
        let drift = options.driftPartsPerMillion
        let skew = options.wallSkewMilliseconds
        let clock = NodeClock(
            offset: chance.between(1 << 45, 1 << 50), driftPartsPerMillion: chance.between(0, 2 * drift) - drift,
            wallOffsetMilliseconds: Int64(chance.between(0, 2 * skew) - skew))
        let namespaces = (0..<options.namespaces).map { place in
            SimulatedNamespace(
                name: "space\(place)", replicationFactor: options.factor,
                rack: options.racks == 0 ? 0 : UInt32(number % options.racks + 1),
                prefersUniformBalance: options.isUniform == 1)
        }
        var node = SimulatedNode(
            number: number, id: NodeID(rawValue: UInt64(options.nodes > 15 ? 0xA000 : 0xA0) + UInt64(number + 1)),
            host: "10.0.\((number + 1) / 200).\((number + 1) % 200 + 1)", namespaces: namespaces, clock: clock,
            random: SeededRandom(seed: 0))
        if options.isPartial == 1, options.namespaces > 1, chance.permille(400) { node.absent = ["space1"] }
        return node
    }

    // ---- Running ----

    package func plan(_ fault: Fault, at time: UInt64) { queue.push(.fault(fault), at: max(time, now)) }

    /// Lets time pass until `end`, or until `isDone` says so after an event, or until a checker finds something.
    /// - Returns: whether `isDone` said so.
    @discardableResult
    package func run(until end: UInt64, isDone: () -> Bool = { false }) -> Bool {
        while violation == nil, let time = queue.nextTime, time <= end {
            let (_, happening) = queue.pop()!
            now = max(now, time)
            happen(happening)
            if isDone() { return true }
        }
        if violation == nil { now = max(now, end) }
        return false
    }

    private func happen(_ happening: Happening) {
        switch happening {
        case .timer(let node, let run): timerRings(node, run)
        case .accept(let connection): accept(connection)
        case .connected(let connection): connected(connection)
        case .refused(let connection): failConnect(connection, "connection refused")
        case .connectTimeout(let connection): failConnect(connection, "connect timed out")
        case .deliver(let connection, let direction): deliver(connection, direction)
        case .datagram(let node, let from, let bytes): datagramArrives(node, from, bytes)
        case .resolved(let node, let run, let seed):
            guard nodes[node].run == run else { return }
            hand(node, .resolved(seed, lookUp(seed)))
        case .stored(let node, let run, let ticket): requestDone(node, run, ticket)
        case .published(let node, let run, let serial):
            guard nodes[node].run == run else { return }
            hand(node, .published(serial))
        case .reserved(let node, let run, let ticket, let times):
            guard nodes[node].run == run else { return }
            hand(node, .timesReserved(ticket, times))
        case .resume(let node, let run):
            guard nodes[node].run == run, !nodes[node].isOutside else { return }
            resume(node)
        case .start(let node): start(node)
        case .endOfGrace(let node, let run):
            guard nodes[node].run == run, nodes[node].isUp else { return }
            note("\(nodes[node].name) has not left in time")
            crash(node, isPower: false)
        case .fault(let fault):
            if !isQuiet { strike(fault) }
        }
    }

    private func timerRings(_ node: Int, _ run: Int) {
        // One that was planned before an earlier one is no longer meant.
        guard nodes[node].run == run, nodes[node].armed == now, let process = nodes[node].process else { return }
        nodes[node].armed = nil
        guard !nodes[node].isPaused else { return }
        // It may have put its deadline off since.
        guard let due = nodes[node].clock.virtual(process.deadline), due <= now else { return arm(node) }
        hand(node, .timer)
    }

    private func requestDone(_ node: Int, _ run: Int, _ ticket: UInt64) {
        guard nodes[node].run == run, let isDurable = nodes[node].disk.finish(ticket) else { return }
        judgeDisk(node)
        hand(node, isDurable ? .stored(ticket) : .notStored(ticket, reason: "the simulated disk fails"))
    }

    /// Lets checkers see what the disk has taken.
    private func judgeDisk(_ node: Int) {
        for change in nodes[node].disk.takeChanges() { checkers.stored(nodes[node], change).map(fail) }
    }

    // ---- Between the world and a process ----

    /// Gives an event to the process of a node; keeps it if the process is paused.
    func hand(_ node: Int, _ event: ClusterEvent) {
        guard nodes[node].isUp, violation == nil else { return }
        if nodes[node].isPaused {
            nodes[node].inbox.append(event)
        } else {
            step(node, event)
        }
    }

    private func step(_ node: Int, _ event: ClusterEvent) {
        guard let process = nodes[node].process else { return }
        counts.events += 1
        record(node, event)
        if case .published(let serial) = event { adopt(node, serial) }
        if now != busy.time { busy = (now, 0) }
        busy.count += 1
        guard busy.count < World.busyLimit else {
            return fail(Violation("busy", "\(nodes[node].name) got \(busy.count) events at one moment, last: \(event)"))
        }
        var wanted: [ClusterEffect] = []
        swap(&wanted, &effects)
        process.step(event, now: nodes[node].clock.reading(now), random: &nodes[node].random, effects: &wanted)
        let run = nodes[node].run
        for effect in wanted where nodes[node].run == run && nodes[node].isUp { perform(node, effect) }
        wanted.removeAll(keepingCapacity: true)
        swap(&wanted, &effects)
        if nodes[node].run == run { arm(node) }
    }

    private func arm(_ node: Int) {
        guard let process = nodes[node].process, let due = nodes[node].clock.virtual(process.deadline) else { return }
        // Timers are a little late, never early.
        let time = max(due, now) + 1000 + chance.below(200_000)
        if let armed = nodes[node].armed, armed <= time { return }
        nodes[node].armed = time
        queue.push(.timer(node: node, run: nodes[node].run), at: time)
    }

    private func perform(_ node: Int, _ effect: ClusterEffect) {
        switch effect {
        case .heartbeat(let effect): perform(node, .heartbeat, effect)
        case .fabric(let effect): perform(node, .fabric, effect)
        case .multicast(let bytes): multicast(node, bytes)
        case .resolve(let seed):
            let time = now + chance.magnitude(10_000, chance.permille(50) ? 5_000_000_000 : 20_000_000)
            queue.push(.resolved(node: node, run: nodes[node].run, seed), at: time)
        case .store(let ticket, let request): store(node, ticket, request)
        case .reserveTimes(let ticket, let namespaces):
            let time = now + chance.magnitude(5000, 2_000_000)
            let wall = nodes[node].clock.reading(now).wall.milliseconds
            let times = namespaces.map { _ in wall + 1 }
            queue.push(.reserved(node: node, run: nodes[node].run, ticket: ticket, times), at: time)
        case .answerMetadata(let token, let answer):
            checkers.answered(nodes[node], token, "\(answer)").map(fail)
            if answer == .done { checkers.metadataIsDone(nodes[node], token, self).map(fail) }
        case .publish(let snapshot): publish(node, snapshot)
        case .answer(let token, let text): checkers.answered(nodes[node], token, text).map(fail)
        case .left: leaveIsDone(node)
        case .log(let line):
            // The loud word of the product itself: unequal maps are a fault of the software in a world without bad memory.
            if line.text.contains("compute different maps") { fail(Violation("maps", line.text)) }
            note("\(nodes[node].name) \(line.context.rawValue): \(line.text)", isDetail: true)
        }
    }

    private func store(_ node: Int, _ ticket: UInt64, _ content: StoreRequest) {
        if case .metadata(let items) = content { checkers.metadataIsStored(nodes[node], items) }
        let done = nodes[node].disk.begin(
            ticket, content, now: now, options: isQuiet ? calmOptions : options, chance: &chance)
        queue.push(.stored(node: node, run: nodes[node].run, ticket: ticket), at: done)
    }

    private var calmOptions: RunOptions {
        var calm = options
        calm.diskFailPermille = 0
        return calm
    }

    private func publish(_ node: Int, _ snapshot: ClusterSnapshot) {
        let wasFrozen = nodes[node].phase == .frozen
        nodes[node].pending.append(snapshot)
        let found = checkers.published(node, Publication(snapshot), world: self)
        counts.views = checkers.viewCount
        log?.row(self, "\(nodes[node].name) publishes")
        if let found { return fail(found) }
        let time = max(nodes[node].lastPublished + 1, now + chance.magnitude(5000, 2_000_000))
        nodes[node].lastPublished = time
        queue.push(.published(node: node, run: nodes[node].run, serial: snapshot.serial), at: time)
        if snapshot.phase == .frozen, !wasFrozen { whenFrozen?(node) }
    }

    private func adopt(_ node: Int, _ serial: UInt64) {
        changeCount += 1
        while let first = nodes[node].pending.first, first.serial <= serial {
            nodes[node].effective = first
            nodes[node].pending.removeFirst()
        }
    }

    func fail(_ found: Violation) {
        guard violation == nil else { return }
        violation = found
        note("VIOLATION \(found)")
    }

    /// A line of words in the column log.
    package func note(_ text: String, isDetail: Bool = false) { log?.line(self, text, isDetail: isDetail) }

    // ---- Machines ----

    /// Starts a process with what the disk holds.
    package func start(_ node: Int) {
        guard !nodes[node].isUp else { return }
        nodes[node].isDark = false
        nodes[node].run += 1
        changeCount += 1
        let run = nodes[node].run
        var drawn = Chance(seed: seed, "incarnation of \(node), run \(run)")
        nodes[node].incarnation = max(1, drawn.random.next())
        nodes[node].random = SeededRandom(seed: drawn.random.next())
        nodes[node].acceptedStreams = 0
        checkers.started(nodes[node])
        let process = maker(boot(node))
        nodes[node].process = process
        needsFabric = process.needsFabric
        note("\(nodes[node].name) runs, incarnation \(String(nodes[node].incarnation & 0xFFFF, radix: 16))")
        hand(node, .timer)
    }

    private func boot(_ node: Int) -> SimulatedBoot {
        let one = nodes[node]
        let own = [Channel.heartbeat, .fabric].map { [Address(host: one.host, port: $0.port)] }
        var boot = SimulatedBoot(
            member: one.member, addresses: .init(heartbeat: own[0], fabric: own[1]), now: one.clock.reading(now))
        boot.isMulticast = options.isMulticast == 1
        boot.intervalMilliseconds = UInt64(options.intervalMilliseconds)
        boot.timeoutIntervals = UInt64(options.timeoutIntervals)
        boot.minClusterSize = options.minClusterSize
        boot.startWaitMilliseconds = UInt64(options.startWaitMilliseconds)
        boot.startWaitMaxMilliseconds = UInt64(options.startWaitMaxMilliseconds)
        boot.seeds = seeds(of: node).map { SeedName(host: nodes[$0].name, port: Channel.heartbeat.port) }
        boot.namespaces = one.configured
        boot.storedView = one.disk.view
        boot.storedPartitions = one.disk.partitions
        boot.metadata = one.disk.metadata
        boot.breaks = breaks
        return boot
    }

    /// Everybody is configured with the next few.
    private func seeds(of node: Int) -> [Int] {
        (1..<max(2, nodes.count)).prefix(options.seeds).map { (node + $0) % nodes.count }.filter { $0 != node }
    }

    /// Whether these can find each other if nobody else answers: by seeds, either way, over some of them.
    package func canMeet(_ numbers: [Int]) -> Bool {
        guard options.isMulticast == 0, let first = numbers.first else { return true }
        var met = [first]
        var place = 0
        while place < met.count {
            let node = met[place]
            place += 1
            for other in numbers where !met.contains(other) {
                if seeds(of: node).contains(other) || seeds(of: other).contains(node) { met.append(other) }
            }
        }
        return met.count == numbers.count
    }

    /// Kills the process. With the power its kernel dies, too: nobody is told.
    package func crash(_ node: Int, isPower: Bool) {
        if nodes[node].isUp {
            nodes[node].disk.crash(now: now, chance: &chance)
            judgeDisk(node)
            checkers.ended(node, isOrderly: false)
            endStreams(node, isPower: isPower)
            nodes[node].end(at: now)
            changeCount += 1
        }
        if isPower { nodes[node].isDark = true }
    }

    private func leaveIsDone(_ node: Int) {
        note("\(nodes[node].name) has left")
        nodes[node].disk.close(now: now)
        judgeDisk(node)
        checkers.ended(node, isOrderly: true)
        endStreams(node, isPower: false)
        nodes[node].end(at: now)
        changeCount += 1
    }

    private func resume(_ node: Int) {
        guard nodes[node].isPaused else { return }
        nodes[node].isPaused = false
        nodes[node].clock.goesOn(at: now)
        changeCount += 1
        note("\(nodes[node].name) goes on")
        var waiting: [ClusterEvent] = []
        swap(&waiting, &nodes[node].inbox)
        let run = nodes[node].run
        // Whether a shell rings its timers before it reads its sockets is its own affair.
        if chance.below(2) == 0 { step(node, .timer) }
        for event in waiting where nodes[node].run == run && nodes[node].isUp { step(node, event) }
        if nodes[node].run == run, nodes[node].isUp { step(node, .timer) }
    }

    // ---- Faults ----

    /// Lets a fault strike now.
    package func strike(_ fault: Fault) {
        guard fault.lastNode < nodes.count, fault.needsRunning.map({ nodes[$0].isUp }) ?? true else { return }
        faults.append(TimedFault(time: now, fault: fault))
        if fault.isHarm {
            counts.faults += 1
            if isAgreeing { counts.strikes += 1 }
        }
        note(fault.description)
        apply(fault)
    }

    /// Whether some process is agreeing on a view.
    package var isAgreeing: Bool { nodes.contains { $0.isUp && $0.phase == .frozen } }

    /// From here on messages get lost, disks fail, and planned faults strike, as the options say.
    package func storm() {
        isQuiet = false
        network.options = options
    }

    /// From here on nothing goes wrong any more by itself, and what was cut is mended.
    package func calm() {
        isQuiet = true
        whenFrozen = nil
        network.calm(now: now)
        for node in nodes.indices { nodes[node].disk.mood = .sound }
        wakeStalled()
        note("calm: all ways are open, disks are sound")
    }

    /// Plans the start of a machine, calm or not.
    package func planStart(_ node: Int, at time: UInt64) { queue.push(.start(node: node), at: max(time, now)) }

    /// The node sleeps for ever.
    func freeze(_ node: Int) {
        nodes[node].isOutside = true
        nodes[node].isPaused = nodes[node].isUp
    }

    /// A paused node goes on now.
    func wake(_ node: Int) { queue.push(.resume(node: node, run: nodes[node].run), at: now) }

    /// No way leads to the node or from it.
    func isolate(_ node: Int) { network.cut { $0 == node || $1 == node } }

    // ---- Judging ----

    /// Whether these nodes, and no others, are members of one view that all of them serve.
    package func areOne(_ numbers: [Int]) -> Bool {
        guard let first = numbers.first, let view = nodes[first].effective?.view, view.members.count == numbers.count
        else { return false }
        return numbers.allSatisfy { number in
            let node = nodes[number]
            guard node.isUp, !node.isPaused, node.pending.isEmpty, let shown = node.effective else { return false }
            return shown.phase == .open && shown.view == view && view.members.contains(node.member)
        }
    }

    /// Where each of these nodes stands, for failures.
    package func standing(_ numbers: [Int]) -> String {
        numbers.map { number in
            let node = nodes[number]
            guard node.isUp else { return "\(node.name) is down" }
            let view = node.effective?.view.map { "view \($0.mark.number) of \($0.members.count)" } ?? "no view"
            return "\(node.name) \(node.phase), \(view)"
        }.joined(separator: "; ")
    }
}
