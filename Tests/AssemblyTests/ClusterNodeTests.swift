import Assembly
import Base
import Fabric
import Membership
import Metadata
import Partitions
import Testing

/// The wiring of the machines of one node: what it shows to clients, and what it has on disk, at every moment.
@Suite struct ClusterNodeTests {
    /// It serves nothing and cannot know what others have written since: not while it agrees on a view, either.
    @Test func aNodeWithoutAViewReadsNothingFromItsOldMap() throws {
        let world = try HandDriven(count: 2, minClusterSize: 2)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        world.cut(0, 1)
        #expect(world.run(for: 5_000) { $0.nodes[0].phase == .orphan && $0.nodes[1].phase == .orphan })
        world.heal()
        world.nodes[0].areReactorsHeld = true
        let before = world.nodes[0].snapshots.count
        #expect(world.run(for: 20_000) { $0.nodes[0].snapshots.count > before }, "it accepts a view")
        #expect(world.nodes[0].snapshots[before...].allSatisfy { $0.phase == .orphan })
        // Nor when the view comes to nothing.
        world.cut(0, 1)
        world.run(for: 60_000)
        #expect(world.nodes[0].snapshots[before...].allSatisfy { $0.phase == .orphan })
    }

    /// A client that asks while nothing is served gets empty maps: it has to ask again when there is something.
    @Test func clientsAreToldWhenANodeStopsServingAndServesAgain() throws {
        let world = try HandDriven(count: 2, minClusterSize: 2)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        let open = try #require(world.nodes[0].snapshots.last)
        world.cut(0, 1)
        #expect(world.run(for: 5_000) { $0.nodes[0].phase == .orphan && $0.nodes[1].phase == .orphan })
        let orphan = try #require(world.nodes[0].snapshots.last)
        #expect(orphan.partitionGeneration > open.partitionGeneration)
        world.heal()
        #expect(world.run(for: 20_000) { $0.areOpenTogether() })
        let again = try #require(world.nodes[0].snapshots.last)
        #expect(again.maps == open.maps, "nothing has changed but that there was no view")
        #expect(again.partitionGeneration > orphan.partitionGeneration)
    }

    /// A view is prepared while a node that leaves says that its copies are whole.
    @Test func aNodeThatHasStoppedServingPreparesNoView() throws {
        let world = try HandDriven(count: 2)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        let number = try #require(world.nodes[1].snapshots.last?.view?.mark.number)
        world.give(0, .leave)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() && $0.nodes[0].snapshots.last?.view?.mark.number != number })
        world.run(for: 1_900)
        world.nodes[0].arePartitionsHeld = true
        world.give(1, .command(token: 1, .recluster))
        #expect(world.nodes[1].answers == ["ok"])
        #expect(world.run(for: 60) { $0.nodes[0].stores.count == 1 })
        #expect(world.nodes[0].phase == .frozen)
        #expect(world.run(for: 200) { $0.nodes[0].phase == .orphan })
        let stopped = world.nodes[0].snapshots.count
        world.releaseStore(0)
        world.run(for: 100)
        while !world.nodes[0].stores.isEmpty { world.releaseStore(0) }
        #expect(world.nodes[0].hasLeft)
        #expect(world.nodes[0].snapshots[(stopped - 1)...].allSatisfy { $0.phase == .orphan })
        let shared = try #require(world.nodes[1].snapshots.last { $0.phase == .open && $0.view?.members.count == 2 })
        let records = try world.nodes[0].records
        #expect(records.allSatisfy { !$0.isOpen })
        let forgotten = records.indices.filter { records[$0].remembered.rawValue < shared.maps[0].epochs[$0].rawValue }
        #expect(forgotten.isEmpty, "a view was opened with this node, and its disk does not know the epochs")
    }

    // ---- Another id ----

    /// What a node waits for at its start that had stored a view of these nodes as node A1, and is CC now.
    private func waitingFor(_ members: [UInt64], isRenamed: Bool = true) throws -> (nodes: [NodeID], ClusterPhase?) {
        let world = try HandDriven([Self.empty]) { boot, _ in
            boot.me = Member(id: NodeID(rawValue: 0xCC), incarnation: 5)
            boot.formerID = isRenamed ? NodeID(rawValue: 0xA1) : nil
            let all = members.map { Member(id: NodeID(rawValue: $0), incarnation: 3) }
            let view = View(mark: ViewMark(number: 7, key: 9), members: all, proposer: all[0].id)
            boot.storedView = StoredView(accepted: 7, last: view).bytes
        }
        world.run(for: 1_000)
        return (world.nodes[0].machine.figures.waitingFor, world.nodes[0].phase)
    }

    /// The id of before does not come back; the others do. Later views have the new id.
    @Test func aNodeWithAnotherIDWaitsForTheOthersOnly() throws {
        let others = try waitingFor([0xA2, 0xA1, 0xA0])
        #expect(others.nodes.map(\.rawValue) == [0xA2, 0xA0] && others.1 != .open)
        let nobody = try waitingFor([0xA1])
        #expect(nobody.nodes.isEmpty && nobody.1 == .open)
        #expect(try waitingFor([0xCC, 0xA1]).nodes.map(\.rawValue) == [0xA1], "that is another node now")
        #expect(try waitingFor([0xA1], isRenamed: false).nodes.map(\.rawValue) == [0xA1])
    }

    // ---- Operators ----

    @Test func whatOperatorsAskForIsInTheLog() throws {
        let world = try HandDriven(count: 1)
        func logged(_ command: ClusterCommand) -> [String] {
            world.nodes[0].log = []
            world.give(0, .command(token: 1, command))
            return world.nodes[0].log.map(\.text)
        }
        let seed = SeedName(host: "10.9.0.1", port: 3002)
        #expect(logged(.quiesce(true)).contains { $0.hasPrefix("quiesce: ") })
        #expect(logged(.quiesce(false)).contains { $0.hasPrefix("quiesce-undo: ") })
        #expect(logged(.tip(seed)).contains { $0.hasPrefix("tip: 10.9.0.1:3002 ") })
        #expect(!logged(.tip(seed)).contains { $0.hasPrefix("tip: ") }, "it is one already")
        #expect(logged(.tipClear([])).contains("tip-clear: no seeds any more: 10.9.0.1:3002"))
        #expect(logged(.tipClear([])).contains { $0.hasPrefix("tip-clear: no seed is") })
    }

    @Test func streamsAndBytesAreCounted() throws {
        let world = try HandDriven(count: 2)
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        world.run(for: 200)
        let figures = world.nodes.map(\.machine.figures)
        for one in figures {
            #expect(one.fabricOpened == one.fabricClosed + one.fabricConnections && one.fabricConnections > 0)
            #expect(one.heartbeatOpened == one.heartbeatClosed + one.heartbeatConnections && one.heartbeatConnections > 0)
        }
        #expect(figures[0].fabricPeers.map(\.member) == [world.nodes[1].me])
        #expect(figures[0].fabricTraffic.controlSent > 0)
        #expect(figures[0].fabricTraffic.controlSent == figures[1].fabricTraffic.controlReceived)
        world.give(0, .changeMetadata(token: 1, [
            MetadataChange(.evict, MetadataKey([Array("test".utf8)]), .value("5"))
        ], time: 1))
        world.run(for: 200)
        let later = world.nodes.map(\.machine.figures.fabricTraffic)
        #expect(later[0].metadataSent > figures[0].fabricTraffic.metadataSent)
        #expect(later[0].metadataSent == later[1].metadataReceived)
        #expect(later[1].metadataSent == later[0].metadataReceived && later[1].controlSent == later[0].controlReceived)
    }

    // ---- Records of a version that knew no clusters ----

    private static func filled(_ partitions: Range<Int>) -> StoredPartitions {
        StoredPartitions(
            namespace: "test", metadata: [], isFilled: (0..<PartitionID.count).map { partitions.contains($0) })
    }

    private static let empty = StoredPartitions(namespace: "test", metadata: [])

    @Test func recordsWithoutMetadataAreServedByWhoHasThem() throws {
        let world = try HandDriven([Self.filled(0..<1000), Self.empty])
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        let map = try #require(world.nodes[1].map)
        #expect((0..<1000).allSatisfy { map.actingMaster($0) == world.nodes[0].me.id })
        let filled = map.fills.filter { $0.partition.number < 1000 }
        #expect(filled.count == 1000 && filled.allSatisfy { $0.nodes == [1] }, "the other one has to get them")
        let kept = try world.nodes[0].records
        #expect(kept[..<1000].allSatisfy { $0.version?.isFull == true && $0.version?.ancestors.last?.regime == 1 })
    }

    /// Others have served the partition meanwhile: they go on, and merge what this node has.
    @Test func recordsWithoutMetadataAreMergedIntoWhatOthersServe() throws {
        let version = PartitionVersion(epoch: Epoch(regime: 9, viewKey: 5))
        let served = PartitionRecord.encode(
            Array(repeating: PartitionRecord(version: version), count: PartitionID.count))
        let world = try HandDriven([Self.filled(0..<1000), StoredPartitions(namespace: "test", metadata: served)])
        #expect(world.run(for: 5_000) { $0.areOpenTogether() })
        let map = try #require(world.nodes[1].map)
        #expect((0..<PartitionID.count).allSatisfy { map.actingMaster($0) == world.nodes[1].me.id })
        #expect(map.duplicates.map(\.partition.number) == Array(0..<1000))
        #expect(map.duplicates.allSatisfy { $0.nodes == [0] })
    }

    /// What was stored since counts: an empty partition may have been filled by an operator who copied files.
    @Test func storedMetadataCountsMoreThanRecords() throws {
        let version = PartitionVersion(epoch: Epoch(regime: 9, viewKey: 5))
        let stored = PartitionRecord.encode(
            (0..<PartitionID.count).map { PartitionRecord(version: $0 < 10 ? version : nil, remembered: version.epoch) })
        let world = try HandDriven([
            StoredPartitions(
                namespace: "test", metadata: stored, isFilled: Array(repeating: true, count: PartitionID.count)),
        ])
        #expect(world.run(for: 5_000) { $0.nodes[0].phase == .open })
        #expect(try world.nodes[0].records[0].version?.ancestors.contains(version.epoch) == true)
        #expect(try world.nodes[0].records[20].version?.ancestors.isEmpty == true)
    }
}
