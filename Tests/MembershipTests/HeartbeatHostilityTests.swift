// What may arrive: other clusters, other formats, torn streams, any bytes.
import Base
import Fabric
@testable import Membership
import Testing
import TestSupport

struct HeartbeatHostilityTests {
    private func node(_ id: UInt64, mode: HeartbeatMode = .mesh) -> Heartbeat {
        let addresses = NodeAddresses(heartbeat: [Address(host: "10.0.0.\(id)", port: 3002)], fabric: [])
        return Heartbeat(
            member: Member(id: NodeID(rawValue: id), incarnation: id &* 77 | 1),
            settings: HeartbeatSettings(
                mode: mode, clusterName: "blue", seeds: [SeedName(host: "seed", port: 1)], addresses: addresses),
            content: PulseContent(view: .none, accepted: 0, isLeaving: false, clock: 1))
    }

    private func hello(_ id: UInt64, stream: UInt64 = 1, cluster: String = "blue", port: PortKind = .heartbeat) -> [UInt8] {
        let addresses = NodeAddresses(heartbeat: [Address(host: "10.0.0.\(id)", port: 3002)], fabric: [])
        return Hello(
            member: Member(id: NodeID(rawValue: id), incarnation: id), port: port, stream: stream, clusterName: cluster,
            addresses: addresses).frame
    }

    private func pulse(_ sequence: UInt64, hears: [Member]? = []) -> Pulse {
        Pulse(
            sequence: sequence,
            content: PulseContent(view: ViewMark(number: 3, key: 4), accepted: 5, isLeaving: true, clock: 6), serial: 2,
            hears: hears, duplicates: [NodeID(rawValue: 8)])
    }

    /// A node with an accepted stream.
    private final class Bench {
        var heart: Heartbeat
        var random = SeededRandom(seed: 1)
        var now: UInt64 = 1_000_000_000
        init(_ heart: Heartbeat) { self.heart = heart }
        func step(_ event: HeartbeatEvent) -> [HeartbeatEffect] {
            var effects: [HeartbeatEffect] = []
            heart.step(event, now: Instant(nanoseconds: now), random: &random, effects: &effects)
            return effects
        }
        func closed(_ effects: [HeartbeatEffect]) -> Int {
            effects.reduce(0) { if case .stream(.close) = $1 { $0 + 1 } else { $0 } }
        }
    }

    private let stream = StreamID.accepted(7)
    private let from = Address(host: "10.7.7.7", port: 40_001)

    @Test func messagesComeBack() throws {
        let members = [Member(id: NodeID(rawValue: 1), incarnation: 2), Member(id: NodeID(rawValue: 3), incarnation: 4)]
        for hears in [nil, [], members] as [[Member]?] {
            let before = pulse(9, hears: hears)
            let frame = try FabricFrame(datagram: before.frame)
            #expect(frame.kind == .pulse)
            #expect(try Pulse(stream: frame.body) == before)
        }
        let addresses = NodeAddresses(heartbeat: [from], fabric: [Address(host: "::1", port: 9)])
        let introductions: [Introduction] = [
            .asked(members), .reached(stream: 9), .answered([.init(member: members[0], addresses: addresses)]),
        ]
        for before in introductions {
            #expect(try Introduction(FabricFrame(datagram: before.frame).body) == before)
        }
        let greeting = Hello(member: members[0], port: .fabric, stream: 5, clusterName: "ä", addresses: addresses)
        #expect(try Hello(FabricFrame(datagram: greeting.frame).body) == greeting)
    }

    @Test func everyPrefixOfAMessageIsRefused() throws {
        let members = (1...5 as ClosedRange<UInt64>).map { Member(id: NodeID(rawValue: $0), incarnation: 1) }
        let body = Array(pulse(1, hears: members).frame[16...]), greeting = Array(hello(3)[16...])
        let introduction = Array(Introduction.asked(members).frame[16...])
        for size in 0..<body.count { #expect(throws: FabricError.self) { try Pulse(stream: Array(body[..<size])) } }
        for size in 0..<greeting.count { #expect(throws: FabricError.self) { try Hello(Array(greeting[..<size])) } }
        for size in 0..<introduction.count {
            #expect(throws: FabricError.self) { try Introduction(Array(introduction[..<size])) }
        }
    }

    @Test func anotherClusterIsNamedAndLeftOut() {
        let world = formedWorld(3, seed: runSeed("foreign"))
        let stranger = world.start(9, seeds: [HeartbeatWorld.seed(1)], cluster: "green")
        world.run(milliseconds: 10_000)
        #expect(world.all(hear: [1, 2, 3]) && stranger.ids.isEmpty)
        let told = world.processes[0]
        #expect(told.heart.problems.contains { $0.contains("green") && $0.contains("blue") && $0.contains(stranger.host) })
        #expect(told.log.filter { $0.contains("green") }.count == 1)
        #expect(told.heart.statistics.receivedForeign >= 3)
        // The other side is told where to look, and it does not come in a hurry.
        #expect(stranger.heart.problems.contains { $0.contains(HeartbeatWorld.host(1)) })
        #expect(told.heart.statistics.receivedForeign <= 30)
        world.kill(stranger)
        world.run(milliseconds: 61_000)
        #expect(told.heart.problems.isEmpty)
    }

    @Test func aNewerFormatAndAWrongPortAreNamed() {
        var newer = hello(9)
        newer[4] = FabricFrame.format + 1
        for (bytes, word) in [(newer, "format 2"), (hello(9, port: .fabric), "fabric port"), (pulse(1).frame, "who it is"),
            (Array("GET / HTTP/1.1\r\n\r\n".utf8), "fabric protocol"), ([UInt8](hello(9) + hello(9)), "does not belong")] {
            let bench = Bench(node(1))
            _ = bench.step(.stream(.accepted(stream, from: from)))
            let effects = bench.step(.stream(.received(stream, bytes)))
            #expect(bench.closed(effects) == 1)
            let problems = bench.heart.problems
            #expect(problems.contains { $0.contains("10.7.7.7") && $0.contains(word) }, "\(problems)")
            #expect(bench.heart.neighbours.isEmpty)
        }
    }

    /// A stream that ends after any byte, and one that comes byte by byte.
    @Test func tornStreamsDoNoHarm() {
        let member = Member(id: NodeID(rawValue: 9), incarnation: 9)
        let bytes = hello(9) + pulse(1).frame + Introduction.asked([member]).frame + pulse(2, hears: [member]).frame
        for size in 0...bytes.count {
            let bench = Bench(node(1))
            _ = bench.step(.stream(.accepted(stream, from: from)))
            for byte in bytes[..<size] { #expect(bench.closed(bench.step(.stream(.received(stream, [byte])))) == 0) }
            _ = bench.step(.stream(.closed(stream, reason: "cut")))
            let isThere = size >= hello(9).count + pulse(1).frame.count
            #expect(bench.heart.neighbours.map(\.member) == (isThere ? [member] : []))
            #expect(bench.heart.statistics.connections == 0)
            // The rest, on a new stream, is no frame.
            guard size > 0, size < bytes.count else { continue }
            _ = bench.step(.stream(.accepted(.accepted(8), from: from)))
            #expect(bench.heart.neighbours.count == (isThere ? 1 : 0))
            _ = bench.step(.stream(.received(.accepted(8), Array(bytes[size...]))))
            #expect(bench.heart.neighbours.count == (isThere ? 1 : 0))
        }
    }

    /// Any event with any content, valid frames and broken ones. The machine must stand, and stay within its bounds.
    @Test(arguments: [HeartbeatMode.mesh, .multicast]) func anythingMayHappen(_ mode: HeartbeatMode) {
        var random = SeededRandom(seed: runSeed("anything"))
        let bench = Bench(node(1, mode: mode))
        var pulses: UInt64 = 0
        for _ in 0..<100_000 {
            bench.now += random.next() % 40 == 0 ? random.next() % 4_000_000_000 : random.next() % 30_000_000
            _ = bench.step(event(&random, bench.heart))
            pulses = max(pulses, bench.heart.statistics.pulsesReceived)
            if bench.heart.deadline.nanoseconds <= bench.now { bench.now = bench.heart.deadline.nanoseconds }
        }
        #expect(pulses > 1000, "the fuzz reaches pulses")
        #expect(bench.heart.statistics.arrivals > 10 && bench.heart.statistics.departures > 10)
        #expect(bench.heart.peers.all.count <= HeartbeatPeers.countMax)
        let ids = bench.heart.neighbours.map(\.member.id)
        #expect(ids == ids.sorted() && zip(ids, ids.dropFirst()).allSatisfy { $0 != $1 })
        #expect(!ids.contains(NodeID(rawValue: 1)))
        #expect(bench.heart.statistics.connections >= 0)
    }

    private func event(_ random: inout SeededRandom, _ heart: Heartbeat) -> HeartbeatEvent {
        func pick(_ count: UInt64) -> UInt64 { random.next() % count }
        let accepted = StreamID.accepted(pick(24)), dialled = StreamID.dialled(pick(40) + heart.statistics.pulsesSent / 4)
        switch pick(16) {
        case 0: return .timer
        case 1, 2: return .stream(.accepted(accepted, from: Address(host: "h\(pick(4))", port: 1)))
        case 3: return .stream(.connected(dialled))
        case 4: return .stream(.closed(pick(2) == 0 ? accepted : dialled, reason: "Connection refused"))
        case 5:
            let addresses = (0..<pick(5)).map { Address(host: "h\($0)", port: 1) }
            return .resolved(SeedName(host: "seed", port: 1), addresses)
        case 6: return .evidence(Member(id: NodeID(rawValue: pick(6)), incarnation: pick(3) + 1))
        case 7: return .tip(SeedName(host: "t\(pick(400))", port: 1))
        case 8: return .tipClear([SeedName(host: "t\(pick(400))", port: 1)])
        default: break
        }
        let known = heart.accepted.first { $0.stream == accepted }
        var bytes = frame(&random, heart, greets: pick(10) == 0 ? pick(2) == 0 : known?.member == nil)
        if pick(20) == 0, !bytes.isEmpty { bytes[Int(pick(UInt64(bytes.count)))] ^= UInt8(1 << pick(8)) }
        if pick(40) == 0 { bytes = Array(bytes.prefix(Int(pick(UInt64(bytes.count + 1))))) }
        return pick(6) == 0 ? .datagram(bytes, from: from) : heart.settings.mode == .multicast
            ? .datagram(bytes, from: from) : .stream(.received(accepted, bytes))
    }

    private func frame(_ random: inout SeededRandom, _ heart: Heartbeat, greets: Bool) -> [UInt8] {
        func pick(_ count: UInt64) -> UInt64 { random.next() % count }
        func member(_ random: inout SeededRandom) -> Member {
            let id = random.next() % 8
            if id == 7 { return heart.member }
            return Member(id: NodeID(rawValue: id), incarnation: random.next() % 3 + 1 + heart.statistics.arrivals / 20)
        }
        let hears = pick(2) == 0 ? nil : (0..<pick(6)).map { _ in member(&random) }
        let edge = [0, 1, pick(1000), UInt64.max, UInt64.max - pick(3)][Int(pick(40) == 0 ? pick(5) : 2)]
        let some = Pulse(
            sequence: edge &+ heart.sequence, content: PulseContent(
                view: ViewMark(number: edge, key: edge), accepted: edge, isLeaving: pick(2) == 0, clock: edge),
            isGoodbye: pick(50) == 0, serial: edge, hears: hears, duplicates: [NodeID(rawValue: pick(9))])
        let addresses = NodeAddresses(heartbeat: [Address(host: "h\(pick(4))", port: 1)], fabric: [])
        if heart.settings.mode == .multicast {
            var whole = some
            whole.hears = hears ?? []
            let one = DatagramPulse(member: member(&random), clusterName: "blue", addresses: addresses, pulse: whole)
            let parts = one.split(sizeMax: Int(pick(200)))
            return parts[Int(pick(UInt64(parts.count)))].frame
        }
        if greets {
            return Hello(
                member: member(&random), port: .heartbeat, stream: pick(40) + heart.statistics.pulsesSent / 4,
                clusterName: "blue", addresses: addresses).frame
        }
        switch pick(20) {
        case 3: return Introduction.asked([member(&random), member(&random)]).frame
        case 4: return Introduction.answered([.init(member: member(&random), addresses: addresses)]).frame
        case 5: return Introduction.reached(stream: pick(40) + heart.statistics.pulsesSent / 4).frame
        case 6: return (0..<pick(30)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        default: return some.frame
        }
    }
}
