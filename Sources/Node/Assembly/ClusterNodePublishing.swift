// What other threads see of the cluster, made anew whenever it changes.
internal import Base
internal import Fabric
internal import Membership
internal import Partitions

/// Generations and serials of snapshots.
struct Publishing {
    var serial: UInt64 = 0
    /// The highest serial that every reactor goes by.
    var confirmed: UInt64 = 0
    var partitionGeneration: UInt64 = 0
    var peersGeneration: UInt64 = 0
    var rebalanceGeneration: UInt64 = 0

    /// A view opens with this map. `isBack`: nothing was served before, and clients may have been told so.
    mutating func count(_ new: ReadyMap, after old: ReadyMap?, isBack: Bool) {
        rebalanceGeneration += 1
        if isBack || old?.map.maps != new.map.maps { partitionGeneration += 1 }
        if old.map({ $0.peers != new.peers }) ?? !new.peers.isEmpty { peersGeneration += 1 }
    }
}

extension ClusterNode {
    mutating func publish(_ wanted: ClusterPhase) {
        // What was said to be whole does not change any more.
        let phase = isStoringLast ? .orphan : wanted
        publishing.serial += 1
        if phase == .orphan, let snapshot, snapshot.phase != .orphan { publishing.partitionGeneration += 1 }
        let new = ClusterSnapshot(
            serial: publishing.serial, phase: phase, view: views.view, partitionGeneration: publishing.partitionGeneration,
            peersGeneration: publishing.peersGeneration, rebalanceGeneration: publishing.rebalanceGeneration,
            bundle: map?.map, peers: map?.peers ?? [], duplicateNodes: heartbeat.duplicateNodes, problems: problems)
        snapshot = new
        out.append(.publish(new))
    }

    private var problems: [String] {
        var sentences = standing.sentences
        sentences += heartbeat.problems
        sentences += links.problems
        sentences += map?.map.problems ?? []
        return sentences.map { oneSentence($0) }
    }

    /// What is wrong may change without a view.
    mutating func publishWhatChanged() {
        lookAround()
        let problems = self.problems
        guard let snapshot else {
            // There was no view yet, and this may be why.
            if !problems.isEmpty { publish(.orphan) }
            return
        }
        guard snapshot.duplicateNodes != heartbeat.duplicateNodes || snapshot.problems != problems else { return }
        publish(snapshot.phase)
    }

    /// Counters and gauges at this moment.
    package var figures: ClusterFigures {
        var figures = ClusterFigures()
        figures.isIntact = views.isIntact
        figures.waitingFor = views.waitingFor
        figures.nodesOutside = standing.nodesOutside
        let clocks = heartbeat.clocks(skewMax: ClusterNode.clockSkewMillisecondsMax)
        figures.clockSkewMilliseconds = clocks.skewMilliseconds
        figures.clockSkewOutliers = clocks.outliers
        figures.heartbeatConnections = UInt64(heartbeat.statistics.connections)
        figures.heartbeatReceivedSelf = heartbeat.statistics.receivedSelf
        figures.heartbeatReceivedForeign = heartbeat.statistics.receivedForeign
        figures.fabricConnections = UInt64(links.statistics.connections)
        figures.isQuiescePending = isQuiesced
        figures.heartbeatOpened = heartbeat.statistics.connectionsOpened
        figures.heartbeatClosed = heartbeat.statistics.connectionsClosed
        figures.fabricOpened = links.statistics.connectionsOpened
        figures.fabricClosed = links.statistics.connectionsClosed
        figures.fabricTraffic = links.statistics.traffic
        figures.fabricPeers = links.peers
        return figures
    }

    private static let clockSkewMillisecondsMax: UInt64 = 10_000
}
