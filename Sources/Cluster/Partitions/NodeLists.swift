// In which order nodes are asked to take a partition: each node has a weight for each partition, the heaviest is first.
// A node that goes leaves all others in their order; one that comes is put in between.
internal import Base

/// The lists of all partitions over the nodes of a view, once for all namespaces.
struct NodeLists: Sendable {
    /// Of the nodes, by id.
    let nodeCount: Int
    /// Partition behind partition, `nodeCount` nodes each, heaviest first; nodes by their place among all, by id.
    let order: [UInt16]

    /// The weight of a node for a partition. Only the order of weights matters.
    static func weight(_ node: NodeID, _ partition: Int) -> UInt64 { weight(seed: seed(node), partition) }

    private static func seed(_ node: NodeID) -> UInt64 { mixed(node.rawValue ^ 0x6D0F_27BD_19C4_A8E3) }

    @inline(__always)
    private static func weight(seed: UInt64, _ partition: Int) -> UInt64 {
        mixed(seed &+ UInt64(partition + 1) &* 0x9E37_79B9_7F4A_7C15)
    }

    /// `nodes` by id, no id twice.
    init(_ nodes: [NodeID]) {
        let count = nodes.count
        nodeCount = count
        let seeds = nodes.map { NodeLists.seed($0) }
        // A weight with the place of its node in the low bits sorts as one number; of equal weights the lower id is first.
        order = [UInt16](unsafeUninitializedCapacity: count * PartitionID.count) { order, initialized in
            withUnsafeTemporaryAllocation(of: UInt64.self, capacity: count) { buffer in
                var keys = buffer
                for partition in 0..<PartitionID.count {
                    for node in 0..<count {
                        keys[node] = ~NodeLists.weight(seed: seeds[node], partition) & ~0xFFFF | UInt64(node)
                    }
                    keys.sort()
                    for node in 0..<count {
                        order[partition * count + node] = UInt16(truncatingIfNeeded: keys[node])
                    }
                }
            }
            initialized = count * PartitionID.count
        }
    }

    /// The same lists for those nodes that have a place in `numbers` (nil: not of the namespace), renumbered; those for
    /// which `isLast` holds behind all others, in their order.
    func among(_ numbers: [UInt16?], count: Int, isLast: [Bool]) -> [UInt16] {
        let places = numbers.map { $0 ?? .max }
        if count == nodeCount, !isLast.contains(true) { return order }
        var result: [UInt16] = []
        result.reserveCapacity(count * PartitionID.count)
        for partition in 0..<PartitionID.count {
            let list = order[(partition * nodeCount)..<((partition + 1) * nodeCount)]
            for node in list {
                let place = places[Int(node)]
                if place != .max, !isLast[Int(place)] { result.append(place) }
            }
            guard result.count < (partition + 1) * count else { continue }
            for node in list {
                let place = places[Int(node)]
                if place != .max, isLast[Int(place)] { result.append(place) }
            }
        }
        return result
    }
}
