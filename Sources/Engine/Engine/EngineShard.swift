// The engine on one reactor: all namespaces, the requests under way, the jobs. Invariants:
// 1. A request is either answered in the call that brought it, or it has a slot in `slots.suspended` until it
//    is.
// 2. `scratch.output` is set before any request runs, and is what its answer is written to.
package import Base
internal import Expressions
package import Storage
internal import Wire

/// The engine as one reactor drives it. Reactor's thread only.
package final class EngineShard {
    package let namespaces: [NamespaceShard]
    /// The same, to be used without counting references.
    private let shards: UnsafeMutablePointer<Unmanaged<NamespaceShard>>
    private let batches: BatchTable
    private let scratch: Scratch
    private var spare: SlotPointer
    private var now: TurnTime { scratch.now }
    private let queries: QueryDesk
    private var nextNamespace = 0
    private var nextTurn = 0
    /// Requests answered since the last `countLatencies`, by namespace and kind.
    private let answeredCounts: UnsafeMutablePointer<UInt32>
    /// Settings of the node that may change while it serves.
    package let service: LiveSettings<LiveServiceSettings>
    /// Frames that no namespace could be found for, or that were no point request.
    package private(set) var refusedRequests: UInt64 = 0

    /// Makes the shard of `reactor`, one of `reactors`; `backends` are its backend shards, in the order of `namespaces`.
    package init(
        reactor: Int, of reactors: Int, namespaces: [Namespace], backends: [any BackendShard], shell: any EngineShell,
        cluster: any ClusterEffects, queries: QueryRegistry = QueryRegistry(),
        service: LiveSettings<LiveServiceSettings> = LiveSettings(LiveServiceSettings()),
        log: @escaping @Sendable (String) -> Void
    ) {
        precondition(namespaces.count == backends.count && namespaces.count <= Limits.namespacesMax)
        let scratch = Scratch(shell: shell, reactor: reactor)
        self.scratch = scratch
        self.service = service
        answeredCounts = .allocate(capacity: Limits.namespacesMax * LatencyKind.allCases.count)
        answeredCounts.initialize(repeating: 0, count: Limits.namespacesMax * LatencyKind.allCases.count)
        spare = scratch.slots.take()
        batches = BatchTable(scratch: scratch, service: service, answeredCounts: answeredCounts)
        let made = zip(namespaces, backends).enumerated().map { number, pair in
            NamespaceShard(
                namespace: pair.0, number: number, reactor: reactor, backend: pair.1, scratch: scratch,
                cluster: cluster, log: log)
        }
        self.namespaces = made
        shards = .allocate(capacity: max(made.count, 1))
        self.queries = QueryDesk(
            queries, service, shards: made, reactor: reactor, reactors: reactors, scratch: scratch)
        for (number, shard) in made.enumerated() { (shards + number).initialize(to: .passUnretained(shard)) }
        batches.serve(shards, count: made.count)
    }

    deinit {
        answeredCounts.deallocate()
        shards.deallocate()
    }

    /// Number of the namespace of that name; -1 if there is none.
    package func number(ofNamespace name: UnsafeRawBufferPointer) -> Int {
        for number in 0..<namespaces.count where shards[number]._withUnsafeGuaranteedRef({ $0.isNamed(name) }) {
            return number
        }
        return -1
    }

    /// What expressions have taken on this reactor so far, in instructions or what takes about as long.
    package var expressionWork: Int { scratch.expressions.work }

    // ---- Turns ----

    /// A turn begins: the clocks are read, what the backends have finished goes on.
    package func turnBegan(_ time: TurnTime) {
        scratch.now = time
        for shard in namespaces {
            shard.backend.poll { completion in complete(completion, shard) }
        }
        if !scratch.delayed.isEmpty { retryDelayed() }
    }

    /// What a backend under pressure has put off begins again, oldest first.
    private func retryDelayed() {
        let slots = scratch.delayed
        scratch.delayed = []
        for slot in slots {
            openOutput(slot)
            close(slot, namespaces[slot.pointee.namespace].retry(slot, now))
        }
    }

    /// The cluster layer decides anew who serves what: what waits for that goes on, in the order it came. `old` is what
    /// requests went by before. It is let go of when all writes that it has let through are answered: then nothing is
    /// acknowledged by it any more.
    package func routesChanged(_ old: AnyObject? = nil) {
        if let old { scratch.retiredRoutes.append((scratch.routesGeneration, old)) }
        scratch.routesGeneration += 1
        releaseRoutes()
        let slots = scratch.parked
        scratch.parked = []
        for slot in slots {
            slot.pointee.isParked = false
            openOutput(slot)
            close(slot, namespaces[slot.pointee.namespace].retry(slot, now))
        }
    }

    private func releaseRoutes() {
        guard !scratch.retiredRoutes.isEmpty else { return }
        let oldest = scratch.slots.suspended.lazy.map(\.pointee.routedAt).filter { $0 > 0 }.min() ?? .max
        scratch.retiredRoutes.removeAll { $0.generation < oldest }
    }

    /// The turn is over; nothing lent by a backend is used any more.
    package func turnEnded(sleeping: Bool) {
        releaseRoutes()
        for shard in namespaces { shard.backend.turnEnded(sleeping: sleeping) }
    }

    // ---- Requests ----

    /// Executes one request of a connection; `arrived` is when its first byte came, `namespace` what
    /// `number(ofNamespace:)` says. The answer goes to `output`, now or, if the result is `suspended`, through the shell.
    package func execute(
        _ request: RequestPointer, namespace: Int, connection: UInt64, arrived: Instant, output: OutputBuffer
    ) -> Progress {
        scratch.output = output
        // A batch names its namespaces in its rows.
        if request.pointee.header.info1.contains(.batch) {
            return batches.begin(request, connection: connection, arrived: arrived)
        }
        let isWrite = request.pointee.header.info2.contains(.write)
        if let refusal = refusal(request, namespace, isWrite: isWrite) { return refuse(request, refusal) }
        let timeout = UInt64(request.pointee.header.transactionTimeout)
        let deadline = arrived.advanced(
            byMilliseconds: timeout > 0 ? timeout : service.current.pointee.transactionMaxMilliseconds)
        guard request.pointee.has(.digest) else {
            return queries.execute(request, namespace: namespace, connection: connection, deadline: deadline)
        }
        let slot = spare
        slot.pointee.begin(request, namespace: namespace, connection: connection, now: arrived)
        slot.pointee.deadline = deadline
        slot.pointee.isRead = !isWrite
        let progress = shards[namespace]._withUnsafeGuaranteedRef { shard -> Progress in
            let filterResult = shard.takeFilter(slot)
            guard filterResult == .ok else { return shard.end(slot, filterResult) }
            return shard.start(slot, now: now)
        }
        guard case .answered = progress else {
            suspend(slot)
            return .suspended
        }
        let kind = isWrite ? LatencyKind.write : .read
        answeredCounts[namespace * LatencyKind.allCases.count + kind.rawValue] += 1
        return .answered
    }

    private func suspend(_ slot: SlotPointer) {
        scratch.slots.keepBody(slot)
        scratch.parkResults(slot)
        spare = scratch.slots.take()
    }

    /// Why a request reaches no namespace; nil if it does.
    private func refusal(_ request: RequestPointer, _ namespace: Int, isWrite: Bool) -> ResultCode? {
        let info1 = request.pointee.header.info1
        guard namespace >= 0 else { return .namespace }
        if request.pointee.isDigestMalformed { return .parameter }
        guard request.pointee.has(.digest) else { return nil }
        guard isWrite || info1.contains(.read) else { return .parameter }
        return EngineShard.isSupported(request) ? nil : .unsupportedFeature
    }

    /// Everything that was executed since the last call is answered at `end`: counts the latencies.
    package func countLatencies(end: Instant) {
        let kinds = LatencyKind.allCases.count
        for number in 0..<(namespaces.count * kinds) where answeredCounts[number] > 0 {
            guard let kind = LatencyKind(rawValue: number % kinds) else { continue }
            namespaces[number / kinds].counters.countLatency(
                kind, nanoseconds: end.nanoseconds(since: now.monotonic), times: UInt64(answeredCounts[number]))
            answeredCounts[number] = 0
        }
        batches.countLatencies(end: end)
    }

    /// Starts fetching what the look-up of `digest` touches: stage 0 the bucket, 1 the entry, 2 the image. A hint.
    package func prefetch(_ digest: Digest, isWrite: Bool, namespace: Int, stage: Int) {
        shards[namespace]._withUnsafeGuaranteedRef { shard in
            switch stage {
            case 0: shard.prefetchBucket(digest, isWrite: isWrite)
            case 1: shard.prefetchEntry(digest, isWrite: isWrite)
            default: shard.prefetchImage(digest)
            }
        }
    }

    /// Requests of later issues, by what they carry.
    static func isSupported(_ request: RequestPointer) -> Bool {
        request.pointee.fieldsPresent & EngineShard.laterFields == 0
            && !request.pointee.header.info1.contains(.xdr)
    }
    private static let laterFields: UInt64 = RequestView.fieldMask([.udfPackage, .transactionID])

    /// Answers without having reached a namespace. Streams of answers end with a message marked last.
    private func refuse(_ request: RequestPointer, _ result: ResultCode) -> Progress {
        refusedRequests += 1
        let isStream = !(request.pointee.has(.digest) || request.pointee.isDigestMalformed)
        if isStream, result != .namespace {
            AnswerWriter.appendLast(result: result, to: scratch.output)
        } else {
            AnswerWriter.appendResult(result, to: scratch.output)
        }
        return .answered
    }

    // ---- Late answers ----

    /// A letter with one of the engine's kinds.
    package func letter(_ letter: UnsafeMutablePointer<Letter>) {
        switch letter.pointee.kind {
        case LetterKind.claimPassed:
            claimPassed(to: UnsafeMutableRawPointer(letter).assumingMemoryBound(to: RequestSlot.self))
        default:
            let isKnown = queries.letter(letter)
            precondition(isKnown, "unknown letter \(letter.pointee.kind)")
        }
    }

    /// A claim has passed to a slot of this reactor.
    private func claimPassed(to slot: SlotPointer) {
        let shard = namespaces[slot.pointee.namespace]
        openOutput(slot)
        if now.monotonic > slot.pointee.deadline {
            slot.pointee.isDelete = false
            close(slot, shard.finish(slot, .timeout))
        } else {
            close(slot, shard.inherit(slot, now: now))
        }
    }

    /// An effect of the cluster layer that answered `pending` has ended well: the slot goes on.
    package func resume(_ slot: SlotPointer) {
        openOutput(slot)
        if slot.pointee.phase == .claimed { namespaces[slot.pointee.namespace].reload(slot) }
        slot.pointee.phase = slot.pointee.phase == .claimed ? .resolved : .replicated
        close(slot, namespaces[slot.pointee.namespace].advance(slot, image: nil, now: now))
    }

    private func complete(_ completion: borrowing Completion, _ shard: NamespaceShard) {
        guard let slot = SlotPointer(bitPattern: UInt(completion.tag.rawValue)) else { return }
        if slot.pointee.isScan, let owner = slot.pointee.owner {
            return owner._withUnsafeGuaranteedRef { $0.scanned(slot, completion.result) }
        }
        openOutput(slot)
        close(slot, shard.completed(slot, completion.result, now: now))
    }

    private func openOutput(_ slot: SlotPointer) {
        scratch.unparkResults(slot)
        if slot.pointee.owner == nil, !slot.pointee.isOwn, let output = scratch.shell.output(of: slot.pointee.connection) {
            scratch.output = output
        } else {
            scratch.discardOutput()
        }
    }

    private func close(_ slot: SlotPointer, _ progress: Progress) {
        guard progress == .answered else { return scratch.parkResults(slot) }
        let connection = slot.pointee.connection
        if let owner = slot.pointee.owner {
            scratch.slots.resumed(slot)
            return owner._withUnsafeGuaranteedRef { $0.ended() }
        }
        let isOwn = slot.pointee.isOwn
        let isCompressionAsked = slot.pointee.request.pointee.header.info1.contains(.compressResponse)
        if !isOwn {
            namespaces[slot.pointee.namespace].counters.countLatency(
                slot.pointee.isRead ? .read : .write,
                nanoseconds: now.monotonic.nanoseconds(since: slot.pointee.started), times: 1)
        }
        scratch.slots.resumed(slot)
        scratch.discardOutput()
        if !isOwn { scratch.shell.answered(connection, isCompressionAsked: isCompressionAsked) }
    }

    /// The client of a suspended connection has taken all that was streamed to it.
    package func drained(_ connection: UInt64) { scratch.streams.drained(connection) }

    /// Whether the answer to a suspended connection comes in parts.
    package func isStreaming(_ connection: UInt64) -> Bool { scratch.streams.contains(connection) }

    /// What batches have come to on this reactor. Any thread may read it.
    package var batchCounters: BatchCounters { batches.counters }

    /// A connection is gone, whatever was under way for it.
    package func connectionClosed(_ connection: UInt64) { scratch.streams.connectionClosed(connection) }

    /// Whether turns are wanted soon: requests are waiting, or a backend has to act in time.
    package var wantsTicks: Bool {
        !scratch.slots.suspended.isEmpty || queries.wantsTicks || namespaces.contains { $0.backend.wantsTurns }
    }

    /// Answers 9 to requests that wait for a claim, or to be routed, and whose time is up.
    package func expireWaiters() {
        expireParked()
        for slot in scratch.slots.suspended where slot.pointee.deadline < now.monotonic {
            let shard = namespaces[slot.pointee.namespace]
            let partition = slot.pointee.digest.partition
            shard.partitions.lock(partition)
            let hasLeft = shard.partitions.leave(slot)
            shard.partitions.unlock(partition)
            guard hasLeft else { continue }
            openOutput(slot)
            close(slot, shard.end(slot, .timeout))
        }
    }

    private func expireParked() {
        let late = scratch.parked.filter { $0.pointee.deadline < now.monotonic }
        guard !late.isEmpty else { return }
        scratch.parked.removeAll { $0.pointee.deadline < now.monotonic }
        for slot in late {
            slot.pointee.isParked = false
            let shard = namespaces[slot.pointee.namespace]
            openOutput(slot)
            close(slot, shard.refuse(slot, .timeout))
        }
    }

    // ---- Jobs ----

    /// Kinds of background work, in the order in which they take turns; what has nothing to do leaves its turn.
    private enum Turn { case batch, upkeep, query(QueryKind) }
    private static let turns: [Turn] = [
        .batch, .query(.short), .upkeep, .batch, .query(.short), .query(.long), .batch, .query(.background),
    ]

    /// Runs one slice of background work, about 50 us (150 if it is pressing).
    package func backgroundSlice() -> BackgroundWork {
        for _ in EngineShard.turns {
            let turn = EngineShard.turns[nextTurn]
            nextTurn = (nextTurn + 1) % EngineShard.turns.count
            let work: BackgroundWork = switch turn {
            case .upkeep: upkeepSlice()
            // A client waits for the rows: half of the time.
            case .batch: batches.slice() ? .pressing : .none
            case .query(let kind): queries.slice(kind)
            }
            if case .none = work { continue }
            return work
        }
        return .none
    }

    /// A slice of what namespaces do of their own accord.
    private func upkeepSlice() -> BackgroundWork {
        for _ in namespaces {
            let shard = namespaces[nextNamespace]
            nextNamespace = (nextNamespace + 1) % namespaces.count
            let (swept, compacted) = (shard.sweepSlice(now), shard.compactSlice())
            if case .pressing = compacted { return .pressing }
            if case .none = swept, case .none = compacted { continue }
            return .some
        }
        return .none
    }
}
