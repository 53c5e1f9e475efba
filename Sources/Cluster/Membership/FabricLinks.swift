// Streams for everything that is not a heartbeat: to each peer one that this node dials and sends on, from each one that it
// accepts and reads. Messages may get lost, those of one peer come in order. Invariants:
// 1. What is delivered comes from a member in `peers`, in the order it was sent; of two streams of one member only the
//    one with the higher number counts, and the other is closed.
// 2. What waits for a stream is bounded in bytes and age, and ends with the peer's incarnation.
// 3. Frames of members that are not in `peers` yet wait, bounded in bytes and age: the other side may know this node
//    earlier.
// 4. `peerConnected` and `peerLost` alternate for each member.
package import Base
package import Fabric

/// What the links are started with.
package struct FabricLinksSettings: Sendable {
    package var clusterName: String
    package var addresses: NodeAddresses
    package var connectTimeoutMilliseconds: UInt64
    /// How long a message waits for a stream, and the longest time between two tries.
    package var timeoutMilliseconds: UInt64
    /// Bytes that wait for a stream, for each peer.
    package var queuedMax = 16 << 20
    /// Bytes of one member that is no peer yet.
    package var heldMax = 4 << 20

    package init(
        clusterName: String, addresses: NodeAddresses, connectTimeoutMilliseconds: UInt64 = 500,
        timeoutMilliseconds: UInt64 = 1500
    ) {
        self.clusterName = clusterName
        self.addresses = addresses
        self.connectTimeoutMilliseconds = connectTimeoutMilliseconds
        // A day in nanoseconds fits.
        self.timeoutMilliseconds = min(max(timeoutMilliseconds, 1), 86_400_000)
    }
}

/// Who is to be connected.
package struct FabricPeer: Sendable, Equatable {
    package let member: Member
    package let addresses: [Address]

    package init(member: Member, addresses: [Address]) {
        self.member = member
        self.addresses = addresses
    }
}

/// What happens to the links.
package enum FabricLinksEvent: Sendable {
    case timer
    /// Of the fabric port.
    case stream(StreamEvent)
    /// All of them, by id, this node not among them. One that is not named any more is over.
    case peers([FabricPeer])
    case message(to: Member, FrameKind, [UInt8])
    /// Connect timeout and timeout in milliseconds.
    case timeouts(connect: UInt64, UInt64)
}

/// What the links want done.
package enum FabricLinksEffect: Sendable {
    case stream(StreamEffect)
    case delivered(from: Member, FabricFrame)
    /// Something came from this member: evidence that it lives. At most once for each `received`.
    case heard(Member)
    /// What is sent to it goes out at once.
    case peerConnected(Member)
    /// What was sent to it lately may be lost.
    case peerLost(Member)
    case log(ClusterLogLine)
}

/// Counters since the start, and gauges.
package struct FabricLinksStatistics: Sendable, Equatable {
    /// Open now, both ways: `fabric_connections`.
    package var connections = 0
    package var connectionsOpened: UInt64 = 0
    package var connectionsClosed: UInt64 = 0
    package var framesSent: UInt64 = 0
    package var framesReceived: UInt64 = 0
    package var bytesSent: UInt64 = 0
    package var bytesReceived: UInt64 = 0
    package var traffic = FabricTraffic()
    /// Sent to somebody who is no peer, or too old, or too many.
    package var droppedOut: UInt64 = 0
    /// Came from somebody who is no peer.
    package var droppedIn: UInt64 = 0
    package var foreign: UInt64 = 0
}

/// Bytes in whole frames since the start, by what they are for; greetings and signs of life count with views.
package struct FabricTraffic: Sendable, Equatable {
    /// Agreement on views.
    package var controlSent: UInt64 = 0
    package var controlReceived: UInt64 = 0
    /// System metadata.
    package var metadataSent: UInt64 = 0
    package var metadataReceived: UInt64 = 0

    package init() {}

    mutating func sent(_ kind: FrameKind, _ count: Int) {
        if kind == .metadata { metadataSent += UInt64(count) } else { controlSent += UInt64(count) }
    }

    mutating func received(_ kind: FrameKind, _ count: Int) {
        if kind == .metadata { metadataReceived += UInt64(count) } else { controlReceived += UInt64(count) }
    }
}

/// The machine of the fabric. See the invariants above.
package struct FabricLinks: Sendable {
    struct Waiting: Sendable {
        let kind: FrameKind
        let bytes: [UInt8]
        let since: Instant
    }

    struct Link: Sendable {
        let member: Member
        var addresses: [Address]
        var dial = Dial()
        var queue: [Waiting] = []
        var queuedBytes = 0
        var lastSent: Instant
        var isReported = false
        /// Since when no stream to it has stood for a timeout, and what the first failure since then was.
        var lackingSince: Instant
        var failure = ""
        /// When something came from it, or it became a peer.
        var heardAt: Instant
    }

    struct Incoming: Sendable {
        let stream: StreamID
        let from: Address
        var since: Instant
        var hello: Hello?
        var framer = StreamFramer()
        /// Of a member that is no peer yet.
        var held: [FabricFrame] = []
        var heldBytes = 0
        var heldSince: Instant?
    }

    static let keepAliveMilliseconds: UInt64 = 1000
    static let incomingMax = 4096
    package let member: Member
    package internal(set) var statistics = FabricLinksStatistics()
    var settings: FabricLinksSettings
    var links: [Link] = []
    var incoming: [Incoming] = []
    var notices = HeartbeatNotices()
    private var dialled: UInt64 = 0
    /// When something is due; may be early.
    private var dueAt = Instant(nanoseconds: 0)
    var now = Instant(nanoseconds: 0)
    private var random = SeededRandom(seed: 0)
    var out: [FabricLinksEffect] = []

    package init(member: Member, settings: FabricLinksSettings) {
        precondition(member.incarnation != 0)
        self.member = member
        self.settings = settings
    }

    /// When it wants `timer` at the latest.
    package var deadline: Instant { dueAt }

    /// Members that are connected now, by id.
    package var connected: [Member] { links.filter(\.isReported).map(\.member) }

    /// All that are to be connected, by id.
    package var peers: [FabricPeer] { links.map { FabricPeer(member: $0.member, addresses: $0.addresses) } }

    /// What somebody should look at, one sentence each.
    package var problems: [String] { notices.sentences(now) }

    /// Takes one event. `now` is monotonic.
    package mutating func step(
        _ event: FabricLinksEvent, now: Instant, random: inout SeededRandom, effects: inout [FabricLinksEffect]
    ) {
        self.now = max(now, self.now)
        self.random = random
        switch event {
        case .timer: break
        case .stream(let event): streamEvent(event)
        case .peers(let peers): changed(peers)
        case .message(let to, let kind, let body): send(FabricFrame(kind, body), to: to)
        case .timeouts(let connect, let timeout):
            settings.connectTimeoutMilliseconds = connect
            settings.timeoutMilliseconds = min(max(timeout, 1), 86_400_000)
        }
        if self.now >= dueAt { work() }
        effects += out
        out.removeAll(keepingCapacity: true)
        random = self.random
    }

    private var backOff: BackOff {
        BackOff(leastMilliseconds: 20, mostMilliseconds: settings.timeoutMilliseconds)
    }

    var timeoutNanoseconds: UInt64 { settings.timeoutMilliseconds * 1_000_000 }

    func index(of member: Member) -> Int? { links.firstIndex { $0.member == member } }

    // ---- Peers ----

    private mutating func changed(_ peers: [FabricPeer]) {
        for link in links where !peers.contains(where: { $0.member == link.member }) { end(link) }
        links.removeAll { link in !peers.contains { $0.member == link.member } }
        for peer in peers where peer.member.id != member.id {
            if let index = index(of: peer.member) {
                if links[index].addresses != peer.addresses { links[index].failure = "" }
                links[index].addresses = peer.addresses
                continue
            }
            links.append(Link(
                member: peer.member, addresses: peer.addresses, lastSent: now, lackingSince: now, heardAt: now))
            deliverHeld(peer.member)
        }
        links.sort { $0.member < $1.member }
        dueAt = now
    }

    /// It is no peer any more.
    private mutating func end(_ link: Link) {
        statistics.droppedOut += UInt64(link.queue.count)
        if let stream = link.dial.stream { close(dialled: stream, isStanding: link.dial.isStanding) }
        if link.isReported { out.append(.peerLost(link.member)) }
        for one in incoming where one.hello?.member == link.member { close(one.stream) }
    }

    private mutating func close(dialled stream: StreamID, isStanding: Bool) {
        out.append(.stream(.close(stream)))
        if isStanding { over() }
    }

    mutating func opened() {
        statistics.connections += 1
        statistics.connectionsOpened += 1
    }

    mutating func over() {
        statistics.connections -= 1
        statistics.connectionsClosed += 1
    }

    // ---- Sending ----

    private mutating func send(_ frame: FabricFrame, to: Member) {
        if to == member {
            return out.append(.delivered(from: member, frame))
        }
        guard let index = index(of: to) else { return statistics.droppedOut += 1 }
        let bytes = frame.bytes
        if links[index].dial.isStanding, let stream = links[index].dial.stream {
            return emit(index, stream, frame.kind, bytes)
        }
        guard links[index].queuedBytes + bytes.count <= settings.queuedMax else { return statistics.droppedOut += 1 }
        links[index].queue.append(Waiting(kind: frame.kind, bytes: bytes, since: now))
        links[index].queuedBytes += bytes.count
    }

    private mutating func emit(_ index: Int, _ stream: StreamID, _ kind: FrameKind, _ bytes: [UInt8]) {
        links[index].lastSent = now
        statistics.framesSent += 1
        statistics.bytesSent += UInt64(bytes.count)
        statistics.traffic.sent(kind, bytes.count)
        out.append(.stream(.send(stream, bytes)))
    }

    mutating func connected(_ stream: StreamID) {
        guard let index = links.firstIndex(where: { $0.dial.stream == stream && !$0.dial.isStanding }) else { return }
        links[index].dial.stands(now: now)
        opened()
        emit(index, stream, .hello, Hello(
            member: member, port: .fabric, stream: stream.rawValue, clusterName: settings.clusterName,
            addresses: settings.addresses).frame)
        expire(index)
        for waiting in links[index].queue { emit(index, stream, waiting.kind, waiting.bytes) }
        links[index].queue = []
        links[index].queuedBytes = 0
        links[index].isReported = true
        out.append(.peerConnected(links[index].member))
        dueAt = min(dueAt, now.advanced(byMilliseconds: FabricLinks.keepAliveMilliseconds))
    }

    /// A dialled stream is gone.
    mutating func lost(_ stream: StreamID, _ reason: String) {
        guard let index = links.firstIndex(where: { $0.dial.stream == stream }) else { return }
        // One that stood for a while was a success; nobody answers on it who could say so.
        if links[index].dial.isStanding {
            over()
            if hasStood(links[index], now) {
                links[index].dial.succeeded()
                links[index].lackingSince = now
                links[index].failure = ""
            }
        }
        if links[index].failure.isEmpty { links[index].failure = reason }
        links[index].dial.failed(now: now, backOff: backOff, random: &random)
        dueAt = min(dueAt, links[index].dial.retryAt)
        if links[index].isReported {
            links[index].isReported = false
            out.append(.peerLost(links[index].member))
        }
    }

    private mutating func expire(_ index: Int) {
        let old = links[index].queue.prefix { now.nanoseconds(since: $0.since) >= timeoutNanoseconds }
        links[index].queuedBytes -= old.reduce(0) { $0 + $1.bytes.count }
        statistics.droppedOut += UInt64(old.count)
        links[index].queue.removeFirst(old.count)
    }

    // ---- Time ----

    /// Looks at what is due at the end of this step.
    mutating func dueSoon() { dueAt = now }

    private mutating func work() {
        var next = Instant.never
        for index in links.indices {
            expire(index)
            if let first = links[index].queue.first {
                next = min(next, first.since.advanced(byMilliseconds: settings.timeoutMilliseconds))
            }
            if let stream = links[index].dial.stream {
                guard links[index].dial.isStanding else { continue }
                let quiet = links[index].lastSent.advanced(byMilliseconds: FabricLinks.keepAliveMilliseconds)
                if quiet <= now { emit(index, stream, .pulse, FabricFrame(.pulse, []).bytes) }
                next = min(next, links[index].lastSent.advanced(byMilliseconds: FabricLinks.keepAliveMilliseconds))
            } else if links[index].dial.retryAt <= now {
                dial(index)
            } else if !links[index].addresses.isEmpty {
                next = min(next, links[index].dial.retryAt)
            }
        }
        notices.expire(now)
        dueAt = min(next, tidyIncoming())
    }

    private mutating func dial(_ index: Int) {
        dialled += 1
        let stream = StreamID.dialled(dialled)
        let addresses = links[index].addresses
        guard let address = links[index].dial.begin(addresses, stream: stream, now: now) else { return }
        out.append(.stream(.connect(stream, to: address, timeoutMilliseconds: settings.connectTimeoutMilliseconds)))
    }
}
