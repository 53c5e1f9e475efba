// What stands at the front of every medium, so that no data is ever opened as something else. Format 2, text, one
// `name=value` a line:
//
//     apus-medium=2
//     namespace=...            backend=...            format=...
//     capabilities=...         the bits that were agreed, decimal
//     session=...              how often the medium was opened for writing, 20 decimal digits
//
// The number counts what is above and, with it, what every backend stores: envelopes and images. It was 1 while those
// had their first format (decision 019), which no release has written.

/// Whose a medium is.
public struct MediumIdentity: Sendable, Equatable {
    /// Number of this format.
    public static let format = 2
    /// Namespace the data belongs to.
    public let namespace: String
    /// What was agreed when it was last opened.
    public let agreement: Agreement
    /// How often it has been opened for writing; raised by each opening.
    public var session: UInt64

    /// Joins the parts.
    public init(namespace: String, agreement: Agreement, session: UInt64) {
        self.namespace = namespace
        self.agreement = agreement
        self.session = session
    }

    /// The same with the backend's own format set to `format`.
    public func with(format: Int) -> MediumIdentity {
        let agreed = Agreement(backend: agreement.backend, format: format, capabilities: agreement.capabilities)
        return MediumIdentity(namespace: namespace, agreement: agreed, session: session)
    }

    /// As it is stored.
    public var encoded: [UInt8] {
        Array(
            """
            apus-medium=\(MediumIdentity.format)
            namespace=\(namespace)
            backend=\(agreement.backend)
            format=\(agreement.format)
            capabilities=\(agreement.capabilities.rawValue)
            session=\(MediumIdentity.padded(session))

            """.utf8)
    }

    /// Always 20 digits, so that an identity keeps its length from session to session.
    private static func padded(_ number: UInt64) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: 20 - digits.utf8.count) + digits
    }

    /// Reads what `encoded` wrote; trailing zero bytes are ignored.
    /// - Throws: `medium` with the reason.
    public init(parsing bytes: [UInt8]) throws(StorageError) {
        let text = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        let pairs = text.split(separator: "\n").compactMap { line -> (name: Substring, value: Substring)? in
            guard let equals = line.firstIndex(of: "=") else { return nil }
            return (line[..<equals], line[line.index(after: equals)...])
        }
        func value(_ name: String) -> String? { pairs.first { $0.name == name }.map { String($0.value) } }
        guard let version = value("apus-medium").flatMap({ Int($0) }) else {
            throw .medium("its identity cannot be read: it is damaged, or not written by Apus")
        }
        guard version <= MediumIdentity.format else {
            throw .medium("its identity has format \(version), this Apus reads up to"
                + " \(MediumIdentity.format): use a newer Apus")
        }
        guard version == MediumIdentity.format else {
            throw .medium("its identity has format \(version), written by a development version of Apus from before format"
                + " \(MediumIdentity.format): its records cannot be read; move the directory away, or use that version")
        }
        guard let namespace = value("namespace"), let backend = value("backend"),
            let format = value("format").flatMap({ Int($0) }),
            let capabilities = value("capabilities").flatMap({ UInt32($0) }),
            let session = value("session").flatMap({ UInt64($0) })
        else { throw .medium("its identity is incomplete: it is damaged") }
        self.init(
            namespace: namespace,
            agreement: Agreement(backend: backend, format: format, capabilities: Capabilities(rawValue: capabilities)),
            session: session)
    }

    /// Why this medium cannot be opened for `namespace` as `descriptor` with `wanted`: every reason.
    public func problems(
        namespace: String, wanted: Agreement, formats: ClosedRange<Int>
    ) -> [String] {
        var problems: [String] = []
        if self.namespace != namespace {
            problems.append("it holds the data of namespace '\(self.namespace)', not of '\(namespace)'")
        }
        if agreement.backend != wanted.backend {
            problems.append("it was written by storage-engine '\(agreement.backend)', not by '\(wanted.backend)':"
                + " `apus convert \(self.namespace) --from <old configuration> --to <new one>` copies it")
        } else if agreement.format > formats.upperBound {
            problems.append(
                "it has format \(agreement.format) of '\(wanted.backend)', this version reads up to"
                    + " \(formats.upperBound): use a newer one")
        } else if agreement.format < formats.lowerBound {
            problems.append(
                "it has format \(agreement.format) of '\(wanted.backend)', this version reads from"
                    + " \(formats.lowerBound) on: use an older"
                    + " one first")
        } else if agreement.capabilities.contains(.keyed) != wanted.capabilities.contains(.keyed) {
            problems.append("its images are kept in another way (keyed or addressed) than this"
                + " version of '\(wanted.backend)' keeps them")
        }
        return problems
    }
}
