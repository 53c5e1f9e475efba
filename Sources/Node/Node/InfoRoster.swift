// The roster of a namespace: system metadata, the same on all nodes. Until there is strong consistency nothing goes by it.
internal import Assembly
internal import Base
internal import Engine
internal import Logging
internal import Metadata
internal import Partitions
internal import SystemMetadata
internal import Wire

extension InfoService {
    static let rosterCommands: [String: Command] = [
        "roster": { service, request in service.roster(request) }
    ]

    static let rosterChanges: [String: LateCommand] = [
        "roster-set": { service, request, answer in service.setRoster(request, answer) }
    ]

    /// `roster:[namespace=NS]`: the roster that the view opened with, the one that is stored now, and the nodes that have
    /// the namespace.
    private func roster(_ request: InfoRequest) -> String {
        guard request["namespace"] != nil else {
            return state.servingNamespaces.map { "ns=\($0.settings.name):\(rosters($0))" }.joined(separator: ";")
        }
        let (namespace, problem) = namespace(request)
        return namespace.map { rosters($0) } ?? problem
    }

    private func rosters(_ namespace: Namespace) -> String {
        let key = namespace.metadataKey(nil)
        let stored = state.metadata.items[MetadataModule.roster.rawValue, key]
        let ofView = state.cluster.rosters.first { $0.key == key }
        let map = snapshot?.phase == .orphan ? nil : snapshot?.map(namespace.settings.name)
        let observed = map.map { map in Roster(zip(map.nodes, map.racks).map { Roster.Seat(node: $0, rack: $1) }) }
        return "roster=\(InfoService.text(ofView)):pending_roster=\(InfoService.text(stored))"
            + ":observed_nodes=\(InfoService.text(observed))"
    }

    private static func text(_ item: MetadataItem?) -> String { text(item?.value.flatMap { Roster(text: $0) }) }

    /// As tools expect it: rack 0 is not said.
    private static func text(_ roster: Roster?) -> String {
        guard let roster, !roster.seats.isEmpty else { return "null" }
        return roster.seats.map { $0.rack == 0 ? "\($0.node)" : "\($0.node)@\($0.rack)" }.joined(separator: ",")
    }

    /// `roster-set:namespace=NS;nodes=NODE[@RACK],...[;force=true]`; `nodes=null` takes it away. Refused without more than
    /// half of the roster before, unless it is forced.
    private func setRoster(_ request: InfoRequest, _ answer: @escaping @Sendable (String) -> Void) {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return answer(problem) }
        guard let text = request["nodes"], !text.isEmpty else { return answer(InfoError.text(4, "missing 'nodes'")) }
        guard ["true", "false", nil].contains(request["force"]) else {
            return answer(InfoError.text(4, "bad 'force': true or false"))
        }
        let roster = Roster(text: text)
        guard text == "null" || roster != nil else {
            return answer(InfoError.text(4, "bad 'nodes': NODE[@RACK],NODE[@RACK], each node once"))
        }
        let change = MetadataChange(
            .roster, namespace.metadataKey(nil), .value(roster?.text), isForced: request["force"] == "true")
        state.change([change], of: namespace) { [log = state.log] outcome in
            let text = InfoService.text(outcome, refusal: 4)
            if outcome != .done { log.warning(.roster, "{\(namespace.settings.name)} roster-set: \(text)") }
            answer(text)
        }
    }
}
