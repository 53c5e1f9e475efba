// A query on the reactor of its connection: gives its parts room for answers, and sends what comes back full.
// Invariants:
// 1. At most `width` parts run at a time, each with the same share of `chunksMax` chunks; a chunk is here, with its part, or
//    on its way between.
// 2. Chunks of one part are sent in the order in which it filled them, and before its end is taken note of.
// 3. Nothing is sent after the last message. The home lives until every part has ended, also if the connection has closed
//    before.
internal import Base
internal import Wire

/// Room for answers of one part: a frame that is filled, sent, and given out again.
final class QueryChunk: PostedObject {
    let output = OutputBuffer(capacity: Limits.streamPartSizeMax + 4096)
    let part: QueryPart

    init(part: QueryPart) { self.part = part }
}

/// See the invariants above. Home reactor's thread only.
final class QueryHome: AnswerStream {
    static let chunksMax = 4
    let query: Query
    private let parts: [QueryPart]
    private let scratch: Scratch
    private let registry: QueryRegistry
    private let service: LiveSettings<LiveServiceSettings>
    private let shard: NamespaceShard
    /// How many parts have begun.
    private var begun = 0
    private let width: Int
    /// Filled chunks that the client has no room for.
    private var held: [QueryChunk] = []
    private var partsLeft: Int
    private var isCrowded = false
    private var crowdedSince = Instant(nanoseconds: 0)

    /// Makes a part on each of the first `reactors` reactors that has something to walk.
    init(
        _ query: Query, connection: UInt64, reactors: Int, registry: QueryRegistry,
        service: LiveSettings<LiveServiceSettings>, shard: NamespaceShard
    ) {
        self.query = query
        self.registry = registry
        self.service = service
        self.shard = shard
        scratch = shard.scratch
        parts = (0..<reactors).compactMap { reactor in
            let walked = query.partitions.filter { Int($0.partition.number) % reactors == reactor }
            return walked.isEmpty ? nil : QueryPart(query, reactor: reactor, walked, shard)
        }
        partsLeft = parts.count
        let wished = Int(shard.namespace.live.current.pointee.singleQueryThreads)
        width = min(max(wished, 1), parts.count, QueryHome.chunksMax)
        super.init(connection: connection)
    }

    /// Sends the parts to their reactors, with the room for answers that there is.
    func begin() {
        precondition(!parts.isEmpty, "a query walks some partition")
        query.count(.partsActive, UInt64(parts.count))
        for _ in 0..<width { beginNext() }
    }

    private func beginNext() {
        let part = parts[begun]
        begun += 1
        part.home = self
        let chunks = query.kind == .background ? 0 : QueryHome.chunksMax / width
        part.spare = (0..<chunks).map { _ in QueryChunk(part: part) }
        part.post(LetterKind.queryPart, to: part.reactor, scratch.shell)
    }

    /// A chunk has come back from its part.
    func take(_ chunk: QueryChunk) {
        guard query.state == .active else { return pass(chunk) }
        if isCrowded { held.append(chunk) } else { send(chunk) }
    }

    private func send(_ chunk: QueryChunk) {
        if query.isCompressionAsked { scratch.shell.compress(chunk.output) }
        query.count(.bytes, UInt64(chunk.output.count))
        let state = scratch.shell.stream(
            connection, chunk.output.bytes, patienceMilliseconds: UInt64(query.fields.socketTimeoutMilliseconds))
        switch state {
        case .open: break
        case .crowded:
            isCrowded = true
            crowdedSince = scratch.now.monotonic
        case .closed: query.end(.clientGone)
        }
        pass(chunk)
    }

    /// Gives a chunk back, empty.
    private func pass(_ chunk: QueryChunk) {
        chunk.output.truncate(to: 0)
        chunk.post(LetterKind.queryRoom, to: chunk.part.reactor, scratch.shell)
    }

    override func drained() {
        guard isCrowded else { return }
        isCrowded = false
        query.count(.blockedNanoseconds, scratch.now.monotonic.nanoseconds(since: crowdedSince))
        let chunks = held
        held = []
        for chunk in chunks { take(chunk) }
        endIfDone()
    }

    override func connectionClosed() {
        query.end(.clientGone)
        held = []
        endIfDone()
    }

    /// A part has ended; its chunks came before.
    func partEnded(_ part: QueryPart) {
        partsLeft -= 1
        _ = query.countDown(.partsActive)
        part.home = nil
        if begun < parts.count {
            // Also after an abort: a part that has not begun ends like any other.
            beginNext()
        }
        endIfDone()
    }

    private func endIfDone() {
        guard partsLeft == 0, held.isEmpty || query.state != .active else { return }
        query.end(.done)
        query.markEnded(scratch.now.monotonic)
        query.forgetRequest()
        if query.kind != .short { registry.finish(query, doneMax: Int(service.current.pointee.queryDoneMax)) }
        shard.countEnd(of: query, scratch.now.monotonic)
        partsLeft = -1
        guard query.kind != .background else { return }
        scratch.streams.remove(self)
        guard query.state != .clientGone, let output = scratch.shell.output(of: connection) else { return }
        AnswerWriter.appendLast(result: query.state.result, to: output)
        scratch.shell.answered(connection, isCompressionAsked: false)
    }
}
