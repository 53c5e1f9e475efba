package import Base
internal import CBase
internal import Expressions
internal import Record

/// What became of a part of an answer that was given to a connection.
package enum StreamState: Sendable, BitwiseCopyable {
    /// Sent, or so little of it waits that more may follow.
    case open
    /// The client does not read: `EngineShard.drained` tells when it has.
    case crowded
    /// The connection has closed.
    case closed
}

/// What the engine asks of the reactor it runs on. Reactor's thread only.
package protocol EngineShell: AnyObject {
    /// Takes a letter to another reactor, or to this one: `EngineShard.letter` gets it there.
    func post(_ letter: UnsafeMutablePointer<Letter>, to reactor: Int)
    /// There is background work to do: `EngineShard.backgroundSlice` is called soon.
    func wantsSlices()
    /// Gives a suspended connection a part of its answer, whole frames; `answered` follows at the end. Never from within
    /// `EngineShard.execute`: answers to earlier requests may not have left yet. A client that takes nothing for
    /// `patienceMilliseconds` (0: the usual time) loses its connection.
    func stream(_ connection: UInt64, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64) -> StreamState
    /// Replaces each frame in `output` by a compressed one, if that is smaller. For parts that go to `stream`.
    func compress(_ output: OutputBuffer)
    /// Where the late answer of a connection goes; nil if it has closed meanwhile.
    func output(of connection: UInt64) -> OutputBuffer?
    /// The late answer is complete: send it, compressed if the client asked for that, and go on with the connection.
    func answered(_ connection: UInt64, isCompressionAsked: Bool)
}

extension EngineShell {
    /// Compresses nothing.
    package func compress(_ output: OutputBuffer) {}
}

/// Reusable memory of one reactor, shared by its namespaces: nothing on the data path allocates. Reactor's
/// thread only.
final class Scratch {
    /// Builds bins; holds computed values until the next request.
    let editor = RecordEditor()
    /// Answers of operations, in request order.
    let results = OutputBuffer(capacity: 64 << 10)
    /// How many operations are in `results`.
    var resultCount = 0
    /// Something did not fit into `Limits.resultSizeMax` and was left out: the request must be refused.
    var isResultTooLarge = false
    /// Where the answer at hand goes. Owned by the reactor, which outlives every request.
    unowned(unsafe) var output: OutputBuffer
    /// New images are built here; as large as a record can be.
    let image: UnsafeMutableRawPointer
    let shell: any EngineShell
    let slots: SlotPool
    let touchTemplate = OwnRequest.touch()
    let streams = StreamTable()
    let expressions = ExpressionCache()
    /// The clocks as this turn began.
    var now = TurnTime(monotonic: Instant(nanoseconds: 0), wall: RecordTime(milliseconds: 0))
    /// Requests that a backend under pressure has put off.
    var delayed: [SlotPointer] = []
    /// Requests that wait until it is decided who serves their partitions, in the order they came.
    var parked: [SlotPointer] = []
    /// Rises whenever it is decided anew who serves what. Above 0.
    var routesGeneration: UInt64 = 1
    /// What requests went by up to and with a generation: kept until no write that it has let through is under way.
    var retiredRoutes: [(generation: UInt64, routes: AnyObject)] = []
    private let idleOutput = OutputBuffer(capacity: 64)
    private static let imageRoom = Limits.recordSizeCeiling + (64 << 10)

    init(shell: any EngineShell, reactor: Int) {
        guard let pages = apus_pages_reserve(Scratch.imageRoom, false) else {
            fatalError("no address space for \(Scratch.imageRoom) bytes: raise the limit (ulimit -v)")
        }
        image = pages
        self.shell = shell
        slots = SlotPool(reactor: reactor)
        output = idleOutput
    }

    /// Takes the slot's letter to the slot's own reactor.
    func post(_ slot: SlotPointer) {
        slot.pointee.letter.kind = LetterKind.claimPassed
        shell.post(UnsafeMutableRawPointer(slot).assumingMemoryBound(to: Letter.self), to: slot.pointee.reactor)
    }

    /// Points `output` at nothing that matters, for requests whose client is gone or was never there.
    func discardOutput() {
        idleOutput.truncate(to: 0)
        output = idleOutput
    }

    /// The request of `slot` has to wait: what its operations answered goes with it.
    func parkResults(_ slot: SlotPointer) {
        guard resultCount > 0 else { return }
        precondition(slot.pointee.results == nil)
        let bytes = results.bytes
        let kept = UnsafeMutableRawPointer.allocate(byteCount: max(bytes.count, 1), alignment: 16)
        if let source = bytes.baseAddress { kept.copyMemory(from: source, byteCount: bytes.count) }
        slot.pointee.results = kept
        slot.pointee.resultByteCount = bytes.count
        slot.pointee.resultCount = resultCount
        resetResults()
    }

    /// The request of `slot` goes on.
    func unparkResults(_ slot: SlotPointer) {
        precondition(resultCount == 0)
        guard let kept = slot.pointee.results else { return }
        results.append(UnsafeRawBufferPointer(start: kept, count: slot.pointee.resultByteCount))
        resultCount = slot.pointee.resultCount
        kept.deallocate()
        slot.pointee.results = nil
    }

    func resetResults() {
        isResultTooLarge = false
        guard resultCount > 0 else { return }
        results.truncate(to: 0)
        resultCount = 0
    }

    deinit { apus_pages_release(image, Scratch.imageRoom) }
}
