import Base
import Membership
import Metadata
import Testing
import TestSupport
import Fabric

@Suite struct SharingTests {
    // ---- Histories of chance ----

    /// One history: what broke which rule.
    private func history(_ seed: UInt64, breaks: MetadataBreaks = []) -> SharingWorld {
        var draw = SeededRandom(seed: seed ^ 0x5EED)
        var settings = MetadataSettings()
        settings.answerMilliseconds = [300, 2_000, 10_000].randomElement(using: &draw)!
        settings.wholeBlockSizeMax = [0, 300, 64 << 10].randomElement(using: &draw)!
        let count = Int.random(in: 1...6, using: &draw)
        let world = SharingWorld(seed: seed, nodes: count, settings: settings, breaks: breaks)
        world.form(Array(0..<count))
        world.run(300)
        world.faults.lossPercent = [0, 5, 30].randomElement(using: &draw)!
        world.faults.delayMaxMilliseconds = [2, 50, 400].randomElement(using: &draw)!
        world.faults.storeMaxMilliseconds = [1, 30, 500].randomElement(using: &draw)!
        world.faults.storeFailsPercent = [0, 0, 0, 10].randomElement(using: &draw)!
        for _ in 0..<Int.random(in: 5...60, using: &draw) {
            act(world, &draw)
            world.run(UInt64.random(in: 0...200, using: &draw))
        }
        world.converge()
        return world
    }

    private func act(_ world: SharingWorld, _ draw: inout SeededRandom) {
        let number = world.nodes.indices.randomElement(using: &draw)!
        world.nodes[number].mark += UInt64.random(in: 0...50, using: &draw)
        switch Int.random(in: 0..<20, using: &draw) {
        case 0..<4: world.ask(number, .truncate, "n", .afterAllWrites(namespace: "n"))
        case 4..<6: world.ask(number, .truncate, "n", .value("\(world.nodes[number].mark)"))
        case 6..<8: world.ask(number, .truncate, "n", .value(nil))
        case 8..<9: world.ask(number, .evict, "n", .value("\(Int.random(in: 1...99, using: &draw))"))
        case 9..<14:
            let key = ["n|s|a", "n|s|b"].randomElement(using: &draw)!
            world.ask(number, .sets, key, .value("\(Int.random(in: 1...99, using: &draw))"))
        case 14..<16:
            if world.nodes[number].isUp { world.crash(number) } else { world.restart(number) }
        default:
            let some = world.nodes.indices.filter { world.nodes[$0].isUp && Int.random(in: 0..<3, using: &draw) > 0 }
            if !some.isEmpty { world.form(some) }
        }
    }

    @Test func whatIsAcknowledgedIsKeptByAll() {
        let seed = runSeed("SharingTests.whatIsAcknowledgedIsKeptByAll")
        var (done, inDoubt, refused) = (0, 0, 0)
        for number in 0..<1500 {
            let world = history(seed &+ UInt64(number))
            #expect(world.failures.isEmpty, "seed \(seed &+ UInt64(number)): \(world.failures.prefix(3))")
            for ask in world.asks {
                switch ask.answer {
                case .done: done += 1
                case .inDoubt: inDoubt += 1
                case .refused: refused += 1
                case nil: break
                }
            }
        }
        print("SharingTests: \(done) done, \(inDoubt) in doubt, \(refused) refused")
        #expect(done > 1000 && inDoubt > 50 && refused > 50, "histories in which nothing happens show nothing")
    }

    /// The same seed, the same history.
    @Test func historiesAreRepeated() {
        let seed = runSeed("SharingTests.historiesAreRepeated")
        let (one, two) = (history(seed), history(seed))
        #expect(one.asks.map(\.answer) == two.asks.map(\.answer) && one.nodes[0].disk == two.nodes[0].disk)
        #expect(one.now == two.now)
    }

    /// A rule that is switched off is missed: the seeds that notice it, of so many.
    @Test(arguments: [
        MetadataBreaks.answersEarly, .acknowledgesUnstored, .takesWhileFrozen, .forgetsAtViewChange,
    ])
    func aMissingRuleIsNoticed(_ breaks: MetadataBreaks) {
        let seed = runSeed("SharingTests.aMissingRuleIsNoticed")
        let first = (0..<500).first { !history(seed &+ UInt64($0), breaks: breaks).failures.isEmpty }
        print("SharingTests: break \(breaks.rawValue) noticed by history \(first.map { "\($0 + 1)" } ?? "none")")
        #expect(first != nil)
    }

    // ---- Scenarios ----

    private func three(_ settings: MetadataSettings = MetadataSettings()) -> SharingWorld {
        let world = SharingWorld(seed: 7, nodes: 3, settings: settings)
        world.form([0, 1, 2])
        world.run(1000)
        return world
    }

    private func set(_ world: SharingWorld, _ number: Int, _ value: String?, _ module: MetadataModule = .sets) {
        world.ask(number, module, "n", .value(value))
    }

    private func held(_ world: SharingWorld, _ number: Int, _ module: String = "sets") -> String? {
        world.nodes[number].sharing.items[module, MetadataKey([Array("n".utf8)])]?.value
    }

    @Test func aChangeGoesToAll() {
        let world = three()
        set(world, 1, "5")
        #expect(world.asks[0].answer == nil)
        world.run(150)
        #expect(world.asks[0].answer == .done)
        for number in 0..<3 { #expect(held(world, number) == "5" && world.nodes[number].disk == world.nodes[0].disk) }
        #expect(world.failures.isEmpty)
    }

    @Test func aNodeAloneNeedsItsDiskOnly() {
        let world = SharingWorld(seed: 1, nodes: 1)
        set(world, 0, "1")
        world.run(500)
        #expect(world.asks[0].answer == nil, "there is no view yet")
        world.form([0])
        world.run(200)
        #expect(world.asks[0].answer == .done && world.nodes[0].disk.all.count == 1)
        world.faults.storeFailsPercent = 100
        set(world, 0, "2")
        world.run(100)
        #expect(world.asks[1].answer == .refused("not durable, nothing has changed: the disk is full"))
        #expect(held(world, 0) == "1")
    }

    @Test func aNodeThatDoesNotAnswerLeavesItInDoubt() {
        let world = three()
        world.crash(2)
        set(world, 0, "5")
        world.run(9_900)
        #expect(world.asks[0].answer == nil)
        world.run(200)
        guard case .inDoubt(let why)? = world.asks[0].answer else {
            Issue.record("\(String(describing: world.asks[0].answer))")
            return
        }
        #expect(why.contains("A2") && !why.contains("A1"))
        world.converge()
        #expect(world.failures.isEmpty && held(world, 2) == "5")
    }

    @Test func aViewWithoutTheSilentNodeAnswersAtOnce() {
        let world = three()
        world.crash(2)
        set(world, 0, "5")
        world.run(500)
        world.form([0, 1])
        world.run(500)
        #expect(world.asks[0].answer == .done)
        world.converge()
        #expect(world.failures.isEmpty && held(world, 2) == "5")
    }

    @Test func halvesThatMeet() {
        let world = three()
        set(world, 0, "100", .truncate)
        set(world, 0, "1")
        world.run(500)
        world.form([0, 1])
        world.form([2])
        world.run(500)
        set(world, 0, nil, .truncate)
        set(world, 1, "2")
        set(world, 2, "150", .truncate)
        set(world, 2, "3")
        world.run(500)
        #expect(world.asks.allSatisfy { $0.answer == .done })
        #expect(held(world, 0, "truncate") == nil && held(world, 2, "truncate") == "150")
        world.converge()
        #expect(world.failures.isEmpty && held(world, 0, "truncate") == "150" && held(world, 0) == "3")
        #expect(world.nodes.allSatisfy { $0.sharing.items.conflicts.map(\.value) == ["2"] })
        set(world, 1, nil, .truncate)
        set(world, 1, "4")
        world.run(500)
        #expect(held(world, 0, "truncate") == nil && world.nodes[0].sharing.items.conflicts.isEmpty)
    }

    @Test func aTruncateCutsAfterTheLatestWriteOfAnyMember() {
        let world = three()
        world.nodes[2].mark = 1_000_000
        world.ask(0, .truncate, "n", .afterAllWrites(namespace: "n"))
        world.run(500)
        #expect(world.asks[0].answer == .done && UInt64(held(world, 0, "truncate")!)! > 1_000_000)
        world.ask(1, .truncate, "n", .value("5"))
        world.run(500)
        #expect(world.asks[1].answer == .done && UInt64(held(world, 0, "truncate")!)! > 1_000_000, "covered already")
    }

    @Test func aRosterNeedsItsMajority() {
        let world = three()
        set(world, 0, "A0@0,A1@0,A2@0", .roster)
        world.run(500)
        #expect(world.asks[0].answer == .done)
        world.form([0])
        world.form([1, 2])
        world.run(500)
        set(world, 0, "A0@0", .roster)
        set(world, 1, "A1@0,A2@0", .roster)
        world.run(500)
        guard case .refused(let why)? = world.asks[1].answer else {
            Issue.record("a minority has changed the roster")
            return
        }
        #expect(why.hasPrefix("1 of the 3 nodes") && world.asks[2].answer == .done)
        world.converge()
        #expect(world.failures.isEmpty && held(world, 0, "roster") == "A1@0,A2@0")
    }

    /// Items of many bytes do not travel with every bundle.
    @Test func largeSetsTravelOnce() {
        var settings = MetadataSettings()
        settings.wholeBlockSizeMax = 2000
        let world = three(settings)
        for number in 0..<40 { world.ask(0, .sets, "n|\(number)", .value(String(repeating: "x", count: 100))) }
        world.run(20_000)
        #expect(world.asks.allSatisfy { $0.answer == .done })
        world.crash(2)
        world.nodes[2].disk = MetadataItems()
        world.restart(2)
        world.form([0, 1, 2])
        world.run(2_000)
        #expect(world.nodes[2].disk.all.count == 40 && world.failures.isEmpty)
        let sizes = world.views.last!.blocks.map(\.bytes.count)
        #expect(sizes.allSatisfy { $0 < 40 }, "\(sizes)")
    }

    // ---- Bytes of the network ----

    @Test func messagesComeBack() throws {
        let mark = ViewMark(number: 3, key: 0xFF_FFFF_FFFF)
        var items = MetadataItems()
        items.set(.sets, MetadataKey([[0xFF]]), to: "\u{E9}", at: 5, by: NodeID(rawValue: 7))
        let print = MetadataFingerprint(of: [1, 2, 3])
        for message in [
            MetadataMessage.change(mark, number: 9, isForced: true, items.all), .stored(mark, number: 1),
            .refused(mark, number: 2, reason: "no"), .askTimes(mark, number: 3, ["a", ""]), .times(mark, number: 4, [1, 2]),
            .askItems(print), .items(print, [1, 2, 3]),
        ] {
            let bytes = message.bytes
            #expect(try MetadataMessage(bytes) == message)
            for size in 0..<bytes.count { #expect(throws: FabricError.self) { try MetadataMessage(Array(bytes[..<size])) } }
            #expect(throws: FabricError.self) { try MetadataMessage(bytes + [0]) }
        }
    }

    /// Whatever arrives, a node goes on.
    @Test func noMessageTraps() {
        var random = SeededRandom(seed: runSeed("SharingTests.noMessageTraps"))
        let world = three()
        var node = world.nodes[0].sharing
        let mark = node.openView!.mark
        var items = MetadataItems()
        items.set(.truncate, MetadataKey([Array("n".utf8)]), to: "5", at: 5, by: NodeID(rawValue: 7))
        items.set(.roster, MetadataKey([Array("n".utf8)]), to: "A1", at: 5, by: NodeID(rawValue: 7))
        let good = [
            MetadataMessage.change(mark, number: 9, isForced: true, items.all), .stored(mark, number: 1),
            .refused(mark, number: 2, reason: "no"), .askTimes(mark, number: 3, ["n"]), .times(mark, number: 4, [1]),
            .askItems(MetadataFingerprint(of: [])), .items(MetadataFingerprint(of: [0]), [0]),
        ].map(\.bytes)
        var understood = 0
        for round in 0..<20_000 {
            var bytes = good.randomElement(using: &random)!
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                bytes[bytes.indices.randomElement(using: &random)!] = UInt8.random(in: 0...255, using: &random)
            }
            var effects: [MetadataEffect] = []
            let sender = world.nodes[Int.random(in: 0...2, using: &random)].member
            let now = Instant(nanoseconds: UInt64(round) * 1_000_000)
            node.step(.message(from: sender, bytes), now: now, effects: &effects)
            if case .log? = effects.first {} else { understood += 1 }
            for case .store(let ticket, _) in effects {
                node.step(round % 3 > 0 ? .stored(ticket) : .notStored(ticket, reason: "x"), now: now, effects: &effects)
            }
            if round % 500 == 0 {
                _ = node.block(for: 1)
                let garbage = MemberBlock(member: sender, bytes: bytes)
                node.step(.prepare(ViewMark(number: 2, key: 1), blocks: [garbage]), now: now, effects: &effects)
                node.step(.opened(world.views[0].view), now: now, effects: &effects)
            }
        }
        #expect(understood > 1000)
    }
}
