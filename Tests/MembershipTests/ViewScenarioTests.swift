import Base
import Fabric
import Membership
import Testing
import TestSupport

struct ViewScenarioTests {
    private func formed(_ count: Int, _ change: (inout ViewWorldSettings) -> Void = { _ in }) -> ViewWorld {
        var settings = ViewWorldSettings(nodes: count)
        change(&settings)
        let world = ViewWorld(settings, seed: runSeed("views"))
        world.trace = []
        for node in world.nodes.indices { world.start(node) }
        let all = Array(world.nodes.indices)
        #expect(world.run(milliseconds: 5_000) { world.isOneView(all) }, "formed\n\(world.trace!.joined(separator: "\n"))")
        return world
    }

    @Test func fiveNodesForm() {
        let world = formed(5)
        #expect(world.oracle.violation == nil)
    }
}
