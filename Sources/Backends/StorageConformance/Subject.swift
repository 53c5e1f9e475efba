// What the author of a backend gives to the kit: how to open the backend, and how to open it again after a close or a crash.
public import Storage

/// How the backend that is open now came to its end.
public enum Ending: Sendable, Equatable {
    /// `close` was called and has returned.
    case close
    /// As if the machine, or where that cannot be simulated the process, had died now. The seed decides what a
    /// simulated medium keeps of what was not durable.
    case crash(seed: UInt64)
}

/// A backend under test and its medium. The kit calls it on one thread.
public protocol ConformanceSubject: AnyObject {
    /// What the backend declares.
    var descriptor: BackendDescriptor { get }

    /// What it promises as it is opened here. The descriptor's, unless it works over another backend.
    var capabilities: Capabilities { get }

    /// What it can hold as it is opened here. The descriptor's, unless it works over another backend.
    var limits: BackendLimits { get }

    /// A new backend on an empty medium. What was open before has been let go.
    /// - Throws: what opening throws; the case has failed then.
    func make() throws(StorageError) -> any Backend

    /// The same medium again. After a crash the old object and its shards still exist, but nothing calls them any more.
    /// - Throws: what opening throws; the case has failed then.
    func reopen(after ending: Ending) throws(StorageError) -> any Backend

    /// The kit is done with the medium; the shards are gone. Time to delete files.
    func end()

    /// A new backend on a medium that is full after some MB; nil if there is no such thing.
    /// - Throws: what opening throws.
    func makeSmall() throws(StorageError) -> (any Backend)?

    /// Has the operation on the medium that comes after `operations` others fail, once; false if that cannot be simulated.
    func injectFault(after operations: Int) -> Bool

    /// Has nothing fail any more; true if the fault last injected had not struck yet.
    func endFaults() -> Bool

    /// Has the next crash be one that came when `operations` more operations had reached the medium, in the middle of a
    /// call, with a seed as in `Ending.crash`. Should fewer follow, the crash is one at its own time. False if that cannot
    /// be simulated.
    func prepareCrash(after operations: Int, seed: UInt64) -> Bool

    /// A simulated medium makes progress. Called once in every turn.
    func advance()

    /// Whether a crash is simulated faithfully only while no operation is under way.
    var crashesQuietly: Bool { get }
}

extension ConformanceSubject {
    /// The descriptor's.
    public var capabilities: Capabilities { descriptor.capabilities }
    /// The descriptor's.
    public var limits: BackendLimits { descriptor.limits }
    /// Leaves nothing behind.
    public func end() {}
    /// There is no small medium.
    public func makeSmall() throws(StorageError) -> (any Backend)? { nil }
    /// Faults cannot be simulated.
    public func injectFault(after operations: Int) -> Bool { false }
    /// No fault was injected.
    public func endFaults() -> Bool { false }
    /// Crashes come between calls only.
    public func prepareCrash(after operations: Int, seed: UInt64) -> Bool { false }
    /// A real medium needs no help.
    public func advance() {}
    /// A crash may come at any time.
    public var crashesQuietly: Bool { false }
}

/// A subject for a backend with `Medium.none`: nothing is left after its end.
public final class VolatileSubject: ConformanceSubject {
    /// As it was given.
    public let descriptor: BackendDescriptor
    private let settings: [(name: String, value: String)]
    private let smallSettings: [(name: String, value: String)]?

    /// Opens `descriptor` with `settings`, values in plain form, the schema's defaults for the rest; with `small` as well
    /// for a medium that is full after some MB.
    public init(
        descriptor: BackendDescriptor, settings: [(name: String, value: String)] = [],
        small: [(name: String, value: String)]? = nil
    ) {
        self.descriptor = descriptor
        self.settings = settings
        smallSettings = small.map { settings + $0 }
    }

    /// Opens it anew.
    public func make() throws(StorageError) -> any Backend { try open(settings) }

    /// Opens it anew: nothing is left.
    public func reopen(after ending: Ending) throws(StorageError) -> any Backend { try open(settings) }

    /// Opens it with the settings for a small medium, if there are some.
    public func makeSmall() throws(StorageError) -> (any Backend)? {
        guard let smallSettings else { return nil }
        return try open(smallSettings)
    }

    private func open(_ settings: [(name: String, value: String)]) throws(StorageError) -> any Backend {
        try descriptor.open(
            OpenRequest(
                namespace: Opening.namespace, settings: try Opening.settings(descriptor, settings),
                agreement: Opening.agreement(descriptor), log: { _ in }))
    }
}
