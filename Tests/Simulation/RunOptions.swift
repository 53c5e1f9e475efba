// What a run is like: drawn from its seed, each seed another mixture; single values can be set, and shrinking lowers them.

/// The options of one run. All are whole numbers, so that they can be named, set and lowered alike.
package struct RunOptions: Sendable, Equatable {
    package var nodes = 3
    package var factor = 2
    /// 0: no rack-id is configured.
    package var racks = 0
    package var namespaces = 1
    /// 1: some namespaces are configured on some nodes only.
    package var isPartial = 0
    package var isUniform = 1
    package var isMulticast = 0
    package var intervalMilliseconds = 150
    package var timeoutIntervals = 10
    package var minClusterSize = 1
    package var startWaitMilliseconds = 15_000
    package var startWaitMaxMilliseconds = 60_000
    /// How many others each node has as seeds at least.
    package var seeds = 8
    /// Least delay of a message; as much again is added by chance.
    package var delayMicroseconds = 100
    /// So many messages in a thousand take up to `tailMicroseconds`.
    package var tailPermille = 0
    package var tailMicroseconds = 1000
    /// Datagrams that get lost, or come twice.
    package var lossPermille = 0
    package var duplicatePermille = 0
    /// Connections that are refused, names that do not resolve.
    package var refusalPermille = 0
    package var nameFailPermille = 0
    package var diskMicroseconds = 300
    package var diskFailPermille = 0
    package var driftPartsPerMillion = 0
    package var wallSkewMilliseconds = 0
    /// Mean time between two faults that strike at random.
    package var faultMilliseconds = 1000
    /// So many more strike while a view is being agreed on.
    package var strikes = 2
    /// Chaos ends after this time, or when it has seen enough.
    package var chaosMilliseconds = 30_000
    // Weights of the kinds of faults.
    package var crashes = 10
    package var wipes = 1
    package var pauses = 5
    package var cuts = 10
    package var streams = 10
    package var disks = 3
    package var clocks = 2
    package var operators = 5
    /// Attacks of several faults that aim at one rule of the agreement.
    package var aims = 5

    /// The plainest run: three nodes, a good network.
    package init() {}

    /// Name, place and least value of each.
    package static var table: [(name: String, path: WritableKeyPath<RunOptions, Int>, least: Int)] {
        [
            ("nodes", \.nodes, 1), ("factor", \.factor, 1), ("racks", \.racks, 0), ("namespaces", \.namespaces, 1),
            ("partial", \.isPartial, 0), ("uniform", \.isUniform, 0), ("multicast", \.isMulticast, 0),
            ("interval", \.intervalMilliseconds, 50), ("timeout", \.timeoutIntervals, 3),
            ("min-cluster-size", \.minClusterSize, 1), ("start-wait", \.startWaitMilliseconds, 1000),
            ("start-wait-max", \.startWaitMaxMilliseconds, 2000), ("seeds", \.seeds, 1),
            ("delay", \.delayMicroseconds, 100), ("tail", \.tailPermille, 0), ("tail-delay", \.tailMicroseconds, 100),
            ("loss", \.lossPermille, 0), ("duplicates", \.duplicatePermille, 0), ("refusals", \.refusalPermille, 0),
            ("name-failures", \.nameFailPermille, 0), ("disk-delay", \.diskMicroseconds, 100),
            ("disk-failures", \.diskFailPermille, 0), ("drift", \.driftPartsPerMillion, 0),
            ("wall-skew", \.wallSkewMilliseconds, 0), ("fault-time", \.faultMilliseconds, 10), ("strikes", \.strikes, 0),
            ("chaos", \.chaosMilliseconds, 100), ("crashes", \.crashes, 0), ("wipes", \.wipes, 0),
            ("pauses", \.pauses, 0), ("cuts", \.cuts, 0), ("streams", \.streams, 0), ("disks", \.disks, 0),
            ("clocks", \.clocks, 0), ("operators", \.operators, 0), ("aims", \.aims, 0),
        ]
    }

    /// How the run `seed` is.
    package static func drawn(seed: UInt64) -> RunOptions {
        var chance = Chance(seed: seed, "options")
        var options = RunOptions()
        options.drawCluster(&chance)
        options.drawNetwork(&chance)
        options.drawFaults(&chance)
        return options
    }

    private mutating func drawCluster(_ chance: inout Chance) {
        nodes = [1, 2, 3, 4, 5, 6, 7, 8, 9][chance.place([1, 2, 26, 22, 22, 10, 8, 5, 4])]
        factor = chance.between(1, 4)
        racks = chance.between(0, 3)
        namespaces = chance.place([0, 6, 2])
        isPartial = chance.permille(200) ? 1 : 0
        isUniform = chance.permille(750) ? 1 : 0
        isMulticast = chance.permille(250) ? 1 : 0
        (intervalMilliseconds, timeoutIntervals) = chance.permille(500) ? (50, 4) : (150, 10)
        minClusterSize = chance.permille(100) ? min(2, nodes) : 1
        (startWaitMilliseconds, startWaitMaxMilliseconds) = chance.permille(150) ? (15_000, 60_000) : (1500, 6000)
        seeds = chance.permille(500) ? 8 : chance.between(1, 3)
    }

    private mutating func drawNetwork(_ chance: inout Chance) {
        // Delays that no heartbeat timeout survives are faults (clogs), not a network that could ever be well.
        let most = UInt64(intervalMilliseconds) * 1000 * UInt64(timeoutIntervals) / 8
        delayMicroseconds = Int(chance.magnitude(100, min(100_000, most)))
        tailPermille = chance.permille(500) ? 0 : Int(chance.magnitude(1, 100))
        tailMicroseconds = Int(chance.magnitude(1000, 300_000))
        lossPermille = chance.permille(400) ? 0 : Int(chance.magnitude(1, 300))
        duplicatePermille = chance.permille(400) ? 0 : Int(chance.magnitude(1, 500))
        refusalPermille = chance.permille(700) ? 0 : chance.between(1, 300)
        nameFailPermille = chance.permille(700) ? 0 : chance.between(1, 500)
        diskMicroseconds = Int(chance.magnitude(100, 50_000))
        diskFailPermille = chance.permille(700) ? 0 : chance.between(1, 100)
        driftPartsPerMillion = chance.permille(500) ? 0 : chance.between(1, 500)
        wallSkewMilliseconds = chance.permille(500) ? 0 : Int(chance.magnitude(1, 60_000))
    }

    private mutating func drawFaults(_ chance: inout Chance) {
        faultMilliseconds = Int(chance.magnitude(100, 3000))
        strikes = chance.between(1, 4)
        for path in [
            \RunOptions.crashes, \.pauses, \.cuts, \.streams, \.disks, \.clocks, \.operators,
        ] {
            self[keyPath: path] = chance.permille(250) ? 0 : chance.between(1, 20)
        }
        wipes = chance.permille(700) ? 0 : chance.between(1, 4)
        if crashes + pauses + cuts + streams == 0 { crashes = 10 }
        aims = chance.permille(250) ? 0 : chance.between(1, 20)
    }

    /// `name=value`, separated by commas: what differs from `other`.
    package func differences(from other: RunOptions) -> String {
        RunOptions.table.filter { self[keyPath: $0.path] != other[keyPath: $0.path] }
            .map { "\($0.name)=\(self[keyPath: $0.path])" }.joined(separator: ",")
    }

    /// Sets what `text` says, as `differences` writes it. A sentence if it cannot be understood.
    package mutating func set(_ text: String) -> String? {
        for part in text.split(separator: ",") {
            let words = part.split(separator: "=")
            guard words.count == 2, let value = Int(words[1]),
                let row = RunOptions.table.first(where: { $0.name == words[0] })
            else { return "\(part) is no option: name=value of " + RunOptions.table.map(\.name).joined(separator: " ") }
            guard value >= row.least else { return "\(row.name) is at least \(row.least)" }
            self[keyPath: row.path] = value
        }
        return nil
    }
}
