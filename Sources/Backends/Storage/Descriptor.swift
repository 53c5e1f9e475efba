/// Version of the contract a backend was written for.
public struct ContractVersion: Sendable, Equatable {
    /// Differs: refused.
    public let major: Int
    /// Newer than the node's: refused.
    public let minor: Int

    /// Joins the numbers.
    public init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// What this node speaks.
    public static let current = ContractVersion(major: 1, minor: 0)
}

/// What a namespace asks of its backend; negotiated against the descriptor before anything is opened.
public struct Requirements: Sendable {
    /// Promises it cannot do without, each with the setting that asks for it.
    public var needs: [(capability: Capabilities, because: String)]
    /// Promises it cannot live with, each with the setting that forbids it.
    public var excludes: [(capability: Capabilities, because: String)]
    /// Largest image it will append, in bytes, envelope included.
    public var imageSizeMax: Int

    /// Joins the needs.
    public init(
        needs: [(capability: Capabilities, because: String)] = [],
        excludes: [(capability: Capabilities, because: String)] = [], imageSizeMax: Int
    ) {
        self.needs = needs
        self.excludes = excludes
        self.imageSizeMax = imageSizeMax
    }
}

/// What was agreed for one namespace. It is written on the medium (`MediumIdentity`) and checked at the next start.
public struct Agreement: Sendable, Equatable {
    /// Name of the backend.
    public let backend: String
    /// Format of the medium.
    public let format: Int
    /// Promises granted.
    public let capabilities: Capabilities

    /// Joins the parts.
    public init(backend: String, format: Int, capabilities: Capabilities) {
        self.backend = backend
        self.format = format
        self.capabilities = capabilities
    }
}

/// Where a backend keeps what outlives the process.
public enum Medium: String, Sendable {
    /// Nowhere.
    case none
    /// In files of its own in one directory. The node makes the directory, locks it, writes the identity into it and
    /// checks that at every start; `OpenRequest.directory` says where.
    case directory
    /// Somewhere else: the backend does all that itself, with `MediumIdentity`.
    case own
}

/// Everything a backend gets to open one namespace.
public struct OpenRequest: Sendable {
    /// Whose data it is.
    public let namespace: String
    /// The backend's own settings.
    public let settings: BackendSettings
    /// What was negotiated.
    public let agreement: Agreement
    /// With `Medium.directory`: an existing directory for nothing but this backend's files. Empty otherwise.
    public let directory: String
    /// With `Medium.directory`: the format of what is in it. If it is older than `agreement.format`, `open` converts
    /// it, in a way that can be interrupted and begun again.
    public let storedFormat: Int
    /// Where what is not written out yet lies, if the backend says `keepsMemory` and the namespace has such memory; nil
    /// for ordinary memory.
    public let memory: (any KeptMemory)?
    /// Writes a line to the node's log: an operator reads it. Any thread.
    public let log: @Sendable (String) -> Void
    /// The same for what an operator has to do something about.
    public let warn: @Sendable (String) -> Void
    /// Opens the backend that the setting of this name, a `SettingSchema.Kind.backend`, has picked: ready to use, on
    /// storage threads if it is blocking. The caller owns it and closes it.
    public let openPart: @Sendable (String) throws(StorageError) -> any Backend

    /// Joins the parts.
    public init(
        namespace: String, settings: BackendSettings, agreement: Agreement, directory: String = "",
        storedFormat: Int? = nil, memory: (any KeptMemory)? = nil, log: @escaping @Sendable (String) -> Void,
        warn: (@Sendable (String) -> Void)? = nil,
        openPart: @escaping @Sendable (String) throws(StorageError) -> any Backend = { (name) throws(StorageError) in
            throw .unsupported("no setting '\(name)' picks a backend")
        }
    ) {
        self.namespace = namespace
        self.settings = settings
        self.agreement = agreement
        self.directory = directory
        self.storedFormat = storedFormat ?? agreement.format
        self.memory = memory
        self.log = log
        self.warn = warn ?? log
        self.openPart = openPart
    }
}

/// A backend as the node knows it before opening anything: a value.
public struct BackendDescriptor: Sendable {
    /// What the operator writes after `storage-engine`.
    public let name: String
    /// Contract it was written for.
    public let contract: ContractVersion
    /// Formats of the medium it can read; it writes the highest.
    public let formats: ClosedRange<Int>
    /// What it promises. A backend with a part promises what this and the part's descriptor say (`Composition`).
    public let capabilities: Capabilities
    /// What it can hold.
    public let limits: BackendLimits
    /// Where it keeps its data.
    public let medium: Medium
    /// Its settings.
    public let settings: [SettingSchema]
    /// How it depends on the backend that one of its settings picks; nil for most.
    public let composition: Composition?
    /// Another backend that the operator means by the same name when he writes certain settings; nil for most.
    public var alternative: Alternative?
    /// What it keeps in `OpenRequest.memory`; if it uses that, the namespace's index outlives the process.
    public let keepsMemory: KeptMemoryUse
    /// What keeps `open` from opening this now, a sentence each, as far as can be told without touching anything.
    /// Asked of all namespaces before the first is opened; for backends with `Medium.own`. May block; called on a helper
    /// thread.
    public let problems: @Sendable (OpenRequest) -> [String]
    /// Opens one namespace. May block; called on a helper thread.
    public let open: @Sendable (OpenRequest) throws(StorageError) -> any Backend

    /// Describes a backend.
    public init(
        name: String, contract: ContractVersion, formats: ClosedRange<Int>, capabilities: Capabilities,
        limits: BackendLimits, medium: Medium, settings: [SettingSchema], composition: Composition? = nil,
        alternative: Alternative? = nil, keepsMemory: KeptMemoryUse = .nothing,
        problems: @escaping @Sendable (OpenRequest) -> [String] = { _ in [] },
        open: @escaping @Sendable (OpenRequest) throws(StorageError) -> any Backend
    ) {
        self.name = name
        self.contract = contract
        self.formats = formats
        self.capabilities = capabilities
        self.limits = limits
        self.medium = medium
        self.settings = settings
        self.composition = composition
        self.alternative = alternative
        self.keepsMemory = keepsMemory
        self.problems = problems
        self.open = open
    }

    /// Its settings where it is part of another backend: without those that are about a namespace.
    public var partSettings: [SettingSchema] {
        allSettings.filter { !StandardSettings.ofNamespaces.contains($0.name) }
    }

    /// Its own settings, and those that the node gives to every backend of its kind.
    public var allSettings: [SettingSchema] {
        let own = settings.map(\.name)
        return settings
            + StandardSettings.settings(capabilities, medium, isComposition: composition != nil)
            .filter { !own.contains($0.name) }
    }
}

/// `storage-engine memory` with a `file` in it is not the backend `memory` but one that writes to that file.
public struct Alternative: Sendable {
    /// Settings of which one is enough.
    public let settings: [String]
    /// Name of the backend that is meant then; it is in the registry, too.
    public let name: String

    /// Joins the parts.
    public init(settings: [String], name: String) {
        self.settings = settings
        self.name = name
    }
}

/// A backend that works over another one, picked by a setting.
public struct Composition: Sendable {
    /// The setting, of kind `backend`.
    public let setting: String
    /// What the whole promises over a part with these promises and limits.
    public let combine: @Sendable (Capabilities, BackendLimits) -> (Capabilities, BackendLimits)

    /// Joins the parts.
    public init(
        setting: String,
        combine: @escaping @Sendable (Capabilities, BackendLimits) -> (Capabilities, BackendLimits)
    ) {
        self.setting = setting
        self.combine = combine
    }
}
