// The rules that hold at every moment, each a small checker that is named in failures. They see each snapshot when it is
// published: the earliest moment at which a client might be served by it.
internal import Assembly
internal import Base
internal import Fabric
internal import Membership
internal import Metadata

/// A rule that was broken.
package struct Violation: Error, Equatable, Sendable, CustomStringConvertible {
    /// Name of the rule, for example M1.
    package let rule: String
    package let sentence: String

    package init(_ rule: String, _ sentence: String) {
        self.rule = rule
        self.sentence = sentence
    }

    package var description: String { "\(rule): \(sentence)" }
}

/// One rule.
protocol Checker {
    /// `snapshot` is being published by `node`, and not yet among the node's own.
    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation?
    /// A process has been started.
    mutating func started(_ node: SimulatedNode)
    /// The disk of the node is empty.
    mutating func wiped(_ node: Int)
}

extension Checker {
    mutating func started(_ node: SimulatedNode) {}
    mutating func wiped(_ node: Int) {}
}

/// All of them.
package struct Checkers {
    private var list: [any Checker]
    private var openings = OpeningChecker()
    private var tokens: [(node: Int, run: Int, token: UInt64)] = []
    private var metadata = MetadataChecker()
    private var advance = AdvanceChecker()
    private var holding = HoldingChecker()
    /// Called for the first snapshot of each view.
    package var audit: (Publication) -> Violation? = BundleAudit.audit

    init(options: RunOptions) {
        list = [
            GrowthChecker(count: options.nodes), FenceChecker(count: options.nodes), SpreadChecker(),
            RegimeChecker(count: options.nodes), MemoryChecker(),
        ]
    }

    /// Views that somebody opened.
    var viewCount: Int { openings.known.count }

    mutating func started(_ node: SimulatedNode) {
        openings.started(node)
        for place in list.indices { list[place].started(node) }
    }

    mutating func wiped(_ node: Int) {
        for place in list.indices { list[place].wiped(node) }
        holding.wiped(node)
    }

    /// The process is gone; `isOrderly`: it has left.
    mutating func ended(_ node: Int, isOrderly: Bool) {
        if isOrderly { holding.left(node) } else { holding.killed(node) }
    }

    /// The disk of the node has taken this.
    mutating func stored(_ node: SimulatedNode, _ change: PartitionsChange) -> Violation? {
        advance.stored(node, change) ?? holding.stored(node, change)
    }

    mutating func published(_ node: Int, _ snapshot: Publication, world: World) -> Violation? {
        let before = openings.known.count
        if let found = openings.published(world.nodes[node], snapshot, world) { return found }
        for place in list.indices {
            if let found = list[place].published(world.nodes[node], snapshot, world) { return found }
        }
        if snapshot.phase == .open { advance.opened(node) }
        holding.published(world.nodes[node], snapshot, world)
        return openings.known.count > before ? audit(snapshot) : nil
    }

    mutating func metadataIsAsked(_ node: SimulatedNode, _ token: UInt64, _ key: MetadataKey, _ value: String) {
        metadata.asked(node, token, key, value)
    }

    mutating func metadataIsStored(_ node: SimulatedNode, _ items: [MetadataItem]) { metadata.stores(node, items) }

    func metadataIsDone(_ node: SimulatedNode, _ token: UInt64, _ world: World) -> Violation? {
        metadata.done(node, token, world)
    }

    mutating func answered(_ node: SimulatedNode, _ token: UInt64, _ text: String) -> Violation? {
        guard token > 0, token <= node.nextToken else {
            return Violation("answers", "\(node.name) answers a command that nobody gave: \(text)")
        }
        guard !tokens.contains(where: { $0 == (node.number, node.run, token) }) else {
            return Violation("answers", "\(node.name) answers one command twice: \(text)")
        }
        tokens.append((node.number, node.run, token))
        return nil
    }
}

/// M1: nodes that open one key have one list of members. M2: one proposer per key. M3: a key is never used again. Maps:
/// equal maps and hashes under one key, and so one acting master of each partition.
struct OpeningChecker: Checker {
    /// What the first that opened it showed, by key.
    private(set) var known: [Publication] = []
    /// Every member that ever ran.
    private var runs: [Member] = []

    mutating func started(_ node: SimulatedNode) { runs.append(node.member) }

    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation? {
        guard snapshot.phase == .open else { return nil }
        guard let view = snapshot.view else { return Violation("view", "\(node.name) is open without a view") }
        if let found = wellFormed(view, node) { return found }
        let place = known.lowerBound { ($0.view?.mark.key ?? 0) < view.mark.key }
        guard place < known.count, let first = known[place].view, first.mark.key == view.mark.key else {
            known.insert(snapshot, at: place)
            return nil
        }
        return compare(known[place], first, snapshot, view, node)
    }

    private func wellFormed(_ view: View, _ node: SimulatedNode) -> Violation? {
        guard view.mark.key != 0, view.mark.number != 0, !view.members.isEmpty else {
            return Violation("view", "\(node.name) opens a view without number, key or members")
        }
        for (one, next) in zip(view.members, view.members.dropFirst()) where one.id <= next.id {
            return Violation("view", "\(node.name) opens members out of order: \(one), \(next)")
        }
        guard view.members.contains(node.member) else {
            return Violation("view", "\(node.name) opens a view that does not name it: \(view.members)")
        }
        guard view.members.contains(where: { $0.id == view.proposer }) else {
            return Violation("M2", "\(node.name) opens a view proposed by \(view.proposer), who is no member")
        }
        for member in view.members where !runs.contains(member) {
            return Violation("view", "\(node.name) opens a view with \(member), which never ran")
        }
        return nil
    }

    private func compare(
        _ firstSnapshot: Publication, _ first: View, _ snapshot: Publication, _ view: View, _ node: SimulatedNode
    ) -> Violation? {
        let key = String(view.mark.key, radix: 16)
        guard first.mark.number == view.mark.number else {
            return Violation("M3", "key \(key) was number \(first.mark.number), and for \(node.name)"
                + " \(view.mark.number)")
        }
        guard first.members == view.members else {
            return Violation("M1", "key \(key) has members \(first.members), and for \(node.name) \(view.members)")
        }
        guard first.proposer == view.proposer else {
            return Violation("M2", "key \(key) has proposer \(first.proposer), and for \(node.name) \(view.proposer)")
        }
        guard firstSnapshot.mapHash == snapshot.mapHash, firstSnapshot.maps == snapshot.maps else {
            return Violation("maps", "key \(key) has map hash \(firstSnapshot.mapHash), and for \(node.name)"
                + " \(snapshot.mapHash)")
        }
        return nil
    }
}

/// The fence: when somebody opens a view, no member of it is open in an older one; and nobody opens an older one later, nor
/// returns to one that it has left.
struct FenceChecker: Checker {
    /// By node: the highest view of which its process is a member and that anybody opened.
    private var bound: [ViewMark]
    /// By node: the view that its process has been open in last, and whether it has left it.
    private var own: [(mark: ViewMark, isLeft: Bool)]
    /// By node: the highest number that it ever opened, over all its processes.
    private var opened: [UInt64]

    init(count: Int) {
        bound = Array(repeating: .none, count: count)
        own = Array(repeating: (.none, false), count: count)
        opened = Array(repeating: 0, count: count)
    }

    mutating func started(_ node: SimulatedNode) {
        bound[node.number] = .none
        own[node.number] = (.none, false)
    }

    mutating func wiped(_ node: Int) { opened[node] = 0 }

    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation? {
        let number = node.number
        guard snapshot.phase == .open, let view = snapshot.view else {
            own[number].isLeft = true
            return nil
        }
        if view.mark == own[number].mark {
            guard own[number].isLeft else { return nil }
            return Violation("fence", "\(node.name) returns to view \(view.mark.number), which it had left")
        }
        guard view.mark.number > opened[number] else {
            return Violation("fence", "\(node.name) opens view \(view.mark.number) after view \(opened[number])")
        }
        guard view.mark.number >= bound[number].number else {
            return Violation("fence", "\(node.name) opens view \(view.mark.number), but view \(bound[number].number), of"
                + " which it is a member, is open elsewhere")
        }
        own[number] = (view.mark, false)
        opened[number] = view.mark.number
        return others(view, node, world)
    }

    private mutating func others(_ view: View, _ node: SimulatedNode, _ world: World) -> Violation? {
        for other in world.nodes where view.members.contains(other.member) {
            let before = bound[other.number]
            if view.mark.number == before.number, view.mark.key != before.key {
                return Violation("M3", "two views are number \(before.number), both open, both with \(other.name)")
            }
            if view.mark.number > before.number { bound[other.number] = view.mark }
            guard other.isUp, other.number != node.number else { continue }
            for snapshot in [other.effective].compactMap({ $0 }) + other.pending where snapshot.phase == .open {
                guard let older = snapshot.view?.mark, older.number < view.mark.number else { continue }
                return Violation("fence", "\(node.name) opens view \(view.mark.number) while its member \(other.name) is"
                    + " still open in view \(older.number)")
            }
        }
        return nil
    }
}

/// Serials, and what clients compare to learn that something is new, only grow.
struct GrowthChecker: Checker {
    private var last: [Publication?]

    init(count: Int) { last = Array(repeating: nil, count: count) }

    mutating func started(_ node: SimulatedNode) { last[node.number] = nil }

    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) -> Violation? {
        defer { last[node.number] = snapshot }
        guard let before = last[node.number] else { return nil }
        guard snapshot.serial > before.serial else {
            return Violation("growth", "\(node.name) publishes serial \(snapshot.serial) after \(before.serial)")
        }
        guard snapshot.partitionGeneration >= before.partitionGeneration,
            snapshot.peersGeneration >= before.peersGeneration,
            snapshot.rebalanceGeneration >= before.rebalanceGeneration
        else { return Violation("growth", "a generation of \(node.name) goes back") }
        guard snapshot.maps == before.maps || snapshot.partitionGeneration > before.partitionGeneration else {
            return Violation("growth", "\(node.name) has new maps, and the same partition-generation")
        }
        guard snapshot.peers == before.peers || snapshot.peersGeneration > before.peersGeneration else {
            return Violation("growth", "\(node.name) has new peers under peers-generation \(snapshot.peersGeneration)")
        }
        return nil
    }
}

/// A change of system metadata is answered only when every member of the view that is open has it on disk, or something that
/// replaces it.
struct MetadataChecker {
    struct Change {
        let node: Int
        let token: UInt64
        let key: MetadataKey
        let value: String
        /// As its node has named it; nil until it stores it.
        var item: MetadataItem?
    }
    private var asked: [Change] = []

    mutating func asked(_ node: SimulatedNode, _ token: UInt64, _ key: MetadataKey, _ value: String) {
        asked.append(Change(node: node.number, token: token, key: key, value: value))
    }

    /// The node is about to write these.
    mutating func stores(_ node: SimulatedNode, _ items: [MetadataItem]) {
        for place in asked.indices where asked[place].node == node.number && asked[place].item == nil {
            asked[place].item = items.first {
                $0.key == asked[place].key && $0.value == asked[place].value && $0.version.node == node.id
            }
        }
    }

    func done(_ node: SimulatedNode, _ token: UInt64, _ world: World) -> Violation? {
        guard let change = asked.first(where: { $0.node == node.number && $0.token == token }),
            let members = node.latest?.view?.members
        else { return Violation("metadata", "\(node.name) says that a change is done that nobody asked for") }
        guard let item = change.item else {
            return Violation("metadata", "\(node.name) says that \(change.key) is \(change.value), and has not stored it")
        }
        // Of one that is down the disk may have been wiped since it said so.
        for other in world.nodes where other.isUp && members.contains(other.member) && !other.disk.metadata.holds(item) {
            let own = other.disk.metadata.versions(item.module, item.key).map { "\($0.value ?? "-") of \($0.version)" }
            return Violation("metadata", "\(node.name) says that \(change.key) is \(change.value) by \(item.version), but"
                + " \(other.name) has \(own.isEmpty ? "nothing" : own.joined(separator: " and ")) on disk")
        }
        return nil
    }
}
