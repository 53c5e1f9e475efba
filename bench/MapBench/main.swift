// What a view costs each member in computing: its block, all blocks of the bundle, the maps, and what it stores.
// CPU time of the thread, the median of the rounds. Usage: MapBench [--rounds N] [NODES...], or MapBench --movement
// (Movement.swift).
import Base
import CReactor
import Fabric
import Glibc
import Partitions

private let namespaceCount = 2

private func cpuMilliseconds() -> Double { Double(apus_clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID)) / 1e6 }

func rounded(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
}

/// The median of `rounds` measurements, in milliseconds.
private func median(_ rounds: Int, _ work: () -> Void) -> Double {
    let times = (0..<rounds).map { _ in
        let begun = cpuMilliseconds()
        work()
        return cpuMilliseconds() - begun
    }
    return times.sorted()[rounds / 2]
}

/// A cluster that went through some views.
private struct Cluster {
    private var random = SeededRandom(seed: 7)
    private let namespaces: [String]
    private let members: [Member]
    /// Of each member, of each namespace.
    private(set) var records: [[[PartitionRecord]]]
    private let isUniform: Bool
    private var number: UInt64 = 1

    init(nodes: Int, namespaces: Int = namespaceCount, isUniform: Bool = true) {
        members = (0..<nodes).map { Member(id: NodeID(rawValue: 0xBB9_0000_0000 + UInt64($0)), incarnation: 1) }
        self.namespaces = (0..<namespaces).map { "test\($0)" }
        records = [[[PartitionRecord]]](repeating: [[PartitionRecord]](repeating: [], count: namespaces), count: nodes)
        self.isUniform = isUniform
    }

    func block(_ member: Int, namespaces count: Int? = nil) -> NodeBlock {
        NodeBlock(namespaces: namespaces.indices.prefix(count ?? namespaces.count).map { number in
            NamespaceBlock(
                name: namespaces[number], records: records[member][number], rackID: UInt32(member % 4),
                prefersUniformBalance: isUniform)
        }, build: "bench")
    }

    func blocks(namespaces count: Int? = nil) -> [(member: Member, block: [UInt8])] {
        members.indices.map { (members[$0], block($0, namespaces: count).encoded) }
    }

    func stored(_ map: ClusterMap, _ member: Int) -> [PartitionRecord] {
        map.records(for: members[member].id, namespace: namespaces[0], before: records[member][0])
    }

    /// A view of some of the members, which store what it says.
    mutating func view(percent: Int) {
        let chosen = members.indices.filter { _ in Int.random(in: 0..<100, using: &random) < percent }
        if chosen.isEmpty { return }
        let map = ClusterMap.compute(
            number: number, key: UInt64.random(in: 1...0xFF_FFFF_FFFF, using: &random),
            blocks: chosen.map { (members[$0], block($0)) })
        number += 1
        for member in chosen {
            for (number, name) in namespaces.enumerated() {
                records[member][number] = map.records(
                    for: members[member].id, namespace: name, before: records[member][number])
            }
        }
    }
}

private func measure(_ nodes: Int, _ rounds: Int, views: Int) {
    var cluster = Cluster(nodes: nodes)
    for number in 0..<views { cluster.view(percent: number == 0 ? 100 : 85) }
    let (first, all) = (cluster.blocks(namespaces: 1), cluster.blocks())
    let decodedFirst = first.map { ($0.member, try! NodeBlock($0.block)) }
    let decodedAll = all.map { ($0.member, try! NodeBlock($0.block)) }
    let one = median(rounds) { precondition(ClusterMap.compute(number: 9, key: 9, blocks: decodedFirst).maps.count == 1) }
    let two = median(rounds) { precondition(ClusterMap.compute(number: 9, key: 9, blocks: decodedAll).maps.count == 2) }
    let map = ClusterMap.compute(number: 9, key: 9, blocks: decodedFirst)
    let encode = median(rounds) { precondition(cluster.block(0, namespaces: 1).encoded == first[0].block) }
    let decode = median(rounds) { precondition((try? NodeBlock(first[0].block)) == decodedFirst[0].1) }
    let store = median(rounds) {
        precondition(PartitionRecord.encode(cluster.stored(map, 0)).count == PartitionID.count)
    }
    let state = views == 0 ? "new" : "\(views) views"
    let further = max(two - one, 0)
    let bars = nodes == 64 ? ("\(rounded(one / 50))", "\(rounded(further / 10))") : ("", "")
    print("| \(nodes) | \(state) | \(rounded(one)) | \(bars.0) | \(rounded(further)) | \(bars.1) | \(rounded(encode))"
        + " | \(rounded(decode)) | \(rounded(store)) | \(first[0].block.count)"
        + " | \(first.reduce(0) { $0 + $1.block.count } / 1024) |")
}

if CommandLine.arguments.dropFirst() == ["--movement"] {
    surveyMovement()
    exit(0)
}
private var rounds = 11
private var sizes: [Int] = []
private var arguments = Array(CommandLine.arguments.dropFirst())
while !arguments.isEmpty {
    let word = arguments.removeFirst()
    if word == "--rounds", let number = arguments.first.flatMap({ Int($0) }) {
        rounds = max(number, 1)
        arguments.removeFirst()
    } else if let number = Int(word), number > 0 {
        sizes.append(number)
    } else {
        print("usage: MapBench [--rounds N] [NODES...] | --movement")
        exit(2)
    }
}
print("| nodes | state | first namespace, ms | of the bar 50 ms | each further, ms | of the bar 10 ms | block made, ms"
    + " | block read, ms | stored, ms | block, bytes | bundle, KiB |")
print("|---|---|---|---|---|---|---|---|---|---|---|")
for nodes in sizes.isEmpty ? [3, 16, 64, 128, 256] : sizes {
    measure(nodes, rounds, views: 0)
    measure(nodes, rounds, views: 20)
}
