import Base
import Fabric
import Membership
import Testing

/// Starts, disks, disagreements, old messages.
struct ViewTroubleTests {
    /// Starts wait as long as nodes do.
    private func formed(_ count: Int, _ change: (inout ViewWorldSettings) -> Void = { _ in }) -> ViewWorld {
        ViewWorld.formed(count) { settings in
            settings.views.startWaitMilliseconds = 15_000
            settings.views.startWaitMaxMilliseconds = 60_000
            change(&settings)
        }
    }

    private func restart(_ world: ViewWorld, _ places: [Int]) {
        world.living.forEach { world.crash($0) }
        world.run(milliseconds: 1_000)
        places.forEach { world.start($0) }
    }

    @Test func aWholeClusterRestartsAtOnce() {
        let world = formed(3)
        restart(world, [0, 1, 2])
        world.expect([0, 1, 2], within: 1_500)
    }

    @Test func aMajorityWaitsFifteenSeconds() {
        let world = formed(3)
        restart(world, [0, 1])
        world.run(milliseconds: 14_500)
        #expect(world.nodes[0].views!.phase == .orphan && world.nodes[1].views!.phase == .orphan)
        #expect(world.nodes[1].views!.waitingFor == [NodeID(rawValue: 3)])
        let lines = world.nodes[1].lines.count { $0.contains("waits for nodes of the last view: 3 missing") }
        #expect(lines >= 6, "every 2 s, \(lines) times")
        world.expect([0, 1], within: 3_000)
    }

    @Test func aMinorityWaitsSixtySeconds() {
        let world = formed(3)
        restart(world, [1])
        world.run(milliseconds: 59_000)
        #expect(world.nodes[1].views!.phase == .orphan)
        world.expect([1], within: 2_000)
    }

    @Test func aNodeThatFindsAClusterJoinsAtOnce() {
        let world = formed(3)
        world.crash(2)
        world.expect([0, 1], within: 1_500)
        world.crash(1)
        world.run(milliseconds: 1_000)
        world.start(2)
        world.expect([0, 2], within: 1_500)
    }

    @Test func aNodeWithoutPastWaitsForThoseThatWait() {
        let world = formed(3)
        world.living.forEach { world.crash($0) }
        world.nodes[2].disk = nil
        world.start(0)
        world.run(milliseconds: 500)
        world.nodes[1].disk = nil
        #expect(world.nodes[0].views!.phase == .orphan && world.nodes[0].views!.waitingFor.count == 2)
        world.start(1)
        world.start(2)
        world.expect([0, 1, 2], within: 2_000)
    }

    /// Seed 120945360290886: node 3 slept while node 4 came, and of its pulses had only the first, which does not name
    /// node 3, while its messages arrived. Each time that 4 had opened a view of all, 3 proposed one without it.
    @Test func aPulseOlderThanTheViewDoesNotBreakIt() {
        let world = formed(4)
        world.crash(3)
        world.expect([0, 1, 2], within: 1_500)
        world.start(3)
        #expect(world.run(milliseconds: 500) { world.nodes[2].heard[3] != nil })
        world.nodes[2].heard[3]!.neighbour.hears = []
        world.nodes[2].heldUp = [3]
        let isOne = world.run(milliseconds: 3_000) {
            world.nodes.allSatisfy { $0.isOpen && $0.views!.view!.members.count == 4 }
        }
        #expect(isOne)
        let number = world.nodes[2].views!.view!.mark.number
        world.run(milliseconds: 10_000)
        #expect(world.nodes.allSatisfy { $0.isOpen && $0.views!.view!.mark.number == number })
        world.nodes[2].heldUp = []
        world.expect([0, 1, 2, 3], within: 500)
    }

    /// Its pulses are heard and its messages arrive, but nothing reaches it: a firewall before its fabric port.
    private func shutFabric(_ world: ViewWorld, of node: Int) {
        for other in world.nodes.indices where other != node { world.fabric[other][node] = false }
    }

    @Test(arguments: [0, 1, 2]) func aNodeThatNoMessageReachesIsLeftOut(node: Int) {
        let world = ViewWorld.traced(3)
        shutFabric(world, of: node)
        world.nodes.indices.forEach { world.start($0) }
        let others = [0, 1, 2].filter { $0 != node }
        world.expect(others, within: 3_000)
        let number = world.nodes[others[0]].views!.view!.mark.number
        world.run(milliseconds: 30_000)
        world.expect(others, within: 1)
        #expect(world.nodes[others[0]].views!.view!.mark.number == number, "it does not disturb the others")
        world.crash(others[0])
        world.expect([others[1]], within: 1_000)
        world.start(others[0])
        world.expect(others, within: 3_000)
    }

    @Test(arguments: [0, 1, 2]) func aMemberThatNoMessageReachesAnyMoreIsLeftOut(node: Int) {
        let world = ViewWorld.formed(3)
        shutFabric(world, of: node)
        let others = [0, 1, 2].filter { $0 != node }
        world.crash(others[1])
        world.expect([others[0]], within: 3_000)
        world.start(others[1])
        world.expect(others, within: 3_000)
        for other in others { world.fabric[other][node] = true }
        world.expect([0, 1, 2], within: 15_000)
    }

    @Test func fewerThanTheLeastAreNoCluster() {
        let world = formed(3) { $0.views.minClusterSize = 2 }
        world.crash(2)
        world.expect([0, 1], within: 1_500)
        world.crash(1)
        #expect(world.run(milliseconds: 1_500) { world.nodes[0].views!.phase == .orphan })
        #expect(world.nodes[0].lines.contains { $0.contains("min-cluster-size is 2") })
        world.run(milliseconds: 10_000)
        #expect(world.nodes[0].views!.phase == .orphan)
        world.start(1)
        world.expect([0, 1], within: 20_000)
    }

    @Test func unequalMapsVoidTheView() {
        let world = formed(3)
        world.oracle.expectsDisagreement = true
        world.nodes[1].spoilsHash = true
        world.step(2, .recluster(token: 1))
        world.run(milliseconds: 1_000)
        #expect(world.nodes.allSatisfy { $0.views!.phase == .frozen })
        for node in world.nodes { #expect(node.lines.contains { $0.contains("its members compute different maps") }) }
        let given = world.nodes[2].lines.count { $0.contains("proposes view") }
        world.run(milliseconds: 8_000)
        #expect(world.nodes[2].lines.count { $0.contains("proposes view") } - given < 12, "with patience")
        world.nodes[1].spoilsHash = false
        world.expect([0, 1, 2], within: 9_000)
    }

    @Test(arguments: [0, 1, 2]) func aStoreThatNeverAnswersStopsOnlyItsNode(node: Int) {
        let world = formed(3)
        world.nodes[node].storeStuck = true
        world.step(2, .recluster(token: 1))
        let others = [0, 1, 2].filter { $0 != node }
        world.expect(others, within: 9_000)
        let number = world.nodes[others[0]].views!.view!.mark.number
        world.run(milliseconds: 30_000)
        #expect(world.nodes[others[0]].views!.view!.mark.number == number, "it is asked before it disturbs the others")
    }

    @Test func aStoreThatFailsIsTriedAgain() {
        let world = formed(3)
        world.settings.storeFailPercent = 100
        world.step(2, .recluster(token: 1))
        world.run(milliseconds: 4_000)
        #expect(world.nodes.allSatisfy { $0.views!.phase != .open })
        world.settings.storeFailPercent = 0
        world.expect([0, 1, 2], within: 15_000)
    }

    @Test(arguments: [0, 1, 2]) func aNodeThatCannotPrepareIsLeftOut(node: Int) {
        let world = formed(3)
        world.nodes[node].prepareFails = true
        world.step(2, .recluster(token: 1))
        let others = [0, 1, 2].filter { $0 != node }
        world.expect(others, within: 2_000)
        let number = world.nodes[others[0]].views!.view!.mark.number
        world.run(milliseconds: 60_000)
        let after = world.nodes[others[0]].views!.view!.mark.number
        #expect(after < number + 12, "it asks to be left out, for longer and longer")
        world.expect(others, within: 2_000)
        world.nodes[node].prepareFails = false
        world.expect([0, 1, 2], within: 66_000)
    }

    @Test func oldMessagesChangeNothing() {
        let world = formed(4)
        var kept: [(to: Int, from: Member, bytes: [UInt8])] = []
        world.onEffect = { node, effect in
            if case .send(let receiver, let bytes) = effect {
                kept.append((Int(receiver.id.rawValue) - 1, world.nodes[node].member, bytes))
            }
        }
        world.step(3, .recluster(token: 1))
        world.run(milliseconds: 500)
        world.crash(1)
        world.run(milliseconds: 30)
        world.start(1)
        world.expect([0, 1, 2, 3], within: 1_500)
        world.run(milliseconds: 500)
        world.onEffect = nil
        let view = world.nodes[0].views!.view!
        #expect(kept.count > 20)
        kept.shuffle(using: &world.random)
        for one in kept + kept { world.schedule(world.now + 1_000_000, .message(from: one.from, to: one.to, one.bytes)) }
        world.run(milliseconds: 2_000)
        #expect(world.isOneView([0, 1, 2, 3]) && world.nodes[0].views!.view! == view)
        #expect(world.oracle.violation == nil)
    }

    @Test func slowNetworksAgreeToo() {
        let world = formed(5) {
            $0.delayMaxMilliseconds = 400
            $0.storeMaxMilliseconds = 500
            $0.prepareMaxMilliseconds = 800
        }
        world.crash(4)
        world.expect([0, 1, 2, 3], within: 12_000)
    }
}
