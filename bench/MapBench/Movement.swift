// How many copies a departure and an arrival move, for each that has to move, and how even the masters are.
import Base
import Fabric
import Partitions

private func nodesOfPartitions(_ ids: [UInt64], racks: [UInt32], factor: UInt16, isUniform: Bool) -> [[NodeID]] {
    let blocks = zip(ids, racks).map { id, rack in
        let block = NamespaceBlock(name: "test", rackID: rack, replicationFactor: factor, prefersUniformBalance: isUniform)
        return (member: Member(id: NodeID(rawValue: id), incarnation: 1), block: NodeBlock(namespaces: [block]))
    }
    let map = ClusterMap.compute(number: 1, key: 1, blocks: blocks).maps[0]
    return (0..<PartitionID.count).map { partition in (0..<map.copies).map { map.replica(partition, column: $0) } }
}

/// One line: of `count` nodes on `racks` racks one goes, for 12 sets of ids and three places each.
private func survey(_ count: Int, racks: Int, factor: UInt16, isUniform: Bool) {
    var random = SeededRandom(seed: 11)
    var ratios: [Double] = []
    var spread = 0
    for _ in 0..<12 {
        let first = random.next() >> 8
        let ids = (0..<count).map { first + UInt64($0) * 13 }
        let places = (0..<count).map { UInt32($0 % racks) }
        let before = nodesOfPartitions(ids, racks: places, factor: factor, isUniform: isUniform)
        let masters = ids.map { id in before.count { $0[0].rawValue == id } }
        spread = max(spread, masters.max()! - masters.min()!)
        for gone in [0, count / 2, count - 1] {
            var (rest, restPlaces) = (ids, places)
            rest.remove(at: gone)
            restPlaces.remove(at: gone)
            let after = nodesOfPartitions(rest, racks: restPlaces, factor: factor, isUniform: isUniform)
            let moved = zip(before, after).reduce(0) { sum, pair in sum + pair.1.count { !pair.0.contains($0) } }
            let needed = before.count { $0.contains { $0.rawValue == ids[gone] } }
            ratios.append(Double(moved) / Double(needed))
        }
    }
    ratios.sort()
    print("| \(count) | \(racks) | \(factor) | \(isUniform ? "uniform" : "plain") | \(rounded(ratios[ratios.count / 2]))"
        + " | \(rounded(ratios.last!)) | \(spread) |")
}

/// Prints a line for each kind of cluster.
func surveyMovement() {
    print("| nodes | racks | factor | lists | moved, of the minimum | at most | spread of masters |")
    print("|---|---|---|---|---|---|---|")
    let clusters = [(4, 1), (8, 1), (16, 1), (6, 2), (6, 3), (8, 4), (9, 3), (12, 2), (12, 4), (16, 2), (16, 4)]
    for (count, racks) in clusters {
        for factor: UInt16 in [2, 3] {
            for isUniform in [false, true] { survey(count, racks: racks, factor: factor, isUniform: isUniform) }
        }
    }
}
