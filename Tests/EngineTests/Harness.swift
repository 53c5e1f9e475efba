import Base
import Engine
import Index
import Record
import Storage
import TestSupport
import Wire

/// Effects of a cluster that answers late as chance has it.
final class FakeCluster: ClusterEffects {
    var random: SeededRandom
    var latePercent = 0
    var waiting: [SlotPointer] = []
    let isAlone: Bool

    init(seed: UInt64, isAlone: Bool) {
        random = SeededRandom(seed: seed)
        self.isAlone = isAlone
    }
    let isRouting = true
    /// Who serves what; everything if it is nil.
    var duty: ((_ partition: PartitionID, _ isWrite: Bool) -> EffectAnswer)?
    var epoch: Epoch?
    func route(_ partition: PartitionID, namespace: Int, isWrite: Bool) -> EffectAnswer {
        duty?(partition, isWrite) ?? .done
    }
    func epoch(of partition: PartitionID, namespace: Int) -> Epoch? { epoch }
    func resolve(_ slot: SlotPointer) -> EffectAnswer { maybeLate(slot) }
    func replicate(_ slot: SlotPointer) -> EffectAnswer { maybeLate(slot) }
    private func maybeLate(_ slot: SlotPointer) -> EffectAnswer {
        guard Int.random(in: 0..<100, using: &random) < latePercent else { return .done }
        waiting.append(slot)
        return .pending
    }
}

/// One reactor's side as the engine sees it: answers by connection, letters in a queue.
final class FakeShell: EngineShell {
    unowned let harness: Harness
    let reactor: Int
    let late = OutputBuffer()
    init(_ harness: Harness, _ reactor: Int) {
        self.harness = harness
        self.reactor = reactor
    }
    func post(_ letter: UnsafeMutablePointer<Letter>, to reactor: Int) { harness.letters.append((letter, reactor)) }
    func wantsSlices() {}
    func stream(_ connection: UInt64, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64) -> StreamState {
        guard !harness.goneConnections.contains(connection) else { return .closed }
        harness.streams[connection, default: []] += Array(bytes)
        return harness.crowdedConnections.contains(connection) ? .crowded : .open
    }
    func output(of connection: UInt64) -> OutputBuffer? {
        late.truncate(to: 0)
        return harness.goneConnections.contains(connection) ? nil : late
    }
    func answered(_ connection: UInt64, isCompressionAsked: Bool) {
        guard !harness.goneConnections.contains(connection) else { return }
        if harness.streams[connection] != nil {
            harness.streams[connection]! += Array(late.bytes)
            harness.endedStreams.insert(connection)
        } else {
            harness.receive(connection, late.bytes)
        }
    }
}

/// An answer, copied out.
struct Answer {
    var result: ResultCode
    var generation: UInt32
    var bins: [(name: String, type: UInt8, value: [UInt8])]

    init(_ frame: UnsafeRawBufferPointer) {
        let view = AnswerView(UnsafeRawBufferPointer(rebasing: frame[FrameHeader.byteCount...]))!
        result = ResultCode(rawValue: view.header.resultCode)
        generation = view.header.generation
        bins = []
        var operations = view.operations
        while let bin = operations.next() { bins.append((bin.name.text, bin.particleType, Array(bin.value))) }
    }

    func integer(_ name: String) -> Int64? {
        bins.first { $0.name == name && $0.type == ParticleType.integer }.map { bin in
            bin.value.reduce(0) { $0 << 8 | Int64($1) }
        }
    }
}

/// An engine of several reactors, run by hand on one thread.
final class Harness {
    var shells: [FakeShell] = []
    var shards: [EngineShard] = []
    var letters: [(UnsafeMutablePointer<Letter>, Int)] = []
    var answers: [UInt64: Answer] = [:]
    var goneConnections: Set<UInt64> = []
    var crowdedConnections: Set<UInt64> = []
    /// Answers that came in parts, by connection.
    var streams: [UInt64: [UInt8]] = [:]
    var endedStreams: Set<UInt64> = []
    var time = TurnTime(monotonic: Instant(nanoseconds: 1_000_000_000), wall: RecordTime(milliseconds: 500_000_000_000))
    let namespace: Namespace
    let queries = QueryRegistry()
    let cluster: FakeCluster
    let backend: any Backend
    private var retired: [RetiredSettings] = []
    private let output = OutputBuffer()

    init(
        _ backend: any Backend, capabilities: Capabilities, reactors: Int = 1, isAlone: Bool = true, seed: UInt64 = 1,
        _ change: (inout NamespaceSettings) -> Void = { _ in }
    ) throws {
        var settings = NamespaceSettings(name: "test")
        settings.numbers.nsupPeriodSeconds = 120
        change(&settings)
        self.backend = backend
        cluster = FakeCluster(seed: seed, isAlone: isAlone)
        namespace = try Namespace(
            settings: settings, agreement: Agreement(backend: "fake", format: 1, capabilities: capabilities),
            backend: backend, index: try PrimaryIndex(heapFor: 1 << 16), epoch: Epoch(regime: 1, viewKey: 2),
            reactors: reactors)
        for reactor in 0..<reactors {
            let shell = FakeShell(self, reactor)
            shells.append(shell)
            shards.append(EngineShard(
                reactor: reactor, of: reactors, namespaces: [namespace],
                    backends: [try backend.makeShard(ShardRequest(index: reactor, count: reactors, wake: {}))],
                shell: shell, cluster: cluster, queries: queries, log: { _ in }))
        }
        for shard in shards { shard.turnBegan(time) }
    }

    /// Changes settings of the first reactor's engine.
    func change(_ change: (inout LiveServiceSettings) -> Void) {
        var values = shards[0].service.current.pointee
        change(&values)
        retired.append(shards[0].service.change(to: values))
    }

    func receive(_ connection: UInt64, _ bytes: UnsafeRawBufferPointer) { answers[connection] = Answer(bytes) }

    /// Executes a request of a connection; its answer is in `answers`, at once or later.
    func send(_ frame: [UInt8], _ connection: UInt64 = 0) {
        let body = Block(Array(frame[FrameHeader.byteCount...]))
        guard case .request(let request) = RequestView.parse(body.view) else { preconditionFailure("a whole request") }
        let shard = shards[Int(connection) % shards.count]
        output.truncate(to: 0)
        answers[connection] = nil
        let namespace = shard.number(ofNamespace: request.namespace)
        let progress = withUnsafePointer(to: request) {
            shard.execute($0, namespace: namespace, connection: connection, arrived: time.monotonic, output: output)
        }
        if progress == .answered { receive(connection, output.bytes) }
    }

    /// One request that is answered at once.
    func ask(_ frame: [UInt8]) -> Answer {
        send(frame)
        return answers[0]!
    }

    /// A turn of every reactor: late answers, letters, deadlines.
    func turn(advancing milliseconds: UInt64 = 0) {
        time.monotonic = time.monotonic.advanced(byMilliseconds: milliseconds)
        time.wall.milliseconds += milliseconds
        for shard in shards {
            shard.turnEnded(sleeping: false)
            shard.turnBegan(time)
        }
        let posted = letters
        letters = []
        for (letter, reactor) in posted { shards[reactor].letter(letter) }
        let late = cluster.waiting
        cluster.waiting = []
        for slot in late { shards[slot.pointee.reactor].resume(slot) }
        for shard in shards { shard.expireWaiters() }
    }

    /// Turns until nothing is under way.
    func settle() {
        for _ in 0..<10_000 where shards.contains(where: \.wantsTicks) || !letters.isEmpty { turn() }
    }
}

/// Requests as a client would send them.
enum Request {
    struct Operation {
        var code: UInt8
        var type: UInt8 = ParticleType.integer
        var name: String
        var value: [UInt8] = []
    }

    static func integer(_ value: Int64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * Int64($0))) }
    }

    static func write(
        _ digest: Digest, _ operations: [Operation], info1: Info1 = [], info2: Info2 = .write, info3: Info3 = [],
        generation: UInt32 = 0, timeToLive: UInt32 = 0, set: String = "", key: [UInt8] = [], namespace: String = "test",
        filter: [UInt8]? = nil
    ) -> [UInt8] {
        var header = MessageHeader()
        header.info1 = info1
        header.info2 = info2
        header.info3 = info3
        header.generation = generation
        header.timeToLive = timeToLive
        let output = OutputBuffer()
        var encoder = RequestEncoder(output)
        encoder.begin(header)
        encoder.field(.namespace, namespace)
        if !set.isEmpty { encoder.field(.set, set) }
        if !key.isEmpty { encoder.field(.key, Block(key).view) }
        encoder.field(digest)
        if let filter { encoder.field(.filter, Block(filter).view) }
        for operation in operations {
            encoder.operation(operation.code, operation.type, operation.name, Block(operation.value).view)
        }
        encoder.end()
        return Array(output.bytes)
    }

    static func put(_ digest: Digest, _ name: String, _ value: Int64, info3: Info3 = []) -> [UInt8] {
        write(digest, [Operation(code: OperationCode.write, name: name, value: integer(value))], info3: info3)
    }

    /// Adds 1 and reads the sum, in one request.
    static func count(_ digest: Digest, _ name: String) -> [UInt8] {
        write(
            digest,
            [Operation(code: OperationCode.increment, name: name, value: integer(1)),
                Operation(code: OperationCode.read, type: 0, name: name)],
            info1: .read)
    }

    static func delete(_ digest: Digest) -> [UInt8] { write(digest, [], info2: [.write, .delete]) }

    static func get(_ digest: Digest, timeToLive: UInt32 = 0) -> [UInt8] {
        write(digest, [], info1: [.read, .getAllBins], info2: [], timeToLive: timeToLive)
    }
}
