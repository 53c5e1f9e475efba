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

    /// `set-config:context=CONTEXT;[namespace=NS;[set=SET;]]NAME=VALUE`. Of several settings those before the first that is
    /// refused are changed.
    private func changeSettings(_ request: InfoRequest, _ answer: @escaping @Sendable (String) -> Void) {
        guard let context = request["context"] else { return answer(InfoError.text(4, "missing 'context'")) }
        let wanted = request.parameters.filter { !InfoService.places.contains($0.0) }
        guard !wanted.isEmpty else { return answer(InfoError.text(4, "no setting is named")) }
        if context == "namespace", let set = request.bytes("set"), let namespace = namespace(request).0 {
            return change(set, of: namespace, wanted, answer)
        }
        for (name, value) in wanted {
            do throws(SettingRefusal) {
                try changeSetting(context, request, name, value)
            } catch {
                return answer(refused(context, error))
            }
        }
        answer("ok")
    }

    private func refused(_ context: String, _ refusal: SettingRefusal) -> String {
        state.log.warning(.config, "set-config of \(context) refused: \(refusal.message)")
        return InfoError.text(4, refusal.message)
    }

    private func changeSetting(
        _ context: String, _ request: InfoRequest, _ name: String, _ value: String
    ) throws(SettingRefusal) {
        switch context {
        case "service": try change(.service, name, value)
        case "network": try change(.network, name, value)
        case "security": try change(.security, name, value)
        case "xdr": try change(.xdr, name, value)
        case "namespace":
            let (namespace, _) = namespace(request)
            guard let namespace else { throw SettingRefusal("there is no such namespace on this node") }
            try change(.namespace(namespace.settings.name), name, value)
        default: throw SettingRefusal("unknown context '\(context)'")
        }
    }

    private func change(_ place: SettingPlace, _ name: String, _ value: String) throws(SettingRefusal) {
        let change = try state.configuration.changing(place, name, to: value)
        if case .namespace(let namespace) = place {
            try takeEffect(change, namespace)
            log("{\(namespace)} ", change.name, change.old, change.new)
        } else {
            try takeEffect(change)
            log("", change.name, change.old, change.new)
        }
        state.putInForce(change.configuration)
    }

    private func log(_ place: String, _ name: String, _ old: String, _ new: String) {
        state.log.info(.config, "\(place)set-config: \(name) was '\(old)', is '\(new)'")
    }

    private func takeEffect(_ change: SettingChange, _ name: String) throws(SettingRefusal) {
        guard let namespace = state.namespace(name),
            let configured = change.configuration.namespaces.first(where: { $0.name == name })
        else { throw SettingRefusal("there is no such namespace on this node") }
        let most = state.registry.descriptor(named: configured.storageEngine)?.limits.imageSizeMax ?? 0
        guard configured.maxRecordSize <= most else {
            throw SettingRefusal("\(change.name): storage-engine \(configured.storageEngine) takes up to \(most) bytes")
        }
        guard change.name != "replication-factor" || !configured.strongConsistency else {
            throw SettingRefusal("replication-factor cannot change while the node runs: the namespace is strong-consistency")
        }
        if change.block == "storage-engine", !StandardSettings.isOfNamespace(change.name) {
            guard let adjusting = namespace.backend.adjusting else {
                throw SettingRefusal("'\(change.name)' cannot change while the node runs")
            }
            do throws(StorageError) {
                try state.controlPlane.hold { () throws(StorageError) in try adjusting.adjust(configured.storageSettings) }
            } catch {
                throw SettingRefusal("\(change.name): \(error.text)")
            }
        }
        state.tellReactors(namespace.live.change(to: LiveNamespaceSettings(configured)))
        state.cluster.post(.settings(ClusterSettings(change.configuration)))
    }

    private func takeEffect(_ change: SettingChange) throws(SettingRefusal) {
        guard !change.name.hasPrefix("heartbeat.") || state.configuration.network.heartbeat != nil else {
            throw SettingRefusal("'\(change.name)': this node is alone, it was started without a heartbeat block")
        }
        var numbers = LiveServiceSettings(change.configuration.service)
        if change.name == "proto-fd-max" {
            do throws(StartError) {
                numbers.clientConnectionsMax = UInt32(try Descriptors.clientsMax(change.configuration.service))
            } catch {
                throw SettingRefusal(error.message)
            }
        } else {
            numbers.clientConnectionsMax = state.live.current.pointee.clientConnectionsMax
        }
        state.tellReactors(state.live.change(to: numbers))
        state.cluster.post(.settings(ClusterSettings(change.configuration)))
    }

    /// Settings of a set are system metadata: the same on all nodes.
    private func change(
        _ set: [UInt8], of namespace: Namespace, _ wanted: [(String, String)], _ answer: @escaping @Sendable (String) -> Void
    ) {
        var changes: [MetadataChange] = []
        var refusal: String?
        for (name, value) in wanted {
            do throws(SettingRefusal) {
                changes.append(try change(set, of: namespace, name, value))
            } catch {
                refusal = refused("namespace", error)
                break
            }
        }
        guard !changes.isEmpty else { return answer(refusal ?? "ok") }
        state.change(changes, of: namespace) { [log = state.log, refusal] outcome in
            guard outcome == .done else {
                let text = InfoService.text(outcome, refusal: 4)
                log.warning(.config, "set-config of namespace: \(text)")
                return answer(text)
            }
            answer(refusal ?? "ok")
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
