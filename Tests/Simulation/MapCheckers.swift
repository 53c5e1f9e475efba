// Rules of the maps themselves.
internal import Assembly
internal import Base
internal import Fabric
internal import Membership
internal import Partitions

/// P2: replicas of a partition are on distinct nodes, and on distinct racks while there are that many. P3: with uniform
/// balance no node is master of more than one partition more than another.
struct SpreadChecker: Checker {
    private var lastKey: UInt64 = 0

    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation? {
        // Equal keys have equal maps: another checker sees to that.
        guard snapshot.phase == .open, let view = snapshot.view, view.mark.key != lastKey else { return nil }
        lastKey = view.mark.key
        for map in snapshot.maps {
            if let found = members(map, snapshot) ?? distinct(map) ?? balance(map, world) { return found }
        }
        return nil
    }

    private func members(_ map: NamespaceMap, _ snapshot: Publication) -> Violation? {
        for id in map.nodes where !(snapshot.view?.members.contains { $0.id == id } ?? false) {
            return Violation("P2", "namespace \(map.name) has \(id), which is no member of the view")
        }
        return map.nodes == map.nodes.sorted() ? nil : Violation("P2", "nodes of namespace \(map.name) are not by id")
    }

    private func active(_ map: NamespaceMap) -> [Int] {
        let active = map.nodes.indices.filter { !map.quiesced[$0] }
        return active.isEmpty ? Array(map.nodes.indices) : active
    }

    private func distinct(_ map: NamespaceMap) -> Violation? {
        var racks: [UInt32] = []
        for place in active(map) where !racks.contains(map.racks[place]) { racks.append(map.racks[place]) }
        let wanted = min(map.copies, racks.count)
        for partition in 0..<PartitionID.count {
            var used: [UInt32] = []
            for column in 0..<map.copies {
                let node = map.replicas[column * PartitionID.count + partition]
                guard Int(node) < map.nodes.count else {
                    return Violation("P2", "partition \(partition) of \(map.name) lacks copy \(column)")
                }
                for before in 0..<column where map.replicas[before * PartitionID.count + partition] == node {
                    return Violation("P2", "partition \(partition) of \(map.name) is on \(map.nodes[Int(node)]) twice")
                }
                if !used.contains(map.racks[Int(node)]) { used.append(map.racks[Int(node)]) }
            }
            guard used.count >= wanted else {
                return Violation("P2", "partition \(partition) of \(map.name) is on racks \(used), of \(racks)")
            }
        }
        return nil
    }

    private func balance(_ map: NamespaceMap, _ world: World) -> Violation? {
        guard world.options.isUniform == 1, map.copies > 0 else { return nil }
        var masters = Array(repeating: 0, count: map.nodes.count)
        for partition in 0..<PartitionID.count { masters[Int(map.replicas[partition])] += 1 }
        let counts = active(map).map { masters[$0] }
        guard let least = counts.min(), let most = counts.max(), most - least > 1 else { return nil }
        return Violation("P3", "masters of \(map.name) are \(masters): the spread is more than 1")
    }
}

/// P4: on no node does the regime of a partition go back, not by a restart either; and an acting master that takes office in
/// a view has a higher one than any member has seen.
struct RegimeChecker: Checker {
    private struct Kept {
        let name: String
        var regimes: [UInt32]
    }
    /// By node.
    private var kept: [[Kept]]
    /// By node: the view that it has shown last.
    private var lastKeys: [UInt64]

    init(count: Int) {
        kept = Array(repeating: [], count: count)
        lastKeys = Array(repeating: 0, count: count)
    }

    mutating func wiped(_ node: Int) { kept[node] = [] }

    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation? {
        guard snapshot.phase == .open, let key = snapshot.view?.mark.key, lastKeys[node.number] != key else { return nil }
        lastKeys[node.number] = key
        for map in snapshot.maps where map.nodes.contains(node.id) {
            let place: Int
            if let known = kept[node.number].firstIndex(where: { $0.name == map.name }) {
                place = known
            } else {
                place = kept[node.number].count
                kept[node.number].append(Kept(name: map.name, regimes: Array(repeating: 0, count: PartitionID.count)))
            }
            if let found = advance(&kept[node.number][place].regimes, map, key, node) { return found }
        }
        return nil
    }

    private func advance(
        _ regimes: inout [UInt32], _ map: NamespaceMap, _ key: UInt64, _ node: SimulatedNode
    ) -> Violation? {
        for partition in 0..<PartitionID.count where map.actingMasters[partition] != NamespaceMap.nobody {
            let regime = map.epochs[partition].regime
            let least = regimes[partition] + (map.epochs[partition].viewKey == key ? 1 : 0)
            guard regime >= least else {
                return Violation("P4", "partition \(partition) of \(map.name) goes from regime \(regimes[partition]) to"
                    + " \(regime) on \(node.name)" + (least > regimes[partition] ? ", with a new acting master" : ""))
            }
            regimes[partition] = regime
        }
        return nil
    }
}
