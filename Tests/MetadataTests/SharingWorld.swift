import Base
import Membership
import Metadata
import Testing
import Fabric

/// Nodes that share metadata, with disks, a network that loses and reorders, and views that come from nowhere. Everything
/// comes from one seed.
final class SharingWorld {
    struct Faults {
        var lossPercent = 0
        var delayMaxMilliseconds: UInt64 = 20
        var storeMaxMilliseconds: UInt64 = 20
        var storeFailsPercent = 0
    }
    struct Node {
        var sharing: MetadataSharing
        var member: Member
        var isUp = true
        var disk = MetadataItems()
        /// What is in force.
        var applied: [MetadataItem] = []
        /// The highest time of a write.
        var mark: UInt64 = 1
        var storeFree: UInt64 = 0
        var timerAt: UInt64?
    }
    struct Ask {
        let node: Int
        let value: String?
        /// Marks of all nodes when it was asked.
        let marks: [UInt64]
        var answer: MetadataAnswer?
        /// Of the node's run that was asked.
        let incarnation: UInt64
    }
    /// A view that is being agreed on.
    struct Forming {
        let view: View
        var blocks: [MemberBlock] = []
        var prepared: [Member] = []
        var isOver = false
    }
    private enum Happening {
        case timer(Int)
        case message(from: Member, to: Member, [UInt8])
        case stored(Member, UInt64, [MetadataItem], fails: Bool)
        case block(Int, view: Int)
        case prepare(Int, view: Int)
        case open(Int, view: Int)
    }

    var random: SeededRandom
    var now: UInt64 = 0
    var nodes: [Node] = []
    var faults = Faults()
    var asks: [Ask] = []
    private(set) var views: [Forming] = []
    private var events: [(at: UInt64, order: UInt64, what: Happening)] = []
    private var order: UInt64 = 0
    private let settings: MetadataSettings
    let breaks: MetadataBreaks
    /// What broke which rule.
    var failures: [String] = []
    /// Every version that was named, by its node.
    private var named: [MetadataItem] = []

    init(seed: UInt64, nodes count: Int, settings: MetadataSettings = MetadataSettings(), breaks: MetadataBreaks = []) {
        random = SeededRandom(seed: seed)
        self.settings = settings
        self.breaks = breaks
        for number in 0..<count {
            let member = Member(id: NodeID(rawValue: UInt64(0xA0 + number)), incarnation: 1)
            let sharing = MetadataSharing(me: member, items: MetadataItems(), settings: settings)
            nodes.append(Node(sharing: sharing, member: member))
            nodes[number].sharing.breaks = breaks
        }
    }

    func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    private func delay(_ most: UInt64) -> UInt64 { UInt64.random(in: 1...max(most, 1), using: &random) }

    private func later(_ milliseconds: UInt64, _ what: Happening) {
        order += 1
        let at = now + milliseconds
        let place = events.lastIndex { $0.at <= at }.map { $0 + 1 } ?? 0
        events.insert((at, order, what), at: place)
    }

    private func number(of member: Member) -> Int? { nodes.firstIndex { $0.member == member && $0.isUp } }

    // ---- What happens ----

    /// Lets time go by.
    func run(_ milliseconds: UInt64) {
        let end = now + milliseconds
        while let next = events.first, next.at <= end {
            events.removeFirst()
            now = next.at
            happen(next.what)
        }
        now = end
    }

    private func happen(_ what: Happening) {
        switch what {
        case .timer(let number):
            guard nodes[number].timerAt == now else { return }
            nodes[number].timerAt = nil
            step(number, .timer)
        case .message(let sender, let receiver, let body):
            if let number = number(of: receiver) { step(number, .message(from: sender, body)) }
        case .stored(let member, let ticket, let items, let fails):
            guard let number = number(of: member) else { return }
            guard !fails else { return step(number, .notStored(ticket, reason: "the disk is full")) }
            nodes[number].disk.merge(items)
            putInForce(items, number)
            step(number, .stored(ticket))
        case .block(let number, let view): takeBlock(number, view)
        case .prepare(let number, let view):
            guard isOf(view, number) else { return }
            step(number, .prepare(views[view].view.mark, blocks: views[view].blocks))
        case .open(let number, let view):
            guard isOf(view, number) else { return }
            checkOpening(number, view)
            step(number, .opened(views[view].view))
        }
    }

    /// All members begin a view with what is in its bundle, but for changes of their own, which they send to all.
    private func checkOpening(_ number: Int, _ view: Int) {
        let node = nodes[number]
        // A later block was taken: the node is on its way to another view.
        guard !views[(view + 1)...].contains(where: { $0.blocks.contains { $0.member == node.member } }) else { return }
        var bundle = MetadataItems()
        for block in views[view].blocks {
            guard case .whole(let items)? = try? MetadataBlock(block.bytes) else { return }
            for item in items { bundle.merge(item) }
        }
        for item in node.sharing.items.all where !bundle.holds(item) && item.version.node != node.member.id {
            failures.append("\(node.member) opens a view with \(item.version), which is not in its bundle")
        }
        for item in bundle.all where !node.disk.holds(item) {
            failures.append("\(node.member) opens a view without \(item.version) on its disk")
        }
    }

    /// Whether the node, in this run, is a member of a view that goes on.
    private func isOf(_ view: Int, _ number: Int) -> Bool {
        nodes[number].isUp && !views[view].isOver && views[view].view.members.contains(nodes[number].member)
    }

    private func takeBlock(_ number: Int, _ view: Int) {
        guard isOf(view, number) else { return }
        let bytes = nodes[number].sharing.block(for: views[view].view.mark.number)
        views[view].blocks.append(MemberBlock(member: nodes[number].member, bytes: bytes))
        guard views[view].blocks.count == views[view].view.members.count else { return }
        for member in views[view].view.members {
            guard let other = self.number(of: member) else { continue }
            later(delay(faults.delayMaxMilliseconds), .prepare(other, view: view))
        }
    }

    private func step(_ number: Int, _ event: MetadataEvent) {
        var effects: [MetadataEffect] = []
        nodes[number].sharing.step(event, now: Instant(nanoseconds: now * 1_000_000), effects: &effects)
        for effect in effects { carryOut(effect, number) }
        guard let deadline = nodes[number].sharing.deadline else { return }
        let at = max(deadline.nanoseconds / 1_000_000, now)
        guard nodes[number].timerAt.map({ at < $0 }) ?? true else { return }
        nodes[number].timerAt = at
        later(at - now, .timer(number))
    }

    private func carryOut(_ effect: MetadataEffect, _ number: Int) {
        let member = nodes[number].member
        switch effect {
        case .send(let receiver, let body):
            if !chance(faults.lossPercent) {
                later(delay(faults.delayMaxMilliseconds), .message(from: member, to: receiver, body))
            }
        case .store(let ticket, let items):
            named += items.filter { $0.version.node == member.id && !named.contains($0) }
            let at = max(nodes[number].storeFree, now + delay(faults.storeMaxMilliseconds))
            nodes[number].storeFree = at
            later(at - now, .stored(member, ticket, items, fails: chance(faults.storeFailsPercent)))
        case .reserve(let ticket, let namespaces):
            nodes[number].mark += 1
            let times = namespaces.map { _ in nodes[number].mark }
            step(number, .reserved(ticket, times))
        case .prepared(let mark): prepared(mark, number)
        case .notPrepared(let mark, _):
            if let view = views.firstIndex(where: { $0.view.mark == mark }) { views[view].isOver = true }
        case .answer(let token, let answer): answered(token, answer, number)
        case .log: break
        }
    }

    private func prepared(_ mark: ViewMark, _ number: Int) {
        guard let view = views.firstIndex(where: { $0.view.mark == mark }), isOf(view, number) else { return }
        views[view].prepared.append(nodes[number].member)
        later(delay(faults.delayMaxMilliseconds), .open(number, view: view))
    }

    /// What the disk says of these is in force: a cut-off goes down only if somebody took it back who knew of it.
    private func putInForce(_ items: [MetadataItem], _ number: Int) {
        for one in items {
            let held = nodes[number].disk.versions(one.module, one.key)
            let before = nodes[number].applied.first { $0.module == one.module && $0.key == one.key }
            if let before, one.isCutOff, held[0].number < before.number, !held.contains(where: { $0.replaces(before) }) {
                failures.append("cut-off \(before.number) became \(held[0].number) although nobody took it back")
            }
            nodes[number].applied.removeAll { $0.module == one.module && $0.key == one.key }
            nodes[number].applied.append(held[0])
            if one.module == "truncate" { nodes[number].mark = max(nodes[number].mark, held[0].number) }
        }
    }

    private func answered(_ token: UInt64, _ answer: MetadataAnswer, _ number: Int) {
        let place = Int(token)
        if asks[place].answer != nil { failures.append("token \(token) was answered twice") }
        asks[place].answer = answer
        guard case .done = answer, let item = version(of: place), let view = openView(of: number) else { return }
        for member in view.members {
            let node = nodes.firstIndex { $0.member.id == member.id }!
            if !nodes[node].disk.holds(item) {
                failures.append("change \(item.version) was acknowledged, node \(member.id) does not have it on disk")
            }
        }
        // What a truncate without a time has cut off: all that members of the view had when it was asked.
        guard asks[place].value == nil, item.value != nil else { return }
        let naming = views.first { $0.view.mark.number == item.version.view }!
        for member in naming.view.members {
            let node = nodes.firstIndex { $0.member.id == member.id }!
            if asks[place].marks[node] >= item.number {
                failures.append("a truncate at \(item.number) left a write of \(asks[place].marks[node])")
            }
        }
    }

    /// What a change was named, nil if it changed nothing.
    private func version(of ask: Int) -> MetadataItem? { named.first { $0.timestamp == UInt64(ask + 1) } }

    private func openView(of number: Int) -> View? { nodes[number].sharing.openView }

    // ---- What tests do ----

    /// Asks a node for a change; its time names it. Nil: a truncate of all that was written.
    func ask(_ number: Int, _ module: MetadataModule, _ key: String, _ value: MetadataChange.Value) {
        guard nodes[number].isUp else { return }
        var text: String?
        if case .value(let given) = value { text = given ?? "-" }
        asks.append(
            Ask(
                node: number, value: text, marks: nodes.map(\.mark), answer: nil,
                incarnation: nodes[number].member.incarnation))
        let change = MetadataChange(module, MetadataKey([Array(key.utf8)]), value)
        // Times of changes rise, so that each version can be told by it.
        step(number, .change(token: UInt64(asks.count - 1), [change], time: UInt64(asks.count)))
    }

    /// Begins to agree on a view of these; what was being agreed on with one of them is over.
    func form(_ numbers: [Int]) {
        let members = numbers.map { nodes[$0].member }.sorted(by: >)
        for place in views.indices where views[place].view.members.contains(where: { one in members.contains(one) }) {
            if views[place].prepared.count < views[place].view.members.count { views[place].isOver = true }
        }
        let mark = ViewMark(number: UInt64(views.count + 1), key: random.next() >> 24 | 1)
        views.append(Forming(view: View(mark: mark, members: members, proposer: members[0].id)))
        for number in numbers { later(delay(faults.delayMaxMilliseconds), .block(number, view: views.count - 1)) }
    }

    func crash(_ number: Int) {
        nodes[number].isUp = false
        nodes[number].storeFree = 0
    }

    /// A new run of the process, with what is on its disk.
    func restart(_ number: Int) {
        let before = nodes[number].member
        let member = Member(id: before.id, incarnation: before.incarnation + 1)
        nodes[number].member = member
        nodes[number].isUp = true
        nodes[number].timerAt = nil
        nodes[number].sharing = MetadataSharing(me: member, items: nodes[number].disk, settings: settings)
        nodes[number].sharing.breaks = breaks
        nodes[number].applied = nodes[number].disk.inForce
    }

    // ---- What holds in the end ----

    /// Heals everything, and looks.
    func converge() {
        faults = Faults()
        run(100)
        for number in nodes.indices where !nodes[number].isUp { restart(number) }
        form(Array(nodes.indices))
        run(60_000)
        let first = nodes[0]
        for node in nodes {
            if node.sharing.openView?.mark != views.last?.view.mark {
                failures.append("\(node.member) has not opened the view")
            }
            if node.sharing.items != first.sharing.items { failures.append("\(node.member) holds other items") }
            if node.sharing.durable != node.sharing.items { failures.append("\(node.member) knows of what is not in force") }
            if node.disk != node.sharing.items { failures.append("\(node.member) holds not what is on its disk") }
            for item in node.sharing.items.inForce where item.value != nil {
                if !node.applied.contains(item) { failures.append("\(node.member) does not go by \(item.version)") }
            }
            if node.sharing.deadline != nil { failures.append("\(node.member) still waits for something") }
        }
        for (place, ask) in asks.enumerated() {
            let isSameRun = nodes[ask.node].member.incarnation == ask.incarnation
            if ask.answer == nil, isSameRun { failures.append("change \(place) was never answered") }
            guard let item = version(of: place) else { continue }
            if case .refused = ask.answer, nodes.contains(where: { $0.disk.all.contains(item) }) {
                failures.append("change \(place) was refused, and happened")
            }
            if case .done = ask.answer, !first.disk.holds(item) { failures.append("acknowledged change \(place) is lost") }
        }
    }
}
