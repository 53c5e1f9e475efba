// One reactor's node side: frames to the engine, letters, ticks. Invariants:
// 1. Everything here runs on the reactor's thread; the counters are read by others as plain words.
// 2. Before the engine is installed, data requests answer 11 and info works.
internal import Assembly
internal import Base
internal import CReactor
internal import Engine
internal import Logging
internal import Reactor

/// Kinds of letters the node sends to a reactor, beside the engine's and the reactor's own.
enum NodeLetter {
    /// The namespaces are open: install the engine of this reactor.
    static let installEngine: UInt32 = 100
    /// The answer to an info request that the control thread has made: a `LateInfoAnswer`.
    static let lateInfo: UInt32 = 101
    /// Settings have changed: a `RetiredSettings`.
    static let settings: UInt32 = 102
    /// The routes of partitions have changed: a `RetiredRoutes`.
    static let routes: UInt32 = 103
}

/// Kinds of connections.
enum ConnectionKind {
    static let service: UInt8 = 0
    static let admin: UInt8 = 1
}

/// Joins one reactor, its engine shard and the info commands.
final class ReactorShell: ReactorHandler, EngineShell {
    let executor: FrameExecutor
    let info: InfoService
    private let state: NodeState
    private var reactor: Reactor?
    private var engine: EngineShard? { executor.engine }
    private var time = SystemClock.now()
    private var offered: EngineShard?
    /// Where the late answer at hand is written; nil if its connection has closed.
    private var lateOutput: OutputBuffer?

    init(state: NodeState, number: Int) {
        self.state = state
        info = InfoService(state: state, reactor: number, adminKind: ConnectionKind.admin)
        executor = FrameExecutor(info: info, adminKind: ConnectionKind.admin)
    }

    /// The reactor this shell runs on. Before its thread starts.
    func attach(_ reactor: Reactor) { self.reactor = reactor }

    /// Leaves the engine for the `installEngine` letter that is posted next; the letter orders the memory.
    func offer(_ engine: EngineShard) { offered = engine }

    // ---- ReactorHandler ----

    func threadBegan() { apus_crash_watch(executor.atHand) }

    func turnBegan(_ time: TurnTime) {
        self.time = time
        engine?.turnBegan(time)
    }

    func receive(
        _ connection: ConnectionID, kind: UInt8, _ bytes: UnsafeRawBufferPointer, _ output: OutputBuffer
    ) -> Reception {
        let (consumed, verdict) = executor.receive(
            connection: connection.rawValue, kind: kind, bytes, arrived: time.monotonic, output: output)
        engine?.countLatencies(end: SystemClock.monotonic())
        switch verdict {
        case .needBytes(let count): return Reception(consumed: consumed, next: .needBytes(atLeast: count))
        case .more: return Reception(consumed: consumed, next: .more)
        case .suspended:
            reactor?.wantsTicks = true
            return Reception(consumed: consumed, next: .suspended)
        case .close(let reason):
            state.log.info(.service, "closing a client connection: it sent \(reason)")
            return Reception(consumed: consumed, next: .close)
        }
    }

    func preview(_ bytes: UnsafeRawBufferPointer, place: Int) { executor.preview(bytes, place: place) }

    func prefetch(place: Int, stage: Int) { executor.prefetch(place: place, stage: stage) }

    func letter(_ letter: UnsafeMutablePointer<Letter>) {
        switch letter.pointee.kind {
        case ..<LetterKind.end: engine?.letter(letter)
        case NodeLetter.installEngine:
            executor.engine = offered
            engine?.turnBegan(time)
            letter.deallocate()
        case NodeLetter.lateInfo:
            let answer = Unmanaged<LateInfoAnswer>.fromOpaque(object(letter)).takeRetainedValue()
            letter.deallocate()
            send(answer)
        case NodeLetter.settings:
            let numbers = state.live.current.pointee
            reactor?.change(
                idleMilliseconds: UInt64(numbers.connectionIdleMilliseconds),
                connectionsMax: [Int(numbers.clientConnectionsMax), Limits.adminConnectionsMax])
            // Nothing of this turn has loaded the old ones before and uses them after.
            Unmanaged<RetiredSettings>.fromOpaque(object(letter)).release()
            letter.deallocate()
        case NodeLetter.routes:
            let old = Unmanaged<RetiredRoutes>.fromOpaque(object(letter)).takeRetainedValue()
            letter.deallocate()
            engine?.routesChanged(old)
        default: preconditionFailure("unknown letter \(letter.pointee.kind)")
        }
    }

    private func object(_ letter: UnsafeMutablePointer<Letter>) -> UnsafeRawPointer {
        UnsafeRawPointer(bitPattern: UInt(letter.pointee.payload)).unsafelyUnwrapped
    }

    private func send(_ answer: LateInfoAnswer) {
        info.addCompleted(answer.lines)
        let id = ConnectionID(rawValue: answer.connection)
        guard let output = reactor?.output(of: id) else { return }
        answer.frame.withUnsafeBytes { output.append($0) }
        reactor?.resume(id)
    }

    func tick(_ time: TurnTime) {
        guard let engine else { return }
        engine.expireWaiters()
        reactor?.wantsTicks = engine.wantsTicks
    }

    func backgroundSlice() -> UInt64? {
        switch engine?.backgroundSlice() ?? .none {
        case .none: nil
        case .some: 9
        case .pressing: 1
        }
    }

    func connectionDrained(_ connection: ConnectionID) { engine?.drained(connection.rawValue) }

    func isStreaming(_ connection: ConnectionID) -> Bool { engine?.isStreaming(connection.rawValue) ?? false }

    func connectionClosed(_ connection: ConnectionID) {
        engine?.connectionClosed(connection.rawValue)
        executor.connectionClosed(connection.rawValue)
        state.userAgents.closed(UserAgents.Key(reactor: info.reactor, connection: connection.rawValue))
    }

    func turnEnded(sleeping: Bool) {
        // Also for what no connection waits for: the touch after a read, a block that is to be written in time.
        if sleeping, engine?.wantsTicks == true { reactor?.wantsTicks = true }
        engine?.turnEnded(sleeping: sleeping)
    }

    // ---- EngineShell ----

    func post(_ letter: UnsafeMutablePointer<Letter>, to reactor: Int) { state.reactors.post(reactor, letter) }

    func wantsSlices() { reactor?.wantsBackground() }

    func stream(
        _ connection: UInt64, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64
    ) -> StreamState {
        switch reactor?.stream(ConnectionID(rawValue: connection), bytes, patienceMilliseconds: patienceMilliseconds) {
        case nil: .closed
        case .some(let unsent): unsent > Limits.unsentStreamSizeMax ? .crowded : .open
        }
    }

    func compress(_ output: OutputBuffer) { executor.compress(output) }

    func output(of connection: UInt64) -> OutputBuffer? {
        lateOutput = reactor?.output(of: ConnectionID(rawValue: connection))
        return lateOutput
    }

    func answered(_ connection: UInt64, isCompressionAsked: Bool) {
        if isCompressionAsked, let lateOutput { executor.compress(lateOutput) }
        lateOutput = nil
        reactor?.resume(ConnectionID(rawValue: connection))
    }

    /// What batches have come to; nil before the node serves. Any thread.
    var batchCounters: BatchCounters? { state.phase == .starting ? nil : offered?.batchCounters }

    /// Requests that reached no namespace. Any thread: what was offered does not change once the node serves.
    var refusedRequests: UInt64 { state.phase == .starting ? 0 : offered?.refusedRequests ?? 0 }
}
