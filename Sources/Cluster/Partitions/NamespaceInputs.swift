// What the blocks of a view say of one namespace, and what of it holds where they differ: always the least.
internal import Base
internal import Fabric

/// One namespace, on the nodes that have it.
struct NamespaceInputs {
    let name: String
    /// By id.
    let nodes: [NodeID]
    /// Of each node.
    let blocks: [NamespaceBlock]
    /// Whether each is quiesced or leaving, and so behind all others; if that is true of all of them, it is of none.
    let isLast: [Bool]
    private let lists: NodeLists
    private let numbers: [UInt16?]

    init(_ name: String, _ all: [(member: Member, block: NodeBlock)], _ lists: NodeLists) {
        var (nodes, blocks, numbers, isLast): ([NodeID], [NamespaceBlock], [UInt16?], [Bool]) = ([], [], [], [])
        for (member, block) in all {
            guard let namespace = block.namespace(name) else {
                numbers.append(nil)
                continue
            }
            numbers.append(UInt16(nodes.count))
            nodes.append(member.id)
            blocks.append(namespace)
            isLast.append(namespace.isQuiesced || block.isLeaving)
        }
        self.name = name
        self.nodes = nodes
        self.blocks = blocks
        self.numbers = numbers
        self.isLast = isLast.contains(false) ? isLast : isLast.map { _ in false }
        self.lists = lists
    }

    /// The rack that is to have all masters, 0 for none.
    var activeRack: UInt32 { blocks.map(\.activeRack).min()! }

    func rules(firstPartition: Int) -> PlacementRules {
        let candidates = nodes.indices.filter { !isLast[$0] }
        var racks: [UInt32] = []
        for rack in blocks.map(\.rackID).sorted() where racks.last != rack { racks.append(rack) }
        let rackNumbers = blocks.map { block in UInt16(racks.firstIndex(of: block.rackID)!) }
        let active = candidates.filter { blocks[$0].rackID == activeRack }
        let hasActiveRack = activeRack != 0 && !active.isEmpty
        return PlacementRules(
            lists: lists.among(numbers, count: nodes.count, isLast: isLast), nodeCount: nodes.count,
            candidateCount: candidates.count, rackNumbers: rackNumbers,
            rackCount: racks.indices.filter { rack in candidates.contains { Int(rackNumbers[$0]) == rack } }.count,
            activeRack: hasActiveRack ? rackNumbers[active[0]] : nil, activeRackNodes: active.count,
            copies: min(Int(blocks.map(\.replicationFactor).min()!), candidates.count),
            isUniform: blocks.allSatisfy(\.prefersUniformBalance), firstPartition: firstPartition)
    }

    /// The least value of every limit.
    var limits: [NamespaceLimit] {
        var least: [NamespaceLimit] = []
        for limit in blocks.flatMap(\.limits).sorted() where least.last?.name != limit.name { least.append(limit) }
        return least
    }

    // MARK: - Sentences

    /// A sentence for every setting that differs.
    var differences: [String] {
        let hashes = blocks.map(\.settingsHash)
        guard hashes.contains(where: { $0 != hashes[0] }) else { return [] }
        let agreed = blocks.map(\.agreed)
        var names: [String] = []
        for name in agreed.flatMap({ $0.map(\.name) }).sorted() where names.last != name { names.append(name) }
        return names.compactMap { difference($0, agreed) }
    }

    private func difference(_ setting: String, _ agreed: [[NamespaceSetting]]) -> String? {
        let values = agreed.map { $0.first { $0.name == setting }?.value ?? "not set" }
        var groups: [(value: String, nodes: [NodeID])] = []
        for (node, value) in zip(nodes, values) {
            if let place = groups.firstIndex(where: { $0.value == value }) {
                groups[place].nodes.append(node)
            } else {
                groups.append((value, [node]))
            }
        }
        guard groups.count > 1 else { return nil }
        let parts = groups.map { "\($0.value) on \(NamespaceInputs.list($0.nodes))" }
        return "namespace \(name): \(setting) is \(parts.joined(separator: ", "))\(used(setting))"
    }

    /// What holds of a setting that the map goes by.
    private func used(_ setting: String) -> String {
        switch setting {
        case "active-rack": ": \(activeRack) is used"
        case "max-record-size": limits.first { $0.name == setting }.map { ": \($0.value) is used" } ?? ""
        case "prefer-uniform-balance": ": false is used"
        case "replication-factor": ": \(blocks.map(\.replicationFactor).min()!) is used"
        default: ""
        }
    }

    private static func list(_ nodes: [NodeID]) -> String {
        let named = nodes.prefix(4).map(\.description)
        if nodes.count > 4 { return named.joined(separator: ", ") + " and \(nodes.count - 4) more" }
        return named.count == 1 ? named[0] : named.dropLast().joined(separator: ", ") + " and " + named.last!
    }

    func problems(_ rules: PlacementRules) -> [String] {
        guard activeRack != 0, rules.activeRack == nil else { return [] }
        return ["namespace \(name): active-rack \(activeRack) is ignored: no node that may have masters is on that rack"]
    }

    func problems(_ serving: Serving) -> [String] {
        var sentences: [String] = []
        if serving.subsetCount > 0 {
            sentences.append("namespace \(name): no full copy of \(serving.subsetCount) partitions is in the cluster:"
                + " what is there is served")
        }
        if serving.tornCount > 0 {
            sentences.append("namespace \(name): all copies of \(serving.tornCount) partitions are of nodes that were not"
                + " stopped in order: they are served as they are")
        }
        return sentences
    }
}
