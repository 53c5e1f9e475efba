// Streams, datagrams and names of the simulated world.
internal import Assembly
internal import Fabric
internal import Membership

extension World {
    // ---- What processes want ----

    func perform(_ node: Int, _ channel: Channel, _ effect: StreamEffect) {
        switch effect {
        case .connect(let stream, let address, let timeout): connect(node, channel, stream, address, timeout)
        case .send(let stream, let bytes): send(node, channel, stream, bytes)
        case .close(let stream): close(node, channel, stream)
        }
    }

    private func lookUp(_ node: Int, _ channel: Channel, _ stream: StreamID) -> Int? {
        channel == .heartbeat ? nodes[node].streams.heartbeat[stream] : nodes[node].streams.fabric[stream]
    }

    private func register(_ end: ConnectionEnd, _ connection: Int?) {
        guard nodes[end.node].run == end.run else { return }
        if end.channel == .heartbeat {
            nodes[end.node].streams.heartbeat[end.stream] = connection
        } else {
            nodes[end.node].streams.fabric[end.stream] = connection
        }
    }

    private func tell(_ end: ConnectionEnd, _ event: StreamEvent) {
        guard nodes[end.node].run == end.run else { return }
        hand(end.node, end.channel == .heartbeat ? .heartbeat(event) : .fabric(event))
    }

    private func connect(
        _ node: Int, _ channel: Channel, _ stream: StreamID, _ address: Address, _ timeoutMilliseconds: UInt64
    ) {
        let place = nodes.firstIndex { $0.host == address.host }
        let target = Channel(port: address.port) == nil ? -1 : place ?? -1
        let end = ConnectionEnd(node: node, run: nodes[node].run, channel: channel, stream: stream)
        let connection = connections.count
        connections.append(Connection(dialler: end, target: target, port: Channel(port: address.port) ?? channel))
        register(end, connection)
        queue.push(.connectTimeout(connection: connection), at: now + timeoutMilliseconds * 1_000_000)
        guard target >= 0 else { return }
        if network.chance.permille(network.options.refusalPermille) {
            // Half of them are refused, half of them never answered.
            if network.chance.below(2) == 0 { queue.push(.refused(connection: connection), at: now + 1_000_000) }
            return
        }
        queue.push(.accept(connection: connection), at: network.arrival(node, target, now: now))
    }

    private func send(_ node: Int, _ channel: Channel, _ stream: StreamID, _ bytes: [UInt8]) {
        guard let connection = lookUp(node, channel, stream), !bytes.isEmpty else { return }
        let one = connections[connection]
        let direction = stream.isAccepted ? 1 : 0
        let to = direction == 0 ? one.target : one.dialler.node
        counts.messages += 1
        counts.bytes += bytes.count
        if let receiver = one.receiver(direction), nodes[receiver.node].run != receiver.run || !nodes[receiver.node].isUp {
            return answerForTheDead(connection, direction, node, to)
        }
        guard one[pipe: direction].heldBytes + bytes.count <= streamLimit else {
            return overflow(connection, direction)
        }
        // A stream may cut what it carries anywhere.
        if bytes.count > 1, network.chance.below(16) == 0 {
            let place = 1 + network.chance.below(bytes.count - 1)
            push(connection, direction, Array(bytes[..<place]), node, to)
            push(connection, direction, Array(bytes[place...]), node, to)
        } else {
            push(connection, direction, bytes, node, to)
        }
    }

    private func push(_ connection: Int, _ direction: Int, _ bytes: [UInt8], _ from: Int, _ to: Int) {
        let time = network.arrival(from, to, now: now)
        guard let due = connections[connection][pipe: direction].append(bytes, due: time) else { return }
        queue.push(.deliver(connection: connection, direction: direction), at: due)
    }

    /// The other end is gone: its kernel says so if it is there, else nobody does.
    private func answerForTheDead(_ connection: Int, _ direction: Int, _ node: Int, _ to: Int) {
        guard !nodes[to].isDark, network.isOpen(node, to) else { return }
        let time = network.arrival(to, node, now: network.arrival(node, to, now: now))
        connections[connection][pipe: 1 - direction].discard()
        finish(connection, 1 - direction, at: time, "connection reset by peer")
    }

    private func overflow(_ connection: Int, _ direction: Int) {
        guard let end = connections[connection].sender(direction) else { return }
        connections[connection][pipe: direction].tear(&network.chance)
        note("\(nodes[end.node].name) closes \(end.stream): more than \(streamLimit) bytes are unsent")
        shut(connection, isDialler: direction == 0)
        // The machine hears of it like of any other end, but not in the middle of its own effects.
        finish(connection, 1 - direction, at: now, "more than \(streamLimit) bytes are unsent", isLocal: true)
        finish(connection, direction, at: now, "closed by the other end")
    }

    private func close(_ node: Int, _ channel: Channel, _ stream: StreamID) {
        guard let connection = lookUp(node, channel, stream) else { return }
        let direction = stream.isAccepted ? 1 : 0
        // Closed with something unread, a kernel resets the connection, and what was under way is lost.
        if network.chance.below(5) == 0 { connections[connection][pipe: direction].tear(&network.chance) }
        closeEnd(connection, isDialler: direction == 0)
        finishAfterDelay(connection, direction, "closed by the other end")
    }

    // ---- Ends ----

    /// The end hears no more.
    private func shut(_ connection: Int, isDialler: Bool) {
        guard let end = isDialler ? connections[connection].dialler : connections[connection].acceptor else { return }
        register(end, nil)
    }

    private func closeEnd(_ connection: Int, isDialler: Bool) {
        shut(connection, isDialler: isDialler)
        connections[connection].closeEnd(isDialler: isDialler)
        connections[connection][pipe: isDialler ? 1 : 0].discard()
    }

    private func finish(_ connection: Int, _ direction: Int, at time: UInt64, _ reason: String, isLocal: Bool = false) {
        if isLocal { connections[connection][pipe: direction].discard() }
        guard let due = connections[connection][pipe: direction].close(due: time, reason: reason, isLocal: isLocal)
        else { return }
        queue.push(.deliver(connection: connection, direction: direction), at: due)
    }

    private func finishAfterDelay(_ connection: Int, _ direction: Int, _ reason: String) {
        let one = connections[connection]
        let from = direction == 0 ? one.dialler.node : one.target
        let to = direction == 0 ? one.target : one.dialler.node
        guard from >= 0, to >= 0 else { return }
        finish(connection, direction, at: network.arrival(from, to, now: now), reason)
    }

    /// All streams of a process that is gone.
    func endStreams(_ node: Int, isPower: Bool) {
        let run = nodes[node].run
        for connection in connections.indices where connections[connection].state != .over {
            let one = connections[connection]
            for isDialler in [true, false] {
                guard let end = isDialler ? one.dialler : one.acceptor, end.isOpen, end.node == node, end.run == run
                else { continue }
                let direction = isDialler ? 0 : 1
                closeEnd(connection, isDialler: isDialler)
                if isPower {
                    connections[connection][pipe: direction].tear(&network.chance)
                } else {
                    finishAfterDelay(connection, direction, "connection reset by peer")
                }
                retire(connection)
            }
        }
    }

    /// Every stream between the two ends somewhere.
    func reset(_ one: Int, _ other: Int) {
        reset {
            let ends = ($0.dialler.node, $0.target)
            return ends == (one, other) || ends == (other, one)
        }
    }

    /// Nobody gets through to the fabric port of the node any more; it reaches everybody.
    func shutFabric(_ node: Int) {
        network.shutFabric(node)
        reset { $0.target == node && $0.port == .fabric }
    }

    private func reset(where isHit: (Connection) -> Bool) {
        for connection in connections.indices where connections[connection].state != .over {
            guard isHit(connections[connection]) else { continue }
            for direction in 0...1 {
                connections[connection][pipe: direction].tear(&network.chance)
                finish(connection, direction, at: now + network.chance.below(2_000_000_000), "connection reset by peer")
            }
        }
    }

    private func retire(_ connection: Int) {
        let one = connections[connection]
        guard !one.dialler.isOpen, !(one.acceptor?.isOpen ?? false) else { return }
        connections[connection].state = .over
    }

    // ---- What happens to connections ----

    func accept(_ connection: Int) {
        let one = connections[connection]
        let (from, to) = (one.dialler.node, one.target)
        guard one.state == .connecting, network.isOpen(from, to), network.isOpen(to, from), !nodes[to].isDark,
            network.takesStreams(to, one.port)
        else { return }
        guard nodes[to].isUp else {
            return queue.push(.refused(connection: connection), at: network.arrival(to, from, now: now))
        }
        nodes[to].acceptedStreams += 1
        let end = ConnectionEnd(
            node: to, run: nodes[to].run, channel: one.port, stream: .accepted(nodes[to].acceptedStreams))
        connections[connection].acceptor = end
        connections[connection].state = .accepted
        register(end, connection)
        let time = network.arrival(to, from, now: now)
        connections[connection][pipe: 1].notBefore(time)
        queue.push(.connected(connection: connection), at: time)
        let port = 40_000 + UInt16(truncatingIfNeeded: connection % 20_000)
        tell(end, .accepted(end.stream, from: Address(host: nodes[from].host, port: port)))
        wake(connection, 0)
    }

    func connected(_ connection: Int) {
        let one = connections[connection]
        guard one.state == .accepted, one.dialler.isOpen, network.isOpen(one.target, one.dialler.node) else { return }
        connections[connection].state = .open
        tell(one.dialler, .connected(one.dialler.stream))
        wake(connection, 1)
    }

    func failConnect(_ connection: Int, _ reason: String) {
        let one = connections[connection]
        guard one.state == .connecting || one.state == .accepted, one.dialler.isOpen else { return }
        closeEnd(connection, isDialler: true)
        finishAfterDelay(connection, 0, "closed by the other end")
        retire(connection)
        tell(one.dialler, .closed(one.dialler.stream, reason: reason))
    }

    /// Hands over what is due in one direction, and the close behind it.
    func deliver(_ connection: Int, _ direction: Int) {
        let one = connections[connection]
        guard one.state != .over else { return }
        let (from, to) = direction == 0 ? (one.dialler.node, one.target) : (one.target, one.dialler.node)
        let isLocal = one[pipe: direction].finish?.isLocal ?? false
        let stands = direction == 0 ? one.acceptor != nil : one.state == .open || isLocal
        guard stands, isLocal || network.isOpen(from, to), let end = one.receiver(direction) else {
            connections[connection][pipe: direction].isStalled = true
            return
        }
        while connections[connection].receiver(direction)?.isOpen ?? false,
            let bytes = connections[connection][pipe: direction].take(now: now)
        {
            tell(end, .received(end.stream, bytes))
        }
        guard let finish = connections[connection][pipe: direction].finish, finish.due <= now else { return }
        guard connections[connection].receiver(direction)?.isOpen ?? false else { return }
        closeEnd(connection, isDialler: direction == 1)
        retireBoth(connection, direction)
        tell(end, .closed(end.stream, reason: finish.reason))
    }

    /// An end that hears of the close closes itself, and so the other.
    private func retireBoth(_ connection: Int, _ direction: Int) {
        finishAfterDelay(connection, 1 - direction, "closed by the other end")
        retire(connection)
    }

    private func wake(_ connection: Int, _ direction: Int) {
        guard connections[connection][pipe: direction].isStalled else { return }
        connections[connection][pipe: direction].isStalled = false
        queue.push(.deliver(connection: connection, direction: direction), at: now)
    }

    /// Ways are open again: what was held goes on when its sender tries again.
    func wakeStalled() {
        for connection in connections.indices where connections[connection].state != .over {
            for direction in 0...1 where connections[connection][pipe: direction].isStalled {
                connections[connection][pipe: direction].isStalled = false
                let time = now + network.chance.below(400_000_000)
                queue.push(.deliver(connection: connection, direction: direction), at: time)
            }
        }
    }

    // ---- Datagrams and names ----

    func multicast(_ node: Int, _ bytes: [UInt8]) {
        for to in nodes.indices {
            counts.messages += 1
            counts.bytes += bytes.count
            // Its own come back to it, as multicast does.
            guard to == node || network.isOpen(node, to) else { continue }
            let copies = network.chance.permille(network.options.duplicatePermille) ? 2 : 1
            for _ in 0..<copies where !network.chance.permille(to == node ? 0 : network.options.lossPermille) {
                queue.push(.datagram(node: to, from: node, bytes), at: network.arrival(node, to, now: now))
            }
        }
    }

    func datagramArrives(_ node: Int, _ from: Int, _ bytes: [UInt8]) {
        // The kernel keeps only so many for a process that does not read.
        guard network.isOpen(from, node), nodes[node].inbox.count < 10_000 else { return }
        hand(node, .datagram(bytes, from: Address(host: nodes[from].host, port: Channel.heartbeat.port)))
    }

    func lookUp(_ seed: SeedName) -> [Address] {
        guard let node = nodes.first(where: { $0.name == seed.host || $0.host == seed.host }), !network.nameFails(now: now)
        else { return [] }
        return [Address(host: node.host, port: seed.port)]
    }
}
