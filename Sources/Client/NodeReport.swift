// What one node says about its cluster, read from the answers to info commands.

/// One namespace as one node serves it.
package struct NamespaceReport: Sendable, Equatable {
    package let name: String
    /// As the node is configured, or as its map says.
    package let rack: String
    /// A bitmap of 4096 bits for each copy, the first bit of a byte first. The first one: what the node is acting master of.
    package let columns: [[UInt8]]
    /// Of the partitions that the node serves: copies that have to be filled, and nodes that have to be asked for more.
    package var fillCount = 0
    package var duplicateCount = 0

    /// Partitions that the node serves.
    package var masterCount: Int { NamespaceReport.count(columns.first ?? []) }
    /// Partitions that it has a copy of and does not serve.
    package var copyCount: Int { columns.dropFirst().reduce(0) { $0 + NamespaceReport.count($1) } }

    private static func count(_ bitmap: [UInt8]) -> Int { bitmap.reduce(0) { $0 + $1.nonzeroBitCount } }
}

/// What one node says about its cluster. Texts are as the node has sent them.
package struct NodeReport: Sendable, Equatable {
    /// What to ask a node for a report.
    package static let commands = [
        "node", "build", "cluster-name", "statistics", "rack-ids", "replicas", "cluster-problems",
    ]
    /// What to ask as well while copies are to be moved: long.
    package static let workCommand = "partition-info"

    package let address: NodeAddress
    package let id: String
    package let build: String
    /// Empty: it has none.
    package let clusterName: String
    package private(set) var namespaces: [NamespaceReport] = []
    /// A sentence each.
    package let problems: [String]
    private let statistics: [String: String]

    /// Nil if the answers are not those of a node.
    package init?(_ address: NodeAddress, _ answers: [(command: String, value: String)]) {
        func value(_ command: String) -> String { answers.first { $0.command == command }?.value ?? "" }
        id = value("node")
        guard !id.isEmpty, !id.hasPrefix("ERROR") else { return nil }
        self.address = address
        build = value("build")
        clusterName = value("cluster-name") == "null" ? "" : value("cluster-name")
        problems = value("cluster-problems").split(separator: ";").map { String($0) }
        statistics = NodeReport.pairs(value("statistics"), by: "=")
        let racks = NodeReport.pairs(value("rack-ids"), by: ":")
        namespaces = PartitionMap.columns(value("replicas")).map {
            NamespaceReport(name: $0.namespace, rack: racks[$0.namespace] ?? "?", columns: $0.bitmaps)
        }
    }

    /// A statistic; empty if the node has none of that name.
    package func statistic(_ name: String) -> String { statistics[name] ?? "" }

    /// A statistic that lists nodes.
    package func list(_ name: String) -> [String] {
        statistic(name) == "null" ? [] : statistic(name).split(separator: ",").map { String($0) }
    }

    /// What the node says that is still to be moved to or from it.
    package var remaining: Int { Int(statistic("migrate_partitions_remaining")) ?? 0 }

    package var viewKey: String { statistic("cluster_key") }
    package var isMember: Bool { statistic("cluster_is_member") == "true" }

    /// Adds what an answer to `workCommand` says about the partitions that the node serves.
    package mutating func takeWork(_ answer: String) {
        let rows = answer.split(separator: ";").map { $0.split(separator: ":", omittingEmptySubsequences: false) }
        guard let head = rows.first, let master = head.firstIndex(of: "working_master"),
            let duplicates = head.firstIndex(of: "n_dupl"), let fills = head.firstIndex(of: "emigrates")
        else { return }
        for row in rows.dropFirst() where row.count == head.count && row[master] == id {
            guard let number = namespaces.firstIndex(where: { $0.name == row[0] }) else { continue }
            namespaces[number].fillCount += Int(row[fills]) ?? 0
            namespaces[number].duplicateCount += Int(row[duplicates]) ?? 0
        }
    }

    /// `name=value;name=value`; of a name that is there twice the first value.
    private static func pairs(_ text: String, by separator: Character) -> [String: String] {
        let pairs = text.split(separator: ";").compactMap { pair -> (String, String)? in
            let parts = pair.split(separator: separator, maxSplits: 1, omittingEmptySubsequences: false)
            return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
        }
        return Dictionary(pairs) { first, _ in first }
    }
}
