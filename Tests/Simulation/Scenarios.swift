// The scenarios: what has gone wrong, or would in the field, each with a sentence for a name. Whatever a machine does in
// them, the checkers watch every step.
internal import Assembly

/// One of them.
package struct NamedScenario: Sendable {
    package let name: String
    let nodes: Int
    let adjust: @Sendable (inout RunOptions) -> Void
    let body: @Sendable (Scenario) throws(Violation) -> Void

    init(
        _ name: String, nodes: Int, adjust: @escaping @Sendable (inout RunOptions) -> Void = { _ in },
        _ body: @escaping @Sendable (Scenario) throws(Violation) -> Void
    ) {
        self.name = name
        self.nodes = nodes
        self.adjust = adjust
        self.body = body
    }

    /// Plays it. - Throws: the rule that it broke.
    package func play(seed: UInt64, log: ColumnLog? = nil, maker: @escaping ProcessMaker) throws(Violation) {
        var options = RunOptions()
        options.nodes = nodes
        options.intervalMilliseconds = 50
        options.timeoutIntervals = 4
        options.startWaitMilliseconds = 1500
        options.startWaitMaxMilliseconds = 6000
        adjust(&options)
        let scenario = Scenario(seed: seed, options: options, log: log, maker: maker)
        try body(scenario)
    }
}

package let namedScenarios: [NamedScenario] = [
    NamedScenario("three nodes that start at once are one cluster", nodes: 3) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
    },
    NamedScenario("a node that is killed is missed, and comes back as another", nodes: 3) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.crash(3)
        try s.expectOne([1, 2], withinMilliseconds: 5000)
        s.restart(3)
        try s.expectAll(withinMilliseconds: 10_000)
    },
    NamedScenario("a restart inside the heartbeat timeout is a departure and an arrival", nodes: 3) {
        s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        let before = s.viewNumber(1)
        s.crash(2)
        try s.pass(milliseconds: 20)
        s.restart(2)
        try s.expectAll(withinMilliseconds: 10_000)
        try s.expect("the view is another one", s.viewNumber(1) > before)
    },
    NamedScenario("halves that are cut and healed are one again", nodes: 4) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.split([1, 2])
        try s.expectOne([1, 2], withinMilliseconds: 5000)
        try s.expectOne([3, 4], withinMilliseconds: 5000)
        s.heal()
        try s.expectAll(withinMilliseconds: 15_000)
    },
    NamedScenario("a sleeper of 25 detection times is left out and comes back", nodes: 3) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.pause(3, milliseconds: 5000)
        try s.expectOne([1, 2], withinMilliseconds: 4000)
        try s.pass(milliseconds: 2000)
        try s.expectAll(withinMilliseconds: 15_000)
    },
    NamedScenario("a cluster that loses all but one goes on with it", nodes: 3) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.crash(2)
        s.pullPlug(3)
        try s.expectOne([1], withinMilliseconds: 5000)
    },
    NamedScenario("a rack that is pulled leaves the other racks one cluster", nodes: 6, adjust: { $0.racks = 3 }) {
        s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.cutRack(2)
        try s.expectOne([1, 3, 4, 6], withinMilliseconds: 5000)
        s.heal()
        try s.expectAll(withinMilliseconds: 15_000)
    },
    NamedScenario("a way that is cut in one direction only does not stop the cluster for ever", nodes: 3) {
        s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.cutOneWay(from: 3, to: 1)
        try s.pass(milliseconds: 5000)
        s.heal()
        try s.expectAll(withinMilliseconds: 15_000)
    },
    NamedScenario("two halves that one node bridges come together when the cut is mended", nodes: 5) {
        s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.bridge([1, 2], over: 3)
        try s.pass(milliseconds: 5000)
        s.heal()
        try s.expectAll(withinMilliseconds: 15_000)
    },
    NamedScenario("the largest id dies while its proposal is under way", nodes: 4) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.crash(1)
        s.world.run(until: s.world.now + 10_000_000_000) { s.world.isAgreeing }
        try s.expect("a view is being agreed on", s.world.isAgreeing)
        s.crash(4)
        try s.expectOne([2, 3], withinMilliseconds: 8000)
    },
    NamedScenario("a whole cluster that is stopped and started is one again", nodes: 3) { s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        for node in 1...3 { s.pullPlug(node) }
        try s.pass(milliseconds: 1000)
        s.startAll()
        try s.expectAll(withinMilliseconds: 10_000)
    },
    NamedScenario("nodes that find each other by multicast are one cluster", nodes: 4, adjust: { $0.isMulticast = 1 }) {
        s throws(Violation) in
        s.startAll()
        try s.expectAll(withinMilliseconds: 5000)
        s.crash(1)
        try s.expectOne([2, 3, 4], withinMilliseconds: 5000)
    },
]
