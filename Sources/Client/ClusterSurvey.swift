// What all nodes of a cluster say, put together: whether they are one whole. A value without I/O.
internal import Base

/// The nodes that were found, and those that were not.
package struct ClusterSurvey: Sendable {
    /// How the partitions of a namespace are served.
    package struct Ownership: Sendable, Equatable {
        package let without: Int
        package let several: Int
    }

    /// By id, the lowest first.
    package let nodes: [NodeReport]
    /// Addresses that were told, and where nothing answered; a sentence each.
    package let silent: [String]

    package init(nodes: [NodeReport], silent: [String]) {
        self.nodes = nodes.sorted { ($0.id.count, $0.id) < ($1.id.count, $1.id) }
        self.silent = silent
    }

    /// The namespaces that any node has, in order.
    package var namespaces: [String] {
        var names: [String] = []
        for node in nodes { for one in node.namespaces where !names.contains(one.name) { names.append(one.name) } }
        return names.sorted()
    }

    /// What a node says about a namespace; nil if it has none of that name.
    package static func report(_ node: NodeReport, _ namespace: String) -> NamespaceReport? {
        node.namespaces.first { $0.name == namespace }
    }

    /// Partitions of a namespace that nobody serves, and that more than one node does.
    package func ownership(_ namespace: String) -> Ownership {
        var masters = [Int](repeating: 0, count: PartitionID.count)
        for bitmap in nodes.compactMap({ ClusterSurvey.report($0, namespace)?.columns.first }) {
            for partition in masters.indices where bitmap[partition >> 3] & (0x80 >> UInt8(partition & 7)) != 0 {
                masters[partition] += 1
            }
        }
        return Ownership(without: masters.count { $0 == 0 }, several: masters.count { $0 > 1 })
    }

    /// Why this is not one whole cluster, a sentence each; empty if it is one. Copies that are still to be filled, and
    /// settings that differ, do not count.
    package var faults: [String] { silent + viewFaults + nodeFaults + namespaces.flatMap { partitionFaults($0) } }
    /// Whether nodes name anything that somebody should look at.
    package var hasProblems: Bool { nodes.contains { !$0.problems.isEmpty } }

    private var viewFaults: [String] {
        var faults: [String] = []
        for node in nodes where !node.isMember {
            let begin = "this node belongs to no view: "
            let waiting = node.list("cluster_waiting_for")
            let reason = node.problems.first { $0.hasPrefix(begin) }.map { String($0.dropFirst(begin.count)) }
                ?? (waiting.isEmpty ? nil : "it waits for \(waiting.joined(separator: ","))")
            faults.append("\(node.id) belongs to no view" + (reason.map { ": \($0)" } ?? ""))
        }
        let members = nodes.filter(\.isMember)
        var keys: [String] = []
        for node in members where !keys.contains(node.viewKey) { keys.append(node.viewKey) }
        for key in keys {
            let group = members.filter { $0.viewKey == key }
            let names = group.map(\.id).joined(separator: ", ")
            let size = group[0].statistic("cluster_size")
            if keys.count > 1 { faults.append("not all nodes are in one view: \(names) in \(key), of \(size) members") }
            if keys.count == 1, size != "\(group.count)" {
                faults.append("the view has \(size) members, \(group.count) were found: \(names)")
            }
            if Set(group.map { $0.statistic("cluster_map_hash") }).count > 1 {
                faults.append("the members of view \(key) have different maps: \(names)")
            }
        }
        for node in members where node.statistic("cluster_integrity") != "true" {
            faults.append("\(node.id) says cluster_integrity \(node.statistic("cluster_integrity")):"
                + " it does not hear from all members that they are in its view")
        }
        return faults
    }

    /// Nodes that are there, and are no members: these were not found, as members tell of members only.
    private var nodeFaults: [String] {
        func named(_ statistic: String) -> [(id: String, by: [String])] {
            var found: [(id: String, by: [String])] = []
            for node in nodes {
                for id in node.list(statistic) {
                    if let place = found.firstIndex(where: { $0.id == id }) {
                        found[place].by.append(node.id)
                    } else {
                        found.append((id, [node.id]))
                    }
                }
            }
            return found
        }
        let outside = named("cluster_nodes_outside").filter { one in !nodes.contains { $0.id == one.id } }
        return named("cluster_duplicate_nodes").map { "two nodes claim the id \($0.id)" }
            + outside.map { "\($0.id) is there, and not in the view: \($0.by.joined(separator: ", ")) say why" }
    }

    private func partitionFaults(_ namespace: String) -> [String] {
        let ownership = ownership(namespace)
        var faults: [String] = []
        if ownership.without > 0 {
            faults.append("namespace \(namespace): \(ownership.without) partitions without a master")
        }
        if ownership.several > 0 {
            faults.append("namespace \(namespace): \(ownership.several) partitions with more than one master")
        }
        return faults
    }
}
