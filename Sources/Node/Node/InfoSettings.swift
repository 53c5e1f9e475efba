// set-config: settings that change while the node serves. Runs on the control thread: a set's settings are durable before
// the answer.
internal import Assembly
internal import Configuration
internal import Engine
internal import Logging
internal import Metadata
internal import Storage
internal import Wire

extension InfoService {
    static let settingCommands: [String: LateCommand] = [
        "set-config": { service, request, answer in service.changeSettings(request, answer) }
    ]

    /// Parameters that say where, not what.
    private static let places = ["context", "namespace", "id", "set", "dc"]

    /// `set-config:context=CONTEXT;[namespace=NS;[set=SET;]]NAME=VALUE`. Of several settings all are changed, or none.
    private func changeSettings(_ request: InfoRequest, _ answer: @escaping @Sendable (String) -> Void) {
        guard let context = request["context"] else { return answer(InfoError.text(4, "missing 'context'")) }
        let wanted = request.parameters.filter { !InfoService.places.contains($0.0) }
        guard !wanted.isEmpty else { return answer(InfoError.text(4, "no setting is named")) }
        if context == "namespace", let set = request.bytes("set"), let namespace = namespace(request).0 {
            return change(set, of: namespace, wanted, answer)
        }
        do throws(SettingRefusal) {
            try change(place(context, request), wanted)
            answer("ok")
        } catch {
            answer(refused(context, error))
        }
    }

    private func refused(_ context: String, _ refusal: SettingRefusal) -> String {
        state.log.warning(.config, "set-config of \(context) refused: \(refusal.message)")
        return InfoError.text(4, refusal.message)
    }

    private func place(_ context: String, _ request: InfoRequest) throws(SettingRefusal) -> SettingPlace {
        switch context {
        case "service": return .service
        case "network": return .network
        case "security": return .security
        case "xdr": return .xdr
        case "namespace":
            guard let namespace = namespace(request).0 else {
                throw SettingRefusal("there is no such namespace on this node")
            }
            return .namespace(namespace.settings.name)
        default: throw SettingRefusal("unknown context '\(context)'")
        }
    }

    /// All are checked, each with those before it, and then take effect together.
    private func change(_ place: SettingPlace, _ wanted: [(String, String)]) throws(SettingRefusal) {
        var changes: [SettingChange] = []
        var configuration = state.configuration
        for (name, value) in wanted {
            let change = try configuration.changing(place, name, to: value)
            configuration = change.configuration
            changes.append(change)
        }
        var prefix = ""
        if case .namespace(let namespace) = place {
            try takeEffect(changes, configuration, namespace)
            prefix = "{\(namespace)} "
        } else {
            try takeEffect(changes, configuration)
        }
        for change in changes { log(prefix, change.name, change.old, change.new) }
        state.putInForce(configuration)
    }

    private func log(_ place: String, _ name: String, _ old: String, _ new: String) {
        state.log.info(.config, "\(place)set-config: \(name) was '\(old)', is '\(new)'")
    }

    private func takeEffect(
        _ changes: [SettingChange], _ configuration: NodeConfiguration, _ name: String
    ) throws(SettingRefusal) {
        guard let namespace = state.namespace(name),
            let configured = configuration.namespaces.first(where: { $0.name == name })
        else { throw SettingRefusal("there is no such namespace on this node") }
        let most = state.registry.descriptor(named: configured.storageEngine)?.limits.imageSizeMax ?? 0
        guard configured.maxRecordSize <= most else {
            throw SettingRefusal("max-record-size: storage-engine \(configured.storageEngine) takes up to \(most) bytes")
        }
        guard !configured.strongConsistency || !changes.contains(where: { $0.name == "replication-factor" }) else {
            throw SettingRefusal("replication-factor cannot change while the node runs: the namespace is strong-consistency")
        }
        let ofBackend = changes.filter { $0.block == "storage-engine" && !StandardSettings.isOfNamespace($0.name) }
        if let first = ofBackend.first {
            guard let adjusting = namespace.backend.adjusting else {
                throw SettingRefusal("'\(first.name)' cannot change while the node runs")
            }
            // The last that can be refused, and the first that takes effect.
            do throws(StorageError) {
                try state.controlPlane.hold { () throws(StorageError) in try adjusting.adjust(configured.storageSettings) }
            } catch {
                throw SettingRefusal("\(ofBackend.map(\.name).joined(separator: ", ")): \(error.text)")
            }
        }
        state.tellReactors(namespace.live.change(to: LiveNamespaceSettings(configured, state.cluster.snapshot)))
        state.cluster.post(.settings(ClusterSettings(configuration)))
    }

    private func takeEffect(_ changes: [SettingChange], _ configuration: NodeConfiguration) throws(SettingRefusal) {
        let ofHeartbeat = changes.first { $0.name.hasPrefix("heartbeat.") }
        if state.configuration.network.heartbeat == nil, let first = ofHeartbeat {
            throw SettingRefusal("'\(first.name)': this node is alone, it was started without a heartbeat block")
        }
        var numbers = LiveServiceSettings(configuration.service)
        if changes.contains(where: { $0.name == "proto-fd-max" }) {
            do throws(StartError) {
                numbers.clientConnectionsMax = UInt32(try Descriptors.clientsMax(configuration.service))
            } catch {
                throw SettingRefusal(error.message)
            }
        } else {
            numbers.clientConnectionsMax = state.live.current.pointee.clientConnectionsMax
        }
        state.tellReactors(state.live.change(to: numbers))
        state.cluster.post(.settings(ClusterSettings(configuration)))
    }

    /// Settings of a set are system metadata: the same on all nodes.
    private func change(
        _ set: [UInt8], of namespace: Namespace, _ wanted: [(String, String)], _ answer: @escaping @Sendable (String) -> Void
    ) {
        var changes: [MetadataChange] = []
        do throws(SettingRefusal) {
            // A set is made only when all that is said of it can be.
            for (name, value) in wanted { _ = try NodeConfiguration.setValue(name, value) }
            for (name, value) in wanted { changes.append(try change(set, of: namespace, name, value)) }
        } catch {
            return answer(refused("namespace", error))
        }
        state.change(changes, of: namespace) { [log = state.log] outcome in
            let text = InfoService.text(outcome, refusal: 4)
            if outcome != .done { log.warning(.config, "set-config of namespace: \(text)") }
            answer(text)
        }
    }

    private func change(
        _ set: [UInt8], of namespace: Namespace, _ name: String, _ value: String
    ) throws(SettingRefusal) -> MetadataChange {
        let plain = try NodeConfiguration.setValue(name, value)
        guard namespace.setID(set) != nil else {
            throw SettingRefusal("the set cannot be made: its name is empty or too long, or there are too many sets")
        }
        let live = namespace.live.current.pointee
        if name == "default-ttl", plain != "0", live.nsupPeriodSeconds == 0, !live.allowTimeToLiveWithoutNsup {
            throw SettingRefusal("default-ttl needs nsup-period above 0, or allow-ttl-without-nsup true")
        }
        return MetadataChange(.sets, namespace.metadataKey(set, Array(name.utf8)), .value(plain))
    }
}
