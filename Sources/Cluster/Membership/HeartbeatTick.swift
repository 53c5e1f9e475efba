// What happens at each interval.
internal import Base
internal import Fabric

extension Heartbeat {
    private static let listEvery: UInt64 = 16
    private static let askedMax = 64
    /// How long one that was only named, one that departed and one that is retired are remembered, in seconds.
    private static let knownSeconds: UInt64 = 60, departedSeconds: UInt64 = 3600

    mutating func tick() {
        judge()
        if settings.mode == .mesh {
            redialTheDeaf()
            closeTheSilent()
            dialAt = now
        }
        forget()
        notices.expire(now)
        if settings.mode == .mesh, mayHaveStrangers { askForStrangers() }
        sendPulses(isGoodbye: false)
        let next = nextPulse.advanced(byMilliseconds: interval)
        nextPulse = next > now ? next : now.advanced(byMilliseconds: interval)
    }

    // ---- Pulses out ----

    mutating func sendPulses(isGoodbye: Bool) {
        sequence += 1
        let hears = peers.all.filter { $0.standing == .present }.map(\.member)
        if hears != told {
            told = hears
            serial += 1
            for index in peers.all.indices { peers.all[index].needsList = true }
        }
        if settings.mode == .multicast { return sendDatagrams(isGoodbye: isGoodbye) }
        let short = pulse(isGoodbye: isGoodbye, withList: false).frame
        let long = pulse(isGoodbye: isGoodbye, withList: true).frame
        for index in peers.all.indices {
            guard peers.all[index].dial.isStanding, let stream = peers.all[index].dial.stream else { continue }
            let isLong = peers.all[index].needsList || sequence % Heartbeat.listEvery == 0
            peers.all[index].needsList = false
            emit(stream, isLong ? long : short)
            statistics.pulsesSent += 1
        }
        for one in seedStreams where one.isStanding {
            emit(one.stream, long)
            statistics.pulsesSent += 1
        }
    }

    func pulse(isGoodbye: Bool, withList: Bool) -> Pulse {
        var content = content
        content.clock = clock
        var duplicates: [NodeID] = []
        for peer in peers.all where peer.standing == .contested && duplicates.last != peer.member.id {
            duplicates.append(peer.member.id)
        }
        return Pulse(
            sequence: sequence, content: content, isGoodbye: isGoodbye, serial: serial, hears: withList ? told : nil,
            duplicates: duplicates)
    }

    mutating func emit(_ stream: StreamID, _ bytes: [UInt8]) {
        statistics.bytesSent += UInt64(bytes.count)
        out.append(.stream(.send(stream, bytes)))
    }

    private mutating func sendDatagrams(isGoodbye: Bool) {
        let whole = DatagramPulse(
            member: member, clusterName: settings.clusterName, addresses: settings.addresses,
            pulse: pulse(isGoodbye: isGoodbye, withList: true))
        for one in whole.split(sizeMax: settings.tunables.datagramSizeMax) {
            let bytes = one.frame
            statistics.pulsesSent += 1
            statistics.bytesSent += UInt64(bytes.count)
            out.append(.multicast(bytes))
        }
    }

    // ---- Others ----

    /// Members that only others hear: one of those who do is asked where they are.
    private mutating func askForStrangers() {
        mayHaveStrangers = false
        var asked: [Member] = []
        let count = peers.all.count
        let start = count == 0 ? 0 : Int(random.next() % UInt64(count))
        for step in 0..<count {
            let index = (start + step) % count
            let peer = peers.all[index]
            guard peer.standing == .present else { continue }
            let strangers = peer.hears.filter { isStranger($0) && !asked.contains($0) }.prefix(Heartbeat.askedMax)
            guard !strangers.isEmpty else { continue }
            // Again at the next interval: answers may get lost.
            mayHaveStrangers = true
            guard peer.dial.isStanding, let stream = peer.dial.stream else { continue }
            asked += strangers
            emit(stream, Introduction.asked(Array(strangers)).frame)
        }
    }

    /// Forgets those that have not been heard for long.
    private mutating func forget() {
        for index in peers.all.indices where isForgotten(peers.all[index]) { closeDial(index) }
        peers.all = peers.all.filter { !isForgotten($0) }
    }

    private func isForgotten(_ peer: HeartbeatPeer) -> Bool {
        let seconds: UInt64
        switch peer.standing {
        case .present, .contested: return false
        case .known: seconds = Heartbeat.knownSeconds
        case .departed, .retired: seconds = Heartbeat.departedSeconds
        }
        return now.nanoseconds(since: max(peer.since, peer.lastPulse)) >= seconds * 1_000_000_000
    }
}
