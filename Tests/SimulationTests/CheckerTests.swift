// Every checker finds what it is for: snapshots are made by hand, each wrong in one way.
@testable import Simulation
import Assembly
import Base
import Fabric
import Membership
import Partitions
import Testing

/// Says nothing and does nothing.
private final class Mute: SimulatedProcess {
    func step(_ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]) {}
    var deadline: Instant { .never }
}

/// A world of mute nodes, for which the test publishes.
private struct Stage {
    let world: World
    var serials: [UInt64]

    init(nodes: Int = 3, adjust: (inout RunOptions) -> Void = { _ in }) {
        var options = RunOptions()
        options.nodes = nodes
        adjust(&options)
        world = World(seed: 1, options: options) { _ in Mute() }
        for node in 0..<nodes { world.start(node) }
        serials = Array(repeating: 0, count: nodes)
    }

    func view(_ number: UInt64, key: UInt64? = nil, _ nodes: [Int], proposer: Int? = nil) -> View {
        let members = nodes.map { world.nodes[$0].member }.sorted { $0.id > $1.id }
        return View(
            mark: ViewMark(number: number, key: key ?? number + 1000), members: members,
            proposer: proposer.map { world.nodes[$0].id } ?? members[0].id)
    }

    mutating func snapshot(
        _ node: Int, _ phase: ClusterPhase, _ view: View?, maps: [NamespaceMap] = [], hash: UInt64 = 7,
        generation: UInt64? = nil
    ) -> Publication {
        serials[node] += 1
        let snapshot = ClusterSnapshot(
            serial: serials[node], phase: phase, view: view, partitionGeneration: generation ?? serials[node],
            peersGeneration: 1, rebalanceGeneration: 1, bundle: nil, peers: [], duplicateNodes: [], problems: [])
        return Publication(snapshot, maps: maps, mapHash: hash)
    }

    /// What the checkers say of it; the node goes by it from then on.
    mutating func publish(_ node: Int, _ snapshot: Publication) -> String? {
        let found = world.checkers.published(node, snapshot, world: world)
        world.nodes[node].effective = snapshot.snapshot
        return found?.rule
    }

    mutating func open(_ node: Int, _ view: View, maps: [NamespaceMap] = [], hash: UInt64 = 7) -> String? {
        publish(node, snapshot(node, .open, view, maps: maps, hash: hash))
    }

    mutating func freeze(_ node: Int) -> String? { publish(node, snapshot(node, .frozen, nil)) }
}

/// A map of two copies: partition p on nodes p and p + 1, counted round.
private func map(
    _ stage: Stage, _ nodes: [Int], racks: [UInt32]? = nil, regime: UInt32 = 1, change: (inout [UInt16]) -> Void = { _ in }
) -> NamespaceMap {
    let count = nodes.count
    let copies = min(2, count)
    var replicas: [UInt16] = []
    for column in 0..<copies { for partition in 0..<4096 { replicas.append(UInt16((partition + column) % count)) } }
    change(&replicas)
    return NamespaceMap(
        name: "space0", nodes: nodes.map { stage.world.nodes[$0].id }.sorted(),
        racks: racks ?? Array(repeating: 0, count: count), quiesced: Array(repeating: false, count: count), copies: copies,
        replicas: replicas, actingMasters: Array(replicas[..<4096]),
        epochs: Array(repeating: Epoch(regime: regime, viewKey: 5), count: 4096), duplicates: [], fills: [])
}

@Suite struct CheckerTests {
    @Test func aGoodCourseHolds() {
        var stage = Stage()
        let first = stage.view(1, [0, 1, 2])
        for node in 0..<3 { #expect(stage.open(node, first, maps: [map(stage, [0, 1, 2])]) == nil) }
        for node in 0..<2 { #expect(stage.freeze(node) == nil) }
        let second = stage.view(2, [0, 1])
        for node in 0..<2 { #expect(stage.open(node, second, maps: [map(stage, [0, 1], regime: 2)]) == nil) }
    }

    @Test func oneKeyHasOneListOfMembers() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(1, [0, 1, 2])) == nil)
        #expect(stage.open(1, stage.view(1, [0, 1])) == "M1")
    }

    @Test func oneKeyHasOneProposer() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(1, [0, 1, 2], proposer: 0)) == nil)
        #expect(stage.open(1, stage.view(1, [0, 1, 2], proposer: 1)) == "M2")
    }

    @Test func aKeyIsNotUsedAgain() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(1, key: 9, [0, 1, 2])) == nil)
        #expect(stage.open(1, stage.view(2, key: 9, [0, 1, 2])) == "M3")
    }

    @Test func oneKeyHasOneMap() {
        var stage = Stage()
        let view = stage.view(1, [0, 1, 2])
        #expect(stage.open(0, view, hash: 1) == nil)
        #expect(stage.open(1, view, hash: 2) == "maps")
        let other = stage.view(2, [0, 1])
        for node in 0...1 { #expect(stage.freeze(node) == nil) }
        #expect(stage.open(0, other, maps: [map(stage, [0, 1], regime: 1)], hash: 3) == nil)
        #expect(stage.open(1, other, maps: [map(stage, [0, 1], regime: 2)], hash: 3) == "maps")
    }

    @Test func aViewIsOfThoseThatRun() {
        var stage = Stage()
        let view = stage.view(1, [0, 1])
        let strange = View(
            mark: view.mark, members: view.members + [Member(id: NodeID(rawValue: 1), incarnation: 5)],
            proposer: view.proposer)
        #expect(stage.open(0, strange) == "view")
        #expect(stage.open(2, view) == "view")
        let upside = View(mark: view.mark, members: view.members.reversed(), proposer: view.proposer)
        #expect(stage.open(0, upside) == "view")
    }

    @Test func nobodyIsLeftBehindOpen() {
        var stage = Stage()
        let first = stage.view(1, [0, 1, 2])
        for node in 0..<3 { #expect(stage.open(node, first) == nil) }
        #expect(stage.freeze(0) == nil)
        // Node 1 has not been told, and would still serve by the old key.
        #expect(stage.open(0, stage.view(2, [0, 1])) == "fence")
    }

    @Test func aSnapshotOnItsWayCountsAsOpen() {
        var stage = Stage()
        let first = stage.view(1, [0, 1])
        #expect(stage.open(0, first) == nil)
        #expect(stage.open(1, first) == nil)
        let frozen = stage.snapshot(1, .frozen, first)
        #expect(stage.world.checkers.published(1, frozen, world: stage.world) == nil)
        stage.world.nodes[1].pending.append(frozen.snapshot)
        #expect(stage.freeze(0) == nil)
        #expect(stage.open(0, stage.view(2, [0, 1])) == "fence")
    }

    @Test func nobodyReturns() {
        var stage = Stage()
        let first = stage.view(1, [0])
        #expect(stage.open(0, first) == nil)
        #expect(stage.open(0, first) == nil, "the same view with other peers is no return")
        #expect(stage.freeze(0) == nil)
        #expect(stage.open(0, first) == "fence")
        #expect(stage.open(0, stage.view(5, [0])) == nil)
        #expect(stage.freeze(0) == nil)
        #expect(stage.open(0, stage.view(4, [0])) == "fence")
    }

    @Test func numbersRiseAcrossARestart() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(5, [0])) == nil)
        stage.world.crash(0, isPower: false)
        stage.world.start(0)
        stage.serials[0] = 0
        #expect(stage.open(0, stage.view(5, key: 77, [0])) == "fence")
    }

    @Test func nobodyOpensAnOlderViewThanOthersHaveWithIt() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(2, [0, 1])) == nil)
        #expect(stage.open(1, stage.view(1, [1])) == "fence")
    }

    @Test func oneNumberIsOneViewForAMember() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(3, key: 5, [0, 2])) == nil)
        #expect(stage.open(1, stage.view(3, key: 6, [1])) == nil, "they share no member")
        var other = Stage()
        #expect(other.open(0, other.view(3, key: 5, [0, 2])) == nil)
        #expect(other.open(1, other.view(3, key: 6, [1, 2])) == "M3")
    }

    @Test func whatClientsCompareOnlyGrows() {
        var stage = Stage()
        let view = stage.view(1, [0, 1])
        #expect(stage.publish(0, stage.snapshot(0, .open, view, generation: 5)) == nil)
        #expect(stage.publish(0, stage.snapshot(0, .open, view, generation: 4)) == "growth")
        stage.serials[0] = 1
        #expect(stage.publish(0, stage.snapshot(0, .open, view, generation: 6)) == "growth")
        // New maps, the same generation.
        #expect(stage.publish(1, stage.snapshot(1, .frozen, nil, generation: 6)) == nil)
        let news = stage.snapshot(1, .frozen, nil, maps: [map(stage, [0, 1])], generation: 6)
        #expect(stage.publish(1, news) == "growth")
    }

    @Test func copiesAreApart() {
        let wrong: [(Stage) -> NamespaceMap] = [
            { map($0, [0, 1, 2]) { $0[4096 + 17] = $0[17] } },
            // Racks 1, 1, 2: partition 0 is on nodes 0 and 1.
            { map($0, [0, 1, 2], racks: [1, 1, 2]) },
            { map($0, [0, 1, 2]) { $0[5] = 9 } },
        ]
        for make in wrong {
            var stage = Stage(adjust: { $0.isUniform = 0 })
            #expect(stage.open(0, stage.view(1, [0, 1, 2]), maps: [make(stage)]) == "P2")
        }
    }

    @Test func mastersAreSpread() {
        var stage = Stage()
        let leaning = map(stage, [0, 1, 2]) { replicas in
            for partition in [1, 4] { replicas.swapAt(partition, 4096 + partition) }
        }
        #expect(stage.open(0, stage.view(1, [0, 1, 2]), maps: [leaning]) == "P3")
    }

    @Test func regimesOnlyGrow() {
        var stage = Stage()
        #expect(stage.open(0, stage.view(1, [0, 1]), maps: [map(stage, [0, 1], regime: 3)]) == nil)
        #expect(stage.freeze(0) == nil)
        stage.world.crash(0, isPower: true)
        stage.world.start(0)
        #expect(stage.open(0, stage.view(2, [0, 1]), maps: [map(stage, [0, 1], regime: 2)]) == "P4")
        // With its disk a node may forget.
        stage.world.checkers.wiped(0)
        #expect(stage.open(0, stage.view(3, [0, 1]), maps: [map(stage, [0, 1], regime: 2)]) == nil)
    }

    @Test func answersAreToQuestions() {
        let stage = Stage()
        #expect(stage.world.checkers.answered(stage.world.nodes[0], 1, "ok")?.rule == "answers")
        stage.world.nodes[0].nextToken = 1
        #expect(stage.world.checkers.answered(stage.world.nodes[0], 1, "ok") == nil)
        #expect(stage.world.checkers.answered(stage.world.nodes[0], 1, "ok")?.rule == "answers")
    }

    @Test func anAuditIsHeardOncePerView() {
        var stage = Stage()
        var audits = 0
        stage.world.checkers.audit = { _ in
            audits += 1
            return audits == 2 ? Violation("P1", "differs") : nil
        }
        let first = stage.view(1, [0, 1])
        #expect(stage.open(0, first) == nil)
        #expect(stage.open(1, first) == nil)
        #expect(audits == 1)
        #expect(stage.open(2, stage.view(2, [2])) == "P1")
    }
}
