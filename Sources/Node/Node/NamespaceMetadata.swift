// System metadata and the namespaces it is about: what is put in force at a start, and kept in two places afterwards: in the
// node's files, which decide, and as a copy in the namespace's storage, for a device that is moved to another node.
internal import Base
internal import Configuration
internal import Engine
internal import Logging
internal import Metadata
internal import Reactor
internal import Storage
internal import SystemMetadata

extension NodeState {
    /// Room that only thresholds of eviction may use: without them nothing is evicted when it has to be.
    private static let evictReserveBytes = 4096

    /// Changes items of a namespace, all or none: durable on every node of the cluster, and in force, before `done` is
    /// called, on any thread. Any thread.
    func change(
        _ changes: [MetadataChange], of namespace: Namespace, _ done: @escaping @Sendable (MetadataAnswer) -> Void
    ) {
        if let refusal = roomRefusal(changes, namespace) { return done(.refused(refusal)) }
        cluster.change(changes, done)
    }

    /// Why there would be more than fits into the namespace's storage; nil if there would not.
    private func roomRefusal(_ changes: [MetadataChange], _ namespace: Namespace) -> String? {
        let name = namespace.settings.name
        let held = metadata.items
        var items = held
        for change in changes {
            let value: String? =
                switch change.value {
                case .value(let value): value
                case .afterAllWrites: "\(RecordTime.latestMilliseconds)"
                }
            items.set(change.module, change.key, to: value, at: SystemClock.now().wall.milliseconds, by: nodeID)
        }
        let isOfEviction = changes.allSatisfy { $0.module == .evict }
        let most = StoredMetadata.blobSizeMax - (isOfEviction ? 0 : NodeState.evictReserveBytes)
        let size = copy(items, name).count
        // What there is too much of may still become less.
        guard size > most, size > copy(held, name).count else { return nil }
        log.warning(.smd, "{\(name)} there is too much system metadata: \(changes.first?.key.text ?? "") is not changed")
        return "nothing has changed: the system metadata of namespace \(name) (truncates and settings of sets) may have"
            + " \(most) bytes and would have \(size)"
    }

    /// Takes versions into the node's files, and copies into the storage of their namespaces: durable when this returns.
    /// Nil, or why they are not. The thread of the cluster's stores.
    func storeMetadata(_ items: [MetadataItem]) -> String? {
        do throws(MetadataError) {
            guard try metadata.merge(items) else { return nil }
        } catch {
            log.warning(.smd, error.message)
            return error.message
        }
        let held = metadata.items
        for namespace in servingNamespaces {
            let name = namespace.settings.name
            guard items.contains(where: { $0.belongs(to: name) }) else { continue }
            let copy = copy(held, name)
            guard copy.count <= StoredMetadata.blobSizeMax else {
                warnOfCopy(name, "it has \(copy.count) bytes, \(StoredMetadata.blobSizeMax) fit")
                continue
            }
            do throws(StorageError) {
                try controlPlane.hold { () throws(StorageError) in try namespace.backend.storeNamespaceBlob(copy) }
            } catch {
                warnOfCopy(name, error.text)
            }
        }
        return nil
    }

    /// Times after all writes of these namespaces so far; see `ClusterEffect.reserve`. Any thread.
    func reserveTimes(_ names: [String]) -> [UInt64] {
        let now = SystemClock.now().wall
        return names.map { namespace($0)?.reserveTruncationTime(wall: now) ?? 0 }
    }

    /// Puts in force what is held of these items, which are durable. Control thread.
    func putInForce(_ items: [MetadataItem]) {
        let held = metadata.items
        for item in MetadataItems(items).inForce {
            guard let inForce = held[item.module, item.key] else { continue }
            for namespace in servingNamespaces where inForce.belongs(to: namespace.settings.name) {
                putInForce(inForce, namespace)
            }
        }
    }

    private func putInForce(_ item: MetadataItem, _ namespace: Namespace) {
        let parts = item.key.parts
        switch MetadataModule(rawValue: item.module) {
        case .truncate: truncate(namespace, item.key, parts.count > 1 ? parts[1] : nil, to: item.number)
        case .sets:
            guard parts.count == 3, let value = item.value else { return }
            let name = String(decoding: parts[2], as: UTF8.self)
            let old = namespace.existingID(parts[1]).map { namespace.setValue($0, name) } ?? ""
            putInForce(item.key, value, namespace)
            if old != value {
                log.info(.config, "{\(namespace.metadataKey(parts[1]))} set-config: \(name) was '\(old)', is '\(value)'")
            }
        case .evict:
            let voidTime = UInt32(truncatingIfNeeded: item.number)
            namespace.upkeep.setThreshold(voidTime, at: item.timestamp, isPending: true)
        case .roster:
            log.info(.roster, "{\(item.key)} the roster is now \(item.value ?? "null"); until there is strong consistency"
                + " nothing goes by it")
        case nil: return
        }
    }

    /// Nil is the whole namespace; 0 takes a time back.
    private func truncate(_ namespace: Namespace, _ key: MetadataKey, _ set: [UInt8]?, to time: UInt64) {
        namespace.raiseClock(to: time)
        // A set that is not there has no records.
        guard let id = set.map({ namespace.existingID($0) }) ?? 0, namespace.truncation.time(of: id) != time else { return }
        namespace.truncate(set: id, to: time)
        wakeReactors()
        log.info(.truncate, time > 0 ? "{\(key)} truncated: what is older than \(time) ms since 2010 is gone"
            : "{\(key)} truncate undone: what has not been removed yet, or comes back at a cold start, counts again")
    }

    private func copy(_ items: MetadataItems, _ namespace: String) -> [UInt8] {
        MetadataCopy(writer: "\(nodeID)", items: items.versions(ofNamespace: namespace)).bytes
    }

    private func warnOfCopy(_ namespace: String, _ reason: String) {
        log.warning(.smd, "{\(namespace)} the storage takes no copy of the system metadata: \(reason). It is durable in"
            + " \(metadata.path); on another node the storage would not know of it")
    }

    /// Of files and storage the newer version of each item wins, in both. Before the namespace is filled; main thread.
    func exchangeMetadata(with namespace: Namespace) throws(StartError) {
        do throws(MetadataError) {
            try exchangeCopies(namespace)
        } catch {
            throw StartError("namespace \(namespace.settings.name) does not open: \(error.message)")
        }
    }

    private func exchangeCopies(_ namespace: Namespace) throws(MetadataError) {
        let name = namespace.settings.name
        var stored: [UInt8] = []
        do throws(StorageError) {
            stored = try namespace.backend.loadNamespaceBlob()
        } catch {
            throw MetadataError("its copy of the system metadata cannot be read: \(error.text)")
        }
        try take(decode(stored, name), name)
        let copy = copy(metadata.items, name)
        guard copy != stored else { return }
        guard copy.count <= StoredMetadata.blobSizeMax else {
            return warnOfCopy(name, "it has \(copy.count) bytes, \(StoredMetadata.blobSizeMax) fit")
        }
        do throws(StorageError) {
            try namespace.backend.storeNamespaceBlob(copy)
        } catch {
            throw MetadataError("its storage takes no copy of the system metadata: \(error.text)")
        }
    }

    /// Takes in what the storage holds about its namespace.
    private func take(_ copy: MetadataCopy, _ name: String) throws(MetadataError) {
        let items = copy.items.filter { $0.belongs(to: name) }
        guard copy.writer != "\(nodeID)" else {
            if try metadata.merge(items) {
                log.info(.smd, "{\(name)} its storage had newer system metadata than \(metadata.path)")
            }
            return
        }
        let outcomes = try metadata.adopt(items)
        if outcomes.contains(where: { $0.1 != .kept }) {
            log.info(.smd, "{\(name)} its storage comes from another node and had newer system metadata than"
                + " \(metadata.path)")
        }
        for case (let item, .raised(let time)) in outcomes {
            log.warning(.smd, "{\(item.key)} its storage comes from another node: of the truncates of both nodes the later"
                + " time counts, \(time) ms since 2010, although a change after it said otherwise")
        }
    }

    /// What a copy holds; nothing if it is damaged.
    private func decode(_ stored: [UInt8], _ name: String) throws(MetadataError) -> MetadataCopy {
        do throws(MetadataFormatError) {
            return try MetadataCopy(bytes: stored)
        } catch {
            guard case .damaged(let what) = error else {
                throw MetadataError("its storage holds system metadata of a later version of Apus: start that")
            }
            log.warning(.smd, "{\(name)} the copy of the system metadata in its storage is damaged (\(what)) and made anew"
                + " from \(metadata.path); if this storage comes from another node, what was truncated there may be back")
            return MetadataCopy(writer: "", items: [])
        }
    }

    /// Puts in force what the configuration and the system metadata say of a namespace. When it is filled and before it
    /// serves: sets that have records come first if there are too many. Main thread.
    func applyMetadata(to namespace: Namespace) {
        let configured = configuration.namespaces.first { $0.name.utf8.elementsEqual(namespace.settings.name.utf8) }
        for set in configured?.sets ?? [] {
            for value in set.values {
                let parts = [namespace.settings.name, set.name, value.name].map { Array($0.utf8) }
                putInForce(MetadataKey(parts), value.value, namespace)
            }
        }
        for item in metadata.items.items(ofNamespace: namespace.settings.name) { apply(item, to: namespace, configured) }
    }

    private func apply(_ item: MetadataItem, to namespace: Namespace, _ configured: NamespaceConfiguration?) {
        let parts = item.key.parts
        guard let value = item.value else { return }
        switch MetadataModule(rawValue: item.module) {
        case .truncate:
            guard let time = UInt64(value) else { return }
            // A set that is not there has no records; those that it may get are younger.
            namespace.raiseClock(to: time)
            guard let set = parts.count == 1 ? 0 : namespace.existingID(parts[1]) else { return }
            namespace.truncate(set: set, to: time)
        case .sets:
            guard parts.count == 3 else { return }
            let written = configured?.sets.last { $0.name.utf8.elementsEqual(parts[1]) }?.values
                .last { $0.name.utf8.elementsEqual(parts[2]) }?.value
            if let written, written != value {
                log.warning(.smd, "{\(namespace.metadataKey(parts[1]))} \(String(decoding: parts[2], as: UTF8.self)) is"
                    + " \(value) by a set-config of before; the configuration file says \(written)")
            }
            putInForce(item.key, value, namespace)
        case .evict:
            // A cold start has asked for another pass already.
            let isPending = namespace.upkeep.threshold.isPending
            namespace.upkeep.setThreshold(UInt32(value) ?? 0, at: item.timestamp, isPending: isPending)
        case .roster, nil: return
        }
    }

    /// A setting of a set, which is made if need be.
    private func putInForce(_ key: MetadataKey, _ value: String, _ namespace: Namespace) {
        guard let id = namespace.setID(key.parts[1]) else {
            return log.warning(.smd, "{\(namespace.settings.name)} too many sets: \(key) has no effect")
        }
        namespace.putSetValue(id, String(decoding: key.parts[2], as: UTF8.self), value)
    }
}

extension Namespace {
    private static let setWords: [String: SetValues.Word] = [
        "default-ttl": .defaultTimeToLive, "default-read-touch-ttl-pct": .readTouchPercent,
        "disable-eviction": .disablesEviction, "enable-index": .enablesIndex, "stop-writes-count": .stopWritesCount,
        "stop-writes-size": .stopWritesSize,
    ]

    /// The id of a set, made if it is new; nil for an empty name, one that is too long, or one set too many.
    func setID(_ name: [UInt8]) -> UInt16? {
        name.isEmpty ? nil : name.withUnsafeBytes { sets.makeID(for: $0) }
    }

    /// The id of a set that exists.
    func existingID(_ name: [UInt8]) -> UInt16? {
        name.isEmpty ? nil : name.withUnsafeBytes { sets.id(of: $0) }
    }

    /// Names the namespace, or a set of it, or a setting of that, among items of system metadata.
    func metadataKey(_ set: [UInt8]? = nil, _ setting: [UInt8]? = nil) -> MetadataKey {
        MetadataKey([Array(settings.name.utf8), set, setting].compactMap { $0 })
    }

    /// Puts a setting of a set in force; `value` is in its plain form. One thread at a time.
    func putSetValue(_ id: UInt16, _ name: String, _ value: String) {
        guard let word = Namespace.setWords[name] else { return }
        let number =
            switch value {
            case "true": UInt64(1)
            case "-1": SetValues.readTouchNever
            default: UInt64(value) ?? 0
            }
        setValues.set(id, word, to: number)
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
