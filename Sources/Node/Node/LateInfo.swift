// Info requests that may block (what they change is durable before the answer): the control thread answers them, and the
// reactor sends the answer. Meanwhile the connection waits; what it has sent behind the request is served after it.
internal import Assembly
internal import Base
internal import Engine
internal import Glibc
internal import Reactor
internal import Wire

/// The answer to such a request on its way to its reactor.
final class LateInfoAnswer: Sendable {
    let connection: UInt64
    /// The whole frame.
    let frame: [UInt8]
    /// Lines answered.
    let lines: UInt64

    init(connection: UInt64, frame: [UInt8], lines: UInt64) {
        self.connection = connection
        self.frame = frame
        self.lines = lines
    }
}

extension InfoService {
    /// Lines of a request that the control thread answers.
    static let lateLinesMax = 16

    func defers(_ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8) -> Bool {
        guard state.phase == .serving, isBlocking(body) else { return false }
        let copy = [UInt8](body)
        let requests = InfoService.requests(body)
        var answered = answersAtHome(requests, connection)
        var asked: [(line: Int, command: ClusterCommand)] = []
        for (line, wish) in wishes(requests) {
            switch wish {
            case .command(let command): asked.append((line, command))
            case .refusal(let text): answered[line] = text
            }
        }
        guard !asked.isEmpty else {
            return InfoService.answerLater(copy, connection, kind, answered, state, reactor)
        }
        let answers = ClusterAnswers(answered, missing: asked.count) { [state, reactor] in
            _ = InfoService.answerLater(copy, connection, kind, $0, state, reactor)
        }
        for (line, command) in asked { state.cluster.command(command) { answers.put(line, $0) } }
        return true
    }

    /// The control thread begins the lines that are not answered yet, one after the other, and sends the answer when all
    /// are. False: the node stops.
    private static func answerLater(
        _ copy: [UInt8], _ connection: UInt64, _ kind: UInt8, _ answered: [Int: String], _ state: NodeState, _ reactor: Int
    ) -> Bool {
        state.controlJobs.add {
            let service = InfoService(
                state: state, reactor: reactor, adminKind: ConnectionKind.admin, answered: answered)
            let requests = copy.withUnsafeBytes { InfoService.requests($0) }
            for (line, request) in requests.enumerated() where answered[line] == nil {
                guard let request, let command = service.blockingCommands[request.name] else { continue }
                return command(service, request) { text in
                    let more = answered.merging([line: text]) { first, _ in first }
                    _ = answerLater(copy, connection, kind, more, state, reactor)
                }
            }
            service.send(copy, connection, kind, to: reactor)
        }
    }

    /// All lines that may not block are answered now, and the answer goes to its reactor.
    private func send(_ copy: [UInt8], _ connection: UInt64, _ kind: UInt8, to reactor: Int) {
        let output = OutputBuffer()
        _ = copy.withUnsafeBytes { answer($0, connection: connection, kind: kind, to: output) }
        var frame = [UInt8](repeating: 0, count: FrameHeader.byteCount)
        frame.withUnsafeMutableBytes { FrameHeader.write(type: .info, bodySize: output.count, to: $0.baseAddress!) }
        let late = LateInfoAnswer(connection: connection, frame: frame + [UInt8](output.bytes), lines: completed)
        state.post(NodeLetter.lateInfo, late, to: reactor)
    }

    /// Lines that are about the connection, answered now, by number: it may have closed when the control thread comes to
    /// them.
    private func answersAtHome(_ requests: [InfoRequest?], _ connection: UInt64) -> [Int: String] {
        var answers: [Int: String] = [:]
        for (number, request) in requests.enumerated() {
            if let request, let command = InfoService.connectionCommands[request.name] {
                answers[number] = command(self, request, connection)
            }
        }
        return answers
    }

    /// The lines taken apart; nil for those that are none.
    private static func requests(_ body: UnsafeRawBufferPointer) -> [InfoRequest?] {
        var parser = InfoRequestParser(body)
        var requests: [InfoRequest?] = []
        while let line = parser.next() { requests.append(InfoRequest(line)) }
        return requests
    }

    /// Whether a line needs the control thread, and there are not too many.
    private func isBlocking(_ body: UnsafeRawBufferPointer) -> Bool {
        var parser = InfoRequestParser(body)
        var lines = 0
        var isFound = false
        while let line = parser.next() {
            lines += 1
            guard lines <= InfoService.lateLinesMax else { return false }
            if let request = InfoRequest(line), isBlocking(request) { isFound = true }
        }
        return isFound
    }
}

extension NodeState {
    /// Sends an object to a reactor, which takes it over.
    func post(_ kind: UInt32, _ object: some AnyObject & Sendable, to reactor: Int) {
        let address = UInt(bitPattern: Unmanaged.passRetained(object).toOpaque())
        let letter = UnsafeMutablePointer<Letter>.allocate(capacity: 1)
        letter.initialize(to: Letter(kind: kind, payload: UInt64(address)))
        reactors.post(reactor, letter)
    }

    /// Settings have changed: every reactor takes them, and by ending its turn lets go of the old ones.
    func tellReactors(_ retired: RetiredSettings) {
        for reactor in 0..<reactors.all.count { post(NodeLetter.settings, retired, to: reactor) }
    }

    /// There is background work: reactors that sleep look for it now.
    func wakeReactors() { for reactor in reactors.all { reactor.wakeUp() } }
}
