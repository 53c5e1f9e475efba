// Settings and logs.
internal import Configuration
internal import Engine
internal import Logging
internal import Wire

extension InfoService {
    static let operatorCommands: [String: Command] = [
        "get-config": { service, request in service.configuration(request) },
        "logs": { service, _ in
            service.state.log.sinkNames.enumerated().map { "\($0.offset):\($0.element)" }.joined(separator: ";")
        },
        "log": { service, request in service.logLevels(request) },
        "log-set": { service, request in service.setLogLevels(request) },
        "health-outliers": { _, _ in "" },
        "best-practices": { _, _ in "failed_best_practices=none" },
        "user-agents": { service, _ in
            service.state.userAgents.text(connections: service.state.reactors.totals().clientConnections)
        },
    ]

    private func configuration(_ request: InfoRequest) -> String {
        let settings = state.configuration
        guard let context = request["context"] else {
            return statisticsText(
                settings.values(context: .service) + settings.values(context: .network)
                    + settings.values(context: .security))
        }
        switch context {
        case "service": return statisticsText(settings.values(context: .service))
        case "network": return statisticsText(settings.values(context: .network))
        case "security": return statisticsText(settings.values(context: .security))
        case "xdr": return statisticsText(settings.values(context: .xdr))
        case "namespace":
            let (namespace, problem) = namespace(request)
            guard let namespace else { return problem }
            return statisticsText(settings.values(namespace: namespace.settings.name))
        default: return InfoError.text(4, "unknown context '\(context)'")
        }
    }

    private func logLevels(_ request: InfoRequest) -> String {
        guard let text = request.arguments.first, let sink = Int(text), sink < state.log.sinkNames.count, sink >= 0
        else { return InfoError.text(4, "unknown sink; the list is in 'logs'") }
        let levels = state.log.levels(sink: sink)
        guard request.arguments.count > 1 else {
            return levels.map { "\($0.context):\($0.level)" }.joined(separator: ";")
        }
        guard let one = levels.first(where: { $0.context == request.arguments[1] }) else {
            return InfoError.text(4, "unknown log context")
        }
        return "\(one.context):\(one.level)"
    }

    private func setLogLevels(_ request: InfoRequest) -> String {
        guard let text = request["id"], let sink = Int(text), sink < state.log.sinkNames.count, sink >= 0 else {
            return InfoError.text(4, "missing or unknown 'id'; the list is in 'logs'")
        }
        for (name, value) in request.parameters where name != "id" {
            guard state.log.setLevel(sink: sink, context: name, level: value) else {
                return InfoError.text(4, "bad log context '\(name)' or level '\(value)'")
            }
        }
        return "ok"
    }
}
