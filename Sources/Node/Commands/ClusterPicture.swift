// Draws what a survey has found: text for terminals, pipes and eyes.
internal import Client
internal import Glibc

/// See the top of the file.
struct ClusterPicture {
    /// Characters of the longest bar, and of one that still says something.
    private static let barLengths = 4...40
    let survey: ClusterSurvey
    /// Whether to use colours.
    let isColoured: Bool
    /// Characters of a line, if that is known.
    let width: Int?

    /// Colours are for terminals, and for those who have not switched them off (NO_COLOR).
    static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == nil }

    /// Characters of a line of the terminal; nil if the output is none, or does not say.
    static var terminalWidth: Int? {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
        return Int(size.ws_col)
    }

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
        return [bold("cluster \(name), \(survey.nodes.count) nodes")]
            + (views.isEmpty ? ["no view"] : views.flatMap { folded($0) })
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
        var table = [["node", "rack", "address", "build", "view", "clients", "problems"]] + rows
        // What is worth least goes first.
        for title in ["build", "clients"] where ClusterPicture.width(of: table) > width ?? .max {
            guard let column = table[0].firstIndex(of: title) else { continue }
            for row in table.indices { table[row].remove(at: column) }
        }
        return titled(table)
    }

    private static func width(of table: [[String]]) -> Int { TextTable.lines(table).map(\.count).max() ?? 0 }

    // ---- Partitions ----

    private func namespace(_ name: String) -> [String] {
        let found = survey.nodes.compactMap { node in ClusterSurvey.report(node, name).map { (node, $0) } }
        var table = [["node", "rack", "masters", "copies", ""]] + found.map { node, report in
            [node.id, report.rack, "\(report.masterCount)", "\(report.copyCount)", ""]
        }
        let most = found.map { $0.1.masterCount + $0.1.copyCount }.max() ?? 0
        let length = barLength(beside: table)
        table[0][4] = ClusterPicture.legend
        for (row, one) in found.enumerated() { table[row + 1][4] = bars(one.1, length, most) }
        let ownership = survey.ownership(name)
        var summary = "\(ownership.without) partitions without a master"
        if ownership.several > 0 { summary += ", \(ownership.several) with more than one" }
        // Who is in no view has a map that holds no more, or none: what it would say of copies means nothing.
        let members = found.filter(\.0.isMember).map(\.1)
        var title = "namespace \(name)"
        if let copies = members.map(\.columns.count).max() {
            title += ", \(copies) \(copies == 1 ? "copy" : "copies") of each partition"
            summary += "; \(members.reduce(0) { $0 + $1.fillCount }) copies wait to be filled,"
                + " \(members.reduce(0) { $0 + $1.duplicateCount }) to be merged"
        }
        return [bold(title)] + titled(table)
            + folded(summary).map { ownership.without + ownership.several > 0 ? red($0) : $0 }
    }

    private static let legend = "# serves, = holds a copy"

    /// What the rest of the table leaves of a line.
    private func barLength(beside table: [[String]]) -> Int {
        guard let width else { return ClusterPicture.barLengths.upperBound }
        // A bar of both kinds may be one character longer than one.
        let room = width - ClusterPicture.width(of: table) - 1
        return min(max(room, ClusterPicture.barLengths.lowerBound), ClusterPicture.barLengths.upperBound)
    }

    private func bars(_ report: NamespaceReport, _ length: Int, _ most: Int) -> String {
        bar(report.masterCount, length, most, "#") + bar(report.copyCount, length, most, "=")
    }

    /// A count of `most` as a bar; never none for what is there.
    private func bar(_ count: Int, _ length: Int, _ most: Int, _ character: Character) -> String {
        guard count > 0 else { return "" }
        return String(repeating: character, count: max(count * length / most, 1))
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
        return ["", bold("problems")] + zip(told, seenBy).flatMap { folded("\($1.joined(separator: ", ")): \($0)") }
    }

    private var verdict: [String] {
        let faults = survey.faults
        guard faults.isEmpty else { return ["", red("the cluster is not whole")] + faults.flatMap { folded("  \($0)") } }
        return ["", survey.hasProblems ? "the cluster is whole, but has problems" : green("the cluster is whole")]
    }

    // ---- Text ----

    /// A line in as many as the width asks for, broken at blanks.
    private func folded(_ text: String) -> [String] {
        guard let width, text.count > width else { return [text] }
        var lines: [String] = []
        var line = String(text.prefix { $0 == " " })
        let indent = line + "  "
        for word in text.split(separator: " ") {
            let isFirst = line.allSatisfy { $0 == " " }
            if !isFirst, line.count + 1 + word.count > width {
                lines.append(line)
                line = indent + word
            } else {
                line += (isFirst ? "" : " ") + word
            }
        }
        return lines + [line]
    }

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
