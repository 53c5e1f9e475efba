// Draws faults: at random times, and more of them while a view is being agreed on.
internal import Assembly
internal import Base
internal import Membership

/// Draws the faults of one run from a stream of its own.
package struct Chaos {
    private let options: RunOptions
    var chance: Chance
    private var sets = 0
    /// Time that a neighbour may be silent, in milliseconds.
    let detection: UInt64
    /// Milliseconds between two pulses.
    let interval: UInt64

    package init(seed: UInt64, options: RunOptions) {
        self.options = options
        chance = Chance(seed: seed, "faults")
        interval = UInt64(options.intervalMilliseconds)
        detection = UInt64(options.intervalMilliseconds * options.timeoutIntervals)
    }

    /// When the next fault strikes that strikes at random.
    mutating func pause() -> UInt64 { 1 + chance.below(UInt64(options.faultMilliseconds) * 2_000_000) }

    /// A node has begun to agree on a view: faults that strike it.
    mutating func strikes(_ world: World, _ node: Int) -> [TimedFault] {
        let faults = (0..<chance.below(options.strikes + 1)).flatMap { _ in
            draw(world, after: chance.magnitude(10_000, 60_000_000))
        }
        guard chance.below(40) < options.aims else { return faults }
        return faults + timed(loseBundle(world, node), after: 0, world)
    }

    /// A fault, and what ends it.
    mutating func draw(_ world: World, after delay: UInt64) -> [TimedFault] {
        let kind = chance.place([
            options.crashes, options.wipes, options.pauses, options.cuts, options.streams, options.disks, options.clocks,
            options.operators, options.aims,
        ])
        let node = chance.below(options.nodes)
        let faults: [(Fault, after: UInt64)] =
            switch kind {
            case 0: crash(node)
            case 1: [(.wipe(node), 0), (.restart(node, .none), chance.magnitude(10, 5000))]
            case 2: [(sleep(node), 0)]
            case 3: [(cut(node), 0), (.heal, chance.magnitude(5, 10_000))]
            case 4: [(stream(node), 0)]
            case 5: [(disk(node), 0)]
            case 6: [(.stepWall(node, milliseconds: step()), 0)]
            case 7: operate(node, world)
            default: duel(world)
            }
        return timed(faults, after: delay, world)
    }

    private func timed(_ faults: [(Fault, after: UInt64)], after delay: UInt64, _ world: World) -> [TimedFault] {
        faults.map { TimedFault(time: world.now + delay + $0.after * 1_000_000, fault: $0.0) }
    }

    private mutating func crash(_ node: Int) -> [(Fault, after: UInt64)] {
        // Half of them are back before anybody misses their pulses.
        let away = chance.below(2) == 0 ? chance.between(1, detection) : chance.magnitude(50, 20_000)
        return [(.crash(node, isPower: chance.permille(250)), 0), (.restart(node, change()), away)]
    }

    private mutating func change() -> ConfigurationChange {
        guard chance.permille(150) else { return .none }
        switch chance.below(3) {
        case 0: return options.racks == 0 ? .none : .rack(UInt32(chance.between(1, options.racks)))
        case 1: return .factor(chance.between(1, 4))
        default: return options.isPartial == 0 ? .none : .toggleNamespace(chance.below(options.namespaces))
        }
    }

    private mutating func sleep(_ node: Int) -> Fault {
        let most: UInt64 = chance.permille(150) ? 40_000 : 5000
        return .pause(node, milliseconds: chance.magnitude(10, most), stopsClock: chance.permille(200))
    }

    private mutating func another(than node: Int) -> Int {
        options.nodes == 1 ? node : (node + chance.between(1, options.nodes - 1)) % options.nodes
    }

    private mutating func cut(_ node: Int) -> Fault {
        let other = another(than: node)
        let mask = chance.between(1, (UInt64(1) << UInt64(min(options.nodes, 63))) - 1)
        switch chance.place([3, 3, 3, 2, 3, 2, options.racks > 1 ? 2 : 0]) {
        case 0: return .cut(node, other)
        case 1: return .cutOneWay(from: node, to: other)
        case 2: return .split(mask)
        case 3: return .bridge(mask, over: node)
        case 4: return .isolate(node)
        case 5: return .shutFabric(node)
        default: return .cutRack(UInt32(chance.between(1, options.racks)))
        }
    }

    private mutating func stream(_ node: Int) -> Fault {
        let other = another(than: node)
        switch chance.below(5) {
        case 0, 1: return .clog(from: node, to: other, milliseconds: chance.magnitude(5, 5000))
        case 2: return .names(milliseconds: chance.magnitude(100, 10_000))
        default: return .reset(node, other)
        }
    }

    private mutating func disk(_ node: Int) -> Fault {
        .disk(node, chance.below(2) == 0 ? .slow : .failing, milliseconds: chance.magnitude(50, 10_000))
    }

    private mutating func step() -> Int64 {
        let size = Int64(chance.magnitude(1, 120_000))
        return chance.below(2) == 0 ? size : -size
    }

    private mutating func operate(_ node: Int, _ world: World) -> [(Fault, after: UInt64)] {
        let other = world.nodes[chance.below(options.nodes)]
        // What a block says changes while it is under way.
        if world.isAgreeing, chance.below(2) == 0 { return [(.command(node, .quiesce(chance.below(2) == 0)), 0)] }
        switch chance.below(9) {
        case 7, 8:
            sets += 1
            return [(.metadata(node, item: chance.below(3), value: sets), 0)]
        case 0: return [(.leave(node), 0), (.restart(node, change()), chance.magnitude(500, 30_000))]
        case 1, 2: return [(.command(node, .recluster), 0)]
        case 3: return [(.command(node, .quiesce(true)), 0), (.command(chance.below(options.nodes), .recluster), 50)]
        case 4: return [(.command(node, .quiesce(false)), 0)]
        case 5: return [(.command(node, .tip(SeedName(host: other.name, port: Channel.heartbeat.port))), 0)]
        default: return [(.command(node, .tipClear([])), 0)]
        }
    }
}
