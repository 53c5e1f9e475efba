// Forming, departing, restarting: a handful of nodes in the small world.
import Base
import Fabric
import Membership
import Testing
import TestSupport

/// A world of `count` nodes that were all told the first one, after they have found each other.
func formedWorld(
    _ count: UInt64, seed: UInt64, tunables: HeartbeatTunables = HeartbeatTunables(), mode: HeartbeatMode = .mesh,
    breaks: HeartbeatBreaks = [], withFabric: Bool = false
) -> HeartbeatWorld {
    let world = HeartbeatWorld(seed: seed)
    world.withFabric = withFabric
    for id in 1...count {
        _ = world.start(
            id, seeds: mode == .mesh ? [HeartbeatWorld.seed(1)] : [], mode: mode, tunables: tunables, breaks: breaks)
    }
    let formed = world.run(until: { world.all(hear: Array(1...count)) }, atMost: 20_000)
    #expect(formed != nil, "\(count) nodes did not find each other")
    world.run(milliseconds: 1000)
    return world
}

extension HeartbeatWorld {
    /// All running processes with these ids hear each other, and nobody else.
    func all(hear ids: [UInt64]) -> Bool {
        processes.filter { $0.isUp && ids.contains($0.member.id.rawValue) }.allSatisfy { process in
            process.ids == ids.filter { $0 != process.member.id.rawValue }
                && process.heart.neighbours.allSatisfy { $0.hears.count == ids.count - 1 }
        }
    }
}

struct HeartbeatTests {
    private let tunables = HeartbeatTunables(intervalMilliseconds: 50, timeoutIntervals: 4)

    @Test func aDozenFindEachOtherByOneSeed() {
        for round in 0..<10 {
            let world = HeartbeatWorld(seed: runSeed("dozen") &+ UInt64(round))
            for id in 1...12 as ClosedRange<UInt64> { _ = world.start(id, seeds: [HeartbeatWorld.seed(1)]) }
            let took = world.run(until: { world.all(hear: Array(1...12)) }, atMost: 10_000)
            #expect(took.map { $0 <= 1000 } == true, "formed in \(took as Any) ms")
            #expect(world.processes.allSatisfy { $0.heart.problems.isEmpty && $0.heart.duplicateNodes.isEmpty })
            // The first dialled itself, and does not do so again.
            let selfReceived = world.processes[0].heart.statistics.receivedSelf
            world.run(milliseconds: 20_000)
            #expect(world.processes[0].heart.statistics.receivedSelf == selfReceived)
            // One stream each way for each pair.
            #expect(world.processes.allSatisfy { $0.heart.statistics.connections == 22 })
            #expect(world.processes.allSatisfy { $0.heart.statistics.departures == 0 })
        }
    }

    @Test func seedsAreLookedUpAgain() {
        let world = HeartbeatWorld(seed: runSeed("lookup"))
        let name = SeedName(host: "apus.example", port: 3002)
        let first = world.start(1), second = world.start(2, seeds: [name])
        world.run(milliseconds: 5000)
        #expect(second.ids.isEmpty)
        #expect(second.log.contains { $0.contains("apus.example") && $0.contains("no address") })
        world.names = [("apus.example", [Address(host: first.host, port: 3002)])]
        #expect(world.run(until: { first.ids == [2] && second.ids == [1] }, atMost: 3000) != nil)
        // It moves: the name leads elsewhere.
        world.kill(first)
        let third = world.start(3)
        world.names = [("apus.example", [Address(host: third.host, port: 3002)])]
        #expect(world.run(until: { second.ids == [3] && third.ids == [2] }, atMost: 5000) != nil)
    }

    @Test func aNameOfManyAddressesLeadsToAll() {
        let world = HeartbeatWorld(seed: runSeed("many"))
        let hosts = (1...5 as ClosedRange<UInt64>).map { Address(host: HeartbeatWorld.host($0), port: 3002) }
        world.names = [("all.example", hosts)]
        for id in 1...5 as ClosedRange<UInt64> { _ = world.start(id, seeds: [SeedName(host: "all.example", port: 3002)]) }
        #expect(world.run(until: { world.all(hear: [1, 2, 3, 4, 5]) }, atMost: 3000) != nil)
        world.run(milliseconds: 5000)
        #expect(world.processes.allSatisfy { $0.heart.statistics.connections == 8 })
    }

    @Test func silenceIsADepartureInTime() {
        let world = formedWorld(5, seed: runSeed("departure"))
        for (index, victim) in world.processes.prefix(3).enumerated() {
            world.dark.append(victim.host)
            world.kill(victim)
            let rest = world.processes.filter { $0.isUp }
            let took = world.run(until: { rest.allSatisfy { $0.ids.count == 3 - index } }, atMost: 5000)
            // What was under way, and the phase of the pulses.
            #expect(took.map { $0 >= 1350 && $0 <= 1500 + 150 + 10 } == true, "departed in \(took as Any) ms")
            world.run(milliseconds: 1000)
        }
    }

    @Test func aDeadProcessIsNoticedAtOnce() {
        let world = formedWorld(5, seed: runSeed("dead"))
        world.kill(world.processes[4])
        let took = world.run(until: { world.all(hear: [1, 2, 3, 4]) }, atMost: 5000)
        #expect(took.map { $0 <= 150 } == true, "departed in \(took as Any) ms")
    }

    @Test func aGoodbyeIsADeparture() {
        let world = formedWorld(4, seed: runSeed("goodbye"))
        let leaver = world.processes[2]
        world.step(leaver, .goodbye)
        let took = world.run(until: { world.all(hear: [1, 2, 4]) || world.processes[0].ids == [2, 4] }, atMost: 100)
        #expect(took != nil)
        world.kill(leaver)
        world.run(milliseconds: 3000)
        #expect(world.processes[0].ids == [2, 4])
    }

    @Test func aRestartWithinTheTimeoutIsADepartureAndAnArrival() {
        for round in 0..<20 as Range<UInt64> {
            let world = formedWorld(4, seed: runSeed("restart") &+ round)
            let old = world.processes[1]
            let isDark = round % 2 == 0
            // The old one's last pulses are held up, and come when the new one is there.
            if isDark { world.clog(old, milliseconds: 400) }
            world.run(milliseconds: 100)
            world.kill(old, isReset: !isDark)
            let new = world.start(2, seeds: [HeartbeatWorld.seed(1)])
            let others = world.processes.filter { $0.isUp && $0 !== new }
            // Without a reset the new one waits until the seed dials back.
            let took = world.run(
                until: { others.allSatisfy { $0.members.contains(new.member) } }, atMost: 10_000)
            #expect(took.map { $0 <= 450 } == true, "seen after \(took as Any) ms")
            world.run(milliseconds: 300)
            for _ in 0..<50 {
                world.run(milliseconds: 100)
                for other in others { #expect(other.members.contains(new.member) && !other.members.contains(old.member)) }
            }
            #expect(others.allSatisfy { $0.heart.duplicateNodes.isEmpty && $0.ids.count == 3 })
        }
    }

    /// The canary: without incarnations nobody notices.
    @Test func ignoredIncarnationsAreNoticedByThisTest() {
        let world = formedWorld(4, seed: runSeed("canary"), breaks: .ignoresIncarnation)
        let old = world.processes[1]
        world.kill(old, isReset: false)
        let new = world.start(2, seeds: [HeartbeatWorld.seed(1)], breaks: .ignoresIncarnation)
        world.run(milliseconds: 1000)
        let others = world.processes.filter { $0.isUp && $0 !== new }
        #expect(others.contains { !$0.members.contains(new.member) && $0.ids.contains(2) })
    }

    @Test func twoNodesOfOneIdAreBothLeftOut() {
        let world = formedWorld(4, seed: runSeed("duplicate"))
        let first = world.processes[1]
        let second = world.start(2, host: "10.9.9.9", seeds: [HeartbeatWorld.seed(1)])
        let rest = [world.processes[0], world.processes[2], world.processes[3]]
        let two = NodeID(rawValue: 2)
        let took = world.run(until: { rest.allSatisfy { $0.heart.duplicateNodes == [two] } }, atMost: 5000)
        #expect(took.map { $0 <= 2000 } == true, "noticed after \(took as Any) ms")
        for _ in 0..<100 {
            world.run(milliseconds: 100)
            #expect(rest.allSatisfy { $0.heart.duplicateNodes == [two] && !$0.ids.contains(2) })
        }
        // Both know themselves, and everybody names both places, once a minute.
        #expect(first.heart.duplicateNodes == [two] && second.heart.duplicateNodes == [two])
        let sentences = rest[0].heart.problems
        #expect(sentences.contains { $0.contains(first.host) && $0.contains("10.9.9.9") }, "\(sentences)")
        let before = rest[0].log.filter { $0.contains("two nodes claim") }.count
        #expect(before == 1)
        // One is stopped: the other is back.
        world.kill(first)
        #expect(world.run(until: { rest.allSatisfy { $0.members.contains(second.member) } }, atMost: 5000) != nil)
        world.run(milliseconds: 2000)
        #expect(rest.allSatisfy { $0.heart.duplicateNodes.isEmpty && $0.ids.count == 3 })
        #expect(second.heart.duplicateNodes.isEmpty && second.ids == [1, 3, 4])
    }

    /// The two do not reach each other: others tell them.
    @Test func whoSharesItsIdIsToldSo() {
        let world = formedWorld(3, seed: runSeed("accused"))
        let first = world.processes[1]
        world.cut(first.host, "10.9.9.9")
        let second = world.start(2, host: "10.9.9.9", seeds: [HeartbeatWorld.seed(1)])
        world.run(milliseconds: 10_000)
        for one in [first, second] {
            #expect(one.heart.problems.filter { $0.hasPrefix("two nodes claim the id 2: ") }.count == 1)
            #expect(one.log.filter { $0.contains("two nodes claim the id 2: ") }.count == 1)
        }
        #expect(world.processes.allSatisfy { $0.heart.problems.allSatisfy { !$0.contains(";") } })
        world.kill(second)
        world.run(milliseconds: 5000)
        #expect(first.heart.problems.isEmpty && first.ids == [1, 3])
    }

    @Test func seedsThatWereNeverReachedAreNamedTogether() {
        let world = HeartbeatWorld(seed: runSeed("never"))
        let first = world.start(
            1, seeds: [1, 2, 9].map { HeartbeatWorld.seed($0) } + [SeedName(host: "nope", port: 5)], tunables: tunables)
        let second = world.start(2, tunables: tunables)
        world.run(milliseconds: 300)
        #expect(first.heart.problems.isEmpty, "they are given a while")
        world.run(milliseconds: 700)
        #expect(first.heart.problems == [
            "seeds that were not reached since the start: 10.0.0.10:3002 (Connection refused),"
                + " nope:5 (it resolves to no address)"
        ])
        world.kill(second)
        world.names.append(("nope", [Address(host: HeartbeatWorld.host(3), port: HeartbeatWorld.heartbeatPort)]))
        _ = world.start(3, tunables: tunables)
        world.run(milliseconds: 3000)
        #expect(first.heart.problems == ["seed 10.0.0.10:3002 was not reached since the start: Connection refused"])
        // It finds this node, and not the other way round.
        _ = world.start(9, seeds: [HeartbeatWorld.seed(1)], tunables: tunables)
        world.run(milliseconds: 1000)
        #expect(first.heart.problems.isEmpty)
    }

    @Test func unequalIntervalsAreNamed() {
        let world = HeartbeatWorld(seed: runSeed("unequal"))
        let slow = HeartbeatTunables(intervalMilliseconds: 300, timeoutIntervals: 4)
        let first = world.start(1, tunables: tunables)
        let second = world.start(2, seeds: [HeartbeatWorld.seed(1)], tunables: slow)
        world.run(milliseconds: 20_000)
        #expect(first.heart.statistics.departures > 2, "the fast one loses the slow one again and again")
        #expect(first.heart.problems.contains { $0.hasPrefix("node 2 sends a heartbeat about every ") })
        #expect(second.heart.problems.contains { $0.hasPrefix("node 1 sends a heartbeat about every ") })
        world.step(second, .settings(tunables))
        world.run(milliseconds: 5000)
        #expect(first.heart.problems.isEmpty && second.heart.problems.isEmpty)
    }

    @Test func aOneWayCutIsSeenFromBothSides() {
        let world = formedWorld(3, seed: runSeed("one-way"))
        let (first, second) = (world.processes[0], world.processes[1])
        world.cut(first.host, second.host, bothWays: false)
        world.run(milliseconds: 6000)
        #expect(second.ids == [3], "what does not arrive is not heard")
        // The dial back needs both ways, so that the first may lose the second, too; it must never believe to be heard.
        #expect(!first.heart.neighbours.contains { $0.member.id.rawValue == 2 && $0.hears.contains(first.member) })
        #expect(world.processes[2].ids == [1, 2])
        world.cuts = []
        #expect(world.run(until: { world.all(hear: [1, 2, 3]) }, atMost: 4000) != nil)
    }

    @Test func halvesFindEachOtherAgain() {
        for _ in 0..<10 {
            let world = formedWorld(6, seed: runSeed("halves"), tunables: tunables)
            for left in world.processes[0..<3] {
                for right in world.processes[3..<6] { world.cut(left.host, right.host) }
            }
            let (first, last) = (world.processes[0], world.processes[5])
            #expect(world.run(until: { first.ids == [2, 3] && last.ids == [4, 5] }, atMost: 500) != nil)
            world.run(milliseconds: 30_000)
            world.cuts = []
            let took = world.run(until: { world.all(hear: [1, 2, 3, 4, 5, 6]) }, atMost: 10_000)
            // A try that was under way, the longest back-off, and the way there: timeout, 5/4 of it, interval.
            #expect(took.map { $0 <= 600 } == true, "healed in \(took as Any) ms")
            world.run(milliseconds: 2000)
            // What the cut has left half open is closed.
            #expect(world.processes.allSatisfy { $0.heart.statistics.connections == 10 })
        }
    }

    @Test func ownPausesAreNotOthersDeaths() {
        let world = formedWorld(4, seed: runSeed("pause"))
        let sleeper = world.processes[2]
        let before = sleeper.heart.statistics.departures
        world.pause(sleeper, milliseconds: 37_500)
        world.run(milliseconds: 5000)
        #expect(world.processes[0].ids == [2, 4])
        world.run(milliseconds: 32_501)
        #expect(world.run(until: { world.all(hear: [1, 2, 3, 4]) }, atMost: 2000) != nil)
        #expect(sleeper.heart.statistics.departures == before)
        #expect(sleeper.log.contains { $0.contains("stood still") })
    }

    @Test func fabricTrafficPutsADepartureOffButNotForEver() {
        let world = formedWorld(2, seed: runSeed("evidence"))
        let (first, second) = (world.processes[0], world.processes[1])
        world.dark.append(second.host)
        let begin = world.now
        while first.ids == [2], world.now - begin < 10_000_000_000 {
            world.step(first, .evidence(second.member))
            world.run(milliseconds: 50)
        }
        let took = (world.now - begin) / 1_000_000
        #expect(took >= 2800 && took <= 3000 + 160, "departed after \(took) ms")
        // It makes no arrival.
        world.step(first, .evidence(second.member))
        world.run(milliseconds: 500)
        #expect(first.ids.isEmpty)
    }

    @Test func tipsAddSeedsAndCanBeCleared() {
        let world = HeartbeatWorld(seed: runSeed("tip"))
        let first = world.start(1, seeds: [HeartbeatWorld.seed(9)]), second = world.start(2)
        world.run(milliseconds: 1000)
        world.step(first, .tip(HeartbeatWorld.seed(2)))
        #expect(world.run(until: { first.ids == [2] && second.ids == [1] }, atMost: 1000) != nil)
        world.step(first, .tip(SeedName(host: "", port: 1)))
        world.step(first, .tipClear([HeartbeatWorld.seed(2), HeartbeatWorld.seed(9), HeartbeatWorld.seed(7)]))
        world.step(first, .tipClear([]))
        #expect(first.answers.count == 4 && first.answers[0] == "ok" && first.answers[3] == "ok")
        #expect(first.answers[1].hasPrefix("ERROR:4:"))
        #expect(first.answers[2].hasPrefix("ERROR:4:1 cleared") && first.answers[2].contains(HeartbeatWorld.host(7)))
        #expect(first.heart.seedNames == [HeartbeatWorld.seed(9)])
        world.run(milliseconds: 1000)
        #expect(first.ids == [2], "who is there stays")
    }

    @Test func clocksAreComparedByTheirMedian() {
        let world = formedWorld(5, seed: runSeed("clocks"))
        world.setClock(world.processes[1], offset: 20_000)
        world.setClock(world.processes[4], offset: 300)
        world.run(milliseconds: 500)
        let clocks = world.processes[0].heart.clocks(skewMax: 10_000)
        #expect(clocks.outliers == [NodeID(rawValue: 2)])
        #expect(clocks.skewMilliseconds.distance(to: 20_000).magnitude < 20 && clocks.medianOffset.magnitude < 20)
        let own = world.processes[1].heart.clocks(skewMax: 10_000)
        #expect(own.outliers == [NodeID(rawValue: 2)] && (own.medianOffset + 20_000).magnitude < 20)
    }

    @Test func newNumbersCount() {
        let world = formedWorld(3, seed: runSeed("numbers"), tunables: HeartbeatTunables(intervalMilliseconds: 1000))
        for process in world.processes { world.step(process, .settings(tunables)) }
        world.run(milliseconds: 2000)
        world.dark.append(world.processes[2].host)
        let took = world.run(until: { world.processes[0].ids == [2] }, atMost: 5000)
        #expect(took.map { $0 <= 260 } == true, "departed in \(took as Any) ms")
    }
}
