// Pulses: what they do to the standing of their sender, and how silence is judged.
internal import Base
internal import Fabric

extension Heartbeat {
    /// How often a retired incarnation must be heard, at different intervals, until it is taken for alive: one that is gone
    /// can still arrive out of a stream that was held up, but all at once.
    private var sightingsMax: UInt64 { max(3, settings.tunables.timeoutIntervals / 2) }

    /// A pulse of another member. Returns where the member is, if the pulse counts.
    @discardableResult
    mutating func heard(_ sender: Member, _ pulse: Pulse, from: Address) -> Int? {
        statistics.pulsesReceived += 1
        guard let index = peers.index(of: breaks.contains(.ignoresIncarnation) ? conflated(sender) : sender),
            pulse.sequence >= peers.all[index].sequence
        else { return nil }
        let isFresh = pulse.sequence > peers.all[index].sequence
        let lost = peers.all[index].sequence == 0 ? 0 : pulse.sequence - peers.all[index].sequence
        peers.all[index].sequence = pulse.sequence
        peers.all[index].from = from
        judgePace(index, pulse)
        if pulse.isGoodbye {
            peers.all[index].hasSaidGoodbye = true
            retire(index, "it said goodbye")
            return nil
        }
        switch peers.all[index].standing {
        case .present:
            if lost > 0 { health.heard(sender.id, lost: lost - 1, now: now) }
        case .contested: break
        case .retired where peers.all[index].hasSaidGoodbye: return nil
        case .retired:
            statistics.receivedRetired += 1
            peers.all[index].lastPulse = now
            if isFresh { sighted(index) }
            guard peers.all[index].standing != .retired else { return nil }
        case .known, .departed: arrive(index)
        }
        peers.all[index].lastPulse = now
        take(pulse, index)
        return index
    }

    /// The member that is taken for `sender` when incarnations are ignored.
    private mutating func conflated(_ sender: Member) -> Member {
        let same = peers.indices(of: sender.id).first { peers.all[$0].standing == .present }
        guard let same, peers.all[same].member != sender else { return sender }
        peers.all[same].sequence = 0
        return peers.all[same].member
    }

    private mutating func take(_ pulse: Pulse, _ index: Int) {
        var same = peers.all[index].content
        same.clock = pulse.content.clock
        if same != pulse.content { isChanged = true }
        peers.all[index].content = pulse.content
        // Both fit into 40 bits.
        peers.all[index].clockOffset = Int64(pulse.content.clock) - Int64(clock)
        peers.all[index].duplicates = pulse.duplicates
        if let hears = pulse.hears { take(hears: hears, serial: pulse.serial, index) }
        if peers.all[index].hears.contains(member) { peers.all[index].heardMe = now }
    }

    mutating func take(hears: [Member], serial: UInt64, _ index: Int) {
        peers.all[index].serial = serial
        let sender = peers.all[index].member
        let list = hears.filter { $0.id != sender.id }.sorted()
        guard list != peers.all[index].hears else { return }
        peers.all[index].hears = list
        isChanged = true
        if settings.mode == .mesh, list.contains(where: { isStranger($0) }) {
            mayHaveStrangers = true
            hasten()
        }
    }

    func isStranger(_ other: Member) -> Bool { other.id != member.id && peers.index(of: other) == nil }

    // ---- Coming ----

    /// The first pulse of one that was not present.
    private mutating func arrive(_ index: Int) {
        let arrived = peers.all[index].member
        for other in peers.indices(of: arrived.id) where other != index {
            switch peers.all[other].standing {
            case .contested:
                peers.all[index].standing = .contested
                return
            case .present: retire(other, "it was started again: \(arrived) is there")
            case .departed:
                peers.all[other].standing = .retired
                closeDial(other)
            case .retired: closeDial(other)
            case .known: break
            }
        }
        peers.all[index].standing = .present
        peers.all[index].since = now
        peers.all[index].heardMe = now
        statistics.arrivals += 1
        isChanged = true
        hasten()
        dialAt = now
        log(.info, "node \(arrived) has arrived\(place(index))")
    }

    private func place(_ index: Int) -> String {
        let peer = peers.all[index]
        return (peer.addresses.heartbeat.first ?? peer.from).map { ", at \($0)" } ?? ""
    }

    /// A retired incarnation was heard again.
    private mutating func sighted(_ index: Int) {
        let since = now.nanoseconds(since: peers.all[index].lastSighting)
        guard since >= interval * 750_000 || peers.all[index].sightings == 0 else { return }
        peers.all[index].lastSighting = now
        peers.all[index].sightings = since > timeoutNanoseconds ? 1 : peers.all[index].sightings + 1
        guard peers.all[index].sightings >= sightingsMax else { return }
        let id = peers.all[index].member.id
        peers.all[index].lastPulse = now
        let rivals = peers.indices(of: id).filter {
            $0 != index && (peers.all[$0].standing == .present || peers.all[$0].standing == .contested)
        }
        if rivals.isEmpty && id != member.id {
            peers.all[index].standing = .departed
            return arrive(index)
        }
        for rival in rivals where peers.all[rival].standing == .present { departed(rival) }
        for one in rivals + [index] { peers.all[one].standing = .contested }
        isChanged = true
        hasten()
        noticeContest(id)
    }

    private mutating func noticeContest(_ id: NodeID) {
        let rivals = peers.indices(of: id).filter { peers.all[$0].standing == .contested }
        var names = rivals.map { "\(peers.all[$0].member)\(place($0))" }
        if id == member.id { names.append("\(member), this node") }
        let fate = id == member.id ? "The others leave both out" : "Neither is heard until one falls silent"
        notice("contest \(id)", "two nodes claim the id \(id): \(names.joined(separator: " and ")). \(fate): give one of"
            + " them another node-id and start it again")
    }

    /// With mesh the two of one id may never meet: others tell them.
    private mutating func judgeAccusation() {
        guard !peers.indices(of: member.id).contains(where: { peers.all[$0].standing == .contested }) else { return }
        guard isAccused else { return notices.clear("contest \(member.id)") }
        notice("contest \(member.id)", "two nodes claim the id \(member.id): \(member), this node, and another one that"
            + " other nodes hear. They leave both out: give one of them another node-id and start it again")
    }

    // ---- Going ----

    /// One that was present, or not even that, is not any more. Its stream is dialled anew: an old one may be stuck.
    mutating func departed(_ index: Int) {
        guard peers.all[index].standing == .present else { return }
        statistics.departures += 1
        health.departed(peers.all[index].member.id, lost: settings.tunables.timeoutIntervals, now: now)
        peers.all[index].standing = .departed
        peers.all[index].since = now
        peers.all[index].hears = []
        peers.all[index].duplicates = []
        isChanged = true
        hasten()
    }

    /// It never comes back.
    mutating func retire(_ index: Int, _ reason: String) {
        if peers.all[index].standing == .present { log(.info, "node \(peers.all[index].member) has departed: \(reason)") }
        departed(index)
        peers.all[index].standing = .retired
        peers.all[index].sightings = 0
        peers.all[index].lastSighting = now
        closeDial(index)
        isChanged = true
    }

    /// At each interval: who has been silent for too long?
    mutating func judge() {
        guard now >= graceUntil else { return }
        for index in peers.all.indices where peers.all[index].standing == .present {
            let silent = now.nanoseconds(since: peers.all[index].lastPulse)
            guard min(silent, now.nanoseconds(since: peers.all[index].lastEvidence)) >= timeoutNanoseconds
                || silent >= 2 * timeoutNanoseconds
            else { continue }
            log(.warning, "node \(peers.all[index].member) has departed: no heartbeat for \(silent / 1_000_000) ms")
            departed(index)
            redial(index)
        }
        judgeContests()
        judgeAccusation()
        for sentence in health.judge(
            peers.all.filter { $0.standing == .present }.map(\.member.id), timeoutMilliseconds: timeout, now: now) {
            isChanged = true
            log(.warning, sentence)
        }
    }

    /// Contested ids: who fell silent is out; one that is left alone is back.
    private mutating func judgeContests() {
        var index = 0
        while index < peers.all.count {
            let id = peers.all[index].member.id
            let same = peers.indices(of: id)
            index = same.upperBound
            let rivals = same.filter { peers.all[$0].standing == .contested }
            guard !rivals.isEmpty else { continue }
            let alive = rivals.filter { now.nanoseconds(since: peers.all[$0].lastPulse) < timeoutNanoseconds }
            if alive.count + (id == member.id ? 1 : 0) >= 2 {
                noticeContest(id)
                continue
            }
            for rival in rivals where !alive.contains(rival) { retire(rival, "") }
            notices.clear("contest \(id)")
            log(.info, "the id \(id) is used by one node only, again")
            guard let last = alive.first else { continue }
            peers.all[last].standing = .departed
            arrive(last)
        }
    }
}
