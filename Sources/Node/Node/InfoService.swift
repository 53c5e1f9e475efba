// Info commands: text in, text out. The answer to a line is the line itself, a tab and the value.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Wire

/// Answers info commands for every connection of one reactor.
final class InfoService: InfoResponder {
    typealias Command = @Sendable (InfoService, InfoRequest) -> String
    /// One that is answered later, on any thread, or at once.
    typealias LateCommand = @Sendable (InfoService, InfoRequest, @escaping @Sendable (String) -> Void) -> Void
    let state: NodeState
    /// The kind of connection whose request is being answered.
    private(set) var isAdmin = false
    /// That connection.
    private var connection: UInt64 = 0
    /// The reactor this object belongs to.
    let reactor: Int
    /// Lines answered.
    private(set) var completed: UInt64 = 0
    private let adminKind: UInt8
    private let commands: [String: Command]
    /// Those that the control thread begins.
    let blockingCommands: [String: LateCommand]
    /// Lines that are answered already, by number.
    private let answered: [Int: String]

    init(state: NodeState, reactor: Int, adminKind: UInt8, answered: [Int: String] = [:]) {
        self.answered = answered
        blockingCommands = InfoService.truncateCommands.merging(InfoService.settingCommands) { first, _ in first }
            .merging(InfoService.evictionCommands) { first, _ in first }
            .merging(InfoService.rosterChanges) { first, _ in first }
        self.reactor = reactor
        self.state = state
        self.adminKind = adminKind
        commands = InfoService.identityCommands
            .merging(InfoService.clusterCommands) { first, _ in first }
            .merging(InfoService.dataCommands) { first, _ in first }
            .merging(InfoService.problemCommands) { first, _ in first }
            .merging(InfoService.operatorCommands) { first, _ in first }
            .merging(InfoService.queryCommands) { first, _ in first }
            .merging(InfoService.storageCommands) { first, _ in first }
            .merging(InfoService.metadataCommands) { first, _ in first }
            .merging(InfoService.upkeepCommands) { first, _ in first }
    }

    func answer(
        _ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8, to output: OutputBuffer
    ) -> Bool {
        let start = output.count
        var lines = 0
        self.connection = connection
        isAdmin = kind == adminKind
        var parser = InfoRequestParser(body)
        while let line = parser.next() {
            guard lines < Limits.infoLinesMax, output.count - start < Limits.infoAnswerSizeMax else { return false }
            let value = answered[lines] ?? answer(line)
            output.append(line.text)
            appendByte(UInt8(ascii: "\t"), to: output)
            var copy = value
            copy.withUTF8 { output.append(UnsafeRawBufferPointer($0)) }
            appendByte(UInt8(ascii: "\n"), to: output)
            completed += 1
            lines += 1
        }
        return true
    }

    private func answer(_ line: InfoLine) -> String {
        guard let request = InfoRequest(line) else { return InfoError.text(4, "unrecognized command") }
        if isBlocking(request) { return refusal(request) }
        if let command = InfoService.connectionCommands[request.name] {
            return command(self, request, connection)
        }
        guard let command = commands[request.name] else { return InfoError.text(4, "unrecognized command") }
        return command(self, request)
    }

    /// Whether another thread has to answer.
    func isBlocking(_ request: InfoRequest) -> Bool {
        blockingCommands[request.name] != nil || InfoService.wishes[request.name] != nil
    }

    private func refusal(_ request: InfoRequest) -> String {
        guard state.phase == .serving else { return InfoError.text(11, "the node is \(state.phase)") }
        return InfoError.text(4, "'\(request.name)' may stand among up to \(InfoService.lateLinesMax) lines")
    }

    /// Lines were answered elsewhere for this reactor.
    func addCompleted(_ count: UInt64) { completed += count }

    private func appendByte(_ byte: UInt8, to output: OutputBuffer) {
        output.reserve(1).storeBytes(of: byte, as: UInt8.self)
        output.commit(1)
    }

    /// The names of all commands, sorted.
    var commandNames: [String] {
        (Array(commands.keys) + blockingCommands.keys + InfoService.connectionCommands.keys
            + InfoService.wishes.keys).sorted()
    }

    /// The namespace that `parameter` names, or the error that says what is wrong.
    func namespace(_ request: InfoRequest) -> (Namespace?, String) {
        guard let name = request["namespace"] ?? request["id"] ?? request["ns"] else {
            return (nil, InfoError.text(20, "missing 'namespace'"))
        }
        guard let namespace = state.namespace(name) else {
            return (nil, InfoError.text(20, "namespace not found on node"))
        }
        return (namespace, "")
    }
}

/// `k=v;k=v` in the order given.
func statisticsText(_ values: [(String, String)]) -> String {
    values.map { "\($0.0)=\($0.1)" }.joined(separator: ";")
}
