// What must hold whatever happens, checked at every effect.
import Base
import Fabric
import Membership

struct ViewOracle {
    /// The first rule that was broken.
    private(set) var violation: String?
    private(set) var openCount = 0
    private var bundles: [UInt64: (view: View, blocks: [[UInt8]])] = [:]
    private var proposed: [UInt64: View] = [:]
    private var openedByNumber: [UInt64: [View]] = [:]
    private var lastOpened: [NodeID: UInt64] = [:]
    private var acceptedMarks: [NodeID: [ViewMark]] = [:]
    private var firstBlocks: [Key: [UInt8]] = [:]
    private var frozen: [Member: UInt64] = [:]
    private var hashes: [UInt64: [Member: UInt64]] = [:]
    var expectsDisagreement = false
    /// Looks whether a number is on the disk when its acceptance leaves.
    var readsDisks = true

    private struct Key: Hashable {
        let member: Member
        let number: UInt64
    }

    /// Sees nothing: for tests that forge messages.
    var isBlind = false

    mutating func fail(_ text: String) { if violation == nil, !isBlind { violation = text } }

    mutating func gave(_ block: [UInt8], _ member: Member, _ number: UInt64) {
        let key = Key(member: member, number: number)
        if firstBlocks[key] == nil { firstBlocks[key] = block }
    }

    mutating func prepared(_ mark: ViewMark, _ member: Member, _ hash: UInt64) {
        hashes[mark.key, default: [:]][member] = hash
    }

    mutating func see(_ effect: ViewEffect, of node: ViewWorldNode, at now: UInt64) {
        switch effect {
        case .freeze(let number): frozen[node.member] = max(frozen[node.member] ?? 0, number)
        case .send(_, let bytes): sent(bytes, node)
        case .prepare(let view, let blocks): prepares(view, blocks, node)
        case .open(let view): opens(view, node)
        case .void(_, let reason):
            if reason.contains("different maps"), !expectsDisagreement { fail("unequal map hashes: \(reason)") }
        default: break
        }
    }

    private mutating func sent(_ bytes: [UInt8], _ node: ViewWorldNode) {
        guard let message = try? ViewMessage.decode(bytes).message else { return fail("a message cannot be decoded") }
        switch message {
        case .propose(let view, _):
            if let known = proposed[view.mark.key], known != view { fail("key \(view.mark.key) proposed twice") }
            proposed[view.mark.key] = view
            if view.proposer != node.id { fail("\(node.id) proposes as \(view.proposer)") }
        case .accept(let mark, _):
            let stored = node.disk.flatMap { try? StoredView($0) }?.accepted ?? 0
            if readsDisks, stored < mark.number { fail("\(node.id) accepts \(mark.number), stored is \(stored)") }
            var marks = acceptedMarks[node.id] ?? []
            if !marks.contains(mark) {
                if let last = marks.last, last.number >= mark.number { fail("\(node.id) accepts \(mark) after \(last)") }
                marks.append(mark)
                acceptedMarks[node.id] = marks
            }
        default: break
        }
    }

    private mutating func prepares(_ view: View, _ blocks: [(member: Member, block: [UInt8])], _ node: ViewWorldNode) {
        let bytes = blocks.map(\.block)
        if let known = bundles[view.mark.key] {
            if known.view != view { fail("key \(view.mark.key) names two views") }
            if known.blocks != bytes { fail("view \(view.mark.number) has two bundles") }
        }
        bundles[view.mark.key] = (view, bytes)
        if blocks.map(\.member) != view.members { fail("blocks of others") }
        for (member, block) in blocks {
            let key = Key(member: member, number: view.mark.number)
            if firstBlocks[key] != block { fail("view \(view.mark.number): the block of \(member) is not its first one") }
        }
        checkFence(view)
    }

    private mutating func checkFence(_ view: View) {
        for member in view.members where frozen[member] ?? 0 < view.mark.number {
            fail("view \(view.mark.number) while \(member) has not frozen older ones")
        }
    }

    private mutating func opens(_ view: View, _ node: ViewWorldNode) {
        openCount += 1
        if !view.members.contains(node.member) { fail("\(node.member) opens view \(view.mark.number) without itself") }
        if let last = lastOpened[node.id], last >= view.mark.number {
            fail("\(node.id) opens \(view.mark.number) after \(last)")
        }
        lastOpened[node.id] = view.mark.number
        for other in openedByNumber[view.mark.number] ?? [] where other != view {
            let ids = other.members.map(\.id)
            if view.members.contains(where: { ids.contains($0.id) }) { fail("two views have number \(view.mark.number)") }
            if other.mark.key == view.mark.key { fail("two views have key \(view.mark.key)") }
        }
        openedByNumber[view.mark.number, default: []].append(view)
        checkFence(view)
        let known = hashes[view.mark.key] ?? [:]
        let all = view.members.map { known[$0] }
        if all.contains(nil) || Set(all).count != 1 { fail("view \(view.mark.number) opens without equal maps") }
        if bundles[view.mark.key]?.view != view { fail("view \(view.mark.number) was prepared otherwise") }
    }
}
