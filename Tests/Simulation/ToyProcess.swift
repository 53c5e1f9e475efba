// The smallest process that lives up to the rules of views: it tests the world, not the product. All its state goes out in
// one message, every interval and whenever it changes. Invariants:
// 1. It accepts only a view above all it has accepted; from then on, and before anybody hears of it, it serves no other.
// 2. It opens a view when the last it heard of every member is that the member has accepted it.
// 3. What it has accepted is on disk before anybody hears of it.
package import Assembly
package import Base
internal import Fabric
internal import Membership
internal import Metadata

/// See above. Maps are empty.
package final class ToyProcess: SimulatedProcess {
    private struct Peer {
        var member: Member
        var address: Address
        var isOpen: Bool
        var heard: Instant
        var hears: [Member]
        var accepted: View?
    }
    private struct Link {
        let address: Address
        var stream: StreamID
        var isOpen = false
    }
    private enum Stage { case idle, freezing(UInt64), storing, shown, open }

    private let boot: SimulatedBoot
    /// What the process before this one has accepted.
    private let storedNumber: UInt64
    private var accepted: View?
    private var stage = Stage.idle
    private var peers: [Peer] = []
    /// Former incarnations and until when they are ignored. Not for ever: of two new ones it cannot know which is former.
    private var retired: [(member: Member, until: Instant)] = []
    private var links: [Link] = []
    private var framers: [(stream: StreamID, framer: StreamFramer)] = []
    private var highest: UInt64 = 0
    private var wish: (since: Instant, members: [Member])?
    private var serial: UInt64 = 0
    private var peersGeneration: UInt64 = 0
    private var shownPeers: [PeerDescription] = []
    private var openViews: UInt64 = 0
    private var dialled: UInt64 = 0
    private var ticket: UInt64 = 0
    package private(set) var deadline: Instant
    package var needsFabric: Bool { false }
    private var now: TurnTime
    private var out: [ClusterEffect] = []

    package init(_ boot: SimulatedBoot) {
        self.boot = boot
        now = boot.now
        deadline = boot.now.monotonic
        var reader = FabricReader(boot.storedView ?? [])
        storedNumber = (try? reader.integer()) ?? 0
        highest = storedNumber
    }

    package func step(
        _ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]
    ) {
        self.now = now
        switch event {
        case .timer: break
        case .heartbeat(let event): stream(event)
        case .fabric: break
        case .datagram(let bytes, _): (try? FabricFrame(datagram: bytes)).map(receive)
        case .resolved(_, let addresses): for address in addresses { dial(address) }
        case .published(let serial): published(serial)
        case .stored: stored()
        case .notStored: if case .storing = stage { store() }
        case .command(let token, _): out.append(.answer(token: token, "ok"))
        case .changeMetadata(let token, _, _): out.append(.answerMetadata(token: token, .refused("it is a toy")))
        case .settings, .timesReserved: break
        case .leave: out.append(.left)
        }
        consider(&random)
        if now.monotonic >= deadline { beat() }
        effects += out
        out.removeAll(keepingCapacity: true)
    }

    // ---- Streams ----

    private func stream(_ event: StreamEvent) {
        switch event {
        case .accepted(let stream, _): framers.append((stream, StreamFramer()))
        case .connected(let stream):
            guard let place = links.firstIndex(where: { $0.stream == stream }) else { return }
            links[place].isOpen = true
            out.append(.heartbeat(.send(stream, message)))
        case .received(let stream, let bytes):
            guard let place = framers.firstIndex(where: { $0.stream == stream }) else { return }
            framers[place].framer.append(bytes)
            while let frame = try? framers[place].framer.next() { receive(frame) }
        case .closed(let stream, _):
            links.removeAll { $0.stream == stream }
            framers.removeAll { $0.stream == stream }
        }
    }

    private func dial(_ address: Address) {
        guard !boot.addresses.heartbeat.contains(address), !links.contains(where: { $0.address == address }) else { return }
        dialled += 1
        links.append(Link(address: address, stream: .dialled(dialled)))
        let timeout = boot.connectTimeoutMilliseconds
        out.append(.heartbeat(.connect(.dialled(dialled), to: address, timeoutMilliseconds: timeout)))
    }

    // ---- Messages ----

    private var message: [UInt8] {
        var writer = FabricWriter()
        writer.member(boot.member)
        writer.address(boot.addresses.heartbeat[0])
        writer.integer(highest)
        if case .open = stage { writer.flag(true) } else { writer.flag(false) }
        writer.list(peers.filter(present)) {
            $0.member($1.member)
            $0.address($1.address)
        }
        if case .shown = stage { write(accepted, &writer) } else if case .open = stage { write(accepted, &writer) }
        return FabricFrame(.view, writer.bytes).bytes
    }

    private func write(_ view: View?, _ writer: inout FabricWriter) {
        guard let view else { return }
        writer.integer(view.mark.number)
        writer.integer(view.mark.key)
        writer.node(view.proposer)
        writer.list(view.members) { $0.member($1) }
    }

    private func receive(_ frame: FabricFrame) {
        var reader = FabricReader(frame.body)
        guard let member = try? reader.member(), let address = try? reader.address(),
            let number: UInt64 = try? reader.integer(), let isOpen = try? reader.flag(),
            let hears = try? reader.list({ (r: inout FabricReader) throws(FabricError) -> (Member, Address) in
                (try r.member(), try r.address())
            })
        else { return }
        let isRetired = retired.contains { $0.member == member && $0.until > now.monotonic }
        guard member.id != boot.member.id, !isRetired else { return }
        highest = max(highest, number)
        if !boot.isMulticast { for address in [address] + hears.map(\.1) { dial(address) } }
        var peer = Peer(
            member: member, address: address, isOpen: isOpen, heard: now.monotonic, hears: hears.map(\.0), accepted: nil)
        if reader.left > 0 { peer.accepted = try? readView(&reader) }
        remember(peer)
        if let view = peer.accepted { hear(view) }
        openIfComplete()
    }

    private func readView(_ reader: inout FabricReader) throws(FabricError) -> View {
        let mark = ViewMark(number: try reader.integer(), key: try reader.integer())
        let proposer = try reader.node()
        let members = try reader.list { (r: inout FabricReader) throws(FabricError) in try r.member() }
        return View(mark: mark, members: members, proposer: proposer)
    }

    private func remember(_ peer: Peer) {
        if let place = peers.firstIndex(where: { $0.member.id == peer.member.id }) {
            if peers[place].member != peer.member {
                retired.append((peers[place].member, now.monotonic.advanced(byMilliseconds: 10_000)))
            }
            peers[place] = peer
        } else {
            peers.append(peer)
            peers.sort { $0.member < $1.member }
        }
    }

    // ---- Agreement ----

    private func hear(_ view: View) {
        highest = max(highest, view.mark.number)
        if view.members.contains(boot.member), view.mark.number > (accepted?.mark.number ?? storedNumber) { accept(view) }
    }

    private func accept(_ view: View) {
        accepted = view
        highest = max(highest, view.mark.number)
        if boot.breaks.contains("serves-while-agreeing") { return store() }
        publish(.frozen)
        stage = .freezing(serial)
    }

    private func published(_ done: UInt64) {
        if case .freezing(let wanted) = stage, done >= wanted { store() }
    }

    private func store() {
        guard let accepted else { return }
        stage = .storing
        if boot.breaks.contains("number-not-stored") { return stored() }
        var writer = FabricWriter()
        writer.integer(accepted.mark.number)
        ticket += 1
        out.append(.store(ticket, .view(writer.bytes)))
    }

    private func stored() {
        guard case .storing = stage else { return }
        stage = .shown
        tell()
        openIfComplete()
    }

    private func openIfComplete() {
        guard case .shown = stage, let accepted else { return }
        for member in accepted.members where member != boot.member {
            guard peers.contains(where: { $0.member == member && $0.accepted == accepted }) else { return }
        }
        stage = .open
        openViews += 1
        publish(.open)
    }

    private var silence: UInt64 { boot.intervalMilliseconds * boot.timeoutIntervals * 1_000_000 }

    private func present(_ peer: Peer) -> Bool { now.monotonic.nanoseconds(since: peer.heard) <= silence }

    private func consider(_ random: inout SeededRandom) {
        let mutual = peers.filter { present($0) && $0.hears.contains(boot.member) }
        let members = (mutual.map(\.member) + [boot.member]).sorted { $0.id > $1.id }
        var isWell = accepted?.members == members && mutual.allSatisfy { $0.accepted == accepted && $0.isOpen }
        if case .open = stage {} else { isWell = false }
        guard !isWell, members[0] == boot.member, members.count >= boot.minClusterSize else { return wish = nil }
        if wish?.members != members { wish = (now.monotonic, members) }
        // Longer and longer, so that those who agree slowly come to an end.
        guard let wish, now.monotonic.nanoseconds(since: wish.since) > 2 * silence else { return }
        self.wish = nil
        let key = max(1, random.next() & 0xFF_FFFF_FFFF)
        let mark = ViewMark(number: highest + 1, key: key)
        accept(View(mark: mark, members: members, proposer: boot.member.id))
    }

    // ---- Out ----

    private func beat() {
        deadline = now.monotonic.advanced(byMilliseconds: boot.intervalMilliseconds)
        if !boot.isMulticast {
            for seed in boot.seeds { out.append(.resolve(seed)) }
        }
        tell()
    }

    private func tell() {
        let bytes = message
        if boot.isMulticast { return out.append(.multicast(bytes)) }
        for link in links where link.isOpen { out.append(.heartbeat(.send(link.stream, bytes))) }
    }

    private func publish(_ phase: ClusterPhase) {
        serial += 1
        let described = (accepted?.members ?? []).filter { $0 != boot.member }.map {
            PeerDescription(id: $0.id, services: ServiceAddresses(clear: [], clearAlternate: []), build: "toy")
        }
        if phase == .open, described != shownPeers {
            shownPeers = described
            peersGeneration += 1
        }
        out.append(.publish(ClusterSnapshot(
            serial: serial, phase: phase, view: accepted, partitionGeneration: openViews,
            peersGeneration: peersGeneration, rebalanceGeneration: openViews, bundle: nil,
            peers: shownPeers, duplicateNodes: [], problems: [])))
    }
}
