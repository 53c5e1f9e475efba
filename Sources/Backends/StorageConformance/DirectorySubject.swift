// The subject for backends with `Medium.directory`: a fresh temporary directory for each case, copied file by file for
// a crash.
internal import Glibc
internal import Mount
public import Storage

/// Opens a backend in temporary directories under `$TMPDIR` (or `/tmp`), and deletes them.
///
/// A crash is that of the process: what the operating system had been given by then is copied while the backend still has
/// the directory open, as `kill -9` would leave it; the copy is opened. A backend that promises `durableAtCommit` but never
/// syncs is not found out by that; only a simulated medium can.
public final class DirectorySubject: ConformanceSubject {
    /// As it was given.
    public let descriptor: BackendDescriptor
    private let settings: [(name: String, value: String)]
    private let smallSettings: [(name: String, value: String)]?
    private let parts: [BackendDescriptor]
    private let tree = TemporaryTree()
    private var directory = ""
    private var opened: (any Backend)?
    /// Left behind by a crash; closed when its shards are gone.
    private var abandoned: (any Backend)?

    /// Opens `descriptor` with `settings`, values in plain form (bytes, milliseconds, `true`), the schema's defaults for the
    /// rest; with `small` as well for a medium that is full after some MB. A backend over another one finds that one in
    /// `parts`.
    public init(
        descriptor: BackendDescriptor, settings: [(name: String, value: String)] = [],
        small: [(name: String, value: String)]? = nil, parts: [BackendDescriptor] = []
    ) {
        self.descriptor = descriptor
        self.settings = settings
        self.parts = parts
        smallSettings = small.map { settings + $0 }
    }

    /// The descriptor's, or what it promises over its part.
    public var capabilities: Capabilities { promises.0 }

    /// The descriptor's, or those over its part.
    public var limits: BackendLimits { promises.1 }

    private var promises: (Capabilities, BackendLimits) {
        guard let composition = descriptor.composition, let part = part(composition.setting) else {
            return (descriptor.capabilities, descriptor.limits)
        }
        return composition.combine(part.capabilities, part.limits)
    }

    /// A part's threads write while the directory is copied.
    public var crashesQuietly: Bool {
        descriptor.composition.flatMap { part($0.setting) }?.capabilities.contains(.blocking) ?? false
    }

    /// Opens it in a new directory.
    public func make() throws(StorageError) -> any Backend {
        try freshDirectory()
        return try open(settings)
    }

    /// Opens it with the settings for a small medium, if there are some.
    public func makeSmall() throws(StorageError) -> (any Backend)? {
        guard let smallSettings else { return nil }
        try freshDirectory()
        return try open(smallSettings)
    }

    /// Opens the same directory; after a crash, a copy of it.
    public func reopen(after ending: Ending) throws(StorageError) -> any Backend {
        try closeAbandoned()
        if case .crash = ending {
            let copy = try tree.newPath()
            try tree.copy(directory, to: copy)
            abandoned = opened
            directory = copy
        }
        return try open(settings)
    }

    /// Closes what a crash left behind and deletes all directories.
    public func end() {
        // What an abandoned instance cannot write any more is no finding.
        do throws(StorageError) { try closeAbandoned() } catch { abandoned = nil }
        opened = nil
        tree.removeAll()
    }

    private func freshDirectory() throws(StorageError) {
        end()
        directory = try tree.newPath()
        try tree.makeDirectory(directory)
    }

    private func closeAbandoned() throws(StorageError) {
        guard let old = abandoned else { return }
        abandoned = nil
        try old.close()
    }

    // ---- Opening ----

    private func open(_ settings: [(name: String, value: String)]) throws(StorageError) -> any Backend {
        let own = try Opening.settings(descriptor, settings)
        let directory = directory
        let tree = tree
        let parts = parts
        let name = descriptor.name
        let main = directory + "/main"
        try tree.makeDirectory(main)
        let backend = try descriptor.open(
            OpenRequest(
                namespace: Opening.namespace, settings: own, agreement: Opening.agreement(descriptor), directory: main,
                log: { _ in },
                openPart: { (setting) throws(StorageError) in
                    guard let part = parts.first(where: { $0.name == own.text(setting) }) else {
                        throw .settings("setting '\(setting)' of '\(name)' picks no backend that the kit was given")
                    }
                    let place = directory + "/" + setting
                    try tree.makeDirectory(place)
                    return try DirectorySubject.openPart(part, own.part(setting).values, place)
                }))
        opened = backend
        return backend
    }

    private func part(_ setting: String) -> BackendDescriptor? {
        let name = settings.last { $0.name == setting }?.value
        return parts.first { $0.name == name }
    }

    /// As the node opens a part: ready to use, on storage threads if it is blocking.
    private static func openPart(
        _ part: BackendDescriptor, _ settings: [(name: String, value: String)], _ directory: String
    ) throws(StorageError) -> any Backend {
        let backend = try part.open(
            OpenRequest(
                namespace: Opening.namespace, settings: try Opening.settings(part, settings),
                agreement: Opening.agreement(part), directory: part.medium == .directory ? directory : "", log: { _ in }))
        guard part.capabilities.contains(.blocking) else { return backend }
        return try ThreadedBackend(backend, threads: 2, queueMax: 1024)
    }
}
