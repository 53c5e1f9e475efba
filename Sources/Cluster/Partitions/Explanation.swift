// Why a partition is where it is, in words, for operators. Nothing here decides anything: it runs the same steps again.
internal import Base
internal import Fabric

extension ClusterMap {
    /// Lines without `;`, separated by newlines: the list of the partition, how each column was filled, the versions, why
    /// this node serves, and what it waits for. Nil if no member has the namespace. `partition`: 0 to 4095.
    package func explain(partition: Int, namespace: String) -> String? {
        guard (0..<PartitionID.count).contains(partition), let map = map(namespace) else { return nil }
        let inputs = NamespaceInputs(namespace, blocks, lists)
        let story = PartitionStory(map: map, inputs: inputs, rules: rules(inputs), partition: partition)
        return story.lines(key: key).joined(separator: "\n")
    }
}

private struct PartitionStory {
    let map: NamespaceMap
    let inputs: NamespaceInputs
    let rules: PlacementRules
    let partition: Int

    func lines(key: UInt64) -> [String] {
        let head = "partition \(partition) of namespace \(map.name), view \(String(key, radix: 16)):"
            + " \(map.nodes.count) nodes, \(rules.rackCount) racks, replication factor \(map.copies)"
        return [head] + list + columns + versions + serving + waiting
    }

    private func name(_ number: UInt16) -> String { map.nodes[Int(number)].description }

    private func claim(_ number: UInt16) -> PartitionClaim { inputs.blocks[Int(number)].claims[partition] }

    private var ordered: ArraySlice<UInt16> {
        rules.lists[(partition * rules.nodeCount)..<((partition + 1) * rules.nodeCount)]
    }

    private var list: [String] {
        ["list: by weight, the heaviest first" + (map.quiesced.contains(true) ? ", quiesced nodes behind all others" : "")]
            + ordered.enumerated().map { place, number in
                let weight = String(NodeLists.weight(map.nodes[Int(number)], partition) >> 48, radix: 16)
                return "  \(place + 1). \(name(number)), rack \(map.racks[Int(number)]), weight \(weight)"
                    + (map.quiesced[Int(number)] ? ", quiesced" : "")
            }
    }

    // MARK: - Columns

    private var columns: [String] {
        let placement = Placement(rules, watching: partition)
        return (0..<map.copies).flatMap { column in
            let chosen = map.replicas[column * PartitionID.count + partition]
            let quota = placement.quotasWhenWatched[column]
            var lines = ["column \(column)\(column == 0 ? ", the master" : ""): \(name(chosen))"]
            for number in ordered.prefix(rules.candidateCount) {
                let isChosen = number == chosen
                lines.append("  \(name(number)): " + reason(number, column, placement, quota, isChosen: isChosen))
                if isChosen && (!rules.isUniform || quota.allows(Int(number))) { break }
            }
            return lines
        }
    }

    private func reason(
        _ number: UInt16, _ column: Int, _ placement: Placement, _ quota: Quota, isChosen: Bool
    ) -> String {
        switch placement.obstacle(partition, column, number) {
        case .notActiveRack: return "is not on the active rack"
        case .hasColumn(let earlier): return "has column \(earlier)"
        case .rackHasColumn(let earlier):
            return "rack \(map.racks[Int(number)]) has column \(earlier), and another rack has none yet"
        case nil: break
        }
        guard rules.isUniform else { return "is taken: the first that may have it" }
        let count = quota.counts[Int(number)]
        if quota.allows(Int(number)) {
            return "is taken: it may have it, and had \(count) of \(limit(quota, count)) in this column"
        }
        let full = "had \(count) in this column, \(quota.floor) are its share"
        return isChosen ? full + ", and is taken: all had their share, and it had the fewest" : full
    }

    private func limit(_ quota: Quota, _ count: Int) -> Int { count < quota.floor ? quota.floor : quota.floor + 1 }

    // MARK: - Versions

    private var versions: [String] {
        let holders = map.nodes.indices.map { UInt16($0) }.filter { claim($0).version != nil }
        if holders.isEmpty { return ["versions: nobody has a copy yet"] }
        return ["versions:"] + holders.map { "  \(name($0)): \(claim($0).version!)" }
    }

    private var serving: [String] {
        let number = map.actingMasters[partition]
        guard number != NamespaceMap.nobody else { return ["served by nobody: it is not available"] }
        let epoch = map.epochs[partition]
        guard let version = claim(number).version else {
            return ["served by \(name(number)), the master: nobody had a copy, all begin with epoch \(epoch.words)"]
        }
        let why = map.column(of: number, partition) == 0
            ? "the master, and no copy is better" : "\(betterThanMaster(version))"
        let kept = version.epoch == epoch
            ? "epoch \(epoch.words) goes on: the same process serves the same copies"
            : "epoch \(epoch.words) begins: who serves, or who has copies, changed"
        return ["served by \(name(number)): \(why)", kept]
    }

    private func betterThanMaster(_ version: PartitionVersion) -> String {
        let master = map.replicas[partition]
        guard let its = claim(master).version else { return "the master \(name(master)) has no copy yet" }
        if its.epoch != version.epoch { return "its epoch is newer than that of the master \(name(master))" }
        if its.isFull != version.isFull { return "its copy is full, that of the master \(name(master)) is not" }
        return "its copy is sound, that of the master \(name(master)) is not"
    }

    private var waiting: [String] {
        var lines: [String] = []
        if let others = map.duplicates.first(where: { Int($0.partition.number) == partition })?.nodes {
            lines.append("waits for what others may have and it does not: " + others.map(name).joined(separator: ", "))
        }
        if let lacking = map.fills.first(where: { Int($0.partition.number) == partition })?.nodes {
            lines.append("is to fill the copies of: " + lacking.map(name).joined(separator: ", "))
        }
        return lines.isEmpty ? ["waits for nothing: all copies are complete"] : lines
    }
}
