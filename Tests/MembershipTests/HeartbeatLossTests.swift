// Loss, flapping, datagrams, and many nodes.
import Base
import Fabric
@testable import Membership
import Testing
import TestSupport

struct HeartbeatLossTests {
    @Test func aFlappingNodeIsUnhealthyUntilItHasBeenGoodForAWhile() {
        let world = formedWorld(5, seed: runSeed("flapping"))
        let victim = world.processes[4], others = world.processes[0..<4]
        func isUnhealthy(_ process: HeartbeatWorld.Process) -> Bool {
            process.heart.neighbours.contains { $0.member == victim.member && $0.isUnhealthy }
        }
        // Once is no flapping.
        world.dark = [victim.host]
        world.run(milliseconds: 2000)
        world.dark = []
        world.run(milliseconds: 2000)
        #expect(others.allSatisfy { $0.members.contains(victim.member) && !isUnhealthy($0) })
        for _ in 0..<3 {
            world.dark = [victim.host]
            world.run(milliseconds: 2000)
            world.dark = []
            world.run(milliseconds: 2000)
        }
        #expect(others.allSatisfy { isUnhealthy($0) })
        #expect(others.allSatisfy { process in process.heart.neighbours.filter(\.isUnhealthy).count == 1 })
        #expect(others.allSatisfy { process in process.log.contains { $0.contains("is unhealthy") && $0.contains("%") } })
        // To the victim all the others are alike.
        #expect(!victim.heart.neighbours.contains { $0.isUnhealthy })
        world.run(milliseconds: 5000)
        #expect(others.allSatisfy { isUnhealthy($0) }, "too early")
        let took = world.run(until: { others.allSatisfy { !isUnhealthy($0) } }, atMost: 30_000)
        #expect(took != nil)
    }

    @Test func withFewNodesNobodyIsJudged() {
        let world = formedWorld(3, seed: runSeed("few"))
        for _ in 0..<6 {
            world.dark = [world.processes[2].host]
            world.run(milliseconds: 2000)
            world.dark = []
            world.run(milliseconds: 2000)
        }
        #expect(!world.processes[0].heart.neighbours.contains { $0.isUnhealthy })
    }

    @Test func multicastStandsLoss() {
        let world = formedWorld(8, seed: runSeed("multicast"), mode: .multicast)
        #expect(world.processes.allSatisfy { $0.heart.statistics.connections == 0 && $0.heart.statistics.receivedSelf > 0 })
        world.datagramLoss = 0.2
        world.run(milliseconds: 60_000)
        // Ten in a row: 1e-7 for each interval and pair.
        #expect(world.processes.allSatisfy { $0.ids.count == 7 && $0.heart.statistics.departures == 0 })
        let losses = world.processes[0].ids.map { world.processes[0].heart.loss(NodeID(rawValue: $0)) }
        #expect(losses.reduce(0, +) / 7 > 0.1 && losses.reduce(0, +) / 7 < 0.3, "\(losses)")
        let old = world.processes[3]
        world.kill(old)
        let new = world.start(4, mode: .multicast)
        world.run(milliseconds: 1000)
        let others = world.processes.filter { $0.isUp && $0 !== new }
        #expect(others.allSatisfy { $0.members.contains(new.member) && !$0.members.contains(old.member) })
        world.dark = [new.host]
        let took = world.run(until: { others.allSatisfy { !$0.members.contains(new.member) } }, atMost: 5000)
        #expect(took.map { $0 <= 1660 } == true, "departed in \(took as Any) ms")
    }

    @Test func aPulseOfManyIsSplit() throws {
        let members = (1...300 as ClosedRange<UInt64>).map { Member(id: NodeID(rawValue: $0), incarnation: $0) }
        let pulse = Pulse(
            sequence: 5, content: PulseContent(view: .none, accepted: 1, isLeaving: false, clock: 9), serial: 1,
            hears: members)
        let whole = DatagramPulse(
            member: members[0], clusterName: "blue", addresses: NodeAddresses(heartbeat: [], fabric: []), pulse: pulse)
        for sizeMax in [200, 576, 1400, 9000, 1] {
            let parts = whole.split(sizeMax: sizeMax)
            #expect(try parts.flatMap { try DatagramPulse(datagram: $0.frame).pulse.hears ?? [] } == members)
            #expect(parts.enumerated().allSatisfy { Int($0.element.part) == $0.offset })
            #expect(parts.count <= 255 && parts.allSatisfy { Int($0.parts) == parts.count })
            if sizeMax >= 200 { #expect(parts.allSatisfy { $0.frame.count <= sizeMax }) }
            #expect(sizeMax < 9000 || parts.count == 1)
        }
    }

    @Test func splitPulsesArriveInAnyOrder() {
        let world = formedWorld(
            40, seed: runSeed("split"), tunables: HeartbeatTunables(datagramSizeMax: 400), mode: .multicast)
        #expect(world.datagramMax <= 400)
        #expect(world.processes.allSatisfy { $0.heart.statistics.pulsesSent > $0.heart.sequence })
        world.datagramLoss = 0.1
        world.run(milliseconds: 10_000)
        world.datagramLoss = 0
        world.run(milliseconds: 500)
        #expect(world.all(hear: Array(1...40)))
    }

    @Test(arguments: [HeartbeatMode.mesh, .multicast]) func sixtyFourNodes(_ mode: HeartbeatMode) {
        let world = HeartbeatWorld(seed: runSeed("sixty-four"))
        for id in 1...64 as ClosedRange<UInt64> {
            _ = world.start(id, seeds: mode == .mesh ? [HeartbeatWorld.seed(1)] : [], mode: mode)
        }
        let formed = world.run(until: { world.all(hear: Array(1...64)) }, atMost: 20_000)
        #expect(formed.map { $0 <= 3000 } == true, "formed in \(formed as Any) ms")
        let forming = world.processes.reduce(0) { $0 + $1.bytesOut } / 64
        world.run(milliseconds: 2000)
        for process in world.processes { (process.bytesOut, process.messagesOut) = (0, 0) }
        world.run(milliseconds: 5000)
        let bytes = world.processes.reduce(0) { $0 + $1.bytesOut } / 64 / 5
        let messages = world.processes.reduce(0) { $0 + $1.messagesOut } / 64 / 5
        print("64 nodes, \(mode): formed in \(formed ?? 0) ms with \(forming) bytes of each; then each sends \(messages)"
            + " messages and \(bytes) bytes a second")
        // Short pulses on streams; one datagram to all.
        #expect(messages <= (mode == .mesh ? 63 * 7 : 7) && bytes <= (mode == .mesh ? 80_000 : 10_000))
        #expect(world.processes.allSatisfy { $0.ids.count == 63 && $0.heart.statistics.departures == 0 })
    }
}
