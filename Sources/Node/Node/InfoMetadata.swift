// truncate and its kin, and what system metadata says. The truncates run on the control thread: their time is durable before
// the answer.
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Metadata
internal import Reactor
internal import Storage
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
        let set = request.bytes("set") ?? []
        guard isOfSet == !set.isEmpty else {
            let other = isUndo ? "truncate-undo" : "truncate"
            return InfoError.text(4, isOfSet ? "missing 'set'" : "'set' does not belong here; use \(other)")
        }
        guard set.count <= Limits.setNameSizeMax else { return InfoError.text(4, "'set' value too long") }
        var time: UInt64?
        if !isUndo {
            switch lut(request, namespace) {
            case .failure(let refusal): return InfoError.text(4, refusal.message)
            case .success(let wanted): time = wanted
            }
        }
        do throws(SettingRefusal) {
            try truncate(namespace, isOfSet ? set : nil, to: time)
            return "ok"
        } catch {
            return InfoError.text(1, error.message)
        }
    }

    /// Puts a time in force if it changes anything, nil to undo. A set that does not exist has no records, and none can come
    /// back, since whatever is read from the medium makes its set: of such a set nothing is stored, and it is not made.
    private func truncate(_ namespace: Namespace, _ set: [UInt8]?, to time: UInt64?) throws(SettingRefusal) {
        let key = namespace.metadataKey(set)
        let held = state.metadata.items[MetadataModule.truncate.rawValue, key]?.value.flatMap { UInt64($0) } ?? 0
        // A later time covers an earlier one already.
        guard time.map({ $0 > held }) ?? (held > 0) else { return }
        let id = set.map { namespace.existingID($0) } ?? 0
        // Of what could not be read nobody knows the sets.
        guard id != nil || held > 0 || namespace.backend.statistics.lostPlaces > 0 else { return }
        try state.keep(.truncate, key, time.map { "\($0)" }, of: namespace)
        if let id { namespace.truncate(set: id, to: time ?? 0) }
        state.wakeReactors()
        state.log.info(.truncate, time.map { "{\(key)} truncated: what is older than \($0) ms since 2010 is gone" }
            ?? "{\(key)} truncate undone: what has not been removed yet, or comes back at a cold start, counts again")
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
        let shown = items.compactMap { item in item.value.map { (item.key.text, $0) } }
        return shown.isEmpty ? "<empty>" : statisticsText(shown)
    }

    /// Those of the original, and ours.
    private static let modules = MetadataModule.allCases.map(\.rawValue) + ["sindex", "udf", "xdr", "masking"]
}
