// Scenarios in words: a world of a few nodes, told step by step what happens to it and what has to come of it. Nodes are
// numbered from 1, as they are named.
package import Assembly
internal import Base
internal import Membership

/// One scenario under way.
package final class Scenario {
    package let world: World

    /// Nodes that are not yet started.
    package init(seed: UInt64, options: RunOptions, log: ColumnLog? = nil, maker: @escaping ProcessMaker) {
        world = World(seed: seed, options: options, maker: maker)
        world.log = log
        log?.title(world)
        world.storm()
    }

    private var all: [Int] { Array(1...world.nodes.count) }

    // ---- What happens ----

    package func start(_ nodes: [Int]) { for node in nodes { world.strike(.restart(node - 1, .none)) } }
    package func startAll() { start(all) }
    package func cut(_ one: Int, _ other: Int) { world.strike(.cut(one - 1, other - 1)) }
    package func cutOneWay(from: Int, to: Int) { world.strike(.cutOneWay(from: from - 1, to: to - 1)) }

    /// Cuts these off from the rest.
    package func split(_ side: [Int]) { world.strike(.split(mask(side))) }

    /// Cuts these off from the rest, except through one.
    package func bridge(_ side: [Int], over node: Int) { world.strike(.bridge(mask(side), over: node - 1)) }
    package func isolate(_ node: Int) { world.strike(.isolate(node - 1)) }
    package func cutRack(_ rack: UInt32) { world.strike(.cutRack(rack)) }
    package func heal() { world.strike(.heal) }
    package func crash(_ node: Int) { world.strike(.crash(node - 1, isPower: false)) }
    package func pullPlug(_ node: Int) { world.strike(.crash(node - 1, isPower: true)) }
    package func restart(_ node: Int) { world.strike(.restart(node - 1, .none)) }
    package func wipe(_ node: Int) { world.strike(.wipe(node - 1)) }
    package func reset(_ one: Int, _ other: Int) { world.strike(.reset(one - 1, other - 1)) }

    package func pause(_ node: Int, milliseconds: UInt64) {
        world.strike(.pause(node - 1, milliseconds: milliseconds, stopsClock: false))
    }

    package func command(_ node: Int, _ command: ClusterCommand) { world.strike(.command(node - 1, command)) }
    package func leave(_ node: Int) { world.strike(.leave(node - 1)) }

    private func mask(_ side: [Int]) -> UInt64 { side.reduce(0) { $0 | 1 << UInt64($1 - 1) } }

    /// Lets time pass.
    package func pass(milliseconds: UInt64) throws(Violation) {
        world.run(until: world.now + milliseconds * 1_000_000)
        if let found = world.violation { throw found }
    }

    // ---- What has to come of it ----

    /// These, and no others, are one cluster within so much time.
    package func expectOne(_ nodes: [Int], withinMilliseconds limit: UInt64) throws(Violation) {
        let numbers = nodes.map { $0 - 1 }
        let end = world.now + limit * 1_000_000
        let isDone = world.areOne(numbers) || world.run(until: end, isDone: { [world] in world.areOne(numbers) })
        if let found = world.violation { throw found }
        guard isDone else {
            throw Violation("expected", "\(names(nodes)) are not one cluster within \(limit) ms: \(world.standing(numbers))")
        }
    }

    /// All are one cluster within so much time.
    package func expectAll(withinMilliseconds limit: UInt64) throws(Violation) {
        try expectOne(all, withinMilliseconds: limit)
    }

    package func expect(_ sentence: String, _ isTrue: Bool) throws(Violation) {
        guard isTrue else { throw Violation("expected", sentence + ": " + world.standing(all.map { $0 - 1 })) }
    }

    /// The number of the view that a node shows; 0 if it shows none.
    package func viewNumber(_ node: Int) -> UInt64 { world.nodes[node - 1].latest?.view?.mark.number ?? 0 }

    package func phase(_ node: Int) -> ClusterPhase { world.nodes[node - 1].phase }

    private func names(_ nodes: [Int]) -> String { nodes.map { "n\($0)" }.joined(separator: " ") }
}
