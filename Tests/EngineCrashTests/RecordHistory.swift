// What one record has been, and what it may be after a crash. Invariants:
// 1. `states` are in the order in which the backend was told of them: of each record the engine has one write under way at
//    a time.
// 2. The first state is what the last start has shown; it lasts. Images that this start did not visit are not among them.
// 3. Moments are numbers of events of the whole history, in order.
import Base
import Record

/// What a record is for a while.
struct RecordState {
    enum Kind { case nothing, live, tombstone }
    let kind: Kind
    /// The write that made it; 0 for deletes.
    var write = 0
    var generation: UInt16 = 0
    var content = Content()
    /// Checksum in the envelope and size: which image.
    var check: UInt64 = 0
    /// Readers may see it from here on.
    let begin: Int
    /// Readers must see it, or what came later, from here on.
    var sure = Int.max
    var isAnswered = false
    /// No crash takes it back.
    var isDurable = false
    /// The record has left the index, and older images of it may come back.
    var isPlainDelete = false

    /// For people.
    var text: String {
        switch kind {
        case .nothing: isPlainDelete ? "deleted" : "nothing"
        case .live: "write \(write), generation \(generation) (\(content.text))"
        case .tombstone: "tombstone of generation \(generation)"
        }
    }
}

/// Something that happened to a record, for the report of a failure.
struct TraceLine {
    let moment: Int
    let what: StaticString
    var number = 0
    var result = -1
}

/// See the invariants above.
struct RecordHistory {
    let digest: Digest
    var states: [RecordState]
    /// Where the index points, as far as the backend was told.
    var held: UInt64?
    /// The place of an image that is not published yet.
    var next: UInt64?
    private(set) var trace: [TraceLine] = []
    private static let traceMax = 60

    init(_ digest: Digest) {
        self.digest = digest
        states = [RecordState(kind: .nothing, begin: 0, sure: 0, isDurable: true)]
    }

    var now: RecordState { states[states.count - 1] }
    /// Generation of the record as it is now; nil if there is none.
    var generation: UInt16? { now.kind == .live ? now.generation : nil }

    mutating func note(_ line: TraceLine) {
        if trace.count == 2 * RecordHistory.traceMax { trace.removeFirst(RecordHistory.traceMax) }
        trace.append(line)
    }

    /// Everything so far lasts: what has an image does by itself, a delete without one never does.
    mutating func becameDurable() {
        if let last = states.lastIndex(where: { $0.kind != .nothing }) { states[last].isDurable = true }
    }

    // ---- Reads ----

    /// States that a reader may have seen between two moments, newest first.
    func visible(from begin: Int, to end: Int) -> [RecordState] {
        var seen: [RecordState] = []
        for state in states.reversed() {
            if state.begin <= end { seen.append(state) }
            if state.sure <= begin { break }
        }
        return seen
    }

    // ---- Crashes ----

    /// Whether the index may hold a state of this kind, and for live ones with this content, after a crash.
    func allows(_ kind: RecordState.Kind, _ content: Content, _ generation: UInt16) -> Bool {
        guard let floor = states.lastIndex(where: \.isDurable) else { return false }
        let hasPlainDelete = states[(floor + 1)...].contains(where: \.isPlainDelete)
        let candidates = hasPlainDelete ? states[...] : states[floor...]
        return candidates.contains { state in
            state.kind == kind && (kind == .nothing || state.generation == generation)
                && (kind != .live || state.content == content)
        }
    }

    /// The newest state that fits what a start has shown.
    func found(_ kind: RecordState.Kind, _ content: Content, _ generation: UInt16) -> RecordState? {
        states.last { state in
            state.kind == kind && (kind == .nothing || state.generation == generation)
                && (kind != .live || state.content == content)
        }
    }

    /// A start has shown `state` and has visited the images with `checks`.
    mutating func restarted(with state: RecordState, visited checks: Set<UInt64>, at moment: Int) {
        states.removeAll { $0.kind == .nothing || !checks.contains($0.check) }
        var base = RecordState(
            kind: state.kind, write: state.write, generation: state.generation, content: state.content, check: state.check,
            begin: moment, sure: moment)
        base.isAnswered = true
        base.isDurable = true
        for place in states.indices {
            states[place].isDurable = false
            states[place].isAnswered = true
        }
        states.append(base)
        next = nil
    }

    /// For people: states and the last operations.
    var report: String {
        let lines = states.suffix(12).map { state in
            "  \(state.begin): \(state.text)\(state.isAnswered ? ", answered" : "")\(state.isDurable ? ", durable" : "")"
        }
        let last = trace.suffix(RecordHistory.traceMax).map { line in
            "  \(line.moment): \(line.what) \(line.number)" + (line.result >= 0 ? " -> \(line.result)" : "")
        }
        return "states of record \(digest):\n" + lines.joined(separator: "\n") + "\nits last operations:\n"
            + last.joined(separator: "\n")
    }
}
