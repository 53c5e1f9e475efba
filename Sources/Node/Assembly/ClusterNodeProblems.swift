// Who should be in the view of this node and is not, in sentences. Invariants:
// 1. At most one sentence for each node. It changes only if more is known, or if what it says has not been so for a while.
// 2. Nothing is said before it has gone on for two timeouts: nodes come and go.
internal import Base
internal import Fabric
internal import Membership

/// What is known of nodes that are not in the view. See the invariants above.
struct Standing {
    /// How much a reason explains; a later case explains more.
    enum Depth: Int, Comparable {
        /// Where it is instead.
        case place
        /// That it does not answer.
        case silence
        /// What keeps it out.
        case cause

        static func < (left: Depth, right: Depth) -> Bool { left.rawValue < right.rawValue }
    }

    /// One node, since when it is outside, and what is said of it.
    struct Outsider {
        let member: Member
        let since: Instant
        /// This node hears it; else only others do.
        let isHeard: Bool
        var depth = Depth.place
        var sentence = ""
        /// When the sentence was right last.
        var rightAt: Instant
    }

    /// Whom only others hear.
    struct Unheard {
        let members: [Member]
        /// The number of the view that they are not in.
        let number: UInt64
    }

    /// Between two sentences of one node that explain as much.
    static let holdSeconds: UInt64 = 10
    var outsiders: [Outsider] = []
    /// Why this node is in no view.
    var ownSentence: String?
    /// Since when it is in none.
    var alone: Instant?
    var nextLook = Instant(nanoseconds: 0)
    /// Looked for when what others say, or the view, has changed.
    var unheard: Unheard?

    /// This node and these are in a view.
    mutating func joined(_ members: [Member]) {
        ownSentence = nil
        alone = nil
        outsiders.removeAll { members.containsDescending($0.member) }
    }

    /// By id.
    var nodesOutside: [NodeID] { outsiders.filter { !$0.sentence.isEmpty }.map(\.member.id) }
    var sentences: [String] { (ownSentence.map { [$0] } ?? []) + outsiders.map(\.sentence).filter { !$0.isEmpty } }
}

/// As one of several that are joined with `;`, and stand on one line, whatever other nodes have put into it.
/// Nearly all are so already, and come here at every event.
func oneSentence(_ text: String) -> String {
    func replacement(_ byte: UInt8) -> UInt8? {
        byte == UInt8(ascii: ";") ? UInt8(ascii: ",") : byte < 0x20 || byte == 0x7F ? UInt8(ascii: " ") : nil
    }
    guard text.utf8.contains(where: { replacement($0) != nil }) else { return text }
    return String(decoding: text.utf8.map { replacement($0) ?? $0 }, as: UTF8.self)
}

extension ClusterNode {
    private static let patienceMilliseconds: ClosedRange<UInt64> = 1_000...86_400_000

    private var patienceNanoseconds: UInt64 {
        let milliseconds = 2 &* settings.heartbeat.intervalMilliseconds &* settings.heartbeat.timeoutIntervals
        let range = ClusterNode.patienceMilliseconds
        return min(max(milliseconds, range.lowerBound), range.upperBound) * 1_000_000
    }

    /// Whether requests that need a view can be refused: this node says why it has none.
    var isInNoView: Bool { views.phase == .orphan && !views.reasonForNoView.isEmpty }
    var noViewSentence: String { "this node belongs to no view: \(views.reasonForNoView)" + waiting }

    private var waiting: String {
        views.waitingFor.isEmpty ? "" : ": \(NodeNames.list(views.waitingFor))"
    }

    /// Once an interval at most: this looks at all nodes.
    mutating func lookAround() {
        guard settings.heartbeat.mode != .alone, now.monotonic >= standing.nextLook else { return }
        let pause = min(max(settings.heartbeat.intervalMilliseconds, 10), 1_000)
        standing.nextLook = now.monotonic.advanced(byMilliseconds: pause)
        switch views.phase {
        case .frozen: break
        case .orphan: lookAlone()
        case .open: lookFromView()
        }
    }

    // ---- In no view ----

    private mutating func lookAlone() {
        let since = standing.alone ?? now.monotonic
        standing.alone = since
        let isLong = now.monotonic.nanoseconds(since: since) >= patienceNanoseconds
        standing.ownSentence = isInNoView ? noViewSentence
            : isLong ? "this node belongs to no view: it has agreed on none with the nodes that it hears" : nil
        // Without a view everybody is outside: named is only who cannot be reached.
        let troubled = views.heard.filter { links.trouble(with: $0.member, now: now.monotonic) != nil }
        keep(troubled.map(\.member) + unheard(outside: [], number: 0))
        describe()
    }

    // ---- In a view ----

    private mutating func lookFromView() {
        standing.alone = nil
        standing.ownSentence = nil
        let members = views.view?.members ?? []
        let heard = views.heard.filter { !members.containsDescending($0.member) }.map(\.member)
        keep(heard + unheard(outside: members, number: views.view?.mark.number ?? 0))
        describe()
    }

    /// Members that others hear and this node does not, though their heartbeats should come here, too.
    private mutating func unheard(outside members: [Member], number: UInt64) -> [Member] {
        if let unheard = standing.unheard, unheard.number == number { return unheard.members }
        let found = findUnheard(outside: members)
        standing.unheard = Standing.Unheard(members: found, number: number)
        return found
    }

    private func findUnheard(outside members: [Member]) -> [Member] {
        let known = views.heard
        var found: [Member] = []
        for node in known {
            for other in node.hears where other.id != me.id && !found.contains(other) && !members.containsDescending(other) {
                let place = known.lowerBound { $0.member.id < other.id }
                if place == known.count || known[place].member.id != other.id { found.append(other) }
            }
        }
        guard !found.isEmpty else { return [] }
        let duplicates = heartbeat.duplicateNodes
        return found.filter { !duplicates.contains($0.id) }.sorted()
    }

    private mutating func keep(_ wanted: [Member]) {
        let heard = views.heard
        // Whose id another one has, whom all leave out: that is what is to be said, not what comes of it.
        let members = heartbeat.duplicateNodes.contains(me.id) ? [] : wanted
        standing.outsiders = members.sorted().map { member in
            let isHeard = heard.contains { $0.member == member }
            return standing.outsiders.first { $0.member == member && $0.isHeard == isHeard }
                ?? Standing.Outsider(member: member, since: now.monotonic, isHeard: isHeard, rightAt: now.monotonic)
        }
    }

    private mutating func describe() {
        for index in standing.outsiders.indices {
            let known = standing.outsiders[index]
            guard now.monotonic.nanoseconds(since: known.since) >= patienceNanoseconds else { continue }
            let (depth, sentence) = reason(known)
            let isOld = now.monotonic.nanoseconds(since: known.rightAt) >= Standing.holdSeconds * 1_000_000_000
            let isBetter = known.sentence.isEmpty || depth > known.depth || isOld
            if sentence == known.sentence || isBetter { standing.outsiders[index].rightAt = now.monotonic }
            guard isBetter, sentence != known.sentence else { continue }
            standing.outsiders[index].depth = depth
            standing.outsiders[index].sentence = sentence
            log(.warning, .clustering, sentence)
        }
    }

    private func reason(_ outsider: Standing.Outsider) -> (Standing.Depth, String) {
        let id = outsider.member.id
        guard let node = views.heard.first(where: { $0.member == outsider.member }) else {
            let hearers = views.heard.filter { $0.hears.contains(outsider.member) }.map(\.member.id)
            return (.cause, "node \(id) is heard by \(NodeNames.list(hearers)), and not by this node: the link between them"
                + " is cut, or a fire wall closes the heartbeat port")
        }
        let begin = "node \(id) is heard, but is not in the view of this node: "
        let obstacle = views.obstacle(to: node)
        // Who does not hear this node has no reason to dial its fabric.
        if obstacle != .deaf, let trouble = links.trouble(with: outsider.member, now: now.monotonic) {
            return (.cause, trouble)
        }
        switch obstacle {
        case .deaf: return (.cause, begin + "it does not hear this node, look at fire walls between them")
        case .unhealthy: return (.cause, begin + "it is unhealthy, too many of its heartbeats are lost")
        case .unlinked(let others): return (.cause, begin + "it lacks a link to \(NodeNames.list(others))")
        case .silent: return (.silence, begin + "it does not answer on the fabric")
        case nil: return (.place, begin + (node.content.view == .none ? "it is in none" : "it is in another one"))
        }
    }
}

/// Nodes in sentences.
private enum NodeNames {
    private static let namedMax = 4

    /// `A1`, `A1 and A2`, or `A1, A2, A3, A4 and 7 more`.
    static func list(_ ids: [NodeID]) -> String {
        let named = ids.prefix(namedMax).map(\.description)
        if ids.count > namedMax { return named.joined(separator: ", ") + " and \(ids.count - namedMax) more" }
        return named.count < 2 ? named.first ?? "nobody" : named.dropLast().joined(separator: ", ") + " and " + named.last!
    }
}

extension [Member] {
    /// Whether a member is in a list by id, highest first.
    fileprivate func containsDescending(_ member: Member) -> Bool {
        let place = lowerBound { $0 > member }
        return place < count && self[place] == member
    }
}
