// What tests of agreement begin with, and what they wait for.
import Base
import Fabric
import Membership
import Testing
import TestSupport

extension ViewWorld {
    /// Traced, with a seed of its own. No node has started.
    static func traced(_ count: Int, _ change: (inout ViewWorldSettings) -> Void = { _ in }) -> ViewWorld {
        var settings = ViewWorldSettings(nodes: count)
        change(&settings)
        let world = ViewWorld(settings, seed: runSeed("views"))
        world.trace = []
        return world
    }

    /// All nodes have started, have one view, and had half a second since.
    static func formed(_ count: Int, _ change: (inout ViewWorldSettings) -> Void = { _ in }) -> ViewWorld {
        let world = traced(count, change)
        world.nodes.indices.forEach { world.start($0) }
        world.expect(Array(world.nodes.indices), within: 5_000)
        world.run(milliseconds: 500)
        return world
    }

    /// Within that time of the world these nodes, and no others, have one view, and no rule is broken.
    func expect(_ places: [Int], within milliseconds: Double, at place: SourceLocation = #_sourceLocation) {
        let isOne = run(milliseconds: milliseconds) { self.isOneView(places) }
        #expect(isOne && oracle.violation == nil, report, sourceLocation: place)
    }

    /// What has happened last.
    var report: Comment {
        Comment(rawValue: (oracle.violation ?? "no violation") + "\n" + (trace ?? []).suffix(60).joined(separator: "\n"))
    }
}
