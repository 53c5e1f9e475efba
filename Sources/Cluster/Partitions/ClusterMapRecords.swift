// What each member stores before it opens a view.
package import Base
internal import Fabric

extension ClusterMap {
    /// The records of all partitions of a namespace that the member stores before it opens the view; none, if it does
    /// not have the namespace. All replicas and the acting master go along into the epoch of the map: a copy of the
    /// acting master's own epoch stays what it is; any other becomes a subset since this epoch, mixed if it has
    /// another line. A copy on a node that takes no writes stays as it is. Every member remembers every epoch, copy or not.
    /// - Parameter before: its records now, from which its own high-water marks and open copies are taken; or none.
    package func records(for member: NodeID, namespace: String, before: [PartitionRecord]) -> [PartitionRecord] {
        guard let map = map(namespace), let me = map.number(of: member) else { return [] }
        let claims = map.nodes.map { node in
            blocks.first { $0.member.id == node }?.block.namespace(namespace)?.claims ?? .none
        }
        return (0..<PartitionID.count).map { partition in
            let claim = claims[Int(me)][partition]
            var record = before.isEmpty ? PartitionRecord() : before[partition]
            record.highWaterMark = max(record.highWaterMark, map.highWaterMark)
            record.servedCopies = 0
            if breaks.contains(.forgetsEpochs) { return record }
            let next = map.epochs[partition]
            let acting = map.actingMasters[partition]
            // Nobody serves it: no epoch begins, and nobody may believe that one had.
            if acting == NamespaceMap.nobody { return record }
            record.version = version(
                claim.version, acting: claims[Int(acting)][partition].version, next: next,
                isActing: acting == me, isReplica: map.column(of: me, partition) != nil)
            if acting == me {
                record.servedCopies = UInt16(map.copies + (map.column(of: me, partition) == nil ? 1 : 0))
            }
            record.remembered = Epoch(rawValue: max(
                record.remembered.rawValue, claim.remembered.rawValue, next.rawValue))
            return record
        }
    }

    /// The version of a copy in the epoch that the partition is served under.
    private func version(
        _ mine: PartitionVersion?, acting: PartitionVersion?, next: Epoch, isActing: Bool, isReplica: Bool
    ) -> PartitionVersion? {
        guard isActing || isReplica else { return mine }
        // Nobody has anything: all begin full.
        guard let acting else { return PartitionVersion(epoch: next) }
        // The epoch is kept: so are the copies.
        if acting.epoch == next { return mine }
        if let mine, mine.epoch == acting.epoch { return mine.advanced(to: next) }
        return acting.joined(at: next, from: mine)
    }
}
