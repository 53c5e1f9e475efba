internal import Configuration
internal import Mount
internal import Storage

/// What the namespaces of a configuration need of their backends.
enum MountRequests {
    /// One for each namespace. `log` takes lines of the backends.
    static func all(
        _ configuration: NodeConfiguration, log: @escaping @Sendable (String) -> Void = { _ in },
        warn: @escaping @Sendable (String) -> Void = { _ in }
    ) -> [MountRequest] {
        configuration.namespaces.map { namespace in
            MountRequest(
                namespace: namespace.name, engine: namespace.storageEngine, settings: namespace.storageSettings,
                requirements: requirements(namespace),
                defaultDirectory: configuration.service.workDirectory + "/data/" + namespace.name,
                log: { log("{\(namespace.name)} \($0)") }, warn: { warn("{\(namespace.name)} \($0)") })
        }
    }

    private static func requirements(_ namespace: NamespaceConfiguration) -> Requirements {
        var requirements = Requirements(imageSizeMax: namespace.maxRecordSize)
        if namespace.commitToDevice {
            requirements.needs.append((.durableAtCommit, "commit-to-device true"))
        }
        if namespace.strongConsistency {
            requirements.needs.append(([.durableAtCommit, .deletesLast], "strong-consistency true"))
        }
        return requirements
    }
}
