// Many nodes: how long they take to be one cluster, and what they cost at rest.

/// What a formation showed.
package struct FormationResult: Sendable {
    package let nodes: Int
    /// From the first start to one view that all serve; nil if that did not happen.
    package let formedNanoseconds: UInt64?
    package let formation: WorldCounts
    /// Per second and node, at rest.
    package let messagesPerSecond: Double
    package let bytesPerSecond: Double
    package let events: Int
    package let violation: Violation?
}

/// Starts `options.nodes` nodes within a second and lets them rest for `restSeconds`.
package func measureFormation(
    seed: UInt64, options: RunOptions, restSeconds: UInt64, log: ColumnLog? = nil, maker: @escaping ProcessMaker
) -> FormationResult {
    let world = World(seed: seed, options: options, maker: maker)
    world.log = log
    var chance = Chance(seed: seed, "start")
    let all = Array(world.nodes.indices)
    for node in all { world.planStart(node, at: chance.below(1_000_000_000)) }
    var checked = -1
    let isFormed = world.run(until: 120_000_000_000) {
        guard world.changeCount != checked else { return false }
        checked = world.changeCount
        return world.areOne(all)
    }
    let formedAt = world.now
    let formation = world.counts
    // What formation left over ends first.
    world.run(until: world.now + 2_000_000_000)
    let before = world.counts
    world.run(until: world.now + restSeconds * 1_000_000_000)
    let share = Double(restSeconds) * Double(options.nodes)
    return FormationResult(
        nodes: options.nodes, formedNanoseconds: isFormed ? formedAt : nil, formation: formation,
        messagesPerSecond: Double(world.counts.messages - before.messages) / share,
        bytesPerSecond: Double(world.counts.bytes - before.bytes) / share, events: world.counts.events,
        violation: world.violation)
}
