// System metadata and the namespaces it is about: what is put in force at a start, and kept in two places afterwards: in the
// node's files, which decide, and as a copy in the namespace's storage, for a device that is moved to another node.
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Reactor
internal import Storage
internal import SystemMetadata

extension NodeState {
    /// Changes items of a namespace; they are durable when this returns. Control thread.
    func keep(
        _ module: MetadataModule, _ values: [(key: String, value: String?)], of namespace: Namespace
    ) throws(SettingRefusal) {
        let name = namespace.settings.name
        do throws(MetadataError) {
            try metadata.set(module, values, at: SystemClock.now().wall.milliseconds)
        } catch {
            log.warning(.smd, "{\(name)} \(error.message); nothing has changed")
            throw SettingRefusal("not durable, nothing has changed: \(error.message)")
        }
        do throws(StorageError) {
            try namespace.backend.storeNamespaceBlob(MetadataFormat.encode(metadata.items.items(ofNamespace: name)))
        } catch {
            log.warning(.smd, "{\(name)} the storage takes no copy of the system metadata: \(error.text). It is durable in"
                + " \(metadata.path); on another node the storage would not know of it")
        }
    }

    /// Puts in force what the configuration, the node's files and the namespace's storage say of it. Before it is filled, on
    /// the main thread.
    func applyMetadata(to namespace: Namespace) throws(StartError) {
        let name = namespace.settings.name
        do throws(MetadataError) {
            try exchangeCopies(namespace)
        } catch {
            throw StartError("namespace \(name) does not open: \(error.message)")
        }
        let configured = configuration.namespaces.first { $0.name == name }
        for set in configured?.sets ?? [] {
            for value in set.values { namespace.putSetValue(set.name, value.name, value.value) }
        }
        for item in metadata.items.items(ofNamespace: name) { apply(item, to: namespace, configured) }
    }

    /// Of files and storage the newer version of each item wins, in both.
    private func exchangeCopies(_ namespace: Namespace) throws(MetadataError) {
        let name = namespace.settings.name
        var stored: [UInt8] = []
        do throws(StorageError) {
            stored = try namespace.backend.loadNamespaceBlob()
        } catch {
            throw MetadataError("its copy of the system metadata cannot be read: \(error.text)")
        }
        if try metadata.merge(decode(stored, name)) {
            log.info(.smd, "{\(name)} its storage had newer system metadata than \(metadata.path)")
        }
        let items = metadata.items.items(ofNamespace: name)
        let copy = items.isEmpty && stored.isEmpty ? [] : MetadataFormat.encode(items)
        guard copy != stored else { return }
        do throws(StorageError) {
            try namespace.backend.storeNamespaceBlob(copy)
        } catch {
            throw MetadataError("its storage takes no copy of the system metadata: \(error.text)")
        }
    }

    /// What a copy holds about the namespace; nothing if it is damaged.
    private func decode(_ stored: [UInt8], _ name: String) throws(MetadataError) -> [MetadataItem] {
        guard !stored.isEmpty else { return [] }
        do throws(MetadataFormatError) {
            return try MetadataFormat.decode(stored).filter { $0.belongs(to: name) }
        } catch {
            guard case .damaged(let what) = error else {
                throw MetadataError("its storage holds system metadata of a later version of Apus: start that")
            }
            log.warning(.smd, "{\(name)} the copy of the system metadata in its storage is damaged (\(what)) and made anew"
                + " from \(metadata.path); if this storage comes from another node, what was truncated there may be back")
            return []
        }
    }

    private func apply(_ item: MetadataItem, to namespace: Namespace, _ configured: NamespaceConfiguration?) {
        let rest = item.key.dropFirst(namespace.settings.name.utf8.count + 1)
        switch MetadataModule(rawValue: item.module) {
        case .truncate:
            guard let text = item.value, let time = UInt64(text) else { return }
            guard let set = item.key == namespace.settings.name ? 0 : namespace.setID(String(rest)) else {
                return log.warning(.smd, "{\(namespace.settings.name)} too many sets: \(item.key) is not truncated")
            }
            namespace.truncate(set: set, to: time)
        case .sets:
            guard let bar = rest.lastIndex(of: "|"), let value = item.value else { return }
            let set = String(rest[..<bar])
            let name = String(rest[rest.index(after: bar)...])
            let written = configured?.sets.last { $0.name == set }?.values.last { $0.name == name }?.value
            if let written, written != value {
                log.warning(.smd, "{\(namespace.settings.name)|\(set)} \(name) is \(value) by a set-config of before; the"
                    + " configuration file says \(written)")
            }
            namespace.putSetValue(set, name, value)
        case .evict:
            namespace.upkeep.setThreshold(item.value.flatMap { UInt32($0) } ?? 0, at: item.timestamp, isPending: false)
        case nil: return
        }
    }
}

extension Namespace {
    private static let setWords: [String: SetValues.Word] = [
        "default-ttl": .defaultTimeToLive, "default-read-touch-ttl-pct": .readTouchPercent,
        "disable-eviction": .disablesEviction, "enable-index": .enablesIndex, "stop-writes-count": .stopWritesCount,
        "stop-writes-size": .stopWritesSize,
    ]

    /// The id of a set, made if it is new; nil for an empty name, one that is too long, or one set too many.
    func setID(_ name: String) -> UInt16? {
        var name = name
        return name.isEmpty ? nil : name.withUTF8 { sets.makeID(for: UnsafeRawBufferPointer($0)) }
    }

    /// Puts a setting of a set in force; `value` is in its plain form. One thread at a time.
    func putSetValue(_ set: String, _ name: String, _ value: String) {
        guard let id = setID(set), let word = Namespace.setWords[name] else { return }
        let number =
            switch value {
            case "true": UInt64(1)
            case "-1": SetValues.readTouchNever
            default: UInt64(value) ?? 0
            }
        setValues.set(id, word, to: number)
    }

    /// A setting of a set in its plain form.
    func setValue(_ set: String, _ name: String) -> String {
        guard let id = setID(set) else { return "" }
        return setValue(id, name)
    }

    /// A setting of a set in its plain form.
    func setValue(_ id: UInt16, _ name: String) -> String {
        guard let word = Namespace.setWords[name] else { return "" }
        let number = setValues.value(id, word)
        switch word {
        case .disablesEviction, .enablesIndex: return number == 0 ? "false" : "true"
        default: return word == .readTouchPercent && number == SetValues.readTouchNever ? "-1" : "\(number)"
        }
    }
}
