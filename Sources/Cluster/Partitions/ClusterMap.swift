// From the bundle of a view to the maps of all namespaces. Invariants:
// 1. The result follows from the members, the key and the blocks alone: not from who computes, nor when, nor in which build.
// 2. Whatever the blocks say, there is a result: they come from the network.
package import Base
package import Fabric

/// What a view means for the partitions.
package struct ClusterMap: Sendable {
    /// The number of the view.
    package let number: UInt64
    /// The view key, 40 bits.
    package let key: UInt64
    /// By id, with the block that each handed in.
    package let blocks: [(member: Member, block: NodeBlock)]
    /// By name of the namespace.
    package let maps: [NamespaceMap]
    /// Over all bytes of the maps.
    package let hash: UInt64
    /// What does not fit together, a sentence each, by namespace.
    package let problems: [String]
    let lists: NodeLists
    let breaks: PartitionBreaks
    private let processSeed: UInt64

    private init(
        number: UInt64, key: UInt64, blocks: [(member: Member, block: NodeBlock)], breaks: PartitionBreaks,
        processSeed: UInt64
    ) {
        self.number = number
        self.key = key & 0xFF_FFFF_FFFF
        self.blocks = blocks
        self.breaks = breaks
        self.processSeed = processSeed
        lists = NodeLists(blocks.map(\.member.id))
        var (maps, problems): ([NamespaceMap], [String]) = ([], [])
        for name in ClusterMap.names(blocks) {
            let inputs = NamespaceInputs(name, blocks, lists)
            let rules = inputs.rules(firstPartition: ClusterMap.firstPartition(breaks, processSeed))
            let (map, found) = ClusterMap.map(inputs, rules, number: number, key: self.key)
            maps.append(map)
            problems += found
        }
        self.maps = maps
        self.problems = problems
        hash = ClusterMap.hash(maps)
    }

    /// The maps of a view. Of blocks of one id the first counts.
    /// - Parameters:
    ///   - number: of the view; above that of every view that a member ever accepted.
    ///   - key: the view key; its lower 40 bits count.
    ///   - blocks: of each member, in any order.
    ///   - processSeed: means nothing unless `breaks` says so.
    package static func compute(
        number: UInt64, key: UInt64, blocks: [(member: Member, block: NodeBlock)], breaks: PartitionBreaks = [],
        processSeed: UInt64 = 0
    ) -> ClusterMap {
        var sorted: [(member: Member, block: NodeBlock)] = []
        for entry in blocks.sorted(by: { $0.member < $1.member }) where sorted.last?.member.id != entry.member.id {
            sorted.append(entry)
        }
        return ClusterMap(number: number, key: key, blocks: sorted, breaks: breaks, processSeed: processSeed)
    }

    /// The maps of a view whose blocks are still bytes.
    /// - Throws: names the member whose block cannot be read.
    package static func compute(
        number: UInt64, key: UInt64, encoded: [(member: Member, block: [UInt8])], breaks: PartitionBreaks = [],
        processSeed: UInt64 = 0
    ) throws(FabricError) -> ClusterMap {
        var blocks: [(member: Member, block: NodeBlock)] = []
        for (member, bytes) in encoded {
            do {
                blocks.append((member, try NodeBlock(bytes)))
            } catch {
                throw FabricError("node \(member.id): \(error)")
            }
        }
        return compute(number: number, key: key, blocks: blocks, breaks: breaks, processSeed: processSeed)
    }

    /// Nodes in the order of the list of a partition, 0 to 4095: what a roster is put into.
    package static func list(of nodes: [NodeID], partition: Int) -> [NodeID] {
        nodes.sorted { left, right in
            let weights = (NodeLists.weight(left, partition) | 0xFFFF, NodeLists.weight(right, partition) | 0xFFFF)
            return weights.0 == weights.1 ? left < right : weights.0 > weights.1
        }
    }

    /// The map of a namespace.
    package func map(_ name: String) -> NamespaceMap? { maps.first { $0.name == name } }

    private static func firstPartition(_ breaks: PartitionBreaks, _ processSeed: UInt64) -> Int {
        breaks.contains(.hashOrderedQuota) ? Int(truncatingIfNeeded: mixed(processSeed) % UInt64(PartitionID.count)) : 0
    }

    func rules(_ inputs: NamespaceInputs) -> PlacementRules {
        inputs.rules(firstPartition: ClusterMap.firstPartition(breaks, processSeed))
    }

    /// Of all namespaces that some member has, in order.
    private static func names(_ blocks: [(member: Member, block: NodeBlock)]) -> [String] {
        var names: [String] = []
        for name in blocks.flatMap({ $0.block.namespaces.map(\.name) }).sorted() where names.last != name {
            names.append(name)
        }
        return names
    }

    private static func map(
        _ inputs: NamespaceInputs, _ rules: PlacementRules, number: UInt64, key: UInt64
    ) -> (NamespaceMap, problems: [String]) {
        let placement = Placement(rules)
        let serving = Serving(
            claims: inputs.blocks.map(\.claims), lists: rules.lists, replicas: placement.replicas, copies: rules.copies,
            viewNumber: number, viewKey: key)
        let map = NamespaceMap(
            name: inputs.name, nodes: inputs.nodes, racks: inputs.blocks.map(\.rackID), quiesced: inputs.isLast,
            copies: rules.copies, activeRack: rules.activeRack == nil ? 0 : inputs.activeRack,
            isUniform: rules.isUniform, replicas: placement.replicas, actingMasters: serving.actingMasters,
            epochs: serving.epochs, duplicates: serving.duplicates, fills: serving.fills,
            highWaterMark: inputs.blocks.reduce(0) { max($0, $1.highWaterMark) }, limits: inputs.limits)
        return (map, inputs.differences + inputs.problems(rules) + inputs.problems(serving))
    }

    private static func hash(_ maps: [NamespaceMap]) -> UInt64 {
        var hash = WordHash()
        for map in maps { map.add(to: &hash) }
        return hash.value
    }
}

extension NamespaceMap {
    /// Everything that the map says.
    fileprivate func add(to hash: inout WordHash) {
        hash.add(name)
        hash.add(UInt64(nodes.count))
        for (number, node) in nodes.enumerated() {
            hash.add(node.rawValue)
            hash.add(UInt64(racks[number]) << 1 | (quiesced[number] ? 1 : 0))
        }
        hash.add(UInt64(copies))
        for partition in 0..<PartitionID.count {
            var word = UInt64(actingMasters[partition])
            for column in 0..<copies {
                word = word << 16 | UInt64(replicas[column * PartitionID.count + partition])
                if column % 3 == 2 {
                    hash.add(word)
                    word = 0
                }
            }
            hash.add(word)
            hash.add(epochs[partition].rawValue)
        }
        for list in [duplicates, fills] {
            hash.add(UInt64(list.count))
            for (partition, nodes) in list {
                hash.add(UInt64(partition.number) << 32 | UInt64(nodes.count))
                for node in nodes { hash.add(UInt64(node)) }
            }
        }
        hash.add(highWaterMark)
        hash.add(UInt64(limits.count))
        for limit in limits {
            hash.add(limit.name)
            hash.add(limit.value)
        }
    }
}
