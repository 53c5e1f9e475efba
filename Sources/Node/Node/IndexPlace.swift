// Where the index of a namespace lies: what the operator says, or what works here.
internal import Configuration
internal import Engine
internal import Storage
internal import SystemSegment

/// The medium of one index.
enum IndexPlace {
    case heap
    case shmem(mounts: [String])
    case pmem(mounts: [String])

    /// Where shared memory is.
    static let sharedMemory = "/dev/shm"

    /// What keeps the namespaces from having the index type that they ask for, a sentence each. Touches nothing.
    static func problems(_ namespaces: [NamespaceConfiguration], _ registry: BackendRegistry) -> [String] {
        namespaces.compactMap { namespace in
            guard let type = namespace.indexType, type != .heap,
                let descriptor = registry.descriptor(named: namespace.storageEngine), descriptor.keepsMemory == .nothing
            else { return nil }
            return "namespace \(namespace.name): index-type \(type.rawValue): storage-engine \(descriptor.name) builds its"
                + " index at every start; use index-type heap, or leave index-type out"
        }
    }

    /// The place for a namespace without problems; `log` gets a line if shared memory would be the default and does not do.
    static func choose(
        _ namespace: NamespaceConfiguration, _ registry: BackendRegistry, log: (String) -> Void
    ) -> IndexPlace {
        let mounts = namespace.indexMounts.isEmpty ? [sharedMemory] : namespace.indexMounts
        switch namespace.indexType {
        case .heap: return .heap
        case .shmem: return .shmem(mounts: mounts)
        case .pmem: return .pmem(mounts: mounts)
        case .flash, nil:
            guard registry.descriptor(named: namespace.storageEngine)?.keepsMemory == .unwritten else { return .heap }
            do throws(StorageError) {
                let probe = try ShmemProbe(sharedMemory)
                guard probe.isTmpfs else { return .heap }
                guard let shortage = probe.shortage() else { return .shmem(mounts: mounts) }
                log("\(shortage). Until then the index is in ordinary memory, and a start has to read the whole medium")
            } catch {
                log("\(error.text): the index is in ordinary memory, and a start has to read the whole medium")
            }
            return .heap
        }
    }

    /// The memory of a namespace; nil for ordinary memory.
    func open(
        _ namespace: NamespaceConfiguration, owner: String, log: @escaping @Sendable (String) -> Void,
        warn: @escaping @Sendable (String) -> Void
    ) throws(StorageError) -> Segment? {
        let (kind, mounts): (Segment.Kind, [String])
        switch self {
        case .heap: return nil
        case .shmem(let directories): (kind, mounts) = (.shmem, directories)
        case .pmem(let directories): (kind, mounts) = (.pmem, directories)
        }
        var spec = Segment.Spec(
            kind: kind, mounts: mounts.map(absolutePath), namespace: namespace.name, owner: owner,
            backend: namespace.storageEngine, layout: Namespace.memoryLayout, log: log, warn: warn)
        spec.stageByteCount = namespace.indexStageSize
        return try Segment.open(spec)
    }
}
