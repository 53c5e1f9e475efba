// Queries as tools watch and end them.
internal import Base
internal import Engine
internal import Logging
internal import Reactor
internal import Wire

extension InfoService {
    static let queryCommands: [String: Command] = [
        "query-show": { service, request in service.showQueries(request) },
        "query-abort": { service, request in service.abortQuery(request) },
        "query-abort-all": { service, _ in
            let count = service.state.queries.abortAll()
            if count > 0 { service.state.log.info(.query, "\(count) queries were aborted by query-abort-all") }
            return "number-of-queries-killed:\(count)"
        },
    ]

    /// The id that a request names; nil if it names none, 0 if it is no number.
    private func queryID(_ request: InfoRequest) -> UInt64? { (request["id"] ?? request["trid"]).map { UInt64($0) ?? 0 } }

    private func showQueries(_ request: InfoRequest) -> String {
        let now = SystemClock.monotonic()
        guard let id = queryID(request) else {
            return state.queries.all.map { InfoService.row(of: $0, now) }.joined(separator: ";")
        }
        guard let query = state.queries.query(id) else { return InfoError.text(2, "job not found") }
        return InfoService.row(of: query, now)
    }

    private func abortQuery(_ request: InfoRequest) -> String {
        guard let id = queryID(request) else {
            return InfoError.text(4, "missing 'id' of the query; they are in 'query-show'")
        }
        guard state.queries.abort(id) else { return InfoError.text(2, "id not active") }
        state.log.info(.query, "query \(id) was aborted by query-abort")
        return "ok"
    }

    private static func row(of query: Query, _ now: Instant) -> String {
        let ended = query.endedAt
        let milliseconds = (ended ?? now).nanoseconds(since: query.started) / 1_000_000
        let progress = Double(query.value(of: .partitionsDone)) * 100 / Double(max(query.partitionCount, 1))
        var values = [("trid", "\(query.fields.taskID)"), ("ns", query.namespaceName)]
        if !query.setName.isEmpty { values.append(("set", query.setName)) }
        if query.kind != .background { values.append(("n-pids-requested", "\(query.partitionCount)")) }
        values += [
            ("rps", "\(query.rate)"), ("active-threads", "\(query.value(of: .partsActive))"),
            ("status", query.state.text), ("job-progress", fixed(query.state == .done ? 100 : progress, digits: 2)),
            ("run-time", "\(milliseconds)"),
            ("time-since-done", "\(ended.map { now.nanoseconds(since: $0) / 1_000_000 } ?? 0)"),
            ("recs-throttled", "\(query.value(of: .throttled))"),
            ("recs-filtered-meta", "\(query.value(of: .filteredMetadata))"),
            ("recs-filtered-bins", "\(query.value(of: .filteredBins))"),
            ("recs-succeeded", "\(query.value(of: .succeeded))"), ("recs-failed", "\(query.value(of: .failed))"),
            ("job-type", query.kind == .background ? "background-ops" : "basic"),
        ]
        if query.kind == .background {
            values.append(("ops-active", "\(query.value(of: .partsActive))"))
        } else {
            values += [
                ("net-io-bytes", "\(query.value(of: .bytes))"),
                ("net-io-time", "\(query.value(of: .blockedNanoseconds) / 1_000_000)"),
                ("socket-timeout", "\(query.fields.socketTimeoutMilliseconds)"),
            ]
        }
        return values.map { "\($0.0)=\($0.1)" }.joined(separator: ":")
    }
}
