// Everything at once, by chance, and then peace: all must find each other again.
import Base
import Fabric
@testable import Membership
import Testing
import TestSupport

struct HeartbeatChaosTests {
    @Test func afterAnyTroubleAllHearEachOther() {
        forAWhile(3) {
            let seed = runSeed("chaos")
            var random = SeededRandom(seed: seed)
            let count = 2 + random.next() % 5
            let mode = random.next() % 3 == 0 ? HeartbeatMode.multicast : .mesh
            let tunables = random.next() % 2 == 0
                ? HeartbeatTunables() : HeartbeatTunables(intervalMilliseconds: 50, timeoutIntervals: 4)
            let world = formedWorld(count, seed: seed, tunables: tunables, mode: mode)
            let seeds = mode == .mesh ? (1...count).map { HeartbeatWorld.seed($0) } : []
            for _ in 0..<40 {
                trouble(world, count, seeds: seeds, mode: mode, tunables: tunables)
                world.run(milliseconds: world.random.next() % (2 * tunables.timeoutMilliseconds))
                for process in world.processes {
                    #expect(zip(process.ids, process.ids.dropFirst()).allSatisfy { $0 < $1 })
                    #expect(!process.ids.contains(process.member.id.rawValue))
                    let duplicates = process.heart.duplicateNodes.map(\.rawValue)
                    #expect(!process.ids.contains { duplicates.contains($0) })
                }
            }
            world.cuts = []
            world.dark = []
            world.datagramLoss = 0
            world.unclog()
            // One process of each id, where the seeds lead.
            for id in 1...count {
                let same = world.processes.filter { $0.isUp && $0.member.id.rawValue == id }
                let kept = same.last { $0.host == HeartbeatWorld.host(id) }
                for one in same where one !== kept { world.kill(one) }
                if kept == nil { _ = world.start(id, seeds: seeds, mode: mode, tunables: tunables) }
            }
            let took = world.run(until: { world.all(hear: Array(1...count)) }, atMost: 60_000)
            #expect(took != nil, "seed \(seed): \(count) nodes, \(mode)")
            if took == nil { for process in world.processes where process.isUp { print(state(process)) } }
            world.run(milliseconds: 20_000)
            for process in world.processes where process.isUp {
                #expect(world.all(hear: Array(1...count)), "seed \(seed)")
                #expect(process.heart.duplicateNodes.isEmpty, "seed \(seed)")
                #expect(process.heart.statistics.connections == (mode == .mesh ? 2 * Int(count - 1) : 0), "seed \(seed)")
                let live = world.processes.filter { $0.isUp && $0 !== process }.map(\.member).sorted()
                #expect(process.members == live, "seed \(seed)")
            }
        }
    }

    private func state(_ process: HeartbeatWorld.Process) -> String {
        process.heart.peers.all.reduce("\(process.member) at \(process.host)") { text, peer in
            text + "\n    \(peer.member) \(peer.standing), dialled: \(peer.dial.isStanding), tries: \(peer.dial.attempts),"
                + " sightings: \(peer.sightings), hears: \(peer.hears)"
        }
    }

    private func trouble(
        _ world: HeartbeatWorld, _ count: UInt64, seeds: [SeedName], mode: HeartbeatMode, tunables: HeartbeatTunables
    ) {
        func pick(_ count: UInt64) -> UInt64 { world.random.next() % count }
        let live = world.processes.filter { $0.isUp }
        let id = 1 + pick(count)
        guard let victim = live.randomElement(using: &world.random) else {
            return _ = world.start(id, seeds: seeds, mode: mode, tunables: tunables)
        }
        let other = live[Int(pick(UInt64(live.count)))]
        switch pick(12) {
        case 0, 1: world.cut(victim.host, other.host, bothWays: pick(2) == 0)
        case 2: world.dark = pick(2) == 0 ? [victim.host] : []
        case 3: world.clog(victim, milliseconds: pick(3000))
        case 4: world.unclog()
        case 5: world.pause(victim, milliseconds: pick(10) == 0 ? pick(40_000) : pick(3 * tunables.timeoutMilliseconds))
        case 6, 7:
            world.kill(victim, isReset: pick(2) == 0)
            _ = world.start(victim.member.id.rawValue, host: victim.host, seeds: seeds, mode: mode, tunables: tunables)
        case 8:
            guard live.count < 12 else { return }
            _ = world.start(id, host: "10.9.9.\(pick(250))", seeds: seeds, mode: mode, tunables: tunables)
        case 9: world.kill(victim)
        case 10: world.datagramLoss = Double(pick(30)) / 100
        default: world.cuts = []
        }
    }
}
