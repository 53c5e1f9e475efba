// Which nodes have the copies of each partition of a namespace, column by column. Invariants:
// 1. The copies of a partition are on different nodes, and on different racks as long as there are racks without one.
// 2. With uniform balance, and if racks allow it, the masters of the nodes differ by one at most, and no node has more than
//    a sixteenth above its share of any other column: an exact share there would cost more movement than it is worth.
internal import Base

/// What placing goes by.
struct PlacementRules: Sendable {
    /// Partition behind partition, `nodeCount` nodes each.
    let lists: [UInt16]
    let nodeCount: Int
    /// The first so many of each list may have copies; the others are quiesced.
    let candidateCount: Int
    /// Number of the rack of each node.
    let rackNumbers: [UInt16]
    /// How many racks the candidates are on.
    let rackCount: Int
    /// The number of the only rack that may have masters.
    let activeRack: UInt16?
    /// How many candidates are on it.
    let activeRackNodes: Int
    let copies: Int
    let isUniform: Bool
    /// The first partition that is placed: 0, except when a test breaks the rule.
    let firstPartition: Int
}

/// How many partitions of a column each node may have.
struct Quota {
    /// 4096 among the nodes of the column, rounded down; behind the masters a sixteenth more.
    let floor: Int
    /// How many nodes may still have one more.
    private(set) var extra: Int
    private(set) var counts: [Int]

    init(column: Int, nodes: Int, all: Int) {
        let share = PartitionID.count / nodes
        floor = column == 0 ? share : share + share / 16
        extra = PartitionID.count % nodes
        counts = [Int](repeating: 0, count: all)
    }

    @inline(__always)
    func allows(_ node: Int) -> Bool { counts[node] < floor || counts[node] == floor && extra > 0 }

    mutating func take(_ node: Int) {
        if counts[node] == floor, extra > 0 { extra -= 1 }
        counts[node] += 1
    }
}

/// Places all partitions.
struct Placement {
    private let rules: PlacementRules
    /// Column behind column.
    private(set) var replicas: [UInt16]
    /// The partition whose placing is to be explained, and the quota of each column when its turn came.
    private let watched: Int?
    private(set) var quotasWhenWatched: [Quota] = []

    /// Runs at once.
    init(_ rules: PlacementRules, watching watched: Int? = nil) {
        self.rules = rules
        self.watched = watched
        replicas = [UInt16](repeating: .max, count: rules.copies * PartitionID.count)
        for column in 0..<rules.copies { place(column: column) }
    }

    private mutating func place(column: Int) {
        let nodes = column == 0 && rules.activeRack != nil ? rules.activeRackNodes : rules.candidateCount
        var quota = Quota(column: column, nodes: nodes, all: rules.nodeCount)
        for step in 0..<PartitionID.count {
            let partition = (rules.firstPartition + step) % PartitionID.count
            if partition == watched { quotasWhenWatched.append(quota) }
            let node = pick(partition, column, quota)
            quota.take(Int(node))
            replicas[column * PartitionID.count + partition] = node
        }
    }

    /// The first node of the list that may have the copy and is under its quota; if none is, the one with the fewest.
    private func pick(_ partition: Int, _ column: Int, _ quota: borrowing Quota) -> UInt16 {
        var best = UInt16.max
        var fewest = Int.max
        for place in 0..<rules.candidateCount {
            let node = rules.lists[partition * rules.nodeCount + place]
            guard obstacle(partition, column, node) == nil else { continue }
            if !rules.isUniform || quota.allows(Int(node)) { return node }
            if quota.counts[Int(node)] < fewest { (best, fewest) = (node, quota.counts[Int(node)]) }
        }
        precondition(best != .max, "a column has no candidate")
        return best
    }

    /// Why a node may not have a copy.
    enum Obstacle: Equatable { case notActiveRack, hasColumn(Int), rackHasColumn(Int) }

    /// What keeps `node` from the partition in this column, whatever the quota says.
    @inline(__always)
    func obstacle(_ partition: Int, _ column: Int, _ node: UInt16) -> Obstacle? {
        if column == 0 { return rules.activeRack.map { $0 != rules.rackNumbers[Int(node)] } == true ? .notActiveRack : nil }
        for earlier in 0..<column {
            let other = replicas[earlier * PartitionID.count + partition]
            if other == node { return .hasColumn(earlier) }
            // While the columns before are fewer than the racks, each of them is on a rack of its own and one is left.
            if column < rules.rackCount, rules.rackNumbers[Int(other)] == rules.rackNumbers[Int(node)] {
                return .rackHasColumn(earlier)
            }
        }
        return nil
    }
}
