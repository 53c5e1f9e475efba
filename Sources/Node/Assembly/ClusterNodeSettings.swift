// Settings of a node as its machines want them.
internal import Base
internal import Fabric
internal import Membership
internal import Metadata
internal import Partitions

extension HeartbeatBoot {
    var tunables: HeartbeatTunables {
        HeartbeatTunables(
            intervalMilliseconds: intervalMilliseconds, timeoutIntervals: timeoutIntervals,
            connectTimeoutMilliseconds: connectTimeoutMilliseconds, datagramSizeMax: datagramSizeMax)
    }
}

extension ClusterSettings {
    /// A lone node waits for nobody.
    var viewSettings: ViewSettings {
        let isAlone = heartbeat.mode == .alone
        return ViewSettings(
            minClusterSize: isAlone ? 1 : minClusterSize,
            heartbeatIntervalMilliseconds: isAlone ? 1 : heartbeat.intervalMilliseconds,
            heartbeatTimeoutIntervals: heartbeat.timeoutIntervals, startWaitMilliseconds: startWaitMilliseconds,
            startWaitMaxMilliseconds: startWaitMaxMilliseconds)
    }
}

extension ClusterBoot {
    var heartbeatSettings: HeartbeatSettings {
        HeartbeatSettings(
            mode: settings.heartbeat.mode == .multicast ? .multicast : .mesh, tunables: settings.heartbeat.tunables,
            clusterName: settings.clusterName, seeds: settings.heartbeat.seeds, addresses: addresses)
    }

    var linkSettings: FabricLinksSettings {
        FabricLinksSettings(
            clusterName: settings.clusterName, addresses: addresses,
            connectTimeoutMilliseconds: settings.heartbeat.connectTimeoutMilliseconds,
            timeoutMilliseconds: settings.heartbeat.intervalMilliseconds * settings.heartbeat.timeoutIntervals)
    }

    /// What an earlier process knew of views. A lone node does not ask where the others are.
    func readView() throws(ClusterBootError) -> StoredView? {
        guard let storedView else { return nil }
        do throws(FabricError) {
            var stored = try StoredView(storedView)
            if settings.heartbeat.mode == .alone { stored.last = nil }
            stored.last = stored.last.flatMap { withoutFormerSelf($0) }
            return stored
        } catch {
            throw ClusterBootError("\(error). Restore it from a copy; or move it away if the node before it has stopped for"
                + " good, or all nodes of the cluster are stopped")
        }
    }

    /// A view that this node stored has this node: one that has not is of the time when it had another id. Under that it
    /// does not come back, and waits for the others only. Nil if there are none.
    private func withoutFormerSelf(_ view: View) -> View? {
        guard let formerID, !view.members.contains(where: { $0.id == me.id }) else { return view }
        let others = view.members.filter { $0.id != formerID }
        return others.isEmpty ? nil : View(mark: view.mark, members: others, proposer: view.proposer)
    }
}

extension NamespaceClusterSettings {
    /// What the node hands in of this namespace.
    func block(records: [PartitionRecord], isQuiesced: Bool) -> NamespaceBlock {
        NamespaceBlock(
            name: name, records: records, rackID: rackID, replicationFactor: UInt16(clamping: replicationFactor),
            prefersUniformBalance: prefersUniformBalance, activeRack: activeRack, isQuiesced: isQuiesced,
            conflictPolicy: conflictPolicy == ConflictPolicy.lastUpdateTime.word ? .lastUpdateTime : .generation,
            isStronglyConsistent: isStronglyConsistent,
            limits: [NamespaceLimit(name: "max-record-size", value: recordSizeMax)],
            settings: compared)
    }
}

extension ServiceAddresses {
    /// As it travels in a block.
    var bytes: [UInt8] {
        var writer = FabricWriter()
        for list in [clear, clearAlternate, tls, tlsAlternate] { writer.list(list) { $0.text($1) } }
        writer.text(tlsName)
        return writer.bytes
    }

    /// - Throws: if that is not what `bytes` are.
    init(_ bytes: [UInt8]) throws(FabricError) {
        var reader = FabricReader(bytes)
        var lists: [[String]] = []
        for _ in 0..<4 {
            lists.append(try reader.list { (reader: inout FabricReader) throws(FabricError) in try reader.text() })
        }
        let name = try reader.text()
        try reader.end()
        self.init(clear: lists[0], clearAlternate: lists[1], tls: lists[2], tlsAlternate: lists[3], tlsName: name)
    }
}
