// A node without sockets: engines of some reactors over one backend, run by hand on one thread. Invariants:
// 1. A reactor that sleeps has a turn only when it was woken, when a letter or a request comes, when its engine wants ticks,
//    or, now and then, by chance.
// 2. Time goes on from one process to the next.
import Base
import DeviceLog
import Engine
import Index
import Storage
import Synchronization
import Wire

/// Milliseconds that everybody sees. Any thread.
final class SharedClock: Sendable {
    private let now = Atomic<UInt64>(1000)
    var milliseconds: UInt64 { now.load(ordering: .relaxed) }
    func advance(_ milliseconds: UInt64) { now.add(milliseconds, ordering: .relaxed) }

    var turnTime: TurnTime {
        TurnTime(
            monotonic: Instant(nanoseconds: milliseconds * 1_000_000),
            wall: RecordTime(milliseconds: 500_000_000_000 + milliseconds))
    }
}

/// One reactor: the engine's shell.
final class CrashReactor: EngineShell {
    let number: Int
    fileprivate let woken = Woken()
    fileprivate var letters: [UnsafeMutablePointer<Letter>] = []
    fileprivate var isAsleep = false
    fileprivate var lastTurn: UInt64 = 0
    fileprivate(set) var isInTurn = false
    fileprivate let late = OutputBuffer()
    fileprivate unowned let node: CrashNode

    fileprivate init(_ number: Int, _ node: CrashNode) {
        self.number = number
        self.node = node
    }

    func post(_ letter: UnsafeMutablePointer<Letter>, to reactor: Int) { node.reactors[reactor].letters.append(letter) }

    func wantsSlices() {}
    func stream(
        _ connection: UInt64, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64
    ) -> StreamState { .closed }

    func output(of connection: UInt64) -> OutputBuffer? {
        late.truncate(to: 0)
        return late
    }

    func answered(_ connection: UInt64, isCompressionAsked: Bool) { node.receive(connection, ClientAnswer(late.bytes)) }
}

private final class Woken: Sendable {
    let flag = Atomic(false)
}

/// See the invariants above.
final class CrashNode {
    private static let recordsMax = 1 << 16
    private static let ticksMilliseconds: UInt64 = 10
    let medium: CrashMedium
    let clock: SharedClock
    let backend: WatchedBackend
    let namespace: Namespace
    fileprivate(set) var reactors: [CrashReactor] = []
    private(set) var shards: [EngineShard] = []
    /// Where answers go.
    fileprivate let receive: (UInt64, ClientAnswer) -> Void
    private let output = OutputBuffer()

    /// Opens the medium and reads it, as a node does at its start.
    /// - Throws: `CrashFailure`.
    init(
        _ plan: CrashPlan, _ medium: CrashMedium, _ clock: SharedClock, _ model: CrashModel, _ random: inout SeededRandom,
        receive: @escaping (UInt64, ClientAnswer) -> Void
    ) throws {
        self.medium = medium
        self.clock = clock
        self.receive = receive
        let descriptor = DeviceLog.descriptor(opener: medium, entropy: { plan.seed }, shape: plan.shape)
        let agreement = Agreement(
            backend: descriptor.name, format: descriptor.formats.upperBound, capabilities: descriptor.capabilities)
        model.startBegan()
        let request = OpenRequest(
            namespace: "test", settings: BackendSettings(plan.settings), agreement: agreement, log: { plan.log($0) })
        backend = WatchedBackend(
            try descriptor.open(request), model, releasesWhatWasSeen: plan.canary == .releasesWhatWasSeen)
        var settings = NamespaceSettings(name: "test")
        settings.commitBeforeAnswer = plan.commits
        settings.numbers.pendingLimit = plan.pendingLimit
        settings.numbers.recordSizeMax = descriptor.limits.imageSizeMax
        namespace = try Namespace(
            settings: settings, agreement: agreement, backend: backend,
            index: try PrimaryIndex(heapFor: CrashNode.recordsMax), epoch: Epoch(regime: 1, viewKey: 2),
            reactors: plan.reactors)
        let makesShardsFirst = Bool.random(using: &random)
        if makesShardsFirst { try makeShards(plan) }
        try coldStart(plan, &random)
        if !makesShardsFirst { try makeShards(plan) }
    }

    private func makeShards(_ plan: CrashPlan) throws {
        for number in 0..<plan.reactors {
            let reactor = CrashReactor(number, self)
            let woken = reactor.woken
            let clock = clock
            let shard = try backend.makeShard(
                ShardRequest(
                    index: number, count: plan.reactors, milliseconds: { clock.milliseconds },
                    wake: { woken.flag.store(true, ordering: .relaxed) }))
            reactors.append(reactor)
            shards.append(EngineShard(
                reactor: number, of: plan.reactors, namespaces: [namespace], backends: [shard], shell: reactor,
                cluster: LoneNode(), log: { plan.log($0) }))
        }
    }

    private func coldStart(_ plan: CrashPlan, _ random: inout SeededRandom) throws {
        let start = try ColdStart(
            namespace, recordsMax: CrashNode.recordsMax, now: clock.turnTime.wall, log: { plan.log($0) })
        let segments = Int.random(in: 1...4, using: &random)
        for segment in (0..<segments).shuffled(using: &random) {
            try backend.scan(segment: segment, of: segments) { start.visit($0, worker: segment % plan.reactors) }
        }
        start.settleTombstones()
        if start.damaged + start.refused > 0 {
            throw CrashFailure(words: "a cold start shows \(start.damaged) damaged images and refuses \(start.refused)")
        }
    }

    // ---- Turns ----

    /// Begins a turn of a reactor if there is a reason, or by chance.
    func beginTurn(_ reactor: CrashReactor, byChance: Bool) {
        let shard = shards[reactor.number]
        let wantsTick = shard.wantsTicks && clock.milliseconds >= reactor.lastTurn + CrashNode.ticksMilliseconds
        let isWoken = reactor.woken.flag.exchange(false, ordering: .relaxed)
        guard !reactor.isAsleep || isWoken || !reactor.letters.isEmpty || wantsTick || byChance else { return }
        reactor.isInTurn = true
        reactor.isAsleep = false
        reactor.lastTurn = clock.milliseconds
        shard.turnBegan(clock.turnTime)
        let letters = reactor.letters
        reactor.letters = []
        for letter in letters { shard.letter(letter) }
        shard.expireWaiters()
    }

    func endTurn(_ reactor: CrashReactor, sleeping: Bool) {
        guard reactor.isInTurn else { return }
        reactor.isInTurn = false
        reactor.isAsleep = sleeping
        shards[reactor.number].turnEnded(sleeping: sleeping)
    }

    /// Executes a request of a connection; in a turn of its reactor.
    func send(_ request: ClientRequest, _ digest: Digest, connection: UInt64) {
        let reactor = reactors[Int(connection) % reactors.count]
        if !reactor.isInTurn { beginTurn(reactor, byChance: true) }
        let body = request.body(digest, output)
        guard case .request(let view) = RequestView.parse(body) else { preconditionFailure("a whole request") }
        let answer = OutputBuffer()
        let shard = shards[reactor.number]
        let namespace = shard.number(ofNamespace: view.namespace)
        let progress = withUnsafePointer(to: view) {
            shard.execute(
                $0, namespace: namespace, connection: connection, arrived: clock.turnTime.monotonic, output: answer)
        }
        if progress == .answered { receive(connection, ClientAnswer(answer.bytes)) }
    }

    /// Nothing waits, is under way on a device, or has yet to be written.
    var isQuiet: Bool {
        medium.isIdle && shards.allSatisfy { !$0.wantsTicks }
            && reactors.allSatisfy { $0.letters.isEmpty && !$0.woken.flag.load(ordering: .relaxed) }
    }

    // ---- What is there ----

    /// The index about one record.
    func entry(_ digest: Digest) -> IndexEntry? {
        namespace.index.find(digest).map { namespace.index.entry($0) }
    }
}
