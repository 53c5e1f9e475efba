// Who serves each partition, under which epoch, and who lacks what: from the versions that the nodes of a namespace have.
// Invariants:
// 1. An epoch is kept only by a process that serves under it, and only if all copies of it, and no others, go along.
// 2. A new epoch has a higher regime than any that a node of the namespace has or remembers.
internal import Base

/// Step (8) of the map.
struct Serving {
    private let nodeCount: Int
    private let copies: Int
    private let claims: [PartitionClaims]
    private let lists: [UInt16]
    private let replicas: [UInt16]
    private let viewNumber: UInt64
    private let viewKey: UInt64

    private(set) var actingMasters: [UInt16] = []
    private(set) var epochs: [Epoch] = []
    private(set) var duplicates: [(partition: PartitionID, nodes: [UInt16])] = []
    private(set) var fills: [(partition: PartitionID, nodes: [UInt16])] = []
    /// Partitions of which no copy is sound.
    private(set) var tornCount = 0
    /// Partitions of which no copy is full.
    private(set) var subsetCount = 0

    /// Runs at once. `lists`: as for placing; `claims`: of each node.
    init(
        claims: [PartitionClaims], lists: [UInt16], replicas: [UInt16], copies: Int, viewNumber: UInt64, viewKey: UInt64
    ) {
        nodeCount = claims.count
        self.claims = claims
        self.lists = lists
        self.replicas = replicas
        self.copies = copies
        self.viewNumber = viewNumber
        self.viewKey = viewKey
        let holders = Holders(claims)
        actingMasters.reserveCapacity(PartitionID.count)
        epochs.reserveCapacity(PartitionID.count)
        for partition in 0..<PartitionID.count { decide(partition, holders) }
    }

    private mutating func decide(_ partition: Int, _ holders: borrowing Holders) {
        let nodes = holders.nodes(partition)
        let highest = holders.highest[partition]
        guard let acting = best(partition, nodes) else {
            actingMasters.append(replicas[partition])
            epochs.append(next(after: highest))
            return
        }
        let summary = summary(acting, partition)
        actingMasters.append(acting)
        let isKept = summary.epoch == highest && summary.servedCopies > 0
            && allGoAlong(partition, acting, summary.epoch, count: Int(summary.servedCopies))
        epochs.append(isKept ? Epoch(rawValue: summary.epoch) : next(after: highest))
        note(partition, acting, summary, nodes)
    }

    private func next(after highest: UInt64) -> Epoch {
        .next(after: Epoch(rawValue: highest), viewNumber: viewNumber, viewKey: viewKey)
    }

    @inline(__always)
    private func summary(_ node: UInt16, _ partition: Int) -> ClaimSummary {
        let claims = claims[Int(node)]
        return claims.summaries[Int(claims.numbers[partition])]
    }

    /// Of the nodes that have a copy: the one of the highest epoch, full before subset, sound before torn, then the first.
    private func best(_ partition: Int, _ nodes: ArraySlice<UInt16>) -> UInt16? {
        var best: (node: UInt16, summary: ClaimSummary)?
        for node in nodes {
            let summary = summary(node, partition)
            guard let last = best else {
                best = (node, summary)
                continue
            }
            let isBetter = if summary.epoch != last.summary.epoch {
                summary.epoch > last.summary.epoch
            } else if summary.grade != last.summary.grade {
                summary.grade > last.summary.grade
            } else {
                rank(node, partition) < rank(last.node, partition)
            }
            if isBetter { best = (node, summary) }
        }
        return best?.node
    }

    /// Replicas by column, then the others as the list has them.
    private func rank(_ node: UInt16, _ partition: Int) -> Int {
        if let column = column(of: node, partition) { return column }
        let list = lists[(partition * nodeCount)..<((partition + 1) * nodeCount)]
        return copies + list.firstIndex(of: node)! - list.startIndex
    }

    private func column(of node: UInt16, _ partition: Int) -> Int? {
        (0..<copies).first { replicas[$0 * PartitionID.count + partition] == node }
    }

    /// Whether the replicas and the acting master are the copies of that epoch.
    private func allGoAlong(_ partition: Int, _ acting: UInt16, _ epoch: UInt64, count: Int) -> Bool {
        guard count == (column(of: acting, partition) == nil ? copies + 1 : copies) else { return false }
        return (0..<copies).allSatisfy { column in
            summary(replicas[column * PartitionID.count + partition], partition).epoch == epoch
        }
    }

    private mutating func note(_ partition: Int, _ acting: UInt16, _ summary: ClaimSummary, _ nodes: ArraySlice<UInt16>) {
        let isWhole = summary.grade == ClaimSummary.wholeGrade
        var others: [UInt16] = []
        var (isSomeSound, isSomeFull) = (false, false)
        for node in nodes {
            let other = self.summary(node, partition)
            if other.grade & 1 != 0 { isSomeSound = true }
            if other.grade & 2 != 0 { isSomeFull = true }
            let isEqual = other.epoch == summary.epoch && other.grade == summary.grade
            guard node != acting, !(isWhole && isEqual) else { continue }
            guard let mine = claims[Int(acting)][partition].version, let its = claims[Int(node)][partition].version,
                !mine.holdsAll(of: its)
            else { continue }
            others.append(node)
        }
        if !others.isEmpty { duplicates.append((PartitionID(UInt16(partition)), others)) }
        if !isSomeSound { tornCount += 1 }
        if !isSomeFull { subsetCount += 1 }
        var lacking: [UInt16] = []
        for column in 0..<copies {
            let node = replicas[column * PartitionID.count + partition]
            let its = self.summary(node, partition)
            if node != acting, its.epoch != summary.epoch || its.grade != ClaimSummary.wholeGrade { lacking.append(node) }
        }
        if !lacking.isEmpty { fills.append((PartitionID(UInt16(partition)), lacking)) }
    }
}

/// Which nodes have a copy of each partition, by id.
private struct Holders {
    /// The highest epoch that any node has or remembers, raw value.
    private(set) var highest = [UInt64](repeating: 0, count: PartitionID.count)
    private var starts = [Int](repeating: 0, count: PartitionID.count + 1)
    private var all: [UInt16] = []

    init(_ claims: [PartitionClaims]) {
        for claims in claims {
            for partition in 0..<PartitionID.count {
                let summary = claims.summaries[Int(claims.numbers[partition])]
                if summary.highest > highest[partition] { highest[partition] = summary.highest }
                if summary.epoch != 0 { starts[partition + 1] += 1 }
            }
        }
        for partition in 0..<PartitionID.count { starts[partition + 1] += starts[partition] }
        all = [UInt16](repeating: 0, count: starts[PartitionID.count])
        var ends = starts
        for (node, claims) in claims.enumerated() {
            for partition in 0..<PartitionID.count
            where claims.summaries[Int(claims.numbers[partition])].epoch != 0 {
                all[ends[partition]] = UInt16(node)
                ends[partition] += 1
            }
        }
    }

    func nodes(_ partition: Int) -> ArraySlice<UInt16> { all[starts[partition]..<starts[partition + 1]] }
}
