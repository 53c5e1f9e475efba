// From settings to an open backend: negotiation, directories, composition, storage threads. First everything is
// looked at and every problem of every namespace is reported; only then is anything touched.
internal import Files
public import Storage

/// What is to be opened for one namespace.
public struct MountRequest: Sendable {
    /// Whose data it is.
    public let namespace: String
    /// Name of the backend.
    public let engine: String
    /// Its settings, defaults filled in.
    public let settings: BackendSettings
    /// What the namespace needs.
    public let requirements: Requirements
    /// Where its files go if the settings do not say.
    public let defaultDirectory: String
    /// Memory that outlives the process, for a backend that keeps some.
    public var memory: (any KeptMemory)?
    /// Lines for the operator. Any thread.
    public let log: @Sendable (String) -> Void
    /// Lines about what he has to do something about. Any thread.
    public let warn: @Sendable (String) -> Void

    /// Joins the parts.
    public init(
        namespace: String, engine: String, settings: BackendSettings, requirements: Requirements,
        defaultDirectory: String, log: @escaping @Sendable (String) -> Void,
        warn: (@Sendable (String) -> Void)? = nil
    ) {
        self.namespace = namespace
        self.engine = engine
        self.settings = settings
        self.requirements = requirements
        self.defaultDirectory = defaultDirectory
        self.log = log
        self.warn = warn ?? log
    }
}

/// Opens backends. May block; any thread but a reactor's.
public struct Mount: Sendable {
    private let registry: BackendRegistry

    /// Opens what `registry` knows.
    public init(_ registry: BackendRegistry) { self.registry = registry }

    // ---- Looking ----

    /// Everything that keeps these namespaces from opening, one sentence each; nothing is touched. That another
    /// process has a directory open does not count if `ignoresLocks`.
    public func problems(_ requests: [MountRequest], ignoresLocks: Bool = false) -> [String] {
        var problems: [String] = []
        var directories: [(path: String, namespace: String)] = []
        for request in requests {
            func report(_ texts: [String]) { problems += texts.map { "namespace \(request.namespace): \($0)" } }
            do throws(NegotiationError) {
                let agreement = try registry.negotiate(request.engine, request.settings, request.requirements)
                report(ownProblems(request, agreement))
            } catch {
                report(error.problems)
            }
            for place in places(request, request.engine, request.settings) {
                if let other = directories.first(where: { $0.path == place.path }) {
                    report(["directory \(place.path) is that of namespace '\(other.namespace)' already: give each its own"])
                    continue
                }
                directories.append((place.path, request.namespace))
                report(MediumDirectory.problems(
                    path: place.path, namespace: request.namespace, wanted: place.agreement, formats: place.formats,
                    ignoresLock: ignoresLocks))
            }
        }
        return problems
    }

    /// What a backend that looks after its medium itself says about it.
    private func ownProblems(_ request: MountRequest, _ agreement: Agreement) -> [String] {
        guard let descriptor = registry.descriptor(named: request.engine), descriptor.medium == .own else { return [] }
        return descriptor.problems(
            OpenRequest(namespace: request.namespace, settings: request.settings, agreement: agreement, log: request.log))
    }

    private struct Place {
        let path: String
        let agreement: Agreement
        let formats: ClosedRange<Int>
    }

    /// The directories of a backend and of its parts.
    private func places(_ request: MountRequest, _ engine: String, _ settings: BackendSettings) -> [Place] {
        guard let descriptor = registry.descriptor(named: engine) else { return [] }
        var found: [Place] = []
        if descriptor.medium == .directory {
            found.append(
                Place(
                    path: Mount.absolute(Mount.directory(request, settings)), agreement: Mount.ownAgreement(descriptor),
                    formats: descriptor.formats))
        }
        if let part = descriptor.composition?.setting, let name = settings.text(part) {
            found += places(request, name, settings.part(part))
        }
        return found
    }

    private static func directory(_ request: MountRequest, _ settings: BackendSettings) -> String {
        settings.text(StandardSettings.directory) ?? request.defaultDirectory
    }

    /// The same directory has the same text, however it was written.
    private static func absolute(_ path: String) -> String {
        var missing: [Substring] = []
        var present = Substring(path.hasPrefix("/") ? path : "./" + path)
        while true {
            if let resolved = realPath(String(present)) {
                return ([resolved] + missing.reversed().map { String($0) }).joined(separator: "/")
            }
            guard let slash = present.lastIndex(of: "/"), slash != present.startIndex else { return path }
            let name = present[present.index(after: slash)...]
            if !name.isEmpty { missing.append(name) }
            present = present[..<slash]
        }
    }

    /// What is written on a backend's own medium: what it promises itself, whatever was asked for.
    private static func ownAgreement(_ descriptor: BackendDescriptor) -> Agreement {
        Agreement(backend: descriptor.name, format: descriptor.formats.upperBound, capabilities: descriptor.capabilities)
    }

    // ---- Opening ----

    /// Opens the backend of one namespace, ready to use: its shards never block.
    /// - Throws: `settings` with what negotiation found, and what opening throws.
    public func open(_ request: MountRequest) throws(StorageError) -> (backend: any Backend, agreement: Agreement) {
        let agreement: Agreement
        do throws(NegotiationError) {
            agreement = try registry.negotiate(request.engine, request.settings, request.requirements)
        } catch {
            throw .settings(error.problems.joined(separator: "; "))
        }
        return (try open(request, request.engine, request.settings, agreement), agreement)
    }

    private func open(
        _ request: MountRequest, _ engine: String, _ settings: BackendSettings, _ agreement: Agreement
    ) throws(StorageError) -> any Backend {
        guard let descriptor = registry.descriptor(named: engine) else {
            throw .settings("there is no storage-engine '\(engine)'")
        }
        guard descriptor.medium == .directory else {
            return try start(request, descriptor, settings, agreement, nil)
        }
        let directory = try MediumDirectory(
            path: Mount.directory(request, settings), namespace: request.namespace,
            wanted: Mount.ownAgreement(descriptor), formats: descriptor.formats)
        do throws(StorageError) {
            let inner = try start(request, descriptor, settings, agreement, directory)
            try directory.opened()
            return MountedBackend(inner, directory)
        } catch {
            directory.close()
            throw error
        }
    }

    private func start(
        _ request: MountRequest, _ descriptor: BackendDescriptor, _ settings: BackendSettings, _ agreement: Agreement,
        _ directory: MediumDirectory?
    ) throws(StorageError) -> any Backend {
        let inner = try descriptor.open(
            OpenRequest(
                namespace: request.namespace, settings: settings, agreement: agreement,
                directory: directory?.dataPath ?? "", storedFormat: directory?.storedFormat,
                memory: descriptor.keepsMemory == .nothing ? nil : request.memory, log: request.log,
                warn: request.warn,
                openPart: { (setting) throws(StorageError) in try openPart(request, settings, setting) }))
        guard descriptor.capabilities.contains(.blocking) else { return inner }
        do throws(StorageError) {
            return try ThreadedBackend(
                inner, threads: max(Int(settings.number(StandardSettings.storageThreads) ?? 4), 1),
                queueMax: max(Int(settings.number(StandardSettings.storageQueueMax) ?? 4096), 1))
        } catch {
            try? inner.close()
            throw error
        }
    }

    private func openPart(
        _ request: MountRequest, _ settings: BackendSettings, _ setting: String
    ) throws(StorageError) -> any Backend {
        guard let name = settings.text(setting), let descriptor = registry.descriptor(named: name) else {
            throw .settings("'\(setting)' picks no storage-engine")
        }
        return try open(request, name, settings.part(setting), Mount.ownAgreement(descriptor))
    }
}
