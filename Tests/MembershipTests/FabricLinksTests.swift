// Fabric links: order, loss, restarts, bounds.
import Base
import Fabric
@testable import Membership
import Testing
import TestSupport

struct FabricLinksTests {
    private func message(_ number: UInt64) -> [UInt8] {
        var writer = FabricWriter()
        writer.integer(number)
        return writer.bytes
    }

    private func number(_ frame: FabricFrame) -> UInt64 {
        var reader = FabricReader(frame.body)
        return (try? reader.integer()) ?? 0
    }

    private func numbers(_ process: HeartbeatWorld.Process, from: Member) -> [UInt64] {
        process.delivered.filter { $0.0 == from }.map { number($0.1) }
    }

    @Test func messagesArriveInOrderAndOnce() {
        let world = formedWorld(4, seed: runSeed("order"), withFabric: true)
        world.pieceMax = 7
        #expect(world.processes.allSatisfy { $0.links.connected.count == 3 })
        for round in 1...200 as ClosedRange<UInt64> {
            for from in world.processes {
                for to in world.processes { world.step(from, .message(to: to.member, .view, message(round))) }
            }
            if round % 10 == 0 { world.run(milliseconds: 3) }
        }
        world.run(milliseconds: 100)
        for from in world.processes {
            for to in world.processes { #expect(numbers(to, from: from.member) == Array(1...200)) }
        }
    }

    @Test func messagesWaitForTheStreamAndForThePeer() {
        let world = HeartbeatWorld(seed: runSeed("wait"))
        world.withFabric = true
        let first = world.start(1), second = world.start(2)
        // The first knows the second before the second knows the first.
        world.step(first, .peers([FabricPeer(member: second.member, addresses: [Address(host: second.host, port: 3001)])]))
        world.step(first, .message(to: second.member, .view, message(1)))
        world.run(milliseconds: 20)
        world.step(first, .message(to: second.member, .view, message(2)))
        world.run(milliseconds: 200)
        #expect(first.links.connected == [second.member] && second.delivered.isEmpty)
        world.step(second, .peers([FabricPeer(member: first.member, addresses: [Address(host: first.host, port: 3001)])]))
        #expect(numbers(second, from: first.member) == [1, 2])
        world.step(first, .message(to: second.member, .view, message(3)))
        world.run(milliseconds: 20)
        #expect(numbers(second, from: first.member) == [1, 2, 3])
    }

    @Test func whatNobodyWantsIsDroppedInTime() {
        let world = HeartbeatWorld(seed: runSeed("unwanted"))
        world.withFabric = true
        let first = world.start(1), second = world.start(2)
        world.step(first, .peers([FabricPeer(member: second.member, addresses: [Address(host: second.host, port: 3001)])]))
        world.step(first, .message(to: second.member, .view, message(1)))
        world.run(milliseconds: 5000)
        world.step(second, .peers([FabricPeer(member: first.member, addresses: [Address(host: first.host, port: 3001)])]))
        #expect(second.delivered.isEmpty && second.links.statistics.droppedIn == 1)
        // To somebody who cannot be reached: bounded in age.
        world.cut(first.host, second.host)
        world.kill(second)
        world.run(milliseconds: 100)
        let dropped = first.links.statistics.droppedOut
        let third = Member(id: NodeID(rawValue: 3), incarnation: 1)
        world.step(first, .peers([FabricPeer(member: third, addresses: [Address(host: "10.1.1.1", port: 3001)])]))
        world.step(first, .message(to: third, .view, message(1)))
        world.step(first, .message(to: second.member, .view, message(1)))
        #expect(first.links.statistics.droppedOut == dropped + 1)
        world.run(milliseconds: 2000)
        #expect(first.links.statistics.droppedOut == dropped + 2)
        #expect(first.links.links[0].queue.isEmpty && first.links.links[0].queuedBytes == 0)
        // And in bytes.
        for _ in 0..<40 {
            world.step(first, .message(to: third, .view, [UInt8](repeating: 1, count: 1 << 20)))
        }
        #expect(first.links.links[0].queuedBytes <= 16 << 20 && first.links.links[0].queue.count == 15)
    }

    /// Cuts, restarts and held up streams: what arrives is in order and from the incarnation that is current.
    @Test func orderStandsCutsAndRestarts() {
        forAWhile(1) {
            let world = formedWorld(4, seed: runSeed("cuts"), withFabric: true)
            var next: UInt64 = 0
            for _ in 0..<60 {
                let live = world.processes.filter { $0.isUp }
                let victim = live[Int(world.random.next() % 4)]
                switch world.random.next() % 6 {
                case 0: world.cut(live[0].host, live[Int(1 + world.random.next() % 3)].host)
                case 1: world.clog(victim, milliseconds: world.random.next() % 1000)
                case 2:
                    let id = victim.member.id.rawValue
                    world.kill(victim, isReset: world.random.next() % 2 == 0)
                    let others = live.filter { $0 !== victim }.map { HeartbeatWorld.seed($0.member.id.rawValue) }
                    _ = world.start(id, seeds: others)
                default: world.cuts = []
                }
                for _ in 0..<20 {
                    next += 1
                    for from in world.processes where from.isUp {
                        for to in world.processes { world.step(from, .message(to: to.member, .view, message(next))) }
                    }
                    world.run(milliseconds: 1 + world.random.next() % 30)
                }
            }
            world.cuts = []
            world.unclog()
            #expect(world.run(until: { world.all(hear: [1, 2, 3, 4]) }, atMost: 10_000) != nil)
            world.run(milliseconds: 3000)
            let live = world.processes.filter { $0.isUp }
            #expect(live.allSatisfy { $0.links.connected.count == 3 })
            for to in world.processes {
                for from in world.processes {
                    let got = numbers(to, from: from.member)
                    #expect(zip(got, got.dropFirst()).allSatisfy { $0 < $1 }, "out of order")
                }
            }
            for process in live { process.delivered = [] }
            for from in live { for to in live { world.step(from, .message(to: to.member, .view, message(1))) } }
            world.run(milliseconds: 100)
            for from in live { for to in live { #expect(numbers(to, from: from.member) == [1]) } }
            // Connected and lost alternate.
            for process in live {
                for id in 1...4 {
                    let events = process.linkEvents.filter { $0.hasSuffix(" \(id)") }.map { $0.prefix(1) }
                    #expect(events.enumerated().allSatisfy { $0.element == ($0.offset % 2 == 0 ? "c" : "l") }, "\(events)")
                }
            }
        }
    }

    @Test func anOlderStreamDeliversNothingBehindANewerOne() {
        var random = SeededRandom(seed: 1)
        let addresses = NodeAddresses(heartbeat: [], fabric: [])
        let other = Member(id: NodeID(rawValue: 2), incarnation: 2)
        var links = FabricLinks(
            member: Member(id: NodeID(rawValue: 1), incarnation: 1),
            settings: FabricLinksSettings(clusterName: "", addresses: addresses))
        var effects: [FabricLinksEffect] = []
        func step(_ event: FabricLinksEvent) {
            links.step(event, now: Instant(nanoseconds: 5), random: &random, effects: &effects)
        }
        func hello(_ stream: UInt64) -> [UInt8] {
            Hello(member: other, port: .fabric, stream: stream, clusterName: "", addresses: addresses).frame
        }
        step(.peers([FabricPeer(member: other, addresses: [])]))
        let from = Address(host: "h", port: 1)
        for (name, number) in [(1, 5), (2, 4), (3, 6)] as [(UInt64, UInt64)] {
            step(.stream(.accepted(.accepted(name), from: from)))
            step(.stream(.received(.accepted(name), hello(number) + FabricFrame(.view, message(name)).bytes)))
        }
        step(.stream(.received(.accepted(1), FabricFrame(.view, message(9)).bytes)))
        step(.stream(.received(.accepted(3), FabricFrame(.view, message(10)).bytes)))
        let got = effects.compactMap { if case .delivered(_, let frame) = $0 { number(frame) } else { nil } }
        #expect(got == [1, 3, 10])
        #expect(links.statistics.connections == 1)
    }

    @Test func quietStreamsAreKeptAliveAndHalfOpenOnesClosed() {
        let world = formedWorld(2, seed: runSeed("quiet"), withFabric: true)
        let (first, second) = (world.processes[0], world.processes[1])
        let before = first.links.statistics.framesReceived
        world.run(milliseconds: 30_000)
        let got = first.links.statistics.framesReceived - before
        #expect(got >= 28 && got <= 31 && first.links.statistics.connectionsClosed == 0)
        world.dark = [second.host]
        world.run(milliseconds: 20_000)
        #expect(first.links.statistics.connections == 0)
    }

    @Test func linksThatDoNotStandAreNamedOnBothSides() {
        let world = HeartbeatWorld(seed: runSeed("trouble"))
        world.withFabric = true
        let first = world.start(1), second = world.start(2)
        func peer(_ process: HeartbeatWorld.Process, host: String) -> FabricLinksEvent {
            .peers([FabricPeer(member: process.member, addresses: [Address(host: host, port: 3001)])])
        }
        func trouble(_ one: HeartbeatWorld.Process, with other: HeartbeatWorld.Process) -> String? {
            one.links.trouble(with: other.member, now: Instant(nanoseconds: world.now))
        }
        // The second tells a wrong address.
        world.step(first, peer(second, host: "10.7.7.7"))
        world.step(second, peer(first, host: first.host))
        world.run(milliseconds: 2500)
        #expect(trouble(first, with: second) == nil && trouble(second, with: first) == nil)
        var said: Set<String> = []
        for _ in 0..<100 {
            world.run(milliseconds: 100)
            said.formUnion([trouble(first, with: second), trouble(second, with: first)].compactMap { $0 })
        }
        #expect(said.count == 2, "they do not change: \(said)")
        #expect(said.contains {
            $0.hasPrefix("node 2 is heard, but its fabric port is not reached at 10.7.7.7:3001: Connection refused")
        })
        #expect(said.contains { $0.hasPrefix("node 1 is heard, but does not reach the fabric port of this node") })
        world.step(first, peer(second, host: second.host))
        world.run(milliseconds: 5000)
        #expect(trouble(first, with: second) == nil && trouble(second, with: first) == nil)
    }

    @Test func anythingMayHappen() {
        var random = SeededRandom(seed: runSeed("fabric-anything"))
        let addresses = NodeAddresses(heartbeat: [], fabric: [Address(host: "h", port: 1)])
        var links = FabricLinks(
            member: Member(id: NodeID(rawValue: 1), incarnation: 1),
            settings: FabricLinksSettings(clusterName: "", addresses: addresses))
        var now: UInt64 = 1, delivered = 0, effects: [FabricLinksEffect] = []
        func pick(_ count: UInt64) -> UInt64 { random.next() % count }
        func member() -> Member { Member(id: NodeID(rawValue: pick(5)), incarnation: pick(2) + 1) }
        func bytes(_ stream: StreamID) -> [UInt8] {
            let isKnown = links.incoming.contains { $0.stream == stream && $0.hello != nil }
            if pick(10) == 0 ? pick(2) == 0 : !isKnown {
                return Hello(
                    member: member(), port: .fabric, stream: pick(1000) + now / 1_000_000, clusterName: "",
                    addresses: addresses).frame
            }
            let kind = pick(10) == 0 ? FrameKind.allCases[Int(pick(5))] : .view
            return FabricFrame(kind, (0..<pick(9)).map { UInt8($0) }).bytes
        }
        for _ in 0..<100_000 {
            now += pick(40) == 0 ? pick(2_000_000_000) : pick(5_000_000)
            let stream = StreamID.accepted(pick(24))
            let dialled = StreamID.dialled(links.statistics.connectionsOpened + pick(30))
            let event: FabricLinksEvent
            switch pick(14) {
            case 0: event = .timer
            case 1, 2: event = .stream(.accepted(stream, from: Address(host: "h\(pick(4))", port: 1)))
            case 3: event = .stream(.connected(dialled))
            case 4: event = .stream(.closed(pick(2) == 0 ? stream : dialled, reason: ""))
            case 5:
                let peers = (2..<5 as Range<UInt64>).filter { _ in pick(4) > 0 }.map {
                    let peer = Member(id: NodeID(rawValue: $0), incarnation: pick(2) + 1)
                    return FabricPeer(member: peer, addresses: addresses.fabric)
                }
                event = .peers(peers)
            case 6: event = .message(to: member(), .metadata, [1, 2])
            default:
                var data = bytes(stream)
                if pick(20) == 0, !data.isEmpty { data[Int(pick(UInt64(data.count)))] ^= UInt8(1 << pick(8)) }
                event = .stream(.received(stream, data))
            }
            effects.removeAll()
            links.step(event, now: Instant(nanoseconds: now), random: &random, effects: &effects)
            for case .delivered(let from, _) in effects {
                delivered += 1
                #expect(from == links.member || links.links.contains { $0.member == from })
            }
            #expect(links.deadline.nanoseconds > now)
        }
        #expect(delivered > 1000 && links.statistics.connections >= 0 && links.statistics.foreign > 100)
    }
}
