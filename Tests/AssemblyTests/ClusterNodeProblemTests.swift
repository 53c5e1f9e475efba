import Assembly
import Base
import Fabric
import Membership
import Metadata
import Testing

/// What a node says of nodes that should be in its view and are not.
@Suite struct ClusterNodeProblemTests {
    private func problems(_ world: HandDriven, _ node: Int) -> [String] { world.nodes[node].snapshots.last?.problems ?? [] }
    private func outside(_ world: HandDriven, _ node: Int) -> [UInt64] {
        world.nodes[node].machine.figures.nodesOutside.map(\.rawValue)
    }

    @Test func aWholeClusterHasNoProblems() throws {
        let world = try HandDriven(count: 4)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        world.run(for: 10_000)
        for node in 0..<4 { #expect(problems(world, node).isEmpty && outside(world, node).isEmpty) }
    }

    /// Heard, and not to be reached on the fabric: two views, and each says why.
    @Test(arguments: [0, 1, 2]) func aWrongFabricAddressIsNamed(wrong: Int) throws {
        let world = try HandDriven(count: 3)
        world.withWrongFabric = [wrong]
        world.run(for: 30_000)
        let others = (0..<3).filter { $0 != wrong }
        let id = UInt64(0xA0 + wrong)
        for node in others {
            #expect(problems(world, node).count == 1 && outside(world, node) == [id], "\(problems(world, node))")
            let begin = "node \(NodeID(rawValue: id)) is heard, but its fabric port is not reached at"
                + " 10.0.0.\(wrong + 1):3001: nobody is there"
            #expect(problems(world, node).first?.hasPrefix(begin) == true)
        }
        #expect(problems(world, wrong).filter { $0.contains("does not reach the fabric port of this node") }.count == 2)
        // Nothing flaps.
        let before = world.nodes.map { Set($0.snapshots.suffix(1).flatMap(\.problems)) }
        let counts = world.nodes.map(\.snapshots.count)
        world.run(for: 60_000)
        for node in 0..<3 {
            let said = Set(world.nodes[node].snapshots[counts[node]...].flatMap(\.problems))
            #expect(said.subtracting(before[node]).isEmpty, "\(said)")
        }
        world.withWrongFabric = []
        #expect(world.run(for: 30_000) { $0.areOpenTogether() })
        world.run(for: 5_000)
        for node in 0..<3 { #expect(problems(world, node).isEmpty && outside(world, node).isEmpty) }
    }

    @Test func aMissingLinkIsNamedByAll() throws {
        let world = try HandDriven(count: 5)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        world.cut(0, 4)
        world.run(for: 20_000)
        for node in 1...3 {
            #expect(problems(world, node) == [
                "node A0 is heard, but is not in the view of this node: it lacks a link to A4"
            ])
            #expect(outside(world, node) == [0xA0])
        }
        #expect(outside(world, 4) == [0xA0])
        #expect(problems(world, 4).first?.hasPrefix("node A0 is heard by A1, A2 and A3, and not by this node") == true)
        #expect(world.nodes[0].phase == .orphan)
        #expect(problems(world, 0).first?.hasPrefix("this node belongs to no view: ") == true, "\(problems(world, 0))")
        #expect(problems(world, 0).contains { $0.hasPrefix("node A4 is heard by A1, A2 and A3, and not by this node") })
        world.heal()
        #expect(world.run(for: 30_000) { $0.areOpenTogether() })
        world.run(for: 5_000)
        for node in 0..<5 { #expect(problems(world, node).isEmpty && outside(world, node).isEmpty) }
    }

    @Test func whoIsInNoViewSaysWhyAndRefusesChangesAtOnce() throws {
        let world = try HandDriven(count: 2, minClusterSize: 2)
        world.cut(0, 1)
        world.run(for: 5_000)
        #expect(problems(world, 0) == [
            "this node belongs to no view: there are 1 nodes, min-cluster-size is 2",
            "seed 10.0.0.2:3002 was not reached since the start: nobody is there",
        ])
        let change = MetadataChange(.truncate, MetadataKey([Array("test".utf8)]), .value("1"))
        world.give(0, .changeMetadata(token: 1, [change], time: 1))
        guard case .refused(let reason) = world.nodes[0].metadataAnswers.first else {
            Issue.record("not refused")
            return
        }
        #expect(reason == "nothing has changed: this node belongs to no view: there are 1 nodes, min-cluster-size is 2")
        world.heal()
        #expect(world.run(for: 20_000) { $0.areOpenTogether() })
        #expect(problems(world, 0).isEmpty, "at once")
    }

    /// `cluster-problems` has a `;` between sentences, and names of foreign clusters may be anything.
    @Test func whatStrangersSayStaysOneSentence() throws {
        let world = try HandDriven(count: 1)
        let stream = StreamID.accepted(900)
        world.give(0, .heartbeat(.accepted(stream, from: Address(host: "10.9.9.9", port: 5))))
        let hello = Hello(
            member: Member(id: NodeID(rawValue: 0xB0), incarnation: 1), port: .heartbeat, stream: 1,
            clusterName: "gr;een\nA", addresses: NodeAddresses(heartbeat: [], fabric: []))
        world.give(0, .heartbeat(.received(stream, hello.frame)))
        world.run(for: 200)
        #expect(problems(world, 0).count == 1 && problems(world, 0)[0].contains("'gr,een A'"), "\(problems(world, 0))")
    }
}
