// What operators ask of the cluster. The cluster's thread decides; the answer comes late, so that no other thread waits.
internal import Assembly
internal import Membership
internal import Synchronization
internal import Wire

/// What a line asks of the cluster, or why it cannot be asked.
enum ClusterWish: Sendable {
    case command(ClusterCommand)
    case refusal(String)
}

extension InfoService {
    static let wishes: [String: @Sendable (InfoRequest) -> ClusterWish] = [
        "recluster": { _ in .command(.recluster) },
        "quiesce": { _ in .command(.quiesce(true)) },
        "quiesce-undo": { _ in .command(.quiesce(false)) },
        "tip": { request in
            guard let host = request["host"], !host.isEmpty else { return .refusal(InfoError.text(4, "missing 'host'")) }
            guard let text = request["port"], let port = UInt16(text), port > 0 else {
                return .refusal(InfoError.text(4, "missing or bad 'port'"))
            }
            guard request["tls"] != "true" else { return .refusal(InfoError.text(4, "there is no TLS between nodes yet")) }
            return .command(.tip(SeedName(host: host, port: port)))
        },
        "tip-clear": { request in tipClear(request) },
    ]

    /// `host-port-list=all`, or `host:port,host:port`; nothing means all.
    private static func tipClear(_ request: InfoRequest) -> ClusterWish {
        guard let text = request["host-port-list"], text != "all" else { return .command(.tipClear([])) }
        var tips: [SeedName] = []
        for one in text.split(separator: ",") {
            guard let colon = one.lastIndex(of: ":"), colon > one.startIndex,
                let port = UInt16(one[one.index(after: colon)...])
            else { return .refusal(InfoError.text(4, "bad 'host-port-list': host:port,host:port or all")) }
            tips.append(SeedName(host: String(one[..<colon]), port: port))
        }
        guard !tips.isEmpty else { return .refusal(InfoError.text(4, "bad 'host-port-list': it names nobody")) }
        return .command(.tipClear(tips))
    }

    /// The lines that the cluster has to answer, by number.
    func wishes(_ requests: [InfoRequest?]) -> [(line: Int, wish: ClusterWish)] {
        requests.enumerated().compactMap { number, request in
            request.flatMap { request in InfoService.wishes[request.name].map { (number, $0(request)) } }
        }
    }
}

/// Answers of the cluster to the lines of one request, until all are there. Any thread.
final class ClusterAnswers: Sendable {
    private struct State {
        var answers: [Int: String]
        var missing: Int
    }
    private let state: Mutex<State>
    private let whenComplete: @Sendable ([Int: String]) -> Void

    /// `answers` are there already, by number of the line; so many are `missing`, one at least.
    init(_ answers: [Int: String], missing: Int, whenComplete: @escaping @Sendable ([Int: String]) -> Void) {
        state = Mutex(State(answers: answers, missing: missing))
        self.whenComplete = whenComplete
    }

    /// The answer to a line that was missing.
    func put(_ line: Int, _ text: String) {
        let complete: [Int: String]? = state.withLock { state in
            state.answers[line] = text
            state.missing -= 1
            return state.missing == 0 ? state.answers : nil
        }
        if let complete { whenComplete(complete) }
    }
}
