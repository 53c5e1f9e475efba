import Base
import Fabric
import Glibc
import Membership
import Testing

/// Intervals of 50 ms, timeout 4: a node that is killed is noticed within 250 ms.
struct ViewScenarioTests {
    private let barOfLoss = 1_200.0
    private let barOfPlan = 300.0

    private func link(_ world: ViewWorld, _ one: Int, _ other: Int, _ isUp: Bool) {
        world.links[one][other] = isUp
        world.links[other][one] = isUp
    }

    @Test func aLoneNodeOpensAtOnce() {
        let world = ViewWorld.traced(1)
        world.start(0)
        world.expect([0], within: 200)
    }

    @Test func fiveNodesFormAndKeepTheirView() {
        let world = ViewWorld.formed(5)
        let view = world.nodes[0].views!.view!
        world.run(milliseconds: 20_000)
        #expect(world.nodes.allSatisfy { $0.views?.view == view })
        #expect(view.principal == NodeID(rawValue: 5) && view.proposer == NodeID(rawValue: 5))
    }

    @Test func reclusterGivesANewViewOfTheSame() {
        let world = ViewWorld.formed(4)
        let before = world.nodes[0].views!.view!.mark
        world.step(1, .recluster(token: 7))
        #expect(world.nodes[1].answers.map(\.1) == ["ignored-by-non-principal"])
        world.step(3, .recluster(token: 8))
        #expect(world.nodes[3].answers.map(\.1) == ["ok"])
        #expect(world.run(milliseconds: barOfPlan) {
            world.nodes[0].views!.view!.mark.number > before.number && world.isOneView([0, 1, 2, 3])
        })
        let after = world.nodes[0].views!.view!.mark
        #expect(after.key != before.key && world.oracle.violation == nil)
        world.run(milliseconds: 5_000)
        #expect(world.nodes[0].views!.view!.mark == after, "once")
    }

    @Test func aLeavingNodeGetsAView() {
        let world = ViewWorld.formed(3)
        let before = world.nodes[0].views!.view!.mark.number
        world.nodes[0].isLeaving = true
        world.step(0, .leave)
        #expect(world.run(milliseconds: barOfPlan) {
            world.nodes[0].views!.view!.mark.number == before + 1 && world.isOneView([0, 1, 2])
        })
        world.run(milliseconds: 5_000)
        #expect(world.nodes[0].views!.view!.mark.number == before + 1, "once")
    }

    @Test func aNodeJoins() {
        let world = ViewWorld.formed(3)
        world.crash(1)
        world.expect([0, 2], within: barOfLoss)
        world.start(1)
        let heard = world.run(milliseconds: 500) { world.nodes[2].heard[1]?.neighbour.member == world.nodes[1].member }
        #expect(heard)
        world.expect([0, 1, 2], within: barOfPlan)
    }

    @Test(arguments: [0, 1, 2, 3, 4]) func aKilledNodeIsReplaced(node: Int) {
        let world = ViewWorld.formed(5)
        world.crash(node)
        world.expect([0, 1, 2, 3, 4].filter { $0 != node }, within: barOfLoss)
    }

    @Test func allButOneAreLost() {
        let world = ViewWorld.formed(5)
        for node in [1, 2, 3, 4] { world.crash(node) }
        world.expect([0], within: barOfLoss)
    }

    @Test func halvesFormTheirOwnViewsAndMerge() {
        let world = ViewWorld.formed(6)
        for one in 0..<3 { for other in 3..<6 { link(world, one, other, false) } }
        #expect(world.run(milliseconds: barOfLoss) { world.isOneView([0, 1, 2]) && world.isOneView([3, 4, 5]) })
        world.run(milliseconds: 3_000)
        for one in 0..<3 { for other in 3..<6 { link(world, one, other, true) } }
        world.expect([0, 1, 2, 3, 4, 5], within: 1_500)
    }

    @Test func anIncompleteTriangleLeavesTheSmallerEndOut() {
        let world = ViewWorld.formed(3)
        link(world, 0, 2, false)
        world.expect([1, 2], within: 2_000)
        #expect(world.run(milliseconds: 1_000) { world.nodes[0].views!.phase == .orphan })
        world.run(milliseconds: 10_000)
        #expect(world.isOneView([1, 2]) && world.nodes[0].views!.phase == .orphan)
        link(world, 0, 2, true)
        world.expect([0, 1, 2], within: 2_000)
    }

    @Test func aLargeNodeThatSeesFewIsLeftOut() {
        let world = ViewWorld.formed(5)
        for node in 0..<3 { link(world, node, 4, false) }
        world.expect([0, 1, 2, 3], within: 3_000)
        world.run(milliseconds: 20_000)
        #expect(world.isOneView([0, 1, 2, 3]), world.report)
        #expect(world.nodes[4].views!.phase == .orphan)
    }

    @Test func aOneWayLinkToTheLargestStopsNobody() {
        let world = ViewWorld.formed(4)
        world.links[3][0] = false
        world.expect([1, 2, 3], within: 3_000)
        for node in [1, 2] { world.links[3][node] = false }
        world.expect([0, 1, 2], within: 3_000)
    }

    @Test func aLargestNodeWithoutFabricStopsNobody() {
        let world = ViewWorld.formed(4)
        for node in 0..<3 {
            world.fabric[3][node] = false
            world.fabric[node][3] = false
        }
        world.crash(0)
        world.run(milliseconds: 1_000)
        world.start(0)
        world.expect([0, 1, 2], within: 6_000)
        let number = world.nodes[0].views!.view!.mark.number
        world.run(milliseconds: 20_000)
        #expect(world.nodes[0].views!.view!.mark.number == number, "it is asked before it disturbs the others")
    }

    @Test func anUnhealthyNodeIsLeftOut() {
        let world = ViewWorld.formed(4)
        world.nodes[3].isUnhealthy = true
        world.expect([0, 1, 2], within: 2_000)
        world.run(milliseconds: 10_000)
        #expect(world.isOneView([0, 1, 2]), world.report)
        world.nodes[3].isUnhealthy = false
        world.expect([0, 1, 2, 3], within: 10_000)
    }

    @Test func aRestartInsideTheTimeoutIsANewView() {
        let world = ViewWorld.formed(3)
        let before = world.nodes[1].member
        world.crash(0)
        world.run(milliseconds: 20)
        world.start(0)
        world.expect([0, 1, 2], within: barOfLoss)
        #expect(world.nodes[1].member == before)
    }

    @Test func aNodePausedForLongDoesNotServeWhenItWakes() {
        let world = ViewWorld.formed(3)
        let old = world.nodes[2].views!.view!.mark
        world.nodes[2].pausedUntil = world.now + 5_000_000_000
        world.expect([0, 1], within: barOfLoss)
        #expect(world.nodes[2].views!.view!.mark == old)
        world.run(milliseconds: 4_500)
        world.expect([0, 1, 2], within: 2_000)
    }

    @Test(arguments: 0..<9, [1, 2, 3, 4]) func theProposerDiesAtEveryStep(kind: Int, count: Int) {
        let world = ViewWorld.formed(4)
        world.step(3, .recluster(token: 1))
        var seen = 0
        world.onSend = { node, _, message in
            guard node == 3, ViewScenarioTests.kind(message) == kind else { return true }
            seen += 1
            if seen == count { world.crash(3) }
            return true
        }
        world.run(milliseconds: 200)
        world.onSend = nil
        let survivors = world.nodes[3].isAlive ? [0, 1, 2, 3] : [0, 1, 2]
        world.expect(survivors, within: barOfLoss)
        world.start(3)
        world.expect([0, 1, 2, 3], within: 3_000)
    }

    private static func kind(_ message: ViewMessage) -> Int {
        switch message {
        case .ask: 0
        case .answer: 1
        case .propose: 2
        case .accept: 3
        case .refuse: 4
        case .working: 5
        case .bundle: 6
        case .prepared, .failed, .void: 7
        case .open: 8
        }
    }

    /// What a large cluster costs: figures for the reader, and one view whatever the size. 256 nodes if `APUS_LARGE` is set:
    /// that takes ten seconds.
    @Test(arguments: getenv("APUS_LARGE") == nil ? [64] : [64, 256]) func manyNodesForm(count: Int) {
        let world = ViewWorld.traced(count) { $0.views.heartbeatIntervalMilliseconds = 150 }
        world.trace = nil
        var (messages, bytes) = (0, 0)
        world.onEffect = { _, effect in
            if case .send(_, let body) = effect {
                messages += 1
                bytes += body.count
            }
        }
        let begin = world.now
        world.nodes.indices.forEach { world.start($0) }
        world.expect(Array(world.nodes.indices), within: 20_000)
        print("\(count) nodes: one view after \((world.now - begin) / 1_000_000) ms, \(messages) messages, "
            + "\(bytes) bytes, number \(world.nodes[0].views!.accepted)")
        (messages, bytes) = (0, 0)
        world.crash(count - 1)
        let killed = world.now
        world.expect(Array(0..<(count - 1)), within: 3_000)
        print("\(count) nodes: without the largest after \((world.now - killed) / 1_000_000) ms, \(messages) messages, "
            + "\(bytes) bytes")
    }
}
