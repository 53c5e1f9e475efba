// What versions promise, against what copies hold: nodes that meet, part, stop and come back, with writes that are tracked
// one by one. A version that promises a write which its copy lacks is a lost write of the next part of the project.
import Base
import Fabric
import Partitions
import Testing
import TestSupport

/// An acknowledged write.
private struct Write: Hashable {
    let number: Int
    let epoch: Epoch
}

private struct History {
    var random: SeededRandom
    var nodes: [TestNode]
    /// Of each node, of each tracked partition.
    var contents: [[Set<Write>]]
    /// Acknowledged, by tracked partition; whether it was ever on one copy alone.
    var acknowledged: [[(write: Write, isAlone: Bool)]]
    /// The highest view number that each node accepted.
    var accepted: [UInt64]
    let tracked: [Int]
    /// Serves only what the roster allows, and nothing is torn.
    let isStronglyConsistent: Bool
    let breaks: PartitionBreaks
    var written = 0
    var failures: [String] = []
    /// How many partitions kept their epoch, how many served, how many could not.
    var (kept, served, refused) = (0, 0, 0)

    init(seed: UInt64, isStronglyConsistent: Bool, breaks: PartitionBreaks = []) {
        random = SeededRandom(seed: seed)
        self.isStronglyConsistent = isStronglyConsistent
        self.breaks = breaks
        let (count, factor) = (2 + random.below(5), UInt16(2 + random.below(2)))
        let isUniform = random.chance(50)
        nodes = (1...count).map { TestNode(UInt64($0), rack: UInt32($0 % 3), factor: factor, isUniform: isUniform) }
        accepted = [UInt64](repeating: 0, count: count)
        tracked = (0..<48).map { $0 * 85 }
        contents = [[Set<Write>]](repeating: [Set<Write>](repeating: [], count: tracked.count), count: count)
        acknowledged = [[(write: Write, isAlone: Bool)]](repeating: [], count: tracked.count)
    }

    /// Some views: everybody, or two sides, or with somebody missing.
    mutating func step() {
        var groups = [[Int](), [Int]()]
        let (split, missing) = (random.chance(40), random.chance(40) ? 30 : 0)
        for node in nodes.indices where !random.chance(missing) {
            groups[split ? random.below(2) : 0].append(node)
        }
        for node in nodes.indices where random.chance(15) { restart(node) }
        if random.chance(10) { nodes[random.below(nodes.count)].block.isQuiesced.toggle() }
        var servedBy = [Int](repeating: -1, count: tracked.count)
        for (number, group) in groups.enumerated() where !group.isEmpty {
            let highest = group.map { accepted[$0] }.max()! + 1
            for node in group { accepted[node] = highest }
            let map = view(random.key(), group.map { nodes[$0] }, number: highest, breaks: breaks)
            // A view that some have stored and nobody has opened.
            let isVoid = random.chance(10)
            let before = group.map { nodes[$0].records }
            for node in group where !isVoid || random.chance(50) { open(node, map) }
            for place in tracked.indices {
                if isVoid {
                    if isStronglyConsistent, !isAvailable(place, group, before) { keep(place, group, before) }
                    continue
                }
                if isStronglyConsistent {
                    guard isAvailable(place, group, before) else {
                        refused += 1
                        keep(place, group, before)
                        continue
                    }
                    if servedBy[place] >= 0 { failures.append("P5: partition \(tracked[place]) is served on two sides") }
                    servedBy[place] = number
                }
                serve(place, map, group)
            }
        }
        check()
    }

    private mutating func open(_ node: Int, _ map: ClusterMap) {
        let before = nodes[node].records
        nodes[node].open(map)
        guard !before.isEmpty, let opened = map.map("test") else { return }
        for partition in tracked where opened.epochs[partition].rawValue < before[partition].remembered.rawValue {
            failures.append("P4: partition \(partition) goes back from \(before[partition].remembered.words)"
                + " to \(opened.epochs[partition].words)")
        }
    }

    private mutating func restart(_ node: Int) {
        nodes[node].member = Member(id: nodes[node].member.id, incarnation: nodes[node].member.incarnation + 1)
        // One node alone loses writes, so that each has another copy.
        let isTorn = node == 0 && !isStronglyConsistent && random.chance(50)
        for partition in nodes[node].records.indices { nodes[node].records[partition].isOpen = isTorn }
        nodes[node].records = nodes[node].records.map { $0.foundAtStart(isDurableAtAcknowledge: false) }
        guard isTorn else { return }
        for place in tracked.indices {
            contents[node][place] = contents[node][place].filter { _ in !random.chance(20) }
        }
    }

    private mutating func isAvailable(_ place: Int, _ group: [Int], _ before: [[PartitionRecord]]) -> Bool {
        let roster = ClusterMap.list(of: nodes.map(\.member.id), partition: tracked[place])
        let present = zip(group, before).map { node, records in
            RosterView.Present(
                node: nodes[node].member.id, version: records.isEmpty ? nil : records[tracked[place]].version,
                remembered: records.isEmpty || records[tracked[place]].remembered.rawValue == 0
                    ? nil : records[tracked[place]].remembered)
        }
        let view = RosterView(
            roster: roster, replicationFactor: Int(nodes[0].block.replicationFactor), present: present)
        guard Availability.inStrongConsistency(view).isAvailable else { return false }
        let there = group.reduce(into: Set<Write>()) { $0.formUnion(contents[$1][place]) }
        for (write, _) in acknowledged[place] where !there.contains(write) {
            failures.append("R2: partition \(tracked[place]) is served without write \(write.number) of"
                + " \(write.epoch.words)")
        }
        return true
    }

    /// A partition that may not be served begins no epoch.
    private mutating func keep(_ place: Int, _ group: [Int], _ before: [[PartitionRecord]]) {
        for (node, records) in zip(group, before) where !nodes[node].records.isEmpty {
            nodes[node].records[tracked[place]] = records.isEmpty ? PartitionRecord() : records[tracked[place]]
            nodes[node].records[tracked[place]].servedCopies = 0
        }
    }

    private mutating func serve(_ place: Int, _ map: ClusterMap, _ group: [Int]) {
        let (partition, space) = (tracked[place], map.map("test")!)
        func node(_ number: UInt16) -> Int { nodes.firstIndex { $0.member.id == space.nodes[Int(number)] }! }
        let acting = node(space.actingMasters[partition])
        let replicas = (0..<space.copies).map { node(space.replicas[$0 * PartitionID.count + partition]) }
        let others = space.duplicates.first { Int($0.partition.number) == partition }?.nodes.map(node) ?? []
        served += 1
        if nodes[acting].records[partition].version?.ancestors.first != nil,
            space.epochs[partition].viewKey != map.key { kept += 1 }
        let along = Set(replicas + [acting])
        for _ in 0..<random.below(3) {
            written += 1
            let write = Write(number: written, epoch: space.epochs[partition])
            for copy in along { contents[copy][place].insert(write) }
            acknowledged[place].append((write, along.count == 1))
        }
        if random.chance(40) { migrate(place, acting, replicas, others, group, space.epochs[partition]) }
    }

    /// Merges, fills and drops, as the next part of the project will.
    private mutating func migrate(
        _ place: Int, _ acting: Int, _ replicas: [Int], _ others: [Int], _ group: [Int], _ epoch: Epoch
    ) {
        let partition = tracked[place]
        var merged = nodes[acting].records[partition].version!
        if !others.isEmpty {
            // What wins a merge is replicated like a write.
            let won = others.reduce(into: Set<Write>()) { $0.formUnion(contents[$1][place]) }
            for copy in Set(replicas + [acting]) { contents[copy][place].formUnion(won) }
            let versions = [merged] + others.compactMap { nodes[$0].records[partition].version }
            if merged.isSound, PartitionVersion.areComplete(versions, upTo: merged.epoch) {
                merged = PartitionVersion(epoch: merged.epoch, ancestors: merged.ancestors)
                nodes[acting].records[partition].version = merged
            }
        }
        guard merged.isFull, merged.isSound else { return }
        for replica in replicas where replica != acting && random.chance(80) {
            contents[replica][place] = contents[acting][place]
            nodes[replica].records[partition].version = PartitionVersion(epoch: epoch, ancestors: merged.ancestors)
        }
        let whole = replicas.filter { nodes[$0].records[partition].version == merged }
        guard whole.count == replicas.count, replicas.count > 1 else { return }
        for node in group where !replicas.contains(node) {
            nodes[node].records[partition].version = nil
            nodes[node].records[partition].servedCopies = 0
            contents[node][place] = []
        }
    }

    private mutating func check() {
        for place in tracked.indices {
            for (node, content) in zip(nodes, contents) where !node.records.isEmpty {
                guard let version = node.records[tracked[place]].version, version.isSound else { continue }
                for (write, _) in acknowledged[place] where version.line.contains(write.epoch) {
                    let isPromised = version.subsetSince.map {
                        write.epoch.regime >= $0.regime || write.epoch.regime <= version.base?.regime ?? 0
                    } ?? true
                    if isPromised, !content[place].contains(write) {
                        failures.append("partition \(tracked[place]) on node \(node.member): \(version) lacks write"
                            + " \(write.number) of \(write.epoch.words)")
                    }
                }
            }
            for (write, isAlone) in acknowledged[place] where !isAlone {
                if contents.contains(where: { $0[place].contains(write) }) { continue }
                failures.append("partition \(tracked[place]): write \(write.number) of \(write.epoch.words) is nowhere")
            }
        }
    }
}

struct HistoryTests {
    /// Runs histories for a while and says what they came to.
    private func run(_ name: String, isStronglyConsistent: Bool) {
        var seeds = SeededRandom(seed: runSeed(name))
        var (histories, kept, served, refused) = (0, 0, 0, 0)
        forAWhile(4) {
            let seed = seeds.next()
            var history = History(seed: seed, isStronglyConsistent: isStronglyConsistent)
            for _ in 0..<20 where history.failures.isEmpty { history.step() }
            #expect(history.failures.isEmpty, "history \(seed): \(history.failures.prefix(3))")
            (histories, kept, served) = (histories + 1, kept + history.kept, served + history.served)
            refused += history.refused
        }
        print("\(name): \(histories) histories, \(served) times served, \(kept) of them under a kept epoch,"
            + " \(refused) refused")
        #expect(kept > 0 && served > kept)
        #expect(isStronglyConsistent == (refused > 0))
    }

    @Test func versionsKeepTheirPromisesInAvailabilityMode() {
        run("versionsKeepTheirPromisesInAvailabilityMode", isStronglyConsistent: false)
    }

    @Test func nothingAcknowledgedIsMissingInStrongConsistency() {
        run("nothingAcknowledgedIsMissingInStrongConsistency", isStronglyConsistent: true)
    }

    @Test func forgottenEpochsAreNoticed() {
        var failed = 0
        for seed in 1...10 {
            var nodes = (1...4).map { TestNode(UInt64($0)) }
            var random = SeededRandom(seed: UInt64(seed))
            var last = [Epoch](repeating: Epoch(rawValue: 0), count: PartitionID.count)
            for _ in 0..<5 where last[0].rawValue < .max {
                let map = view(random.key(), nodes, breaks: .forgetsEpochs)
                for number in nodes.indices { nodes[number].open(map) }
                let epochs = map.maps[0].epochs
                if zip(epochs, last).contains(where: { $0 != $1 && $0.regime <= $1.regime }) {
                    failed += 1
                    break
                }
                last = epochs
            }
        }
        #expect(failed == 10)
    }
}
