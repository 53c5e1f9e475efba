// Info commands of our own about storage: where a record lies, how far the start is, growth.
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Storage
internal import Wire

extension InfoService {
    static let storageCommands: [String: Command] = [
        "record": { service, request in service.record(request) },
        "resize-storage": { service, request in service.resize(request) },
        "start-progress": { service, _ in
            service.state.phase == .starting ? service.state.startProgress.text : "phase=serving"
        },
    ]

    /// `record:namespace=NS;digest=HEX`.
    private func record(_ request: InfoRequest) -> String {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return problem }
        guard let text = request["digest"], let digest = Digest(hexadecimal: text) else {
            return InfoError.text(4, "missing or bad 'digest': 40 hexadecimal digits")
        }
        guard let values = namespace.describe(digest) else { return InfoError.text(2, "record not found") }
        return statisticsText(values)
    }

    /// `resize-storage:namespace=NS[;filesize=BYTES]`. Growing may take long, so the control thread does it.
    private func resize(_ request: InfoRequest) -> String {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return problem }
        guard let resizing = namespace.backend.resizing else {
            return InfoError.text(4, "storage-engine \(namespace.agreement.backend) cannot grow while it serves")
        }
        let byteCount = request["filesize"].flatMap { SettingValue.bytes($0) }
        if byteCount == nil, request["filesize"] != nil {
            return InfoError.text(4, "bad 'filesize': bytes, or with K, M, G, T")
        }
        let name = namespace.settings.name
        let isTaken = state.controlJobs.add { [log = state.log] in
            do throws(StorageError) {
                let outcome = try resizing.grow(to: byteCount)
                log.info(.storage, "{\(name)} resize-storage: \(outcome)")
            } catch {
                log.warning(.storage, "{\(name)} resize-storage failed: \(error.text)")
            }
        }
        return isTaken ? "ok" : InfoError.text(11, "the node is stopping")
    }
}
