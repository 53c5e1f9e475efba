// The cluster part of one node: heartbeats, fabric links, views, partitions and system metadata, wired. A value without
// threads: Node's shell and the simulator both drive it by `step`. Invariants:
// 1. What one machine says to another arrives in the order it was said; nothing is left under way when `step` returns.
// 2. A view is ready here only when the records of all partitions of its map, and the system metadata of its bundle, are
//    durable; it opens later.
// 3. From a freeze to the next opening no snapshot says `open`, and the block is taken after every reactor goes by that.
// 4. Serials of snapshots, and generations in them, only rise.
package import Base
package import Fabric
internal import Membership
internal import Metadata
internal import Partitions

/// See the invariants above. One thread.
package struct ClusterNode {
    /// What clients are served by; nil until the first.
    package internal(set) var snapshot: ClusterSnapshot?
    package let me: Member
    let services: ServiceAddresses
    let build: String
    let breaks: ClusterBreaks
    let processSeed: UInt64
    var settings: ClusterSettings
    var heartbeat: Heartbeat
    var links: FabricLinks
    var views: Views
    var sharing: MetadataSharing
    /// What is stored of the partitions of each namespace that this node has, by name.
    var partitions: [NamespacePartitions]
    var isQuiesced = false
    var isLeaving = false
    /// When a node that leaves is done; nil as long as it is not.
    var doneAt: Instant?
    var hasLeft = false
    var isStoringLast = false
    /// The snapshot by which nothing is served any more.
    var lastSerial: UInt64?
    /// Tips that heartbeats answer.
    var tipTokens: [UInt64] = []
    /// The bundle that is being prepared.
    var preparation: Preparation?
    /// The map that is ready, and the one that is open or was last.
    var ready: ReadyMap?
    var map: ReadyMap?
    /// A freeze whose block waits for the reactors.
    var freeze: (number: UInt64, serial: UInt64)?
    var publishing = Publishing()
    /// Who is heard and not in the view, and why.
    var standing = Standing()
    var stores: [StorePurpose] = []
    var lastTicket: UInt64 = 0
    /// What pulses were told to say last.
    private var told: (content: PulseContent, at: Instant)

    // Of one step.
    var now: TurnTime
    var random = SeededRandom(seed: 0)
    var out: [ClusterEffect] = []
    var inbox: [MachineEvent] = []

    /// - Throws: if what was stored cannot be understood.
    package init(_ boot: ClusterBoot) throws(ClusterBootError) {
        me = boot.me
        services = boot.services
        build = boot.build
        breaks = boot.breaks
        processSeed = boot.processSeed
        settings = boot.settings
        now = boot.now
        partitions = try NamespacePartitions.read(boot)
        let content = PulseContent(view: .none, accepted: 0, isLeaving: false, clock: boot.now.wall.milliseconds)
        told = (content, boot.now.monotonic)
        heartbeat = Heartbeat(member: boot.me, settings: boot.heartbeatSettings, content: content)
        heartbeat.breaks = boot.breaks.heartbeat
        links = FabricLinks(member: boot.me, settings: boot.linkSettings)
        views = Views(
            me: boot.me, stored: try boot.readView(), settings: boot.settings.viewSettings, now: boot.now.monotonic)
        views.breaks = boot.breaks.views
        sharing = MetadataSharing(me: boot.me, items: boot.metadata)
        sharing.breaks = boot.breaks.metadata
    }

    /// When it wants `timer` at the latest.
    package var deadline: Instant {
        guard !hasLeft else { return .never }
        var first = views.deadline
        if let due = sharing.deadline { first = min(first, due) }
        if let doneAt { first = min(first, doneAt) }
        guard settings.heartbeat.mode != .alone else { return first }
        return min(first, heartbeat.deadline, links.deadline)
    }

    /// One event in; what is to be done is appended to `effects`, in this order.
    package mutating func step(
        _ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]
    ) {
        guard !hasLeft else { return }
        swap(&self.random, &random)
        swap(&out, &effects)
        self.now = TurnTime(monotonic: max(now.monotonic, self.now.monotonic), wall: now.wall)
        take(event)
        drain()
        finishLeaving()
        drain()
        if hasLeft { out.append(.left) }
        swap(&self.random, &random)
        swap(&out, &effects)
    }

    private mutating func take(_ event: ClusterEvent) {
        switch event {
        case .timer: timer()
        case .heartbeat(let event): inbox.append(.heartbeat(.stream(event)))
        case .fabric(let event): inbox.append(.links(.stream(event)))
        case .datagram(let bytes, let from): inbox.append(.heartbeat(.datagram(bytes, from: from)))
        case .resolved(let seed, let addresses): inbox.append(.heartbeat(.resolved(seed, addresses)))
        case .published(let serial): published(serial)
        case .stored(let ticket): stored(ticket)
        case .notStored(let ticket, let reason): notStored(ticket, reason)
        case .command(let token, let command): obey(command, token)
        case .settings(let settings): changed(settings)
        case .changeMetadata(let token, _, _) where isInNoView:
            out.append(.answerMetadata(token: token, .refused("nothing has changed: \(noViewSentence)")))
        case .changeMetadata(let token, let changes, let time):
            inbox.append(.metadata(.change(token: token, changes, time: time)))
        case .timesReserved(let ticket, let times): inbox.append(.metadata(.reserved(ticket, times)))
        case .leave: leave()
        }
    }

    private mutating func timer() {
        let now = now.monotonic
        if settings.heartbeat.mode != .alone {
            if heartbeat.deadline <= now { inbox.append(.heartbeat(.timer)) }
            if links.deadline <= now { inbox.append(.links(.timer)) }
        }
        if views.deadline <= now { inbox.append(.views(.timer)) }
        if let due = sharing.deadline, due <= now { inbox.append(.metadata(.timer)) }
        // Notices come, and are over, without anything else.
        publishWhatChanged()
    }

    // ---- From machine to machine ----

    /// What one machine is told next.
    enum MachineEvent {
        case heartbeat(HeartbeatEvent)
        case links(FabricLinksEvent)
        case views(ViewEvent)
        case metadata(MetadataEvent)
    }

    private mutating func drain() {
        var next = 0
        while next < inbox.count {
            let event = inbox[next]
            next += 1
            switch event {
            case .heartbeat(let event): tellHeartbeat(event)
            case .links(let event): tellLinks(event)
            case .views(let event): tellViews(event)
            case .metadata(let event): tellMetadata(event)
            }
            if next == inbox.count { tellContent() }
        }
        inbox.removeAll(keepingCapacity: true)
    }

    /// Pulses say where this node stands, and what its wall clock says if that has moved on its own.
    private mutating func tellContent() {
        guard settings.heartbeat.mode != .alone else { return }
        let wall = now.wall.milliseconds
        let expected = told.content.clock &+ now.monotonic.nanoseconds(since: told.at) / 1_000_000
        var content = PulseContent(
            view: views.phase == .open ? views.view?.mark ?? .none : .none, accepted: views.accepted, isLeaving: isLeaving,
            clock: told.content.clock)
        let hasMoved = wall > expected ? wall - expected > 5 : expected - wall > 5
        guard content != told.content || hasMoved else { return }
        content.clock = wall
        told = (content, now.monotonic)
        tellHeartbeat(.content(content))
    }

    private mutating func tellHeartbeat(_ event: HeartbeatEvent) {
        guard settings.heartbeat.mode != .alone else { return }
        var effects: [HeartbeatEffect] = []
        heartbeat.step(event, now: now.monotonic, random: &random, effects: &effects)
        for effect in effects {
            switch effect {
            case .stream(let effect): out.append(.heartbeat(effect))
            case .multicast(let bytes): out.append(.multicast(bytes))
            case .resolve(let seed): out.append(.resolve(seed))
            case .answered(let text): answerTip(text)
            case .log(let line): out.append(.log(line))
            case .neighboursChanged: neighboursChanged()
            }
        }
    }

    private mutating func neighboursChanged() {
        let neighbours = heartbeat.neighbours
        inbox.append(
            .links(.peers(neighbours.map { FabricPeer(member: $0.member, addresses: $0.addresses.fabric) })))
        inbox.append(.views(.neighbours(neighbours)))
        publishWhatChanged()
    }

    private mutating func tellLinks(_ event: FabricLinksEvent) {
        var effects: [FabricLinksEffect] = []
        links.step(event, now: now.monotonic, random: &random, effects: &effects)
        for effect in effects {
            switch effect {
            case .stream(let effect): out.append(.fabric(effect))
            case .delivered(let from, let frame): delivered(frame, from)
            case .heard(let member): inbox.append(.heartbeat(.evidence(member)))
            case .peerConnected, .peerLost: break
            case .log(let line): out.append(.log(line))
            }
        }
    }

    private mutating func delivered(_ frame: FabricFrame, _ from: Member) {
        switch frame.kind {
        case .view: inbox.append(.views(.message(from: from, frame.body)))
        case .metadata: inbox.append(.metadata(.message(from: from, frame.body)))
        case .hello, .pulse, .introduction: break
        }
    }

    private mutating func tellViews(_ event: ViewEvent) {
        var effects: [ViewEffect] = []
        views.step(event, now: now.monotonic, random: &random, effects: &effects)
        if case .neighbours = event { standing.unheard = nil }
        for effect in effects {
            switch effect {
            case .send(let member, let body):
                inbox.append(.links(.message(to: member, .view, body)))
            case .store(let ticket, let bytes):
                out.append(.store(purposeTicket { .view(own: $0, ticket: ticket) }, .view(bytes)))
            case .freeze(let number): freeze(number)
            case .prepare(let view, let blocks): prepare(view, blocks)
            case .open(let view): viewOpens(view)
            case .void(let mark, _): void(mark)
            case .orphan: publish(.orphan)
            case .answer(let token, let text): out.append(.answer(token: token, text))
            case .log(let line): out.append(.log(line))
            }
        }
    }

    private mutating func tellMetadata(_ event: MetadataEvent) {
        var effects: [MetadataEffect] = []
        sharing.step(event, now: now.monotonic, effects: &effects)
        for effect in effects {
            switch effect {
            case .send(let member, let body):
                inbox.append(.links(.message(to: member, .metadata, body)))
            case .store(let ticket, let items):
                out.append(.store(purposeTicket { .metadata(own: $0, ticket: ticket) }, .metadata(items)))
            case .reserve(let ticket, let namespaces): out.append(.reserveTimes(ticket, namespaces))
            case .prepared(let mark): metadataPrepared(mark)
            case .notPrepared(let mark, let reason): notPrepared(mark, reason)
            case .answer(let token, let answer): out.append(.answerMetadata(token: token, answer))
            case .log(let line): out.append(.log(line))
            }
        }
    }

    mutating func log(_ level: ClusterLogLevel, _ context: ClusterLogContext, _ text: String) {
        out.append(.log(ClusterLogLine(level, context, text)))
    }
}
