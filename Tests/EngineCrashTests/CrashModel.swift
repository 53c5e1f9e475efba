// What the backend was told, what clients were answered, and whether that fits together. Invariants:
// 1. Nothing is noted once power has failed: it has not happened.
// 2. The first failure stays; the driver looks for it after every step.
import Base
import Record
import Storage

/// A rule was broken.
struct CrashFailure: Error {
    let words: String
}

/// All records of one history.
final class CrashModel {
    let digests: [Digest]
    private let keys: [Digest: Int]
    private(set) var records: [RecordHistory]
    private(set) var moment = 1
    private(set) var failure: CrashFailure?
    /// Answers of writes are given when they are durable.
    let commits: Bool
    /// Writes under way by number.
    private var underWay: [Int: ClientRequest] = [:]
    /// Images that the start that is under way has visited, by record.
    private var visited: [Set<UInt64>]
    /// Power has failed.
    var isDead: () -> Bool = { false }

    init(digests: [Digest], commits: Bool) {
        self.digests = digests
        self.commits = commits
        keys = Dictionary(uniqueKeysWithValues: digests.enumerated().map { ($1, $0) })
        records = digests.map { RecordHistory($0) }
        visited = digests.map { _ in [] }
    }

    func fail(_ key: Int?, _ words: String) {
        guard failure == nil else { return }
        failure = CrashFailure(words: words + (key.map { "\n" + records[$0].report } ?? ""))
    }

    /// A new moment.
    func tick() -> Int {
        moment += 1
        return moment
    }

    private func note(_ key: Int, _ what: StaticString, _ number: Int = 0, _ result: Int = -1) {
        records[key].note(TraceLine(moment: moment, what: what, number: number, result: result))
    }

    private func key(_ digest: Digest) -> Int? {
        guard let key = keys[digest] else {
            fail(nil, "the backend is told of digest \(digest), which nobody has used")
            return nil
        }
        return key
    }

    // ---- What the engine tells the backend ----

    /// An image is about to be appended: it must be what some write makes of the record as it is.
    func appending(_ digest: Digest, _ image: UnsafeRawBufferPointer) {
        guard !isDead(), let key = key(digest) else { return }
        guard let view = ImageView(UnsafeRawBufferPointer(rebasing: image[Envelope.byteCount...])) else {
            return fail(key, "an image is appended that is none")
        }
        var state = RecordState(
            kind: view.binCount == 0 ? .tombstone : .live, generation: view.generation, content: Content(view),
            check: CrashModel.check(image), begin: tick())
        state.write = state.content.integer("v") ?? 0
        note(key, state.kind == .live ? "append of write" : "append of a tombstone", state.write)
        let before = records[key].generation
        if records[key].next != nil { fail(key, "a second image is appended before the first is published") }
        if before == nil, state.kind == .tombstone { fail(key, "a tombstone of nothing") }
        if view.generation != before.map({ Generation.next($0) }) ?? 1 {
            fail(key, "an image of generation \(view.generation) follows one of \(before ?? 0)")
        }
        if state.kind == .live { check(state, key, before) }
        records[key].states.append(state)
    }

    private func check(_ state: RecordState, _ key: Int, _ before: UInt16?) {
        guard let request = underWay[state.write], request.key == key else {
            return fail(key, "write \(state.write) is stored for this record, but is not under way for it")
        }
        if !request.isAllowed(before) { fail(key, "\(request.text) is carried out on generation \(before ?? 0)") }
        let wanted = request.applied(to: before == nil ? nil : records[key].now.content)
        if state.content != wanted {
            fail(key, "\(request.text) makes \(state.content.text), and should make \(wanted.text)")
        }
    }

    func appendRefused(_ digest: Digest) {
        guard !isDead(), let key = key(digest) else { return }
        note(key, "append refused")
        records[key].states.removeLast()
    }

    /// Whether the index holds an image of it.
    func isHeld(_ digest: Digest) -> Bool { keys[digest].map { records[$0].held != nil } ?? false }

    func placed(_ digest: Digest, _ location: Location) {
        guard !isDead(), let key = key(digest) else { return }
        if records[key].held == nil {
            records[key].held = location.rawValue
        } else {
            records[key].next = location.rawValue
        }
    }

    /// The index points somewhere else, or nowhere, from now on. False: the place is not the one that it held.
    func releasing(_ digest: Digest, _ location: Location) -> Bool {
        guard !isDead(), let key = key(digest) else { return true }
        guard records[key].held == location.rawValue else {
            fail(key, "place \(location.rawValue) is released, and the index held \(records[key].held ?? 0)")
            return false
        }
        let last = records[key].states.count - 1
        records[key].held = records[key].next
        if records[key].next != nil {
            records[key].next = nil
            note(key, "published")
            records[key].states[last].sure = min(records[key].states[last].sure, tick())
            return true
        }
        let isTombstone = records[key].now.kind == .tombstone
        note(key, isTombstone ? "tombstone removed" : "deleted")
        let moment = tick()
        var state = RecordState(kind: .nothing, begin: moment, sure: moment)
        state.isPlainDelete = !isTombstone
        records[key].states.append(state)
        return true
    }

    func relocated(_ digest: Digest, from: Location, to: Location) {
        guard !isDead(), let key = key(digest) else { return }
        note(key, "moved")
        if records[key].held != from.rawValue { fail(key, "an image moves that the index does not hold") }
        records[key].held = to.rawValue
    }

    // ---- Clients ----

    func sent(_ request: ClientRequest) {
        if request.kind == .change, !request.removesAll { underWay[request.number] = request }
        note(request.key, request.kind == .get ? "get" : request.kind == .delete ? "delete asked" : "change asked",
            request.number)
    }

    /// A client was answered, `begin` is when it asked.
    func answered(_ request: ClientRequest, _ answer: ClientAnswer, since begin: Int) {
        guard !isDead() else { return }
        let key = request.key
        let end = tick()
        note(key, "answer to", request.number, Int(answer.result.rawValue))
        let seen = records[key].visible(from: begin, to: end)
        if request.kind == .change { underWay[request.number] = nil }
        switch answer.result {
        case .ok:
            if request.kind == .get { return checkRead(key, answer, seen) }
            if request.kind == .delete || request.removesAll { return deleted(request, since: begin) }
            return written(request, answer)
        case .notFound:
            if seen.contains(where: { $0.kind != .live }) { return refused(request) }
        case .recordExists:
            if request.condition == .createOnly, seen.contains(where: { $0.kind == .live }) { return refused(request) }
        case .generation:
            let mayDiffer = seen.contains { !request.isAllowed($0.kind == .live ? $0.generation : nil) }
            if case .generation = request.condition, mayDiffer { return refused(request) }
        case .outOfSpace, .deviceOverload, .timeout, .keyBusy: return refused(request)
        default: break
        }
        fail(key, "\(request.text), asked at \(begin), is answered \(answer.result.rawValue) at \(end)")
    }

    private func checkRead(_ key: Int, _ answer: ClientAnswer, _ seen: [RecordState]) {
        let isRight = seen.contains {
            $0.kind == .live && UInt32($0.generation) == answer.generation && $0.content == answer.content
        }
        guard !isRight else { return }
        fail(key, "a get sees generation \(answer.generation) (\(answer.content.text)), which was not there while it ran")
    }

    private func written(_ request: ClientRequest, _ answer: ClientAnswer) {
        guard let place = records[request.key].states.lastIndex(where: { $0.write == request.number }) else {
            return fail(request.key, "\(request.text) is answered 0 and was never stored")
        }
        let state = records[request.key].states[place]
        if UInt32(state.generation) != answer.generation {
            fail(request.key, "\(request.text) is answered with generation \(answer.generation)")
        }
        for bin in answer.content.bins where state.content[bin.name] != bin {
            fail(request.key, "\(request.text) reads another \(bin.name) than it has written")
        }
        acknowledge(request.key, place)
    }

    /// The oldest delete since then that nobody was told about.
    private func deleted(_ request: ClientRequest, since begin: Int) {
        let kind: RecordState.Kind = request.isDurableDelete ? .tombstone : .nothing
        let place = records[request.key].states.firstIndex { state in
            state.kind == kind && state.begin >= begin && !state.isAnswered && (kind == .tombstone || state.isPlainDelete)
        }
        guard let place else { return fail(request.key, "\(request.text) is answered 0, and nothing was deleted") }
        acknowledge(request.key, place)
    }

    private func acknowledge(_ key: Int, _ place: Int) {
        records[key].states[place].isAnswered = true
        records[key].states[place].sure = min(records[key].states[place].sure, moment)
        if commits, records[key].states[place].kind != .nothing { records[key].states[place].isDurable = true }
    }

    private func refused(_ request: ClientRequest) {
        guard request.number > 0, records[request.key].states.contains(where: { $0.write == request.number }) else { return }
        fail(request.key, "\(request.text) is refused, and was stored")
    }

    // ---- Ends and starts ----

    /// All groups are written and last.
    func everythingLasts() { for key in records.indices { records[key].becameDurable() } }

    /// A start begins to look at the medium.
    func startBegan() {
        for key in visited.indices { visited[key] = [] }
        underWay = [:]
    }

    func visiting(_ scanned: ScannedImage) {
        guard !isDead(), let key = key(scanned.digest) else { return }
        let check = CrashModel.check(scanned.image)
        visited[key].insert(check)
        if !records[key].states.contains(where: { $0.kind != .nothing && $0.check == check }) {
            fail(key, "a start shows an image that was never appended, or that the start before did not show")
        }
    }

    /// A start has found this for a record; `held` is where the index points.
    func started(_ key: Int, _ kind: RecordState.Kind, _ content: Content, _ generation: UInt16, held: UInt64?) {
        guard records[key].allows(kind, content, generation),
            let state = records[key].found(kind, content, generation)
        else {
            let state = RecordState(
                kind: kind, write: content.integer("v") ?? 0, generation: generation, content: content, begin: 0)
            return fail(key, "after a start the record is: \(state.text)")
        }
        note(key, "start: found write", state.write)
        records[key].restarted(with: state, visited: visited[key], at: tick())
        records[key].held = held
    }

    private static func check(_ image: UnsafeRawBufferPointer) -> UInt64 {
        UInt64(image.baseAddress!.littleEndian(UInt32.self, at: 4)) << 32 | UInt64(image.count)
    }
}
