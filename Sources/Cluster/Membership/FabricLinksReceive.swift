// The reading half of the fabric: accepted streams.
internal import Base
internal import Fabric

extension FabricLinks {
    /// Bytes that a stream may send before it has said who it is.
    private static let unknownMax = 64 << 10
    /// Bytes that all members that are no peers may have sent together: anybody may say hello.
    private static let strangersMax = 64 << 20
    /// A stream on which nothing comes for so many keep-alives is half open.
    private static let missedKeepAlives: UInt64 = 10

    mutating func streamEvent(_ event: StreamEvent) {
        switch event {
        case .accepted(let stream, let from):
            guard incoming.count < FabricLinks.incomingMax, !incoming.contains(where: { $0.stream == stream }) else {
                return out.append(.stream(.close(stream)))
            }
            incoming.append(Incoming(stream: stream, from: from, since: now))
            opened()
            dueSoon()
        case .connected(let stream): connected(stream)
        case .received(let stream, let bytes): received(stream, bytes)
        case .closed(let stream, let reason):
            if let at = incoming.firstIndex(where: { $0.stream == stream }) {
                drop(held: at)
                incoming.remove(at: at)
                over()
            } else {
                lost(stream, reason)
            }
        }
    }

    mutating func close(_ stream: StreamID) {
        guard let at = incoming.firstIndex(where: { $0.stream == stream }) else { return }
        drop(held: at)
        incoming.remove(at: at)
        out.append(.stream(.close(stream)))
        over()
    }

    private mutating func drop(held at: Int) {
        statistics.droppedIn += UInt64(incoming[at].held.count)
        incoming[at].held = []
        incoming[at].heldBytes = 0
        incoming[at].heldSince = nil
    }

    private mutating func received(_ stream: StreamID, _ bytes: [UInt8]) {
        guard let at = incoming.firstIndex(where: { $0.stream == stream }) else { return }
        statistics.bytesReceived += UInt64(bytes.count)
        incoming[at].since = now
        incoming[at].framer.append(bytes)
        var heard: Member?
        // Frames may close the stream, and others with it.
        while let at = incoming.firstIndex(where: { $0.stream == stream }) {
            do throws(FabricError) {
                guard let frame = try incoming[at].framer.next() else {
                    try limit(at)
                    break
                }
                statistics.framesReceived += 1
                statistics.traffic.received(frame.kind, FabricFrame.headerSize + frame.body.count)
                try take(frame, at)
                heard = incoming.first { $0.stream == stream }?.hello?.member
            } catch {
                refuse(at, "\(error)")
                return
            }
        }
        if let heard, let index = index(of: heard) {
            links[index].heardAt = now
            out.append(.heard(heard))
        }
    }

    /// Whether more is to be kept of a frame that is not whole.
    private func limit(_ at: Int) throws(FabricError) {
        guard let hello = incoming[at].hello else {
            guard incoming[at].framer.held <= FabricLinks.unknownMax else { throw FabricError("it does not say who it is") }
            return
        }
        guard index(of: hello.member) == nil else { return }
        guard kept(incoming[at]) <= settings.heldMax else {
            throw FabricError("it sends \(kept(incoming[at])) bytes, and no heartbeat of it has been heard")
        }
        let strangers = incoming.filter { $0.hello.map { index(of: $0.member) == nil } ?? true }
        guard strangers.reduce(0, { $0 + kept($1) }) <= FabricLinks.strangersMax else {
            throw FabricError("too many nodes send messages, and no heartbeat of them has been heard")
        }
    }

    private func kept(_ one: Incoming) -> Int { one.framer.held + one.heldBytes }

    private mutating func refuse(_ at: Int, _ reason: String) {
        statistics.foreign += 1
        let from = incoming[at].from
        let who = incoming[at].hello.map { "node \($0.member) at \(from)" } ?? "\(from)"
        let text = "a stream from \(who) to the fabric port is refused: \(reason)"
        if notices.note("foreign \(from.host)", text, now: now, forMilliseconds: 60_000) {
            out.append(.log(ClusterLogLine(.warning, .fabric, text)))
        }
        close(incoming[at].stream)
    }

    private mutating func take(_ frame: FabricFrame, _ at: Int) throws(FabricError) {
        guard let hello = incoming[at].hello else {
            guard frame.kind == .hello else { throw FabricError("it does not say who it is") }
            return try take(Hello(frame.body), at)
        }
        switch frame.kind {
        case .hello, .introduction: throw FabricError("a frame of kind \(frame.kind) does not belong there")
        case .pulse:
            guard frame.body.isEmpty else { throw FabricError("heartbeats do not belong there") }
        case .view, .metadata: take(frame, of: hello.member, at)
        }
    }

    private mutating func take(_ frame: FabricFrame, of sender: Member, _ at: Int) {
        if index(of: sender) != nil { return out.append(.delivered(from: sender, frame)) }
        guard incoming[at].heldBytes + frame.body.count <= settings.heldMax else {
            // What comes behind a gap is worth nothing to whoever counts on the order.
            return close(incoming[at].stream)
        }
        incoming[at].held.append(frame)
        incoming[at].heldBytes += frame.body.count + FabricFrame.headerSize
        if incoming[at].heldSince == nil { incoming[at].heldSince = now }
        dueSoon()
    }

    private mutating func take(_ hello: Hello, _ at: Int) throws(FabricError) {
        guard hello.port == .fabric else {
            throw FabricError("it looks for the heartbeat port, node \(hello.member) was told a wrong address")
        }
        guard hello.clusterName == settings.clusterName else {
            throw FabricError("node \(hello.member) belongs to cluster '\(hello.clusterName)', this node to"
                + " '\(settings.clusterName)'")
        }
        guard hello.member != member else {
            throw FabricError("it is this node's own: a peer says that it is where this node is")
        }
        let stream = incoming[at].stream
        let others = incoming.filter { $0.hello?.member == hello.member }
        if others.contains(where: { ($0.hello?.stream ?? 0) >= hello.stream }) { return close(stream) }
        incoming[at].hello = hello
        for one in others { close(one.stream) }
    }

    /// A member became a peer: what it has sent already.
    mutating func deliverHeld(_ member: Member) {
        guard let at = incoming.firstIndex(where: { $0.hello?.member == member }) else { return }
        for frame in incoming[at].held { out.append(.delivered(from: member, frame)) }
        incoming[at].held = []
        incoming[at].heldBytes = 0
        incoming[at].heldSince = nil
    }

    /// Streams that say nothing, and frames of members that do not become peers. Returns when to look again.
    mutating func tidyIncoming() -> Instant {
        let quiet = max(FabricLinks.keepAliveMilliseconds * FabricLinks.missedKeepAlives, 2 * settings.timeoutMilliseconds)
        var next = Instant.never
        for one in incoming {
            let silent = one.since.advanced(byMilliseconds: one.hello == nil ? 2 * settings.timeoutMilliseconds : quiet)
            let old = one.heldSince?.advanced(byMilliseconds: settings.timeoutMilliseconds) ?? silent
            if min(silent, old) <= now {
                close(one.stream)
            } else {
                next = min(next, silent, old)
            }
        }
        return next
    }
}
