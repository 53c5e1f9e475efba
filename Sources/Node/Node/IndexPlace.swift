// Where the index of a namespace lies: what the operator says, or what works here.
internal import Configuration
internal import Engine
internal import Files
internal import Storage
internal import SystemSegment

/// The medium of one index.
enum IndexPlace {
    case heap
    /// As the operator has written.
    case shmem(mounts: [String])
    case pmem(mounts: [String])
    /// `sharedMemory`, of which the operator says nothing. Unless `isLeft`, an index of an earlier run that may have writes
    /// that are nowhere else, ordinary memory does as well.
    case shmemByDefault(isLeft: Bool)

    /// Where shared memory is.
    static let sharedMemory = "/dev/shm"

    /// Directories; none for ordinary memory.
    var mounts: [String] {
        switch self {
        case .heap: []
        case .shmem(let mounts), .pmem(let mounts): mounts
        case .shmemByDefault: [IndexPlace.sharedMemory]
        }
    }

    /// Whether nobody has asked for this memory.
    var isDefault: Bool { if case .shmemByDefault = self { true } else { false } }

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

    /// The place for a namespace without problems, of the node `owner`; `log` gets a line if shared memory would be the
    /// default and does not do.
    static func choose(
        _ namespace: NamespaceConfiguration, _ registry: BackendRegistry, owner: String, log: (String) -> Void
    ) -> IndexPlace {
        let mounts = namespace.indexMounts.isEmpty ? [sharedMemory] : namespace.indexMounts
        switch namespace.indexType {
        case .heap: return .heap
        case .shmem: return .shmem(mounts: mounts)
        case .pmem: return .pmem(mounts: mounts)
        case .flash, nil:
            guard registry.descriptor(named: namespace.storageEngine)?.keepsMemory == .unwritten else { return .heap }
            // What it takes is not free, and must not make the mount look too small for it.
            if Segment.isLeft(on: sharedMemory, owner: owner, namespace: namespace.name) {
                return .shmemByDefault(isLeft: true)
            }
            do throws(StorageError) {
                let probe = try ShmemProbe(sharedMemory)
                guard probe.isTmpfs else { return .heap }
                guard let shortage = probe.shortage() else { return .shmemByDefault(isLeft: false) }
                log("\(shortage). Until then \(heapConsequence)")
            } catch {
                log("\(error.text): \(heapConsequence)")
            }
            return .heap
        }
    }

    /// What the operator has to know about ordinary memory.
    static let heapConsequence = "the index is in ordinary memory, and a start has to read the whole medium"

    /// The memory of a namespace; nil for ordinary memory.
    func open(
        _ namespace: NamespaceConfiguration, owner: String, log: @escaping @Sendable (String) -> Void,
        warn: @escaping @Sendable (String) -> Void
    ) throws(StorageError) -> Segment? {
        let kind: Segment.Kind
        switch self {
        case .heap: return nil
        case .shmem, .shmemByDefault: kind = .shmem
        case .pmem: kind = .pmem
        }
        var spec = Segment.Spec(
            kind: kind, mounts: mounts.map(absolutePath), namespace: namespace.name, owner: owner,
            backend: namespace.storageEngine, layout: Namespace.memoryLayout, log: log, warn: warn)
        spec.stageByteCount = namespace.indexStageSize
        return try Segment.open(spec)
    }
}
