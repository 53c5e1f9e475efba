// truncate and its kin, and what system metadata says. The truncates run on the control thread: their time is durable before
// the answer.
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Reactor
internal import SystemMetadata
internal import Wire

extension InfoService {
    static let truncateCommands: [String: Command] = [
        "truncate": { service, request in service.truncate(request, isOfSet: true, isUndo: false) },
        "truncate-namespace": { service, request in service.truncate(request, isOfSet: false, isUndo: false) },
        "truncate-undo": { service, request in service.truncate(request, isOfSet: true, isUndo: true) },
        "truncate-namespace-undo": { service, request in service.truncate(request, isOfSet: false, isUndo: true) },
    ]

    static let metadataCommands: [String: Command] = [
        "smd-info": { service, _ in
            let items = service.state.metadata.items
            return statisticsText(MetadataModule.allCases.map { ($0.rawValue, "\(items.items(of: $0.rawValue).count)") })
        },
        "smd-show": { service, request in service.showMetadata(request) },
    ]

    /// `truncate:namespace=NS;set=SET[;lut=NANOSECONDS]`, and without a set for the whole namespace. Times are kept in
    /// milliseconds: what was written in the same one as `lut` stays.
    private func truncate(_ request: InfoRequest, isOfSet: Bool, isUndo: Bool) -> String {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return problem }
        let set = request["set"] ?? ""
        guard isOfSet == !set.isEmpty else {
            let other = isUndo ? "truncate-undo" : "truncate"
            return InfoError.text(4, isOfSet ? "missing 'set'" : "'set' does not belong here; use \(other)")
        }
        guard let id = isOfSet ? namespace.setID(set) : 0 else {
            return InfoError.text(4, "'set' value too long, or too many sets")
        }
        let held = namespace.truncation.time(of: id)
        var time: UInt64?
        if !isUndo {
            switch lut(request, namespace) {
            case .failure(let refusal): return InfoError.text(4, refusal.message)
            case .success(let wanted): time = wanted
            }
            // A later time covers it already.
            if let time, time <= held { return "ok" }
        } else if held == 0 {
            return "ok"
        }
        let name = namespace.settings.name
        do throws(SettingRefusal) {
            try state.keep(
                .truncate, [(key: isOfSet ? "\(name)|\(set)" : name, value: time.map { "\($0)" })], of: namespace)
        } catch {
            return InfoError.text(1, error.message)
        }
        namespace.truncate(set: id, to: time ?? 0)
        state.wakeReactors()
        let place = isOfSet ? "{\(name)|\(set)}" : "{\(name)}"
        state.log.info(.truncate, time.map { "\(place) truncated: what is older than \($0) ms since 2010 is gone" }
            ?? "\(place) truncate undone: what has not been removed yet, or comes back at a cold start, counts again")
        return "ok"
    }

    /// The time of a truncate in milliseconds since 2010: `lut`, or now.
    private func lut(_ request: InfoRequest, _ namespace: Namespace) -> Result<UInt64, SettingRefusal> {
        let now = SystemClock.now().wall
        guard let text = request["lut"] else { return .success(namespace.reserveTruncationTime(wall: now)) }
        guard let nanoseconds = UInt64(text) else {
            return .failure(SettingRefusal("bad 'lut': nanoseconds since 1970"))
        }
        let wanted = RecordTime(unixMilliseconds: nanoseconds / 1_000_000)
        guard wanted.milliseconds > 0 else { return .failure(SettingRefusal("bad 'lut': it is before 2010")) }
        guard wanted <= now else { return .failure(SettingRefusal("bad 'lut': it is in the future")) }
        return .success(wanted.milliseconds)
    }

    /// `smd-show:module=MODULE`: `key=value` pairs.
    private func showMetadata(_ request: InfoRequest) -> String {
        guard let module = request["module"] else { return InfoError.text(4, "missing 'module'") }
        guard module != "security" else { return InfoError.text(22, "not shown") }
        guard InfoService.modules.contains(module.lowercased()) else { return InfoError.text(4, "unknown module") }
        let items = state.metadata.items.items(of: module.lowercased())
        let shown = items.compactMap { item in item.value.map { (item.key, $0) } }
        return shown.isEmpty ? "<empty>" : statisticsText(shown)
    }

    /// Those of the original, and ours.
    private static let modules = MetadataModule.allCases.map(\.rawValue) + ["roster", "sindex", "udf", "xdr", "masking"]
}
