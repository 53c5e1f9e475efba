internal import Base
internal import Configuration
internal import Files
internal import Glibc
internal import Logging
internal import Mount
internal import Storage
internal import SystemSegment

/// One end of a conversion, as its configuration describes it: nothing is opened or touched here.
struct ConversionSide {
    /// The configuration's path, for messages.
    let file: String
    private let request: MountRequest
    /// How many may read the medium at once.
    let threads: Int
    /// The namespace's name.
    var namespace: String { request.namespace }
    /// The backend's name.
    var engine: String { request.engine }
    private let registry: BackendRegistry
    private let workDirectory: String
    private let settings: NamespaceConfiguration
    /// The backend and those it works over, each with its settings.
    private let parts: [(descriptor: BackendDescriptor, settings: BackendSettings)]
    /// Backends that tell what is on their medium without opening it: plugins do not.
    private let telling: [String]
    /// No namespace can be called so: a medium that could be opened under this name holds nothing.
    private static let nobody = "null"

    /// Reads the configuration `file`; plugins that it names are loaded.
    /// - Throws: every problem of the file, or that it has no such namespace.
    init(
        _ file: String, namespace: String, backends: [BackendDescriptor], log: @escaping @Sendable (String) -> Void,
        warn: @escaping @Sendable (String) -> Void
    ) throws(ConfigurationError) {
        let bytes = try ConfigurationFile.read(file)
        registry = try Plugins.registry(backends, bytes, fileName: file)
        let configuration = try ConfigurationParser.parse(
            bytes, fileName: file, registry: registry, processors: Processors.allowed.count)
        let requests = MountRequests.all(configuration, log: log, warn: warn)
        guard let request = requests.first(where: { $0.namespace == namespace }),
            let settings = configuration.namespaces.first(where: { $0.name == namespace })
        else {
            let known = configuration.namespaces.map(\.name).joined(separator: ", ")
            throw ConfigurationError(problems: ["\(file): there is no namespace '\(namespace)'; it has: \(known)"])
        }
        self.file = file
        self.request = request
        threads = configuration.service.serviceThreads
        workDirectory = configuration.service.workDirectory
        self.settings = settings
        telling = backends.map(\.name)
        parts = ConversionSide.parts(request.engine, request.settings, registry)
    }

    private static func parts(
        _ engine: String, _ settings: BackendSettings, _ registry: BackendRegistry
    ) -> [(descriptor: BackendDescriptor, settings: BackendSettings)] {
        guard let descriptor = registry.descriptor(named: engine) else { return [] }
        var found = [(descriptor: descriptor, settings: settings)]
        if let part = descriptor.composition?.setting, let name = settings.text(part) {
            found += parts(name, settings.part(part), registry)
        }
        return found
    }

    // ---- Looking ----

    /// Why nothing can be copied from here: a sentence each.
    var problemsAsSource: [String] {
        var problems = commonProblems
        if isVolatile {
            problems.append("its records are in memory only (storage-engine '\(engine)'): there is no medium to copy from")
        } else if problems.isEmpty, isBlank, canTell {
            problems.append("nothing was ever written to \(places.joined(separator: ", ")): there is nothing to copy")
        }
        if problems.isEmpty { problems = problemsOfMemory }
        return problems.map(named)
    }

    /// Why nothing can be copied to here.
    func problemsAsTarget(source: ConversionSide) -> [String] {
        let shared = places.filter { source.places.contains($0) }
        guard shared.isEmpty else {
            return [named("\(shared.joined(separator: ", ")) is where the source is (\(source.file)): give the target"
                + " another place")]
        }
        var problems = commonProblems
        if isVolatile {
            problems.append("its records are in memory only (storage-engine '\(engine)'): there is no medium to copy to")
        } else if !problems.isEmpty {
            problems.append("the target of a conversion must be empty. If nobody needs what it holds: \(emptying)")
        } else if !isBlank {
            problems.append("the target of a conversion must be empty, and there is data of this namespace, perhaps of a"
                + " conversion that was interrupted. If nobody needs it: \(emptying)")
        }
        return problems.map(named)
    }

    // ---- Memory that outlived its node ----

    /// What its node has left in memory. It knows plain deletes that the medium does not, and, if the node was killed,
    /// writes that it had not written out: a source is opened with it, as the node would.
    private func segments() throws(StorageError) -> [SegmentSummary] {
        // Shared memory may be left of a time when the configuration named no other.
        let shared = access(IndexPlace.sharedMemory, F_OK) == 0 && !mounts.contains(IndexPlace.sharedMemory)
        let owner = absolutePath(workDirectory)
        let found = try SegmentDirectory.list(mounts: mounts + (shared ? [IndexPlace.sharedMemory] : []))
        return found.filter { $0.namespace == namespace && $0.owner == owner }
    }

    private var mounts: [String] { settings.indexMounts.map(absolutePath) }

    /// Where the index is: in memory that its node has left, else in ordinary memory.
    private var place: IndexPlace {
        let isLeft = (try? segments())?.contains { $0.state == .left || $0.state == .closed } ?? false
        guard isLeft else { return .heap }
        return IndexPlace.choose(settings, registry, owner: absolutePath(workDirectory), log: request.log)
    }

    private var problemsOfMemory: [String] {
        let used = place.mounts.map(absolutePath)
        do throws(StorageError) {
            return try segments().compactMap { segment in
                switch segment.state {
                case .closed, .halfMade: return nil
                case .inUse(let process):
                    return "process \(process.map { "\($0)" } ?? "unknown") uses it (\(segment.paths[0])): stop it first"
                case .left, .unreadable:
                    guard !used.contains(where: { segment.paths[0].hasPrefix($0 + "/") }) else { return nil }
                    return "its node was killed, and what it had not written out lies in \(segment.paths[0]), which this"
                        + " configuration does not use: start it with the one that it had, and stop it"
                }
            }
        } catch {
            return ["what its node may have left in memory cannot be looked at: \(error.text)"]
        }
    }

    private func named(_ problem: String) -> String {
        let start = "namespace \(namespace): "
        return "\(file): " + (problem.hasPrefix(start) ? problem : start + problem)
    }

    private var commonProblems: [String] {
        var problems = Mount(registry).problems([request])
        // A setting that makes a backend forget everything when it is opened.
        let forgetful = "cold-start-empty"
        if parts.contains(where: { $0.settings.flag(forgetful) }) {
            problems.append("\(forgetful) is set: its records would be forgotten; take it out")
        }
        return problems
    }

    private var isVolatile: Bool {
        let agreement = try? registry.negotiate(request.engine, request.settings, Requirements(imageSizeMax: 0))
        return agreement?.capabilities.contains(.volatile) ?? false
    }

    /// Whether its medium holds nothing, of nobody; only if there are no other problems.
    private var isBlank: Bool {
        let request = MountRequest(
            namespace: ConversionSide.nobody, engine: request.engine, settings: request.settings,
            requirements: request.requirements, defaultDirectory: request.defaultDirectory, log: { _ in })
        return Mount(registry).problems([request]).isEmpty
    }

    private var canTell: Bool {
        parts.contains { $0.descriptor.medium != .none }
            && parts.allSatisfy { $0.descriptor.medium != .own || telling.contains($0.descriptor.name) }
    }

    // ---- Words ----

    /// Directories, devices and files.
    var places: [String] { parts.flatMap(places) }

    private func places(_ part: (descriptor: BackendDescriptor, settings: BackendSettings)) -> [String] {
        switch part.descriptor.medium {
        case .none: []
        case .directory: [part.settings.text(StandardSettings.directory) ?? request.defaultDirectory]
        case .own:
            part.descriptor.settings.filter { $0.kind == .list }.flatMap { part.settings.list($0.name) }
                .filter { !$0.isEmpty }
        }
    }

    /// What an operator does to make it empty.
    var emptying: String {
        let ways = parts.flatMap { part in
            places(part).map { part.descriptor.medium == .own ? "`apus wipe \($0)`" : "remove the directory \($0)" }
        }
        return ways.joined(separator: ", ")
    }

    /// As in `storage-engine 'device' on /data/a.dat (old.conf)`.
    var words: String { "storage-engine '\(engine)' on \(places.joined(separator: ", ")) (\(file))" }

    // ---- Opening ----

    /// Opens it; with `keepsMemory` as its node would, with what that has left in memory.
    /// - Throws: why it does not open; if a node seems to have it, with that node's process id.
    func open(keepsMemory: Bool, _ log: Logger) throws(ConversionError) -> OpenNamespace {
        let opening = NamespaceOpening(
            settings: settings, request: request, registry: registry, place: keepsMemory ? place : .heap,
            owner: absolutePath(workDirectory), epoch: Epoch(regime: 1, viewKey: 0), reactors: threads, log: log)
        do throws(StartError) {
            return try opening.open()
        } catch {
            let node = nodeProcess.map { "; a node with process id \($0) runs in \(workDirectory): stop it first" } ?? ""
            throw ConversionError("\(file): \(error.message)\(node)")
        }
    }

    /// The process that has the work directory, if there is one.
    private var nodeProcess: String? {
        let file = workDirectory + "/apus.lock"
        let descriptor = Glibc.open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        guard flock(descriptor, LOCK_SH | LOCK_NB) != 0 else { return nil }
        return readSmallFile(file).split(separator: "\n").first.map { String($0) }
    }
}
