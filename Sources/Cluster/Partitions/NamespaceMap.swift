// Who has which partition of a namespace, as every member of a view has computed it from the same bytes. Invariants:
// 1. Equal bundles give equal maps, on every node and in every build: nothing here depends on hashing or on who computes.
// 2. The replicas of a partition are `copies` different nodes.
package import Base

/// The map of one namespace.
package struct NamespaceMap: Sendable, Equatable {
    /// No node.
    package static let nobody = UInt16.max

    package let name: String
    /// Nodes that have the namespace, by id, lowest first. Numbers of nodes below are places in this list.
    package let nodes: [NodeID]
    /// Rack of each.
    package let racks: [UInt32]
    /// Whether each is quiesced.
    package let quiesced: [Bool]
    /// The effective replication factor.
    package let copies: Int
    /// The rack that has all masters; 0: none.
    package let activeRack: UInt32
    /// Whether columns are balanced: all nodes prefer it.
    package let isUniform: Bool
    /// Column behind column, 4096 partitions each: column 0 has those that are to be masters.
    package let replicas: [UInt16]
    /// Who serves each partition now, `nobody` if it is not available.
    package let actingMasters: [UInt16]
    /// The epoch under which each partition is served in this view.
    package let epochs: [Epoch]
    /// Partitions of which other nodes have versions that the acting master's does not cover, and those nodes. By partition.
    package let duplicates: [(partition: PartitionID, nodes: [UInt16])]
    /// Partitions of which replicas lack what the acting master has, and those replicas. By partition.
    package let fills: [(partition: PartitionID, nodes: [UInt16])]
    /// The highest last update that any member ever gave or applied: every partition starts the view from it.
    package let highWaterMark: UInt64
    /// The least of every limit among the nodes, by name.
    package let limits: [NamespaceLimit]

    package init(
        name: String, nodes: [NodeID], racks: [UInt32], quiesced: [Bool], copies: Int, activeRack: UInt32 = 0,
        isUniform: Bool = true, replicas: [UInt16], actingMasters: [UInt16], epochs: [Epoch],
        duplicates: [(partition: PartitionID, nodes: [UInt16])], fills: [(partition: PartitionID, nodes: [UInt16])],
        highWaterMark: UInt64 = 0, limits: [NamespaceLimit] = []
    ) {
        precondition(replicas.count == copies * PartitionID.count && actingMasters.count == PartitionID.count)
        precondition(racks.count == nodes.count && quiesced.count == nodes.count && epochs.count == PartitionID.count)
        self.name = name
        self.nodes = nodes
        self.racks = racks
        self.quiesced = quiesced
        self.copies = copies
        self.activeRack = activeRack
        self.isUniform = isUniform
        self.replicas = replicas
        self.actingMasters = actingMasters
        self.epochs = epochs
        self.duplicates = duplicates
        self.fills = fills
        self.highWaterMark = highWaterMark
        self.limits = limits
    }

    /// The node that has the partition in that column.
    package func replica(_ partition: Int, column: Int) -> NodeID {
        nodes[Int(replicas[column * PartitionID.count + partition])]
    }

    /// The column that the node has of the partition, nil if none. `number`: its place in `nodes`.
    package func column(of number: UInt16, _ partition: Int) -> Int? {
        (0..<copies).first { replicas[$0 * PartitionID.count + partition] == number }
    }

    /// The place of a node in `nodes`, nil if it does not have the namespace.
    package func number(of node: NodeID) -> UInt16? {
        let place = nodes.lowerBound { $0 < node }
        return place < nodes.count && nodes[place] == node ? UInt16(place) : nil
    }

    /// Who serves the partition now; nil if it is not available.
    package func actingMaster(_ partition: Int) -> NodeID? {
        let number = actingMasters[partition]
        return number == NamespaceMap.nobody ? nil : nodes[Int(number)]
    }

    package static func == (left: NamespaceMap, right: NamespaceMap) -> Bool {
        left.name == right.name && left.nodes == right.nodes && left.racks == right.racks && left.quiesced == right.quiesced
            && left.copies == right.copies && left.activeRack == right.activeRack && left.isUniform == right.isUniform
            && left.replicas == right.replicas && left.actingMasters == right.actingMasters
            && left.epochs == right.epochs && left.duplicates.elementsEqual(right.duplicates, by: { $0 == $1 })
            && left.fills.elementsEqual(right.fills, by: { $0 == $1 }) && left.highWaterMark == right.highWaterMark
            && left.limits == right.limits
    }
}
