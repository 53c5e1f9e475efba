// Attacks of several faults, each aimed at one rule of the agreement. Blind chance needs thousands of seeds for them.
internal import Assembly

extension Chaos {
    /// The nodes that run, in the order of their ids.
    private func running(_ world: World) -> [Int] {
        world.nodes.indices.filter { world.nodes[$0].isUp && !world.nodes[$0].isPaused }
    }

    /// What the proposer sends to a member that has handed in its block is lost, and has to be sent again; meanwhile the
    /// member would say something else of itself.
    mutating func loseBundle(_ world: World, _ member: Int) -> [(Fault, after: UInt64)] {
        guard let proposer = running(world).last, proposer != member else { return [] }
        let time = chance.magnitude(10, max(20, detection / 2))
        return [
            (.clog(from: proposer, to: member, milliseconds: time), 0),
            (.command(member, .quiesce(chance.below(3) > 0)), chance.between(2, time)),
            (.reset(proposer, member), chance.between(time / 2, time)),
        ]
    }

    /// The largest is heard by one node only, and has to propose a view with that; the rest propose one without it, with
    /// the same number if they do not hear of the other. The one between gets both proposals.
    mutating func duel(_ world: World) -> [(Fault, after: UInt64)] {
        var rest = running(world)
        guard rest.count >= 4, let largest = rest.popLast() else { return [] }
        let between = rest.remove(at: chance.below(rest.count - 1))
        // News of the missing link comes late to the one between: as late as it can without being missed itself.
        let late = chance.between(3 * interval, min(6 * interval, detection - interval / 2))
        let deaf = chance.between(interval, 3 * interval)
        return rest.flatMap { other -> [(Fault, after: UInt64)] in
            [
                (.cutOneWay(from: largest, to: other), 0),
                (.clog(from: other, to: between, milliseconds: late), detection - interval / 2),
                (.clog(from: between, to: other, milliseconds: deaf), detection + interval),
            ]
        } + [(.heal, detection + 12 * interval)]
    }
}
