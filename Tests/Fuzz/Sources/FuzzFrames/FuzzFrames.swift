// Bytes of a connection through framing, parsing, compression, engine and memory backend, in pieces as a socket would
// deliver them. What it holds: whole answers only, nothing consumed that was not there, nobody's memory touched.
import Assembly
import Base
import Engine
import FuzzDriver
import Index
import Memory
import Storage
import Wire

private final class Info: InfoResponder {
    func answer(
        _ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8, to output: OutputBuffer
    ) -> Bool {
        var parser = InfoRequestParser(body)
        while let line = parser.next() { output.append(line.text) }
        return true
    }
}

private final class Shell: EngineShell {
    /// What is under way between parts of the one reactor.
    var letters: [UnsafeMutablePointer<Letter>] = []
    func post(_ letter: UnsafeMutablePointer<Letter>, to reactor: Int) { letters.append(letter) }
    func wantsSlices() {}
    func stream(_ connection: UInt64, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64) -> StreamState { .open }
    func output(of connection: UInt64) -> OutputBuffer? { nil }
    func answered(_ connection: UInt64, isCompressionAsked: Bool) {}
}

private final class World {
    let executor = FrameExecutor(info: Info(), adminKind: 1)
    let engine: EngineShard
    let output = OutputBuffer()
    private let shell = Shell()
    private var time = TurnTime(monotonic: Instant(nanoseconds: 1), wall: RecordTime(milliseconds: 500_000_000_000))

    init() throws {
        let agreement = Agreement(backend: "memory", format: 1, capabilities: .volatile)
        let backend = try Memory.descriptor.open(OpenRequest(
            namespace: "test", settings: BackendSettings([("data-size", "\(64 << 20)")]), agreement: agreement,
            log: { _ in }))
        var settings = NamespaceSettings(name: "test")
        settings.numbers.nsupPeriodSeconds = 1
        let namespace = try Namespace(
            settings: settings, agreement: agreement, backend: backend, index: try PrimaryIndex(heapFor: 1 << 20),
            epoch: Epoch(regime: 1, viewKey: 1), reactors: 1)
        engine = EngineShard(
            reactor: 0, of: 1, namespaces: [namespace],
                backends: [try backend.makeShard(ShardRequest(index: 0, count: 1, wake: {}))], shell: shell,
            cluster: LoneNode(), log: { _ in })
        executor.engine = engine
    }

    func take(_ bytes: UnsafeRawBufferPointer) {
        time.monotonic.nanoseconds += 1_000_000
        time.wall.milliseconds += 1
        engine.turnBegan(time)
        let letters = shell.letters
        shell.letters = []
        for letter in letters { engine.letter(letter) }
        var offset = 0
        while offset < bytes.count {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            output.truncate(to: 0)
            executor.preview(piece, place: offset & 15)
            executor.prefetch(place: offset & 15, stage: 1)
            executor.prefetch(place: offset & 15, stage: 2)
            let (consumed, verdict) = executor.receive(
                connection: 1, kind: UInt8(offset & 1 == 0 ? 0 : 1), piece, arrived: time.monotonic, output: output)
            precondition(consumed <= piece.count)
            checkAnswers()
            offset += consumed
            guard case .more = verdict, consumed > 0 else { break }
        }
        _ = engine.backgroundSlice()
        // Batches that have outlived their turn end before the next input.
        for _ in 0..<100_000 where engine.batchCounters.underWay > 0 { _ = engine.backgroundSlice() }
        precondition(engine.batchCounters.underWay == 0, "a batch does not end")
        engine.turnEnded(sleeping: false)
    }

    /// What was answered is a sequence of whole frames.
    private func checkAnswers() {
        var offset = 0
        while offset < output.count {
            guard case .frame(let header) = FrameHeader.parse(UnsafeRawBufferPointer(rebasing: output.bytes[offset...]))
            else { fatalError("an answer without a header") }
            offset += FrameHeader.byteCount + header.bodySize
        }
        precondition(offset == output.count)
    }
}

nonisolated(unsafe) private let world = try! World()

private func fuzzFrames(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    world.take(UnsafeRawBufferPointer(start: data, count: count))
    return 0
}

@_cdecl("FuzzFrames_main")
public func entry(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    runFuzzer(count, words) { fuzzFrames($0, $1) }
}
