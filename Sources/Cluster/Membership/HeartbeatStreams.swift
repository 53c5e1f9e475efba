// Streams of the mesh: dialled ones to send on, accepted ones to read.
internal import Base
internal import Fabric

extension Heartbeat {
    /// Bytes of a frame that is not whole, on a stream that has not said who it is, and on one that has.
    private static let unknownMax = 64 << 10
    private static let heldMax = 1 << 20
    private static let acceptedMax = 4096

    private var backOff: BackOff { BackOff(leastMilliseconds: interval, mostMilliseconds: timeout) }

    mutating func streamEvent(_ event: StreamEvent) {
        switch event {
        case .accepted(let stream, let from):
            guard settings.mode == .mesh, accepted.count < Heartbeat.acceptedMax,
                !accepted.contains(where: { $0.stream == stream })
            else { return out.append(.stream(.close(stream))) }
            accepted.append(AcceptedStream(stream: stream, from: from, since: now))
            opened()
        case .connected(let stream): connected(stream)
        case .received(let stream, let bytes): received(stream, bytes)
        case .closed(let stream, let reason): closed(stream, reason)
        }
    }

    private mutating func opened() {
        statistics.connections += 1
        statistics.connectionsOpened += 1
    }

    private mutating func over() {
        statistics.connections -= 1
        statistics.connectionsClosed += 1
    }

    // ---- Dialling ----

    /// Every dial that is due, and when the next will be.
    mutating func dialAll() {
        var next = Instant.never
        for index in peers.all.indices where peers.all[index].dial.stream == nil && wantsStream(index) {
            if peers.all[index].dial.retryAt <= now {
                dial(index)
            } else {
                next = min(next, peers.all[index].dial.retryAt)
            }
        }
        dialAt = min(next, driveSeeds())
    }

    /// Whether pulses go to a peer. To a retired one, too, while no other incarnation of its id is there: when two of one
    /// id came and went, the one that is left may be the one that was retired, and so may be this node to it.
    private func wantsStream(_ index: Int) -> Bool {
        let peer = peers.all[index]
        guard !peer.addresses.heartbeat.isEmpty else { return false }
        guard peer.standing == .retired else { return true }
        return !peer.hasSaidGoodbye && peer.member.id != member.id && !peers.indices(of: peer.member.id).contains {
            peers.all[$0].standing == .present || peers.all[$0].standing == .contested
        }
    }

    private mutating func dial(_ index: Int) {
        let stream = nextStream()
        guard let address = peers.all[index].dial.begin(peers.all[index].addresses.heartbeat, stream: stream, now: now)
        else { return }
        connect(stream, address)
    }

    /// Waiting longer than the heartbeat timeout would only put the next try off, which may find the way open again.
    mutating func connect(_ stream: StreamID, _ address: Address) {
        let wait = min(settings.tunables.connectTimeoutMilliseconds, timeout)
        out.append(.stream(.connect(stream, to: address, timeoutMilliseconds: wait)))
    }

    private func peer(dialling stream: StreamID) -> Int? { peers.all.firstIndex { $0.dial.stream == stream } }

    private mutating func connected(_ stream: StreamID) {
        if let index = peer(dialling: stream), !peers.all[index].dial.isStanding {
            peers.all[index].dial.stands(now: now)
            peers.all[index].needsList = false
            peers.all[index].isRefused = false
        } else if let at = seedStreams.firstIndex(where: { $0.stream == stream }), !seedStreams[at].isStanding {
            seedStreams[at].isStanding = true
            seedStreams[at].since = now
        } else {
            return
        }
        opened()
        greet(stream)
    }

    private mutating func greet(_ stream: StreamID) {
        let hello = Hello(
            member: member, port: .heartbeat, stream: stream.rawValue, clusterName: settings.clusterName,
            addresses: settings.addresses)
        emit(stream, hello.frame)
        emit(stream, pulse(isGoodbye: false, withList: true).frame)
        statistics.pulsesSent += 1
        if let index = peer(dialling: stream) { confirm(index) }
    }

    /// Tells a peer which of its streams end here.
    private mutating func confirm(_ index: Int) {
        guard peers.all[index].dial.isStanding, let stream = peers.all[index].dial.stream else { return }
        for number in peers.all[index].unconfirmed { emit(stream, Introduction.reached(stream: number).frame) }
        peers.all[index].unconfirmed = []
    }

    /// Drops the stream to a peer, and dials again.
    mutating func redial(_ index: Int) {
        guard settings.mode == .mesh, let stream = peers.all[index].dial.stream else { return }
        out.append(.stream(.close(stream)))
        if peers.all[index].dial.isStanding { over() }
        peers.all[index].dial.failed(now: now, backOff: backOff, random: &random)
        dialAt = min(dialAt, peers.all[index].dial.retryAt)
    }

    mutating func closeDial(_ index: Int) {
        guard let stream = peers.all[index].dial.stream else { return }
        out.append(.stream(.close(stream)))
        if peers.all[index].dial.isStanding { over() }
        peers.all[index].dial.forget(now: now)
    }

    /// A stream to one that says that it does not hear this node is stuck. One that is silent cannot say so: with it this
    /// node is more patient than the longest back-off, else two nodes could each close its stream just before the other's
    /// stands, for ever.
    mutating func redialTheDeaf() {
        for index in peers.all.indices where peers.all[index].dial.isStanding {
            let since = max(peers.all[index].heardMe, peers.all[index].dial.since)
            let isAudible = now.nanoseconds(since: peers.all[index].lastPulse) < timeoutNanoseconds
            if now.nanoseconds(since: since) > (isAudible ? 1 : 4) * timeoutNanoseconds { redial(index) }
        }
        for one in seedStreams where one.isStanding && now.nanoseconds(since: one.since) > 2 * timeoutNanoseconds {
            out.append(.stream(.close(one.stream)))
            over()
            seedStreams.removeAll { $0.stream == one.stream }
        }
    }

    /// Accepted streams that do not say who they are, and those of which the other end is gone without a word.
    mutating func closeTheSilent() {
        guard now >= graceUntil else { return }
        for one in accepted {
            let most = (one.member == nil ? 2 : 4) * timeoutNanoseconds
            if now.nanoseconds(since: one.since) > most { close(one.stream) }
        }
    }

    private mutating func close(_ stream: StreamID) {
        guard let at = accepted.firstIndex(where: { $0.stream == stream }) else { return }
        accepted.remove(at: at)
        out.append(.stream(.close(stream)))
        over()
    }

    private mutating func closed(_ stream: StreamID, _ reason: String) {
        if let at = accepted.firstIndex(where: { $0.stream == stream }) {
            let member = accepted.remove(at: at).member
            over()
            if let index = member.flatMap({ peers.index(of: $0) }) { judgeRefused(index) }
            return
        }
        if let index = peer(dialling: stream) {
            if peers.all[index].dial.isStanding { over() }
            peers.all[index].dial.failed(now: now, backOff: backOff, random: &random)
            dialAt = min(dialAt, peers.all[index].dial.retryAt)
            peers.all[index].isRefused = reason.lowercased().hasSuffix("connection refused")
            judgeRefused(index)
        } else if let at = seedStreams.firstIndex(where: { $0.stream == stream }) {
            if seedStreams[at].isStanding { over() }
            let one = seedStreams.remove(at: at)
            seedFailed(one, reason)
        }
    }

    /// Nobody listens at any address of a peer, and all streams that it dialled are closed: its process is gone.
    private mutating func judgeRefused(_ index: Int) {
        let peer = peers.all[index]
        guard peer.standing == .present, peer.isRefused, !peer.dial.isStanding,
            peer.dial.attempts >= peer.addresses.heartbeat.count,
            !accepted.contains(where: { $0.member == peer.member })
        else { return }
        log(.warning, "node \(peer.member) has departed: its streams are closed and it refuses new ones")
        departed(index)
    }

    // ---- Reading ----

    private mutating func received(_ stream: StreamID, _ bytes: [UInt8]) {
        guard let at = accepted.firstIndex(where: { $0.stream == stream }) else { return }
        statistics.bytesReceived += UInt64(bytes.count)
        accepted[at].since = now
        accepted[at].framer.append(bytes)
        // Frames may close the stream, and others with it.
        while let at = accepted.firstIndex(where: { $0.stream == stream }) {
            do throws(FabricError) {
                guard let frame = try accepted[at].framer.next() else {
                    let heldMax = accepted[at].member == nil ? Heartbeat.unknownMax : Heartbeat.heldMax
                    if accepted[at].framer.held > heldMax { throw FabricError("it sends a frame without end") }
                    return
                }
                try take(frame, at)
            } catch {
                refuse(at, "\(error)")
            }
        }
    }

    /// What comes through this stream is of no use: closes it, and says so.
    private mutating func refuse(_ at: Int, _ reason: String) {
        statistics.receivedForeign += 1
        let from = accepted[at].from
        let who = accepted[at].member.map { "node \($0) at \(from)" } ?? "\(from)"
        notice("foreign \(from.host)", "a stream from \(who) to the heartbeat port is refused: \(reason)")
        close(accepted[at].stream)
    }

    private mutating func take(_ frame: FabricFrame, _ at: Int) throws(FabricError) {
        guard let sender = accepted[at].member else {
            guard frame.kind == .hello else { throw FabricError("it does not say who it is") }
            return try take(Hello(frame.body), at)
        }
        switch frame.kind {
        case .pulse: heard(sender, try Pulse(stream: frame.body), from: accepted[at].from)
        case .introduction: take(try Introduction(frame.body), from: sender)
        case .hello, .view, .metadata: throw FabricError("a frame of kind \(frame.kind) does not belong there")
        }
    }

    private mutating func take(_ hello: Hello, _ at: Int) throws(FabricError) {
        guard hello.port == .heartbeat else {
            throw FabricError("it looks for the fabric port, node \(hello.member) was told a wrong address, or a seed"
                + " names a wrong port")
        }
        guard hello.clusterName == settings.clusterName else {
            throw FabricError("node \(hello.member) belongs to cluster '\(hello.clusterName)', this node to"
                + " '\(settings.clusterName)'. One of them has the other among its seeds")
        }
        if hello.member == member {
            statistics.receivedSelf += 1
            close(accepted[at].stream)
            return reachedMyself(hello.stream)
        }
        accepted[at].member = hello.member
        introduce(hello.member, hello.addresses)
        guard let index = peers.index(of: hello.member) else { return }
        peers.all[index].from = accepted[at].from
        peers.all[index].unconfirmed = peers.all[index].unconfirmed.suffix(3) + [hello.stream]
        confirm(index)
    }

    /// Somebody says of himself where it is.
    mutating func introduce(_ other: Member, _ addresses: NodeAddresses) {
        if let index = peers.index(of: other) {
            if peers.all[index].addresses != addresses {
                peers.all[index].addresses = addresses
                isChanged = isChanged || peers.all[index].standing == .present
            }
        } else {
            var new = HeartbeatPeer(other, addresses: addresses, now: now)
            // Another node of this one's id, or what is left of its last run.
            if other.id == member.id { new.standing = .retired }
            insert(new)
        }
        if addresses.heartbeat.isEmpty, settings.mode == .mesh {
            notice("addresses \(other.id)",
                "node \(other) does not say where its heartbeat port is. It cannot hear this node")
        }
        dialAt = now
    }

    mutating func insert(_ peer: HeartbeatPeer) {
        var gone: [HeartbeatPeer] = []
        _ = peers.insert(peer) { gone.append($0) }
        for one in gone {
            guard let stream = one.dial.stream else { continue }
            out.append(.stream(.close(stream)))
            if one.dial.isStanding { over() }
        }
    }

    // ---- Introductions ----

    private mutating func take(_ introduction: Introduction, from sender: Member) {
        guard let index = peers.index(of: sender) else { return }
        switch introduction {
        case .asked(let members):
            guard peers.all[index].dial.isStanding, let stream = peers.all[index].dial.stream else { return }
            let known = members.prefix(256).compactMap { asked -> Introduction.Introduced? in
                guard let at = peers.index(of: asked), peers.all[at].standing == .present else { return nil }
                return Introduction.Introduced(member: asked, addresses: peers.all[at].addresses)
            }
            if !known.isEmpty { emit(stream, Introduction.answered(known).frame) }
        case .answered(let introduced):
            for one in introduced.prefix(256) where isStranger(one.member) { introduce(one.member, one.addresses) }
        case .reached(let number): reached(sender, StreamID.dialled(number))
        }
    }

    /// A stream that this node dialled ends at `other`, whoever it was meant for.
    private mutating func reached(_ other: Member, _ stream: StreamID) {
        guard let index = peers.index(of: other) else { return }
        if peers.all[index].dial.stream == stream { return peers.all[index].dial.succeeded() }
        if let at = seedStreams.firstIndex(where: { $0.stream == stream && $0.isStanding }) {
            let one = seedStreams.remove(at: at)
            peers.all[index].reachedBy = peers.all[index].reachedBy.suffix(7).filter { $0 != one.address } + [one.address]
            seedSucceeded(one)
        } else if let wrong = peer(dialling: stream), peers.all[wrong].dial.isStanding {
            peers.all[wrong].dial.failed(now: now, backOff: backOff, random: &random)
            isReplaced(wrong, by: index)
        } else {
            return
        }
        if peers.all[index].dial.isStanding || !wantsStream(index) {
            out.append(.stream(.close(stream)))
            return over()
        }
        if let pending = peers.all[index].dial.stream { out.append(.stream(.close(pending))) }
        peers.all[index].dial.adopt(stream, now: now)
        peers.all[index].needsList = true
        confirm(index)
    }

    /// Where one was looked for, a younger incarnation of it is.
    private mutating func isReplaced(_ old: Int, by new: Int) {
        guard peers.all[old].member.id == peers.all[new].member.id, peers.all[new].standing == .present else { return }
        if peers.all[old].standing == .known || peers.all[old].standing == .departed { peers.all[old].standing = .retired }
    }

    /// A stream that this node dialled ends at itself.
    private mutating func reachedMyself(_ number: UInt64) {
        let stream = StreamID.dialled(number)
        if let at = seedStreams.firstIndex(where: { $0.stream == stream }) {
            let one = seedStreams.remove(at: at)
            if ownAddresses.count < 64 { ownAddresses.append(one.address) }
            if one.isStanding { over() }
            out.append(.stream(.close(stream)))
            seedSucceeded(one)
        } else if let index = peer(dialling: stream) {
            let peer = peers.all[index]
            notice("self \(peer.member.id)", "node \(peer.member) says that it is at"
                + " \(peer.addresses.heartbeat.map(\.description).joined(separator: ", ")), and this node is there: look"
                + " at the heartbeat addresses that it is configured with")
            redial(index)
        }
    }
}
