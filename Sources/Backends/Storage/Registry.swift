/// The backends of one node: a value, complete before any namespace opens.
public struct BackendRegistry: Sendable {
    /// In the order they were named.
    public let descriptors: [BackendDescriptor]

    /// Freezes the list.
    /// - Precondition: no two share a name.
    public init(_ descriptors: [BackendDescriptor]) {
        let names = descriptors.map(\.name).sorted()
        for (name, next) in zip(names, names.dropFirst()) {
            precondition(name != next, "two storage backends are called '\(name)'")
        }
        self.descriptors = descriptors
    }

    /// The backend of that name.
    public func descriptor(named name: String) -> BackendDescriptor? { descriptors.first { $0.name == name } }

    /// Checks what a namespace needs against what a backend declares, and reports every problem, not the
    /// first.
    /// - Throws: `NegotiationError` with one sentence per problem.
    public func negotiate(_ name: String, _ needs: Requirements) throws(NegotiationError) -> Agreement {
        guard let backend = descriptor(named: name) else {
            let known = descriptors.map(\.name).joined(separator: ", ")
            throw NegotiationError(problems: ["there is no storage-engine '\(name)'; this node has: \(known)"])
        }
        var problems: [String] = []
        let contract = ContractVersion.current
        if backend.contract.major != contract.major || backend.contract.minor > contract.minor {
            let theirs = "\(backend.contract.major).\(backend.contract.minor)"
            problems.append("it was built for contract \(theirs), this node speaks \(contract.major).\(contract.minor)")
        }
        let missing = needs.capabilities.subtracting(backend.capabilities)
        if !missing.isEmpty { problems.append("it does not promise: \(missing.names.joined(separator: ", "))") }
        if backend.limits.imageSizeMax < needs.imageSizeMax {
            problems.append("it holds records up to \(backend.limits.imageSizeMax) bytes, needed are \(needs.imageSizeMax):"
                + " lower max-record-size")
        }
        if backend.limits.locationBits > Location.bitCount {
            problems.append("it needs \(backend.limits.locationBits) location bits, the index has \(Location.bitCount)")
        }
        guard problems.isEmpty else {
            throw NegotiationError(problems: problems.map { "storage-engine '\(name)': \($0)" })
        }
        return Agreement(backend: name, format: backend.formats.upperBound, capabilities: backend.capabilities)
    }
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
}
