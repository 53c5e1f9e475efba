// Drives the cluster part of a node: a thread that moves bytes, timers and completions, and decides nothing. Invariants:
// 1. The machine is stepped on this thread only; the effects of a step are done in order before the next event.
// 2. The thread never blocks but in its wait for events: names are looked up and files written by helpers.
// 3. `published` follows a `publish` when every reactor has taken its routes, and answered what older ones had let through.
internal import Assembly
internal import Base
internal import CReactor
internal import Fabric
internal import Files
internal import Glibc
internal import Logging
internal import Membership
internal import Metadata
internal import Reactor
internal import SystemMetadata

/// Listeners and groups of the cluster, bound early so that a port in use is said early.
struct ClusterSockets {
    var heartbeat: [Listener] = []
    var fabric: [Listener] = []
    var groups: [(address: Address, descriptor: Int32)] = []
}

/// See the invariants above. `start`, `leave` and `stop` on the main thread.
final class ClusterShell: @unchecked Sendable {
    private enum Tag {
        static let wake: UInt64 = 0
        static let heartbeat: UInt8 = 1
        static let fabric: UInt8 = 2
        static let groups: UInt8 = 3
    }
    private static let eventsMax = 256
    private static let waitMillisecondsMax: UInt64 = 1000
    private static let addressesMax = 16
    /// Figures are shown as often at most.
    private static let figuresMilliseconds: UInt64 = 50
    private let state: NodeState
    private let desk: ClusterDesk
    private let routing: ClusterRouting
    private let stores: ClusterStores
    private let resolver = HelperQueue(name: "cluster-dns")
    private let heartbeat: ClusterStreams
    private let fabric: ClusterStreams
    private let groups: ClusterGroups
    private var machine: ClusterNode
    private var random: SeededRandom
    private let epoll: Int32
    private let ready = UnsafeMutablePointer<epoll_event>.allocate(capacity: ClusterShell.eventsMax)
    /// What happened while effects were done.
    private var pending: [ClusterEvent] = []
    private var effects: [ClusterEffect] = []
    private var nextFigures = Instant(nanoseconds: 0)
    private var isReady = false
    /// Of the snapshot of which the limits are in force, or will be soon.
    private var lastMapHash: UInt64 = 0
    private var thread = pthread_t()
    private let whenReady: @Sendable () -> Void

    /// `seed`: for the chance that the machine needs. `whenReady` is called once, on the cluster's thread, when this node
    /// serves for the first time.
    init(
        _ boot: ClusterBoot, state: NodeState, routing: ClusterRouting, stores: ClusterStores, sockets: ClusterSockets,
        seed: UInt64, whenReady: @escaping @Sendable () -> Void
    ) throws(StartError) {
        self.state = state
        self.routing = routing
        self.stores = stores
        self.whenReady = whenReady
        desk = state.cluster
        random = SeededRandom(seed: seed)
        do throws(ClusterBootError) {
            machine = try ClusterNode(boot)
        } catch {
            throw StartError(error.message)
        }
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        precondition(epoll >= 0, "no file descriptors left for the cluster")
        let log = state.log
        heartbeat = ClusterStreams(sockets.heartbeat, epoll: epoll, tag: Tag.heartbeat) { log.warning(.heartbeat, $0) }
        fabric = ClusterStreams(sockets.fabric, epoll: epoll, tag: Tag.fabric) { log.warning(.fabric, $0) }
        groups = ClusterGroups(sockets.groups, epoll: epoll, tag: Tag.groups) { log.warning(.heartbeat, $0) }
        apus_epoll_add(epoll, desk.wake, UInt32(APUS_READABLE) | UInt32(APUS_EDGE), Tag.wake)
    }

    deinit {
        ready.deallocate()
        close(epoll)
    }

    // ---- From the main thread ----

    /// Starts the thread. Once, when all reactors have been given their engines.
    func start() throws(StartError) {
        let reason = startThread(&thread) { [self] in run() }
        guard reason == 0 else { throw StartError("no thread for the cluster: \(errnoText(reason))") }
    }

    /// The node is to stop: `ClusterDesk.hasLeft` tells when nothing depends on it any more.
    func leave() { desk.post(.leave) }

    /// Ends the thread; what was to be stored is stored. Once, after `start`.
    func stop() {
        desk.askToStop()
        pthread_join(thread, nil)
        stores.finish()
        resolver.abandon()
        desk.close()
    }

    // ---- The loop ----

    private func run() {
        apus_name_thread("cluster")
        while !desk.isStopAsked {
            let count = epoll_wait(epoll, ready, Int32(ClusterShell.eventsMax), waitMilliseconds())
            let now = SystemClock.monotonic()
            for number in 0..<Int(max(count, 0)) {
                dispatch(apus_event_token(ready + number), apus_event_flags(ready + number), now)
            }
            collect()
            drain()
            heartbeat.timePassed(now)
            fabric.timePassed(now)
            collect()
            drain()
            // After everything that has come: a node that slept must not think that all others have.
            if machine.deadline <= SystemClock.monotonic() {
                step(.timer)
                drain()
            }
            showFigures(now)
        }
    }

    private func waitMilliseconds() -> Int32 {
        guard pending.isEmpty else { return 0 }
        var due = machine.deadline
        if let streams = heartbeat.deadline { due = min(due, streams) }
        if let streams = fabric.deadline { due = min(due, streams) }
        let left = due.nanoseconds(since: SystemClock.monotonic())
        return Int32(min((left + 999_999) / 1_000_000, ClusterShell.waitMillisecondsMax))
    }

    private func dispatch(_ token: UInt64, _ flags: UInt32, _ now: Instant) {
        if heartbeat.owns(token) { return heartbeat.ready(token, flags, now: now) }
        if fabric.owns(token) { return fabric.ready(token, flags, now: now) }
        guard groups.owns(token) else { return }
        groups.receive(token) { pending.append(.datagram($0, from: $1)) }
    }

    /// Puts what has happened in line.
    private func collect() {
        if !heartbeat.events.isEmpty {
            pending += heartbeat.events.map { .heartbeat($0) }
            heartbeat.events = []
        }
        if !fabric.events.isEmpty {
            pending += fabric.events.map { .fabric($0) }
            fabric.events = []
        }
        pending += desk.takeEvents()
    }

    /// Steps through what stands in line, and what comes of it.
    private func drain() {
        while !pending.isEmpty {
            let events = pending
            pending = []
            for event in events { step(event) }
            collect()
        }
    }

    private func step(_ event: ClusterEvent) {
        if case .published = event { noteReady() }
        let now = SystemClock.now()
        effects.removeAll(keepingCapacity: true)
        machine.step(event, now: now, random: &random, effects: &effects)
        for effect in effects { perform(effect, now.monotonic) }
    }

    private func noteReady() {
        guard !isReady, desk.snapshot?.phase == .open else { return }
        isReady = true
        whenReady()
    }

    private func showFigures(_ now: Instant) {
        guard now >= nextFigures else { return }
        nextFigures = now.advanced(byMilliseconds: ClusterShell.figuresMilliseconds)
        desk.show(machine.figures)
    }

    // ---- Effects ----

    private func perform(_ effect: ClusterEffect, _ now: Instant) {
        switch effect {
        case .heartbeat(let effect): heartbeat.perform(effect, now: now)
        case .fabric(let effect): fabric.perform(effect, now: now)
        case .multicast(let bytes): groups.send(bytes)
        case .resolve(let seed): resolve(seed)
        case .store(let ticket, .metadata(let items)): store(ticket, items)
        case .store(let ticket, let request):
            stores.store(request) { [desk] problem in
                desk.post(problem.map { .notStored(ticket, reason: $0) } ?? .stored(ticket))
            }
        case .publish(let snapshot): publish(snapshot)
        case .answer(let token, let text):
            // Whoever has the answer may look at what it changed.
            desk.show(machine.figures)
            desk.answer(token, text)
        case .answerMetadata(let token, let answer): desk.answer(token, answer)
        case .reserveTimes(let ticket, let names):
            pending.append(.timesReserved(ticket, state.reserveTimes(names)))
        case .left:
            desk.showLeft()
            // The main thread waits for jobs, among others.
            _ = state.controlJobs.add {}
        case .log(let line): log(line)
        }
    }

    /// The files are written by a helper; what they say is put in force by the control thread, like all else that is.
    private func store(_ ticket: UInt64, _ items: [MetadataItem]) {
        stores.run { [state, desk] in
            if let problem = state.storeMetadata(items) { return desk.post(.notStored(ticket, reason: problem)) }
            _ = state.controlJobs.add {
                state.putInForce(items)
                desk.post(.stored(ticket))
            }
        }
    }

    /// Looks a name up without waiting for it; a numeric address is its own answer.
    private func resolve(_ seed: SeedName) {
        // Not behind a name that nobody answers for.
        if ClusterShell.isNumeric(seed.host) {
            return pending.append(.resolved(seed, [Address(host: seed.host, port: seed.port)]))
        }
        resolver.add { [desk] in
            let room = UnsafeMutableRawPointer.allocate(byteCount: 64 * ClusterShell.addressesMax, alignment: 8)
            defer { room.deallocate() }
            let rows = room.bindMemory(to: CChar.self, capacity: 64 * ClusterShell.addressesMax)
            let count = apus_resolve(seed.host, rows, Int32(ClusterShell.addressesMax))
            let addresses = (0..<Int(count)).map { Address(host: String(cString: rows + 64 * $0), port: seed.port) }
            desk.post(.resolved(seed, addresses))
        }
    }

    private static func isNumeric(_ host: String) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return host.contains(":") || parts.count == 4 && parts.allSatisfy { UInt8($0) != nil }
    }

    private func publish(_ snapshot: ClusterSnapshot) {
        let serial = snapshot.serial
        let retired = routing.put(snapshot) { [desk] in desk.post(.published(serial)) }
        desk.show(snapshot, rosters: state.metadata.items.items(of: MetadataModule.roster.rawValue))
        desk.show(machine.figures)
        for reactor in state.reactors.all.indices { state.post(NodeLetter.routes, retired, to: reactor) }
        guard snapshot.mapHash != lastMapHash else { return }
        lastMapHash = snapshot.mapHash
        _ = state.controlJobs.add { [state] in state.putLimitsInForce() }
    }

    private func log(_ line: ClusterLogLine) {
        let context = LogContext(rawValue: line.context.rawValue) ?? .clustering
        switch line.level {
        case .info: state.log.info(context, line.text)
        case .warning: state.log.warning(context, line.text)
        }
    }
}
