import Base
import Fabric
import Membership
import Testing
import TestSupport

/// Starts, disks, disagreements, old messages.
struct ViewTroubleTests {
    private func formed(_ count: Int, _ change: (inout ViewWorldSettings) -> Void = { _ in }) -> ViewWorld {
        var settings = ViewWorldSettings(nodes: count)
        settings.views.startWaitMilliseconds = 15_000
        settings.views.startWaitMaxMilliseconds = 60_000
        change(&settings)
        let world = ViewWorld(settings, seed: runSeed("views"))
        world.trace = []
        world.nodes.indices.forEach { world.start($0) }
        expect(world, Array(world.nodes.indices), within: 5_000)
        world.run(milliseconds: 500)
        return world
    }

    private func expect(_ world: ViewWorld, _ places: [Int], within milliseconds: Double, _ line: Int = #line) {
        let isOne = world.run(milliseconds: milliseconds) { world.isOneView(places) }
        let text = (world.oracle.violation ?? "no violation") + "\n" + world.trace!.suffix(60).joined(separator: "\n")
        let place = SourceLocation(fileID: #fileID, filePath: #filePath, line: line, column: 1)
        #expect(isOne && world.oracle.violation == nil, Comment(rawValue: text), sourceLocation: place)
    }

    private func restart(_ world: ViewWorld, _ places: [Int]) {
        world.living.forEach { world.crash($0) }
        world.run(milliseconds: 1_000)
        places.forEach { world.start($0) }
    }

    @Test func aWholeClusterRestartsAtOnce() {
        let world = formed(3)
        restart(world, [0, 1, 2])
        expect(world, [0, 1, 2], within: 1_500)
    }

    @Test func aMajorityWaitsFifteenSeconds() {
        let world = formed(3)
        restart(world, [0, 1])
        world.run(milliseconds: 14_500)
        #expect(world.nodes[0].views!.phase == .orphan && world.nodes[1].views!.phase == .orphan)
        #expect(world.nodes[1].views!.waitingFor == [NodeID(rawValue: 3)])
        let lines = world.nodes[1].lines.count { $0.contains("waits for nodes of the last view: 3 missing") }
        #expect(lines >= 6, "every 2 s, \(lines) times")
        expect(world, [0, 1], within: 3_000)
    }

    @Test func aMinorityWaitsSixtySeconds() {
        let world = formed(3)
        restart(world, [1])
        world.run(milliseconds: 59_000)
        #expect(world.nodes[1].views!.phase == .orphan)
        expect(world, [1], within: 2_000)
    }

    @Test func aNodeThatFindsAClusterJoinsAtOnce() {
        let world = formed(3)
        world.crash(2)
        expect(world, [0, 1], within: 1_500)
        world.crash(1)
        world.run(milliseconds: 1_000)
        world.start(2)
        expect(world, [0, 2], within: 1_500)
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
        expect(world, [0, 1, 2], within: 2_000)
    }

    @Test func fewerThanTheLeastAreNoCluster() {
        let world = formed(3) { $0.views.minClusterSize = 2 }
        world.crash(2)
        expect(world, [0, 1], within: 1_500)
        world.crash(1)
        #expect(world.run(milliseconds: 1_500) { world.nodes[0].views!.phase == .orphan })
        #expect(world.nodes[0].lines.contains { $0.contains("min-cluster-size is 2") })
        world.run(milliseconds: 10_000)
        #expect(world.nodes[0].views!.phase == .orphan)
        world.start(1)
        expect(world, [0, 1], within: 20_000)
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
        expect(world, [0, 1, 2], within: 9_000)
    }

    @Test(arguments: [0, 1, 2]) func aStoreThatNeverAnswersStopsOnlyItsNode(node: Int) {
        let world = formed(3)
        world.nodes[node].storeStuck = true
        world.step(2, .recluster(token: 1))
        let others = [0, 1, 2].filter { $0 != node }
        expect(world, others, within: 9_000)
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
        expect(world, [0, 1, 2], within: 15_000)
    }

    @Test(arguments: [0, 1, 2]) func aNodeThatCannotPrepareIsLeftOut(node: Int) {
        let world = formed(3)
        world.nodes[node].prepareFails = true
        world.step(2, .recluster(token: 1))
        let others = [0, 1, 2].filter { $0 != node }
        expect(world, others, within: 2_000)
        let number = world.nodes[others[0]].views!.view!.mark.number
        world.run(milliseconds: 60_000)
        let after = world.nodes[others[0]].views!.view!.mark.number
        #expect(after < number + 12, "it asks to be left out, for longer and longer")
        expect(world, others, within: 2_000)
        world.nodes[node].prepareFails = false
        expect(world, [0, 1, 2], within: 66_000)
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
        expect(world, [0, 1, 2, 3], within: 1_500)
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
        expect(world, [0, 1, 2, 3], within: 12_000)
    }
}
