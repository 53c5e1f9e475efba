import Base
import Fabric
import Membership
import Testing

/// One node, driven by hand: what it thinks of the views that others want.
struct ViewVerdictTests {
    private static func member(_ id: UInt64) -> Member { Member(id: NodeID(rawValue: id), incarnation: id) }

    private struct Driven {
        let me = member(3)
        var views: Views
        var now = Instant(nanoseconds: 1_000_000_000)
        var random = SeededRandom(seed: 7)

        init() {
            let settings = ViewSettings(heartbeatIntervalMilliseconds: 50, heartbeatTimeoutIntervals: 4)
            views = Views(me: me, stored: nil, settings: settings, now: now)
        }

        /// Steps, and answers what the node asks of its own machine. Returns what it sends.
        @discardableResult
        mutating func take(_ event: ViewEvent) -> [(to: Member, ViewMessage)] {
            var waiting = [event]
            var sent: [(to: Member, ViewMessage)] = []
            while !waiting.isEmpty {
                var effects: [ViewEffect] = []
                views.step(waiting.removeFirst(), now: now, random: &random, effects: &effects)
                for effect in effects {
                    switch effect {
                    case .send(let to, let bytes): sent.append((to, try! ViewMessage.decode(bytes).message))
                    case .store(let ticket, _): waiting.append(.stored(ticket))
                    case .freeze(let number): waiting.append(.block(number: number, []))
                    case .prepare(let view, _): waiting.append(.prepared(view.mark, mapHash: 1))
                    case .open, .void, .orphan, .answer, .log: break
                    }
                }
            }
            return sent
        }

        mutating func hear(_ message: ViewMessage, from id: UInt64) -> [(to: Member, ViewMessage)] {
            take(.message(from: member(id), message.bytes(to: me)))
        }
    }

    /// Seed 151851660394463: members below the proposer counted nodes that only the proposer knew to be out of reach, and
    /// refused a view that had fewer of them, for ever.
    @Test func nodesThatWereNeverAskedDoNotKeepOthersOut() throws {
        var node = Driven()
        let everybody = [1, 2, 3, 4, 5, 6].map(Self.member)
        func hear(_ open: ViewMark) {
            let neighbours = everybody.filter { $0 != node.me }.map { other in
                Neighbour(
                    member: other, addresses: NodeAddresses(heartbeat: [], fabric: []),
                    content: PulseContent(
                        view: [2, 5].contains(other.id.rawValue) ? open : .none, accepted: open.number, isLeaving: false,
                        clock: 0),
                    hears: everybody.filter { $0 != other })
            }
            node.take(.neighbours(neighbours))
        }
        hear(.none)
        let view = View(
            mark: ViewMark(number: 1, key: 9), members: [5, 3, 2].map(Self.member), proposer: Self.member(5).id)
        _ = node.hear(.propose(view, isRunning: false), from: 5)
        _ = node.hear(.bundle(view.mark, blocks: [[], [], []]), from: 5)
        _ = node.hear(.open(view.mark), from: 5)
        try #require(node.views.phase == .open && node.views.view == view)
        hear(view.mark)
        // Node 6 is to propose, and says that it cannot: it is left out for a second.
        var asked = false
        for _ in 0..<20 where !asked {
            node.now = max(node.views.deadline, node.now.advanced(byMilliseconds: 10))
            asked = node.take(.timer).contains { $0.to.id.rawValue == 6 }
        }
        try #require(asked)
        _ = node.hear(.answer(open: .none, accepted: 0, .fine, canPropose: false), from: 6)
        func opinion(of members: [UInt64]) -> ViewVerdict? {
            let sent = node.hear(.ask(members: members.map(Self.member), isRunning: true), from: 6)
            for case (_, .answer(_, _, let verdict, _)) in sent { return verdict }
            return nil
        }
        #expect(opinion(of: [6, 3]) == .better, "it has two others already")
        #expect(opinion(of: [6, 5, 3, 2]) == .fine, "nobody has ever had 4 and 1")
    }
}
