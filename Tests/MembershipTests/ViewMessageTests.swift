import Base
import Fabric
import Membership
import Testing
import TestSupport

struct ViewMessageTests {
    private let members = [9, 4, 2].map { Member(id: NodeID(rawValue: $0), incarnation: $0 * 77) }
    private var view: View {
        View(mark: ViewMark(number: 12, key: 0xAB), members: members, proposer: members[1].id)
    }

    private var all: [ViewMessage] {
        let mark = view.mark
        return [
            .ask(members: [], isRunning: false), .ask(members: members, isRunning: true),
            .answer(open: .none, accepted: 3, .waits, canPropose: false),
            .answer(open: mark, accepted: 12, .fine, canPropose: true),
            .propose(view, isRunning: true), .accept(mark, block: [1, 2, 3]), .refuse(mark, accepted: 99, .better),
            .working(mark), .bundle(mark, blocks: [[], [1], [2, 2]]), .prepared(mark, mapHash: .max),
            .failed(mark, reason: "voll"), .open(mark), .void(mark, reason: "so"),
        ]
    }

    @Test func messagesComeBack() throws {
        for message in all {
            let (back, receiver) = try ViewMessage.decode(message.bytes(to: members[2]))
            #expect(back == message && receiver == members[2])
        }
    }

    @Test func everyPrefixAndEveryLongerOneIsRefused() {
        for message in all {
            let bytes = message.bytes(to: members[0])
            for size in bytes.indices {
                #expect(throws: FabricError.self) { try ViewMessage.decode(Array(bytes[..<size])) }
            }
            #expect(throws: FabricError.self) { try ViewMessage.decode(bytes + [0]) }
        }
    }

    @Test func whatNoViewCanBeIsRefused() {
        let bad = [
            View(mark: ViewMark(number: 0, key: 1), members: members, proposer: members[0].id),
            View(mark: ViewMark(number: ViewMark.numberMax + 1, key: 1), members: members, proposer: members[0].id),
            View(mark: ViewMark(number: 1, key: 0), members: members, proposer: members[0].id),
            View(mark: ViewMark(number: 1, key: 1 << 40), members: members, proposer: members[0].id),
            View(mark: view.mark, members: [], proposer: members[0].id),
            View(mark: view.mark, members: members.reversed(), proposer: members[0].id),
            View(mark: view.mark, members: [members[0], members[0]], proposer: members[0].id),
            View(mark: view.mark, members: members, proposer: NodeID(rawValue: 1)),
        ]
        for view in bad {
            #expect(throws: FabricError.self) {
                try ViewMessage.decode(ViewMessage.propose(view, isRunning: true).bytes(to: members[0]))
            }
        }
    }

    @Test func theFileComesBackAndDamageIsNoticed() throws {
        for stored in [StoredView(accepted: 0, last: nil), StoredView(accepted: 44, last: view)] {
            let bytes = stored.bytes
            #expect(try StoredView(bytes) == stored)
            for size in bytes.indices { #expect(throws: FabricError.self) { try StoredView(Array(bytes[..<size])) } }
            for place in bytes.indices {
                var damaged = bytes
                damaged[place] ^= 0x10
                #expect(throws: FabricError.self) { try StoredView(damaged) }
            }
        }
        #expect(throws: FabricError.self) { try StoredView(StoredView(accepted: 3, last: view).bytes) }
    }

    /// Anything at all, and good messages with a few bytes changed, into nodes that agree meanwhile: no trap, and when it is
    /// over they come together.
    @Test func anythingMayArrive() {
        let seed = runSeed("anything")
        var random = SeededRandom(seed: seed)
        for number in 0..<20 {
            let world = ViewWorld(ViewWorldSettings(nodes: 4), seed: seed &+ UInt64(number))
            world.trace = []
            world.oracle.isBlind = true
            var kept: [(Int, [UInt8])] = []
            world.onEffect = { _, effect in
                if case .send(let to, let bytes) = effect, kept.count < 500 {
                    kept.append((Int(to.id.rawValue) - 1, bytes))
                }
            }
            world.nodes.indices.forEach { world.start($0) }
            for _ in 0..<1_500 {
                world.run(milliseconds: 1)
                var (to, bytes) = kept.randomElement(using: &random) ?? (0, [])
                if Int.random(in: 0..<3, using: &random) == 0 {
                    let size = Int.random(in: 0...80, using: &random)
                    bytes = (0..<size).map { _ in UInt8.random(in: 0...11, using: &random) }
                }
                for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
                    let place = Int.random(in: 0..<bytes.count, using: &random)
                    bytes[place] = UInt8.random(in: 0...255, using: &random)
                }
                let from = world.nodes.randomElement(using: &random)!.member
                world.step(to, .message(from: from, bytes))
            }
            world.step(0, .stored(77))
            world.step(0, .notStored(78, reason: "what?"))
            world.step(0, .block(number: 9, [1]))
            world.step(0, .prepared(ViewMark(number: 9, key: 9), mapHash: 1))
            world.step(0, .notPrepared(ViewMark(number: 9, key: 9), reason: "what?"))
            let isOne = world.run(milliseconds: 60_000) { world.isOneView([0, 1, 2, 3]) }
            #expect(isOne, "APUS_SEED=\(seed)\n\(world.trace!.suffix(60).joined(separator: "\n"))")
        }
    }
}
