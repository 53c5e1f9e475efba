// Rules about what a map follows from: the bundle of its view. Looked at once for each view, when the first node opens it.
internal import Assembly
internal import Base
internal import Fabric
internal import Membership
internal import Partitions
internal import SlowMap

/// What the first snapshot of a view has to be.
enum BundleAudit {
    /// An independent implementation computes the map of one view in so many again: it takes some 20 ms for each namespace.
    static let slowMapShare: UInt64 = 8

    static func audit(_ published: Publication) -> Violation? {
        // A toy has no bundle.
        guard let bundle = published.snapshot.bundle, let view = published.view else { return nil }
        return isOfView(bundle, view) ?? availability(bundle)
            ?? (view.mark.key % slowMapShare == 0 ? sameMaps(bundle) : nil)
    }

    private static func isOfView(_ bundle: ClusterMap, _ view: View) -> Violation? {
        guard bundle.number == view.mark.number, bundle.key == view.mark.key,
            bundle.blocks.map(\.member) == view.members.sorted()
        else {
            return Violation("P1", "the map of view \(view.mark.number) follows from blocks of view \(bundle.number),"
                + " members \(bundle.blocks.map(\.member))")
        }
        return nil
    }

    /// P1: the maps are those that the slow implementation computes.
    static func sameMaps(_ bundle: ClusterMap) -> Violation? {
        var names: [String] = []
        for name in bundle.blocks.flatMap({ $0.block.namespaces.map(\.name) }).sorted() where names.last != name {
            names.append(name)
        }
        guard bundle.maps.map(\.name) == names else {
            return Violation("P1", "there are maps of \(bundle.maps.map(\.name)), members have \(names)")
        }
        for map in bundle.maps {
            let slow = SlowMap.map(map.name, number: bundle.number, key: bundle.key, blocks: bundle.blocks)
            if slow != map {
                return Violation("P1", "view \(bundle.number): the map of namespace \(map.name) is not the one that the slow"
                    + " implementation computes from the same blocks")
            }
        }
        return nil
    }

    /// In availability mode each partition of a namespace that some member has is served, and by a copy of which there is
    /// none better: the highest epoch, full before subset, sound before torn.
    static func availability(_ bundle: ClusterMap) -> Violation? {
        for map in bundle.maps {
            let claims = map.nodes.map { node in
                bundle.blocks.first { $0.member.id == node }?.block.namespace(map.name)?.claims
            }
            for partition in 0..<PartitionID.count {
                let acting = Int(map.actingMasters[partition])
                guard acting < map.nodes.count else {
                    return Violation("availability", "partition \(partition) of \(map.name) is served by nobody")
                }
                let versions = claims.map { $0?[partition].version }
                guard let better = versions.indices.first(where: { isBetter(versions[$0], than: versions[acting]) })
                else { continue }
                return Violation("availability", "partition \(partition) of \(map.name) is served by \(map.nodes[acting]),"
                    + " which has \(words(versions[acting])); \(map.nodes[better]) has \(words(versions[better]))")
            }
        }
        return nil
    }

    static func isBetter(_ one: PartitionVersion?, than other: PartitionVersion?) -> Bool {
        guard let one else { return false }
        guard let other else { return true }
        if one.epoch != other.epoch { return one.epoch.rawValue > other.epoch.rawValue }
        if one.isFull != other.isFull { return one.isFull }
        return one.isSound && !other.isSound
    }

    private static func words(_ version: PartitionVersion?) -> String { version.map { "\($0)" } ?? "no copy" }
}

/// When a view opens, each of its members has on disk that it remembers the epochs of the view: whichever of them are there
/// later know how far the others got. And each namespace that a member is configured with has a map that names it.
struct MemoryChecker: Checker {
    private var lastKey: UInt64 = 0

    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation? {
        guard snapshot.phase == .open, let view = snapshot.view, snapshot.snapshot.bundle != nil,
            view.mark.key != lastKey
        else { return nil }
        lastKey = view.mark.key
        // Of one that has gone meanwhile the disk may have been wiped.
        for other in world.nodes where other.isUp && view.members.contains(other.member) {
            for map in snapshot.maps where map.nodes.contains(other.id) {
                if let found = remembers(other, map, view) { return found }
            }
            let known = snapshot.maps.filter { $0.nodes.contains(other.id) }.map(\.name)
            for space in other.configured.map(\.name) where !known.contains(space) {
                return Violation("P7", "\(other.name) has namespace \(space), and view \(view.mark.number) does not know it")
            }
        }
        return nil
    }

    private func remembers(_ node: SimulatedNode, _ map: NamespaceMap, _ view: View) -> Violation? {
        let stored = node.disk.partitions.first { $0.namespace == map.name }?.metadata
        for partition in StoredSample.partitions {
            let record = StoredSample.record(stored, partition, map.name)
            let wanted = map.epochs[partition]
            guard record.map({ $0.remembered.rawValue < wanted.rawValue }) ?? true else { continue }
            return Violation("P7", "view \(view.mark.number) opens, and the disk of \(node.name) remembers of partition"
                + " \(partition) of \(map.name) epoch \(record?.remembered.words ?? "?"), not \(wanted.words)")
        }
        return nil
    }
}
