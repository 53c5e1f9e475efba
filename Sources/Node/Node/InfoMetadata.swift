// truncate and its kin, and what system metadata says. A truncate is durable on every node before its answer, which comes
// late.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Membership
internal import Metadata
internal import Reactor
internal import Storage
internal import SystemMetadata
internal import Wire

extension InfoService {
    static let truncateCommands: [String: LateCommand] = [
        "truncate": { $0.truncate($1, isOfSet: true, isUndo: false, $2) },
        "truncate-namespace": { $0.truncate($1, isOfSet: false, isUndo: false, $2) },
        "truncate-undo": { $0.truncate($1, isOfSet: true, isUndo: true, $2) },
        "truncate-namespace-undo": { $0.truncate($1, isOfSet: false, isUndo: true, $2) },
    ]

    static let metadataCommands: [String: Command] = [
        "smd-info": { service, _ in
            let items = service.state.metadata.items
            let counts = MetadataModule.allCases.map { ($0.rawValue, "\(items.items(of: $0.rawValue).count)") }
            return statisticsText(counts + [("conflicts", "\(items.conflicts.count)")])
        },
        "smd-show": { service, request in service.showMetadata(request) },
    ]

    /// `truncate:namespace=NS;set=SET[;lut=NANOSECONDS]`, and without a set for the whole namespace. Times are kept in
    /// milliseconds: what was written in the same one as `lut` stays.
    private func truncate(
        _ request: InfoRequest, isOfSet: Bool, isUndo: Bool, _ answer: @escaping @Sendable (String) -> Void
    ) {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return answer(problem) }
        let set = request.bytes("set") ?? []
        guard isOfSet == !set.isEmpty else {
            let other = isUndo ? "truncate-undo" : "truncate"
            return answer(InfoError.text(4, isOfSet ? "missing 'set'" : "'set' does not belong here; use \(other)"))
        }
        guard set.count <= Limits.setNameSizeMax else { return answer(InfoError.text(4, "'set' value too long")) }
        var value = MetadataChange.Value.value(nil)
        if !isUndo {
            switch lut(request, namespace) {
            case .failure(let refusal): return answer(InfoError.text(4, refusal.message))
            case .success(let wanted): value = wanted
            }
        }
        let key = namespace.metadataKey(isOfSet ? set : nil)
        guard mayHaveRecords(namespace, isOfSet ? set : nil, key) else { return answer("ok") }
        state.change([MetadataChange(.truncate, key, value)], of: namespace) { answer(InfoService.text($0)) }
    }

    /// A set that does not exist has no records, and without other nodes none can come back, since whatever is read from the
    /// medium makes its set: of such a set nothing is stored, and it is not made. Who has a heartbeat may have no others at
    /// the moment, or no view yet.
    private func mayHaveRecords(_ namespace: Namespace, _ set: [UInt8]?, _ key: MetadataKey) -> Bool {
        guard let set, namespace.existingID(set) == nil else { return true }
        // Of what could not be read nobody knows the sets, and other nodes have others.
        return state.metadata.items[MetadataModule.truncate.rawValue, key]?.value != nil
            || namespace.backend.statistics.lostPlaces > 0 || state.configuration.network.heartbeat != nil
    }

    /// The time of a truncate in milliseconds since 2010: `lut`, or after all writes so far.
    private func lut(
        _ request: InfoRequest, _ namespace: Namespace
    ) -> Result<MetadataChange.Value, SettingRefusal> {
        guard let text = request["lut"] else { return .success(.afterAllWrites(namespace: namespace.settings.name)) }
        guard let nanoseconds = UInt64(text) else {
            return .failure(SettingRefusal("bad 'lut': nanoseconds since 1970"))
        }
        let wanted = RecordTime(unixMilliseconds: nanoseconds / 1_000_000)
        guard wanted.milliseconds > 0 else { return .failure(SettingRefusal("bad 'lut': it is before 2010")) }
        guard wanted <= SystemClock.now().wall else { return .failure(SettingRefusal("bad 'lut': it is in the future")) }
        return .success(.value("\(wanted.milliseconds)"))
    }

    /// What an operator is told of a change; `refusal` is the code if nothing has changed.
    static func text(_ outcome: MetadataAnswer, refusal code: Int = 1) -> String {
        switch outcome {
        case .done: "ok"
        case .refused(let reason): InfoError.text(code, reason)
        case .inDoubt(let reason): InfoError.text(9, reason)
        }
    }

    /// `smd-show:module=MODULE`: `key=value` pairs. Module `conflicts`: values that lost against others, made by nodes that
    /// did not know of each other, with their module in front.
    private func showMetadata(_ request: InfoRequest) -> String {
        guard let module = request["module"] else { return InfoError.text(4, "missing 'module'") }
        guard module != "security" else { return InfoError.text(22, "not shown") }
        if module == "conflicts" {
            let lost = state.metadata.items.conflicts.map { ("\($0.module)|\($0.key)", $0.value ?? "-") }
            return lost.isEmpty ? "<empty>" : statisticsText(lost)
        }
        guard InfoService.modules.contains(module.lowercased()) else { return InfoError.text(4, "unknown module") }
        let items = state.metadata.items.items(of: module.lowercased())
        let shown = items.compactMap { item in item.value.map { (item.key.text, $0) } }
        return shown.isEmpty ? "<empty>" : statisticsText(shown)
    }

    /// Those of the original, and ours.
    private static let modules = MetadataModule.allCases.map(\.rawValue) + ["sindex", "udf", "xdr", "masking"]
}
