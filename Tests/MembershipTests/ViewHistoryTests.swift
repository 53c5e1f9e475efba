import Base
import Fabric
import Glibc
import Membership
import Testing
import TestSupport

/// One history: nodes form, are attacked, are healed, must come together.
struct ViewHistory {
    let world: ViewWorld
    private var random: SeededRandom
    private(set) var convergedAfterMilliseconds: UInt64 = 0
    private(set) var faults = 0
    private(set) var struck = 0

    init(seed: UInt64, breaks: ViewBreaks = [], isTraced: Bool = false) {
        random = SeededRandom(seed: seed &* 3 &+ 1)
        var settings = ViewWorldSettings(nodes: Int.random(in: 1...7, using: &random))
        if Int.random(in: 0..<4, using: &random) == 0 {
            settings.views.heartbeatIntervalMilliseconds = 150
            settings.views.heartbeatTimeoutIntervals = 10
        }
        if Bool.random(using: &random) { settings.delayMaxMilliseconds = Double.random(in: 0.1...120, using: &random) }
        if Bool.random(using: &random) { settings.lossPercent = Int.random(in: 0...30, using: &random) }
        if Bool.random(using: &random) { settings.duplicatePercent = Int.random(in: 0...30, using: &random) }
        if Int.random(in: 0..<4, using: &random) == 0 { settings.pulseLossPercent = Int.random(in: 0...20, using: &random) }
        if Int.random(in: 0..<4, using: &random) == 0 { settings.storeFailPercent = Int.random(in: 0...20, using: &random) }
        if Bool.random(using: &random) { settings.storeMaxMilliseconds = Double.random(in: 1...150, using: &random) }
        if Bool.random(using: &random) { settings.prepareMaxMilliseconds = Double.random(in: 1...150, using: &random) }
        if Int.random(in: 0..<5, using: &random) == 0 { settings.views.minClusterSize = min(2, settings.nodes) }
        world = ViewWorld(settings, seed: seed)
        world.breaks = breaks
        if isTraced { world.trace = [] }
    }

    /// The rule that was broken, nil if none was.
    mutating func run() -> String? {
        for node in world.nodes.indices {
            world.schedule(world.now + UInt64.random(in: 0...200_000_000, using: &random), .restart(node: node))
        }
        world.run(milliseconds: 600)
        let end = world.now + UInt64.random(in: 1_000...6_000, using: &random) * 1_000_000
        while world.now < end, world.oracle.violation == nil {
            let isAgreeing = world.nodes.contains { $0.views?.phase == .frozen }
            world.run(milliseconds: Double.random(in: 1...(isAgreeing ? 40 : 300), using: &random))
            strike()
        }
        heal()
        world.run(milliseconds: 3_000)
        let all = Array(world.nodes.indices)
        let start = world.now
        var isOne = false
        while !isOne, world.now < start + 60_000_000_000, world.oracle.violation == nil {
            world.run(milliseconds: 100)
            isOne = world.isOneView(all)
        }
        convergedAfterMilliseconds = (world.now - start) / 1_000_000
        if world.oracle.violation == nil, !isOne { return "no view of all 60 s after the last fault" }
        world.run(milliseconds: 3_000)
        if world.oracle.violation == nil, !world.isOneView(all) { return "the view did not last" }
        return world.oracle.violation
    }

    private mutating func strike() {
        let count = world.nodes.count
        let node = Int.random(in: 0..<count, using: &random)
        faults += 1
        if world.nodes.contains(where: { $0.views?.phase == .frozen }) { struck += 1 }
        switch Int.random(in: 0..<13, using: &random) {
        case 0...2:
            world.crash(node)
            let wait = UInt64.random(in: 1...(Bool.random(using: &random) ? 100 : 2_000), using: &random)
            world.schedule(world.now + wait * 1_000_000, .restart(node: node))
        case 3:
            for one in world.nodes.indices where Bool.random(using: &random) {
                world.crash(one)
                let wait = UInt64.random(in: 1...1_000, using: &random)
                world.schedule(world.now + wait * 1_000_000, .restart(node: one))
            }
        case 4: pause(node, UInt64.random(in: 5...3_000, using: &random))
        case 5: split { Bool.random(using: &self.random) }
        case 6: split { false }
            for other in 0..<count { link(node, other, false) }
        case 7:
            let other = Int.random(in: 0..<count, using: &random)
            world.links[node][other] = other == node
        case 8:
            let other = Int.random(in: 0..<count, using: &random)
            world.fabric[node][other] = other == node
        case 9, 10: healLinks()
        case 11: world.step(node, .recluster(token: 1))
        default:
            world.nodes[node].prepareFails.toggle()
            world.nodes[Int.random(in: 0..<count, using: &random)].isUnhealthy.toggle()
        }
    }

    private func pause(_ node: Int, _ milliseconds: UInt64) {
        world.nodes[node].pausedUntil = max(world.nodes[node].pausedUntil, world.now + milliseconds * 1_000_000)
    }

    private func link(_ one: Int, _ other: Int, _ isUp: Bool) {
        world.links[one][other] = isUp || one == other
        world.links[other][one] = isUp || one == other
    }

    private func split(_ side: () -> Bool) {
        let sides = world.nodes.indices.map { _ in side() }
        for one in sides.indices { for other in sides.indices { link(one, other, sides[one] == sides[other]) } }
    }

    private func healLinks() {
        for one in world.nodes.indices {
            for other in world.nodes.indices {
                world.links[one][other] = true
                world.fabric[one][other] = true
            }
        }
    }

    private func heal() {
        healLinks()
        world.settings.lossPercent = 0
        world.settings.duplicatePercent = 0
        world.settings.pulseLossPercent = 0
        world.settings.storeFailPercent = 0
        for node in world.nodes.indices {
            world.nodes[node].prepareFails = false
            world.nodes[node].isUnhealthy = false
            if !world.nodes[node].isAlive { world.start(node) }
        }
    }
}

struct ViewHistoryTests {
    private static func wanted(_ name: String, _ usual: Int) -> Int {
        getenv(name).flatMap { Int(String(cString: $0)) } ?? usual
    }

    /// `APUS_HISTORIES` sets how many; `APUS_SEED` replays the first one alone, with what every node did.
    @Test func historiesKeepTheRulesAndComeTogether() {
        let count = ViewHistoryTests.wanted("APUS_HISTORIES", 300)
        let first = runSeed("histories of views")
        let slowMilliseconds = ViewHistoryTests.wanted("APUS_SLOW", 30_000)
        var longest: [UInt64] = []
        var (views, struck) = (0, 0)
        for number in 0..<count {
            let seed = first &+ UInt64(number)
            var history = ViewHistory(seed: seed)
            if let broken = history.run() {
                var again = ViewHistory(seed: seed, isTraced: true)
                _ = again.run()
                again.world.trace?.suffix(400).forEach { print($0) }
                Issue.record("APUS_SEED=\(seed): \(broken)")
                return
            }
            longest.append(history.convergedAfterMilliseconds)
            if history.convergedAfterMilliseconds > slowMilliseconds {
                print("slow: APUS_SEED=\(seed), \(history.convergedAfterMilliseconds) ms")
                if count == 1 {
                    var again = ViewHistory(seed: seed, isTraced: true)
                    _ = again.run()
                    again.world.trace?.forEach { print($0) }
                }
            }
            views += history.world.oracle.openCount
            struck += history.struck
        }
        longest.sort()
        print("\(count) histories, \(views) views opened, \(struck) faults struck an agreement; "
            + "one view after ms: median \(longest[count / 2]), longest \(longest[count - 1])")
    }

    @Test func oneSeedGivesOneHistory() {
        let seed = runSeed("one history")
        let hashes = (0..<2).map { _ in
            var history = ViewHistory(seed: seed)
            _ = history.run()
            return history.world.hash
        }
        #expect(hashes[0] == hashes[1])
    }

    /// Tests of the test: each rule that is switched off must be noticed by ordinary histories.
    @Test(arguments: [
        ("accepted number not stored", ViewBreaks.acceptsWithoutStoring),
        ("block taken again", .takesBlockAgain),
        ("two proposers in one number", .twoProposersOneNumber),
        ("incarnation ignored", .ignoresIncarnation),
    ])
    func brokenRulesAreNoticed(name: String, breaks: ViewBreaks) {
        var seed = runSeed(name)
        var needed: [Int] = []
        for _ in 0..<5 {
            var count = 0
            while count < 2_000 {
                seed &+= 1
                count += 1
                var history = ViewHistory(seed: seed, breaks: breaks)
                history.world.oracle.readsDisks = false
                if history.run() != nil { break }
            }
            needed.append(count)
        }
        needed.sort()
        print("\(name): noticed after \(needed) histories, median \(needed[2])")
        #expect(needed[2] <= 500)
    }
}
