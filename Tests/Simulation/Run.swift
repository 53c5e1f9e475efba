// One run: form, chaos, heal a core that should be able to live, converge, final checks.
internal import Assembly
internal import Base
internal import Membership

/// What came of a run.
package struct RunResult: Sendable {
    package let seed: UInt64
    package let options: RunOptions
    package let counts: WorldCounts
    package let virtualNanoseconds: UInt64
    package let trace: TraceHash
    package let violation: Violation?
    /// Every fault that struck, by the time since chaos began.
    package let faults: [TimedFault]
    /// How long chaos lasted.
    package let chaosNanoseconds: UInt64

    /// Whether it was hard enough: at least 3 nodes, 3 view changes, 5 faults that struck one under way.
    package var isCounting: Bool { options.nodes >= 3 && counts.views >= 4 && counts.strikes >= 5 }
}

/// Faults to repeat in place of drawn ones.
package struct GivenFaults: Sendable {
    package var faults: [TimedFault]
    package var chaosNanoseconds: UInt64

    package init(_ result: RunResult) {
        faults = result.faults
        chaosNanoseconds = result.chaosNanoseconds
    }
}

/// See above.
package final class Run {
    package let world: World
    private let given: GivenFaults?
    private var chaos: Chaos
    private var core: [Int] = []
    private var chaosBegin: UInt64 = 0
    private var chaosEnd: UInt64 = 0
    private var checked = -1

    /// - Parameter given: faults to repeat; nil draws them.
    package init(
        seed: UInt64, options: RunOptions, breaks: [String] = [], given: GivenFaults? = nil, log: ColumnLog? = nil,
        maker: @escaping ProcessMaker
    ) {
        world = World(seed: seed, options: options, breaks: breaks, maker: maker)
        world.log = log
        self.given = given
        chaos = Chaos(seed: seed, options: options)
    }

    /// Runs to the end, or to the first rule that is broken.
    package func execute() -> RunResult {
        world.log?.title(world)
        form()
        if world.violation == nil { rage() }
        if world.violation == nil { heal() }
        if world.violation == nil { converge() }
        let begin = chaosBegin
        return RunResult(
            seed: world.seed, options: world.options, counts: world.counts, virtualNanoseconds: world.now,
            trace: world.trace, violation: world.violation,
            faults: world.faults.map { TimedFault(time: $0.time - begin, fault: $0.fault) },
            chaosNanoseconds: (chaosEnd == 0 ? world.now : chaosEnd) - begin)
    }

    // ---- Phases ----

    private func form() {
        core = Array(world.nodes.indices)
        var chance = Chance(seed: world.seed, "start")
        let spread = chance.permille(500) ? 1_000_000 : UInt64(3_000_000_000)
        for node in core { world.planStart(node, at: chance.below(spread)) }
        let isDone = world.run(until: limit(world.now)) { [self] in isOne() }
        if !isDone, world.violation == nil { fail("no cluster is formed") }
    }

    private func rage() {
        world.note("formed, chaos begins")
        chaosBegin = world.now
        world.storm()
        let length = given?.chaosNanoseconds ?? UInt64(world.options.chaosMilliseconds) * 1_000_000
        if let given {
            for one in given.faults { world.plan(one.fault, at: chaosBegin + one.time) }
            world.run(until: chaosBegin + length)
        } else {
            rageAtRandom(until: chaosBegin + length)
        }
        chaosEnd = world.now
    }

    private func rageAtRandom(until end: UInt64) {
        var chance = Chance(seed: world.seed, "length")
        let views = world.counts.views + 3 + chance.below(5)
        let strikes = 5 + chance.below(6)
        world.whenFrozen = { [unowned self] node in
            for one in chaos.strikes(world, node) { world.plan(one.fault, at: one.time) }
        }
        var next = world.now
        let isEnough = { [world] in world.counts.views >= views && world.counts.strikes >= strikes }
        while world.violation == nil, world.now < end {
            if world.now >= next {
                next = world.now + chaos.pause()
                for one in chaos.draw(world, after: 0) { world.plan(one.fault, at: one.time) }
            }
            if world.run(until: min(next, end), isDone: isEnough) { return }
        }
    }

    /// Chooses who is to live; the rest dies, sleeps for ever, is alone, or can be heard and not be reached.
    private func heal() {
        var chance = Chance(seed: world.seed, "core")
        if chance.permille(300) { core = core.filter { _ in chance.below(2) == 0 } }
        if core.count < max(1, world.options.minClusterSize) || !world.canMeet(core) {
            core = Array(world.nodes.indices)
        }
        world.calm()
        for node in world.nodes.indices where !core.contains(node) {
            switch chance.below(world.needsFabric ? 4 : 3) {
            case 0: world.crash(node, isPower: chance.below(2) == 0)
            case 1: world.freeze(node)
            case 2: world.isolate(node)
            default:
                // Started again: a member of the view that stands is not missed for it.
                world.crash(node, isPower: false)
                world.shutFabric(node)
                world.planStart(node, at: world.now)
            }
        }
        for node in core {
            if world.nodes[node].isLeaving { world.crash(node, isPower: false) }
            let time = world.now + chance.below(3_000_000_000)
            if world.nodes[node].isUp { world.wake(node) } else { world.planStart(node, at: time) }
        }
        world.note("the core is " + core.map { world.nodes[$0].name }.joined(separator: " "))
    }

    private func converge() {
        checked = -1
        guard world.run(until: limit(world.now), isDone: { [self] in isOne() }) else {
            if world.violation == nil { fail("the core does not come together") }
            return
        }
        // It stays together: a late command may change the view once more, but not for ever.
        let views = world.counts.views
        let settled = 3 * detection + 1_000_000_000
        world.run(until: world.now + settled)
        checked = -1
        guard world.violation == nil else { return }
        guard isOne() || world.run(until: world.now + 10 * settled, isDone: { [self] in isOne() }) else {
            if world.violation == nil { fail("the core falls apart again") }
            return
        }
        if world.counts.views > views + 5 {
            world.fail(Violation("L1", "\(world.counts.views - views) views follow each other without a fault"))
        } else if let found = finalCheck() {
            world.fail(found)
        }
    }

    private func finalCheck() -> Violation? {
        for node in core.map({ world.nodes[$0] }) {
            let others = core.filter { $0 != node.number }.map { world.nodes[$0].id }.sorted()
            let peers = (node.effective?.peers ?? []).map(\.id).sorted()
            if peers != others { return Violation("peers", "\(node.name) shows peers \(peers), there are \(others)") }
        }
        return nil
    }

    // ---- Judging ----

    private func fail(_ sentence: String) {
        world.fail(Violation("L1", "\(sentence): \(world.standing(core))"))
    }

    private var detection: UInt64 {
        UInt64(world.options.intervalMilliseconds * world.options.timeoutIntervals) * 1_000_000
    }

    /// Until when a healthy core has to be one cluster: starts, the longest wait for missing members, back-off.
    private func limit(_ now: UInt64) -> UInt64 {
        now + UInt64(world.options.startWaitMaxMilliseconds) * 1_000_000 + 40_000_000_000 + 10 * detection
    }

    /// Whether the core is one cluster; looks only when something has changed.
    private func isOne() -> Bool {
        guard world.changeCount != checked else { return false }
        checked = world.changeCount
        return world.areOne(core)
    }
}
