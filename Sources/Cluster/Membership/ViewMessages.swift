// What nodes send each other to agree on views (docs/formats.md, "Messages of agreement").
// kind 1 · receiver's id 8 and incarnation 8 · content. The sender is known by the stream.
internal import Base
package import Fabric

/// What a node thinks of a view that somebody wants.
package enum ViewVerdict: UInt8, Sendable, CaseIterable {
    case fine = 0
    /// It has accepted this number or a higher one.
    case stale = 1
    /// It sees a group without the proposer that is better.
    case better = 2
    /// It has just started and waits for the members of its last view.
    case waits = 3
    /// The view has fewer members than its `min-cluster-size`.
    case tooSmall = 4
    /// It cannot store.
    case notReady = 5
}

/// One message of agreement.
package enum ViewMessage: Equatable, Sendable {
    /// Would you accept these members? Without members: are you there?
    case ask(members: [Member], isRunning: Bool)
    /// The view that is open, the highest number accepted, what was asked for, and whether it could propose a view itself.
    case answer(open: ViewMark, accepted: UInt64, ViewVerdict, canPropose: Bool)
    /// Also sent to ask how far the receiver is. `isRunning`: a member serves already.
    case propose(View, isRunning: Bool)
    case accept(ViewMark, block: [UInt8])
    case refuse(ViewMark, accepted: UInt64, ViewVerdict)
    /// Still storing or computing.
    case working(ViewMark)
    /// Blocks in the order of the view's members.
    case bundle(ViewMark, blocks: [[UInt8]])
    case prepared(ViewMark, mapHash: UInt64)
    case failed(ViewMark, reason: String)
    /// All members have prepared it and have the same map.
    case `open`(ViewMark)
    case void(ViewMark, reason: String)

    /// The view it is about.
    package var mark: ViewMark? {
        switch self {
        case .ask, .answer: nil
        case .propose(let view, _): view.mark
        case .accept(let mark, _), .refuse(let mark, _, _), .working(let mark), .bundle(let mark, _),
            .prepared(let mark, _), .failed(let mark, _), .open(let mark), .void(let mark, _): mark
        }
    }

    /// Whether its sender must have had messages of the receiver.
    var isReply: Bool {
        switch self {
        case .ask, .propose, .void: false
        case .answer, .accept, .refuse, .working, .bundle, .prepared, .failed, .open: true
        }
    }

    /// As it travels.
    package func bytes(to receiver: Member) -> [UInt8] {
        var writer = FabricWriter()
        writer.integer(kind)
        writer.member(receiver)
        switch self {
        case .ask(let members, let isRunning):
            writer.list(members) { $0.member($1) }
            writer.flag(isRunning)
        case .answer(let open, let accepted, let verdict, let canPropose):
            writer.mark(open)
            writer.integer(accepted)
            writer.integer(verdict.rawValue)
            writer.flag(canPropose)
        case .propose(let view, let isRunning):
            writer.view(view)
            writer.flag(isRunning)
        case .accept(let mark, let block):
            writer.mark(mark)
            writer.blob(block)
        case .refuse(let mark, let accepted, let verdict):
            writer.mark(mark)
            writer.integer(accepted)
            writer.integer(verdict.rawValue)
        case .working(let mark), .open(let mark):
            writer.mark(mark)
        case .bundle(let mark, let blocks):
            writer.mark(mark)
            writer.list(blocks) { $0.blob($1) }
        case .prepared(let mark, let hash):
            writer.mark(mark)
            writer.integer(hash)
        case .failed(let mark, let reason), .void(let mark, let reason):
            writer.mark(mark)
            writer.text(reason)
        }
        return writer.bytes
    }

    private var kind: UInt8 {
        switch self {
        case .ask: 1
        case .answer: 2
        case .propose: 3
        case .accept: 4
        case .refuse: 5
        case .working: 6
        case .bundle: 7
        case .prepared: 8
        case .failed: 9
        case .open: 10
        case .void: 11
        }
    }

    /// Message and receiver.
    /// - Throws: if the bytes are no message.
    package static func decode(_ bytes: [UInt8]) throws(FabricError) -> (message: ViewMessage, to: Member) {
        var reader = FabricReader(bytes)
        let kind = try reader.byte()
        let receiver = try reader.member()
        let message = try content(kind, &reader)
        try reader.end()
        return (message, receiver)
    }

    private static func content(_ kind: UInt8, _ reader: inout FabricReader) throws(FabricError) -> ViewMessage {
        switch kind {
        case 1: return .ask(members: try reader.membersOfView(orNone: true), isRunning: try reader.flag())
        case 2:
            let open = try reader.mark(orNone: true)
            return .answer(
                open: open, accepted: try reader.viewNumber(), try reader.verdict(), canPropose: try reader.flag())
        case 3: return .propose(try reader.view(), isRunning: try reader.flag())
        case 4: return .accept(try reader.mark(), block: try reader.blob())
        case 5: return .refuse(try reader.mark(), accepted: try reader.viewNumber(), try reader.verdict())
        case 6: return .working(try reader.mark())
        case 7:
            let mark = try reader.mark()
            let blocks = try reader.list { (one: inout FabricReader) throws(FabricError) in try one.blob() }
            return .bundle(mark, blocks: blocks)
        case 8: return .prepared(try reader.mark(), mapHash: try reader.integer())
        case 9: return .failed(try reader.mark(), reason: try reader.text())
        case 10: return .open(try reader.mark())
        case 11: return .void(try reader.mark(), reason: try reader.text())
        default: throw FabricError("\(kind) is no message of agreement")
        }
    }
}

extension ViewMark {
    /// Numbers above this are no numbers: at a view each microsecond it takes 36,000 years to get there.
    package static let numberMax: UInt64 = 1 << 60
    /// Keys are below this.
    package static let keyEnd: UInt64 = 1 << 40

    /// Whether a view may be called so.
    package var isValid: Bool {
        number > 0 && number <= ViewMark.numberMax && key > 0 && key < ViewMark.keyEnd
    }
}

extension FabricWriter {
    package mutating func mark(_ mark: ViewMark) {
        integer(mark.number)
        integer(mark.key)
    }

    package mutating func view(_ view: View) {
        mark(view.mark)
        list(view.members) { $0.member($1) }
        node(view.proposer)
    }
}

extension FabricReader {
    package mutating func mark(orNone: Bool = false) throws(FabricError) -> ViewMark {
        let mark = ViewMark(number: try integer(), key: try integer())
        guard mark.isValid || orNone && mark == .none else {
            throw FabricError("no view has number \(mark.number) and key \(mark.key)")
        }
        return mark
    }

    fileprivate mutating func viewNumber() throws(FabricError) -> UInt64 {
        let number = try integer(UInt64.self)
        guard number <= ViewMark.numberMax else { throw FabricError("\(number) is no number of a view") }
        return number
    }

    fileprivate mutating func verdict() throws(FabricError) -> ViewVerdict {
        let word = try byte()
        guard let verdict = ViewVerdict(rawValue: word) else { throw FabricError("\(word) is no verdict") }
        return verdict
    }

    /// By id, highest first, each id once.
    package mutating func membersOfView(orNone: Bool = false) throws(FabricError) -> [Member] {
        let members = try list(ofSize: 16) { (one: inout FabricReader) throws(FabricError) in try one.member() }
        guard orNone || !members.isEmpty else { throw FabricError("a view has no members") }
        for place in members.indices.dropFirst() where members[place].id >= members[place - 1].id {
            throw FabricError("the members of a view are not in order")
        }
        return members
    }

    package mutating func view() throws(FabricError) -> View {
        let mark = try mark()
        let members = try membersOfView()
        let proposer = try node()
        guard members.contains(where: { $0.id == proposer }) else {
            throw FabricError("node \(proposer) proposes a view without itself")
        }
        return View(mark: mark, members: members, proposer: proposer)
    }
}
