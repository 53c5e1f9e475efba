/// The backends of one node: a value, complete before any namespace opens.
public struct BackendRegistry: Sendable {
    /// In the order they were named.
    public let descriptors: [BackendDescriptor]

    /// Freezes the list.
    /// - Throws: `NegotiationError` if two share a name, or one has a name that cannot stand in a configuration.
    public init(_ descriptors: [BackendDescriptor]) throws(NegotiationError) {
        var problems: [String] = []
        for (number, descriptor) in descriptors.enumerated() {
            let name = descriptor.name
            if descriptors[..<number].contains(where: { $0.name == name }) {
                problems.append("two storage backends are called '\(name)'")
            }
            let isWord = !name.isEmpty && name.utf8.allSatisfy { byte in
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                    || byte == UInt8(ascii: "-")
            }
            let promises = descriptor.capabilities
            if promises.contains(.volatile), !promises.isDisjoint(with: [.blocking, .durableAtCommit]) {
                problems.append("storage backend '\(name)' says volatile and at the same time"
                    + " \(promises.intersection([.blocking, .durableAtCommit]).names.joined(separator: ", "))")
            }
            if promises.contains(.blocking), !promises.contains(.keyed) {
                problems.append("storage backend '\(name)' says blocking, which only keyed backends may be")
            }
            if !isWord { problems.append("'\(name)' is no name for a storage backend: use a-z, 0-9 and -") }
        }
        guard problems.isEmpty else { throw NegotiationError(problems: problems) }
        self.descriptors = descriptors
    }

    /// The backend of that name.
    public func descriptor(named name: String) -> BackendDescriptor? { descriptors.first { $0.name == name } }

    /// Checks what a namespace needs against what a backend declares, and reports every problem, not the
    /// first.
    /// - Throws: `NegotiationError` with one sentence per problem.
    public func negotiate(
        _ name: String, _ settings: BackendSettings, _ requirements: Requirements
    ) throws(NegotiationError) -> Agreement {
        guard let backend = descriptor(named: name) else {
            throw NegotiationError(problems: [unknownEngineText(name)])
        }
        var problems = contractProblems(backend)
        let (capabilities, limits) = promises(of: backend, settings, &problems)
        for (needed, because) in requirements.needs where !capabilities.contains(needed) {
            let missing = needed.subtracting(capabilities).names.joined(separator: ", ")
            problems.append("it does not promise \(missing), which \(because) needs")
        }
        for (excluded, because) in requirements.excludes where !capabilities.isDisjoint(with: excluded) {
            let present = capabilities.intersection(excluded).names.joined(separator: ", ")
            problems.append("it is \(present), which \(because) does not allow")
        }
        if limits.imageSizeMax < requirements.imageSizeMax {
            problems.append("it holds records up to \(limits.imageSizeMax) bytes, needed are \(requirements.imageSizeMax):"
                + " lower max-record-size")
        }
        if limits.locationBits > Location.bitCount {
            problems.append("it needs \(limits.locationBits) location bits, the index has \(Location.bitCount)")
        }
        guard problems.isEmpty else {
            throw NegotiationError(problems: problems.map { "storage-engine '\(name)': \($0)" })
        }
        return Agreement(backend: name, format: backend.formats.upperBound, capabilities: capabilities)
    }

    private func unknownEngineText(_ name: String) -> String {
        "there is no storage-engine '\(name)'; this node has: \(descriptors.map(\.name).joined(separator: ", "))"
    }

    private func contractProblems(_ backend: BackendDescriptor) -> [String] {
        let contract = ContractVersion.current
        guard backend.contract.major != contract.major || backend.contract.minor > contract.minor else { return [] }
        return ["it was built for contract \(backend.contract.text), this node speaks \(contract.text)"]
    }

    /// What a backend promises with these settings: its own promises, or those of a composition with its part.
    private func promises(
        of backend: BackendDescriptor, _ settings: BackendSettings, _ problems: inout [String]
    ) -> (Capabilities, BackendLimits) {
        guard let composition = backend.composition else { return (backend.capabilities, backend.limits) }
        guard let partName = settings.text(composition.setting) else {
            problems.append("'\(composition.setting)' must pick a storage-engine: \(composition.setting) <name> { ... }")
            return (backend.capabilities, backend.limits)
        }
        guard let part = descriptor(named: partName) else {
            problems.append("\(composition.setting): \(unknownEngineText(partName))")
            return (backend.capabilities, backend.limits)
        }
        problems += contractProblems(part).map { "\(composition.setting) '\(partName)': \($0)" }
        let promised = promises(of: part, settings.part(composition.setting), &problems)
        return composition.combine(promised.0, promised.1)
    }
}

extension ContractVersion {
    /// As it is written: `1.0`.
    public var text: String { "\(major).\(minor)" }
}

extension Capabilities {
    /// Words for logs and tools, in the order of the bits.
    public var names: [String] {
        let words: [(Capabilities, String)] = [
            (.durableAtCommit, "durable-at-commit"), (.deletesLast, "deletes-last"), (.keyed, "keyed"),
            (.blocking, "blocking"), (.volatile, "volatile"), (.selfIndexed, "self-indexed"),
        ]
        return words.filter { contains($0.0) }.map(\.1)
    }
}

/// Why a namespace and a backend do not fit: every reason, in words an operator can act on.
public struct NegotiationError: Error, Sendable {
    /// One sentence each.
    public let problems: [String]

    /// Wraps the sentences.
    public init(problems: [String]) { self.problems = problems }
}
