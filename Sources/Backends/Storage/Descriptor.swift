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

/// One setting of a backend's own, as it appears in `storage-engine <name> { ... }`.
public struct SettingSchema: Sendable {
    /// What the operator writes.
    public let name: String
    /// How its value is read.
    public let kind: Kind
    /// Value if it is left out, as text; empty for none.
    public let defaultText: String
    /// One line for the operator, unit included.
    public let help: String
    /// False if the backend knows the setting but does nothing with it yet: the node logs a note.
    public let hasEffect: Bool

    /// How a value is read.
    public enum Kind: Sendable, Equatable {
        /// `true` or `false`.
        case boolean
        /// Whole number within bounds.
        case integer(ClosedRange<UInt64>)
        /// Bytes, with K, M, G, T suffixes, within bounds.
        case size(ClosedRange<UInt64>)
        /// Seconds, or with s, m, h, d suffixes.
        case seconds(ClosedRange<UInt64>)
        /// Milliseconds, or with s, m, h, d suffixes.
        case milliseconds(ClosedRange<UInt64>)
        /// One of these words.
        case word([String])
        /// Any text.
        case text
        /// Any text, and the setting may appear several times.
        case list
    }

    /// Describes one setting.
    public init(
        _ name: String, _ kind: Kind, default defaultText: String = "", hasEffect: Bool = true, help: String
    ) {
        self.hasEffect = hasEffect
        self.name = name
        self.kind = kind
        self.defaultText = defaultText
        self.help = help
    }
}

/// Settings as parsed by the backend's schema: each value in its plain form (bytes, milliseconds, `true`,
/// text).
public struct BackendSettings: Sendable {
    /// Values by name, in the order they were written; defaults are filled in.
    public let values: [(name: String, value: String)]

    /// Wraps parsed values.
    public init(_ values: [(name: String, value: String)]) { self.values = values }

    /// The last value of `name`, if there is one and it is not empty.
    public func text(_ name: String) -> String? {
        values.last { $0.name == name && !$0.value.isEmpty }?.value
    }

    /// The value of `name` as a number; nil if it is absent or no number.
    public func number(_ name: String) -> UInt64? { text(name).flatMap { UInt64($0) } }

    /// All values of a list setting.
    public func list(_ name: String) -> [String] { values.filter { $0.name == name }.map(\.value) }
}

/// What a namespace asks of its backend; negotiated against the descriptor before anything is opened.
public struct Requirements: Sendable {
    /// Promises it cannot do without.
    public var capabilities: Capabilities
    /// Largest image it will append, in bytes, envelope included.
    public var imageSizeMax: Int

    /// Joins the needs.
    public init(capabilities: Capabilities, imageSizeMax: Int) {
        self.capabilities = capabilities
        self.imageSizeMax = imageSizeMax
    }
}

/// What was agreed for one namespace; a backend with a medium writes it there and checks it at the next
/// start.
public struct Agreement: Sendable {
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

/// Everything a backend gets to open one namespace.
public struct OpenRequest: Sendable {
    /// Whose data it is.
    public let namespace: String
    /// The backend's own settings.
    public let settings: BackendSettings
    /// What was negotiated.
    public let agreement: Agreement
    /// Writes a line to the node's log: an operator reads it.
    public let log: @Sendable (String) -> Void

    /// Joins the parts.
    public init(
        namespace: String, settings: BackendSettings, agreement: Agreement, log: @escaping @Sendable (String) -> Void
    ) {
        self.namespace = namespace
        self.settings = settings
        self.agreement = agreement
        self.log = log
    }
}

/// A backend as the node knows it before opening anything: a value.
public struct BackendDescriptor: Sendable {
    /// What the operator writes after `storage-engine`.
    public let name: String
    /// Contract it was written for.
    public let contract: ContractVersion
    /// Formats of the medium it can read.
    public let formats: ClosedRange<Int>
    /// What it promises.
    public let capabilities: Capabilities
    /// What it can hold.
    public let limits: BackendLimits
    /// Its settings.
    public let settings: [SettingSchema]
    /// Opens one namespace. May block; called on a helper thread.
    public let open: @Sendable (OpenRequest) throws(StorageError) -> any Backend

    /// Describes a backend.
    public init(
        name: String, contract: ContractVersion, formats: ClosedRange<Int>, capabilities: Capabilities,
        limits: BackendLimits, settings: [SettingSchema],
        open: @escaping @Sendable (OpenRequest) throws(StorageError) -> any Backend
    ) {
        self.name = name
        self.contract = contract
        self.formats = formats
        self.capabilities = capabilities
        self.limits = limits
        self.settings = settings
        self.open = open
    }
}
