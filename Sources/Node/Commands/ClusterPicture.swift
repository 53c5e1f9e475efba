// Draws what a survey has found: text for terminals, pipes and eyes.
internal import Client
internal import Glibc

/// See the top of the file.
struct ClusterPicture {
    /// Characters of the longest bar.
    private static let barLength = 40
    let survey: ClusterSurvey
    /// Whether to use colours.
    let isColoured: Bool

    /// Colours are for terminals, and for those who have not switched them off (NO_COLOR).
    static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == nil }

    var lines: [String] {
        head + [""] + nodes + survey.namespaces.flatMap { [""] + namespace($0) } + problems + verdict
    }

    // ---- Cluster and nodes ----

    private var head: [String] {
        let members = survey.nodes.filter(\.isMember)
        var keys: [String] = []
        for node in members where !keys.contains(node.viewKey) { keys.append(node.viewKey) }
        let name = survey.nodes.map(\.clusterName).first { !$0.isEmpty } ?? "without a name"
        let views = keys.map { key -> String in
            let node = members.first { $0.viewKey == key }
            func value(_ name: String) -> String { node?.statistic(name) ?? "" }
            let number = value("cluster_view_number")
            return "view \(number.isEmpty ? "?" : number), key \(key), principal \(value("cluster_principal")),"
                + " \(value("cluster_size")) members, map \(value("cluster_map_hash")),"
                + " integrity \(value("cluster_integrity"))"
        }
        return [bold("cluster \(name), \(survey.nodes.count) nodes")] + (views.isEmpty ? ["no view"] : views)
    }

    private var nodes: [String] {
        let rows = survey.nodes.map { node -> [String] in
            let racks = node.namespaces.map(\.rack)
            let isOneRack = Set(racks).count <= 1
            let rack = isOneRack
                ? racks.first ?? "?" : node.namespaces.map { "\($0.name):\($0.rack)" }.joined(separator: " ")
            return [
                node.id, rack, "\(node.address)", node.build, node.isMember ? node.viewKey : "none",
                node.statistic("client_connections"), node.problems.isEmpty ? "none" : "\(node.problems.count)",
            ]
        }
        return titled([["node", "rack", "address", "build", "view", "clients", "problems"]] + rows)
    }

    // ---- Partitions ----

    private func namespace(_ name: String) -> [String] {
        let found = survey.nodes.compactMap { node in ClusterSurvey.report(node, name).map { (node, $0) } }
        let most = found.map { $0.1.masterCount + $0.1.copyCount }.max() ?? 0
        let rows = found.map { node, report -> [String] in
            [
                node.id, report.rack, "\(report.masterCount)", "\(report.copyCount)",
                bar(report.masterCount, most, "#") + bar(report.copyCount, most, "="),
            ]
        }
        let ownership = survey.ownership(name)
        let fills = found.reduce(0) { $0 + $1.1.fillCount }
        let duplicates = found.reduce(0) { $0 + $1.1.duplicateCount }
        let copies = found.map { $0.1.columns.count }.max() ?? 0
        var summary = "\(ownership.without) partitions without a master"
        if ownership.several > 0 { summary += ", \(ownership.several) with more than one" }
        summary += "; \(fills) copies wait to be filled, \(duplicates) to be merged"
        return [bold("namespace \(name), \(copies) \(copies == 1 ? "copy" : "copies") of each partition")]
            + titled([["node", "rack", "masters", "copies", "# serves, = holds a copy"]] + rows)
            + [ownership.without + ownership.several > 0 ? red(summary) : summary]
    }

    /// A count of `most` as a bar; never none for what is there.
    private func bar(_ count: Int, _ most: Int, _ character: Character) -> String {
        guard count > 0 else { return "" }
        return String(repeating: character, count: max(count * ClusterPicture.barLength / most, 1))
    }

    // ---- What is wrong ----

    private var problems: [String] {
        // Most problems are seen by all nodes: each is told once, with those that see it.
        var told: [String] = []
        var seenBy: [[String]] = []
        for node in survey.nodes {
            for problem in node.problems {
                if let place = told.firstIndex(of: problem) {
                    seenBy[place].append(node.id)
                } else {
                    told.append(problem)
                    seenBy.append([node.id])
                }
            }
        }
        guard !told.isEmpty else { return [] }
        return ["", bold("problems")] + zip(told, seenBy).map { "\($1.joined(separator: ", ")): \($0)" }
    }

    private var verdict: [String] {
        let faults = survey.faults
        return [""] + (faults.isEmpty ? [green("the cluster is whole")] : [red("the cluster is not whole")]
            + faults.map { "  \($0)" })
    }

    // ---- Text ----

    private func titled(_ rows: [[String]]) -> [String] {
        let lines = TextTable.lines(rows)
        return [faint(lines[0])] + lines.dropFirst()
    }

    private func styled(_ text: String, _ code: Int) -> String { isColoured ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }
    private func bold(_ text: String) -> String { styled(text, 1) }
    private func faint(_ text: String) -> String { styled(text, 2) }
    private func red(_ text: String) -> String { styled(text, 31) }
    private func green(_ text: String) -> String { styled(text, 32) }
}
