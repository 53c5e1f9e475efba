// The part of a query that one reactor walks: its partitions, and room for answers. Invariants:
// 1. Each of its partitions is taken by one lane, once.
// 2. It ends when its lanes have nothing left and nothing under way; nothing of it is sent afterwards.
// 3. There is more than one lane only if the backend answers late: reads of several partitions then overlap.
internal import Base
internal import Expressions
internal import Index
internal import Wire

/// What a slice of a job came to.
enum SliceOutcome: BitwiseCopyable {
    /// Something was done, and there is more to do.
    case worked
    /// Waits: for the backend, for the client, for its time.
    case waiting
    /// Over: to be forgotten.
    case ended
}

/// See the invariants above. Its reactor's thread only, but for `home`.
final class QueryPart: PostedObject {
    private static let lanesMax = 4
    /// A client waits so long at most for records that have been found: its patience may be short.
    private static let chunkAgeMaxNanoseconds: UInt64 = 100_000_000
    let query: Query
    let reactor: Int
    /// Home reactor's thread only.
    var home: QueryHome?
    /// Empty chunks.
    var spare: [QueryChunk] = []
    /// The chunk that is being filled.
    private var chunk: QueryChunk?
    private var chunkBegan = Instant(nanoseconds: 0)
    private let walked: [(partition: PartitionID, after: Digest?)]
    private var position = 0
    private var lanes: [QueryLane] = []
    private var nextLane = 0
    private var hasEnded = false
    /// Compiled by this reactor.
    private var filter: Expression?
    /// Where it runs, from `begin` on; outlives every query.
    private unowned(unsafe) var shard: NamespaceShard

    init(_ query: Query, reactor: Int, _ walked: [(partition: PartitionID, after: Digest?)], _ shard: NamespaceShard) {
        self.shard = shard
        self.query = query
        self.reactor = reactor
        self.walked = walked
    }

    /// It has come to its reactor.
    func begin(_ shard: NamespaceShard) {
        self.shard = shard
        do throws(ExpressionError) { filter = try shard.filter(of: query.request) } catch { query.end(.failed) }
        addLane()
    }

    private func addLane() { lanes.append(QueryLane(self, QueryAnswerFields(query.request), filter, shard)) }

    // ---- Slices ----

    /// Goes on for one slice.
    func slice() -> SliceOutcome {
        let now = shard.scratch.now.monotonic
        if query.kind == .short, now > query.deadline { query.end(.timedOut) }
        guard query.state == .active else { return end() }
        if chunk != nil, now.nanoseconds(since: chunkBegan) > QueryPart.chunkAgeMaxNanoseconds { passChunk() }
        var isWaiting = false
        for _ in lanes.indices {
            nextLane = (nextLane + 1) % lanes.count
            switch lanes[nextLane].slice() {
            case .worked: return .worked
            case .waiting: isWaiting = true
            case .ended: break
            }
        }
        guard isWaiting else { return end() }
        guard mayWiden else { return .waiting }
        addLane()
        return .worked
    }

    /// All lanes wait for the backend, and there is more to ask it for.
    private var mayWiden: Bool {
        lanes.count < QueryPart.lanesMax && position < walked.count && query.hasRecordsLeft && hasChunk
            && lanes.allSatisfy { $0.underWay > 0 }
    }

    /// The next partition that nobody has taken; nil if there is none.
    func nextPartition() -> (partition: PartitionID, after: Digest?)? {
        guard position < walked.count else { return nil }
        position += 1
        return walked[position - 1]
    }

    /// The query is over here. `waiting` if something is still under way.
    private func end() -> SliceOutcome {
        guard lanes.allSatisfy({ $0.underWay == 0 }) else { return .waiting }
        if query.state == .active { passChunk() }
        chunk = nil
        spare = []
        for lane in lanes { lane.end() }
        lanes = []
        hasEnded = true
        post(LetterKind.queryEnded, to: query.home, shard.scratch.shell)
        return .ended
    }

    // ---- Room for answers ----

    /// An empty chunk has come.
    func take(_ chunk: QueryChunk) { if !hasEnded { spare.append(chunk) } }

    /// Whether there is any room; a background query needs none.
    var hasChunk: Bool { chunk != nil || !spare.isEmpty || query.kind == .background }

    /// Where `byteCount` more bytes can be written; nil if a chunk has to come first. A full one leaves.
    func room(_ byteCount: Int) -> OutputBuffer? {
        if let full = chunk, full.output.count + byteCount > Limits.streamPartSizeMax { passChunk() }
        if let chunk { return chunk.output }
        guard let empty = spare.popLast() else { return nil }
        chunkBegan = shard.scratch.now.monotonic
        _ = RecordWriter.beginFrame(empty.output)
        chunk = empty
        return empty.output
    }

    /// The chunk at hand leaves, unless it is empty.
    private func passChunk() {
        guard let filled = chunk, filled.output.count > FrameHeader.byteCount else { return }
        chunk = nil
        RecordWriter.endFrame(filled.output, from: 0)
        filled.post(LetterKind.queryFilled, to: query.home, shard.scratch.shell)
    }
}
