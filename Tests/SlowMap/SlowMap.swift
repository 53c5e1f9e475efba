// The map of a namespace a second time: written from the rules in docs/CLUSTER.md, slow, and without a line of the first
// one. Tests and the simulator compare the two.
internal import Base
package import Fabric
package import Partitions

/// The slow way from a bundle to a map.
package enum SlowMap {
    /// The map of a namespace; nil if no member has it. `key`: the view key. `number`: of the view, below 2^32.
    package static func map(
        _ name: String, number: UInt64, key: UInt64, blocks: [(member: Member, block: NodeBlock)]
    ) -> NamespaceMap? {
        var spaces: [NodeID: NamespaceBlock] = [:]
        var leaving: Set<NodeID> = []
        for (member, block) in blocks {
            for space in block.namespaces where space.name == name { spaces[member.id] = space }
            if block.isLeaving { leaving.insert(member.id) }
        }
        if spaces.isEmpty { return nil }
        let all = spaces.keys.sorted()
        var quiesced = Set(all.filter { spaces[$0]!.isQuiesced || leaving.contains($0) })
        if quiesced.count == all.count { quiesced = [] }
        let able = all.filter { !quiesced.contains($0) }
        let copies = min(able.count, Int(spaces.values.map(\.replicationFactor).min()!))
        let lists = (0..<4096).map { partition -> [NodeID] in
            let sorted = all.sorted { weight($0, partition) > weight($1, partition) }
            return sorted.filter { !quiesced.contains($0) } + sorted.filter { quiesced.contains($0) }
        }
        let placed = place(spaces, able: able, copies: copies, lists: lists)
        let numbers = Dictionary(uniqueKeysWithValues: all.enumerated().map { ($1, UInt16($0)) })
        var result = Served()
        for partition in 0..<4096 {
            serve(partition, placed[partition], lists[partition], spaces, number, key: key, into: &result)
        }
        let marks = spaces.values.map(\.highWaterMark)
        return NamespaceMap(
            name: name, nodes: all, racks: all.map { spaces[$0]!.rackID }, quiesced: all.map { quiesced.contains($0) },
            copies: copies, activeRack: activeRack(spaces, able) ?? 0, isUniform: isUniform(spaces),
            replicas: (0..<copies).flatMap { column in placed.map { numbers[$0[column]]! } },
            actingMasters: result.masters.map { numbers[$0]! }, epochs: result.epochs,
            duplicates: result.duplicates.map { (PartitionID(UInt16($0)), $1.map { numbers[$0]! }.sorted()) },
            fills: result.fills.map { (PartitionID(UInt16($0)), $1.map { numbers[$0]! }) },
            highWaterMark: marks.max()!, limits: limits(Array(spaces.values)))
    }

    private static func limits(_ spaces: [NamespaceBlock]) -> [NamespaceLimit] {
        var least: [String: UInt64] = [:]
        for limit in spaces.flatMap(\.limits) { least[limit.name] = min(limit.value, least[limit.name] ?? .max) }
        return least.map { NamespaceLimit(name: $0.key, value: $0.value) }.sorted()
    }

    /// Two rounds of mixing: the node alone, then with the partition.
    private static func weight(_ node: NodeID, _ partition: Int) -> UInt64 {
        let seed = scramble(node.rawValue ^ 0x6D0F27BD19C4A8E3)
        return scramble(seed &+ 0x9E3779B97F4A7C15 &* UInt64(partition + 1))
    }

    private static func scramble(_ number: UInt64) -> UInt64 {
        var result = number
        result ^= result / (1 << 33)
        result = result.multipliedReportingOverflow(by: 0x9FB21C651E98DF25).partialValue
        result ^= result / (1 << 29)
        result = result.multipliedReportingOverflow(by: 0xC6A4A7935BD1E995).partialValue
        return result ^ result / (1 << 32)
    }

    // MARK: - Columns

    private static func isUniform(_ spaces: [NodeID: NamespaceBlock]) -> Bool {
        !spaces.values.contains { !$0.prefersUniformBalance }
    }

    /// Nil: masters are on all racks.
    private static func activeRack(_ spaces: [NodeID: NamespaceBlock], _ able: [NodeID]) -> UInt32? {
        let rack = spaces.values.map(\.activeRack).min()!
        return rack != 0 && able.contains { spaces[$0]!.rackID == rack } ? rack : nil
    }

    /// The nodes of each partition, the master first.
    private static func place(
        _ spaces: [NodeID: NamespaceBlock], able: [NodeID], copies: Int, lists: [[NodeID]]
    ) -> [[NodeID]] {
        let isUniform = isUniform(spaces), activeRack = activeRack(spaces, able)
        let racks = Set(able.map { spaces[$0]!.rackID })
        var placed = [[NodeID]](repeating: [], count: 4096)
        for column in 0..<copies {
            var columnNodes = able
            if column == 0, let activeRack {
                columnNodes = able.filter { spaces[$0]!.rackID == activeRack }
            }
            var counts = Dictionary(uniqueKeysWithValues: able.map { ($0, 0) })
            for partition in 0..<4096 {
                let usedRacks = Set(placed[partition].map { spaces[$0]!.rackID })
                var possible = lists[partition].filter { columnNodes.contains($0) && !placed[partition].contains($0) }
                if usedRacks.count < racks.count { possible.removeAll { usedRacks.contains(spaces[$0]!.rackID) } }
                let exact = 4096 / columnNodes.count
                let share = column == 0 ? exact : exact + exact / 16
                let above = counts.values.filter { $0 > share }.count
                let under = possible.filter { node in
                    counts[node]! < share || counts[node]! == share && above < 4096 % columnNodes.count
                }
                let fewest = possible.map { counts[$0]! }.min()!
                let chosen = isUniform
                    ? under.first ?? possible.first { counts[$0]! == fewest }! : possible.first!
                counts[chosen]! += 1
                placed[partition].append(chosen)
            }
        }
        return placed
    }

    // MARK: - Who serves

    private struct Served {
        var masters: [NodeID] = []
        var epochs: [Epoch] = []
        var duplicates: [(Int, [NodeID])] = []
        var fills: [(Int, [NodeID])] = []
    }

    private static func serve(
        _ partition: Int, _ replicas: [NodeID], _ list: [NodeID], _ spaces: [NodeID: NamespaceBlock], _ number: UInt64,
        key: UInt64, into result: inout Served
    ) {
        let claims = spaces.mapValues { $0.claims[partition] }
        let versions = claims.compactMapValues(\.version)
        let known = claims.values.map(\.remembered.rawValue) + versions.values.map(\.epoch.rawValue)
        let highest = Epoch(rawValue: known.max()!)
        let fresh = Epoch(regime: min(max(highest.regime + 1, UInt32(number)), 0xFFFFFF), viewKey: key)
        guard let newest = versions.values.map(\.epoch.rawValue).max() else {
            result.masters.append(replicas[0])
            return result.epochs.append(fresh)
        }
        var best = (replicas + list.filter { !replicas.contains($0) }).filter { versions[$0]?.epoch.rawValue == newest }
        if best.contains(where: { versions[$0]!.subsetSince == nil }) { best.removeAll { versions[$0]!.subsetSince != nil } }
        if best.contains(where: { !versions[$0]!.isTorn }) { best.removeAll { versions[$0]!.isTorn } }
        let master = best[0]
        let mine = versions[master]!
        result.masters.append(master)
        let along = Set(replicas + [master])
        let isKept = newest == highest.rawValue && claims[master]!.servedCopies == along.count
            && along.allSatisfy { versions[$0]?.epoch.rawValue == newest }
        result.epochs.append(isKept ? mine.epoch : fresh)
        let isWhole = mine.subsetSince == nil && !mine.isTorn
        let others = versions.keys.filter { node in
            let its = versions[node]!
            return node != master && (its.isMixed || !isWhole || !([mine.epoch] + mine.ancestors).contains(its.epoch))
        }
        if !others.isEmpty { result.duplicates.append((partition, others)) }
        let lacking = replicas.filter { node in
            guard node != master else { return false }
            guard let its = versions[node] else { return true }
            return its.epoch != mine.epoch || its.subsetSince != nil || its.isTorn
        }
        if !lacking.isEmpty { result.fills.append((partition, lacking)) }
    }
}
