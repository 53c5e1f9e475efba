// What the cluster part of a node keeps on disk: its own file in the work directory, and metadata of partitions beside the
// records. Stores run on a thread of their own, in order.
internal import Assembly
internal import Base
internal import Engine
internal import Files
internal import Index
internal import Storage
internal import Synchronization

/// Reads at the start, writes while the node runs. `store` on any thread.
final class ClusterStores: Sendable {
    private static let viewSizeMax = 16 << 20
    private let directory: String
    private let namespaces: [Namespace]
    private let queue = HelperQueue(name: "cluster-store")
    /// Held while the control plane of a backend is used: it takes one thread at a time.
    private let controlPlane: ControlPlane

    /// `workDirectory` is the node's; the directory `cluster` in it is made if it is missing.
    init(workDirectory: String, namespaces: [Namespace], controlPlane: ControlPlane) throws(StartError) {
        directory = workDirectory + "/cluster"
        self.namespaces = namespaces
        self.controlPlane = controlPlane
        do throws(FileError) {
            try makeDirectory(directory)
        } catch {
            throw StartError(error.sentence)
        }
    }

    private var viewPath: String { directory + "/view" }

    /// What was stored last; nil if there was nothing.
    func loadView() throws(StartError) -> [UInt8]? {
        do throws(FileError) {
            return try readFileIfThere(viewPath, byteCountMax: ClusterStores.viewSizeMax)
        } catch {
            throw StartError(error.sentence)
        }
    }

    /// What the backends of these namespaces have kept of their partitions.
    func loadPartitions(_ names: [String]) throws(StartError) -> [StoredPartitions] {
        var stored: [StoredPartitions] = []
        for name in names {
            guard let namespace = namespaces.first(where: { $0.settings.name == name }) else { continue }
            do throws(StorageError) {
                let metadata = try namespace.backend.loadPartitionMetadata()
                let isFilled = (0..<PartitionID.count).map { namespace.index.count(PartitionID(UInt16($0))) > 0 }
                stored.append(StoredPartitions(
                    namespace: name, metadata: metadata,
                    isDurableAtAcknowledge: namespace.settings.commitBeforeAnswer
                        && namespace.agreement.capabilities.contains(.durableAtCommit),
                    isFilled: isFilled))
            } catch {
                throw StartError("namespace \(name): the metadata of its partitions cannot be read: \(error.text)")
            }
        }
        return stored
    }

    /// Does something else that may block, after what was asked before.
    func run(_ job: @escaping @Sendable () -> Void) { queue.add(job) }

    /// Makes it durable and calls `done` on the thread of the stores: nil, or what is wrong.
    func store(_ request: StoreRequest, done: @escaping @Sendable (String?) -> Void) {
        queue.add { [self] in done(write(request)) }
    }

    private func write(_ request: StoreRequest) -> String? {
        switch request {
        case .metadata: return "system metadata is not kept here"
        case .view(let bytes):
            do throws(FileError) {
                try replaceFile(viewPath, with: bytes)
                return nil
            } catch {
                return error.sentence
            }
        case .partitions(let all):
            for (name, metadata) in all {
                guard let namespace = namespaces.first(where: { $0.settings.name == name }) else {
                    return "there is no namespace \(name)"
                }
                do throws(StorageError) {
                    try controlPlane.hold { () throws(StorageError) in
                        try namespace.backend.storePartitionMetadata(metadata)
                    }
                } catch {
                    return "namespace \(name): the metadata of its partitions is not stored: \(error.text)"
                }
            }
            return nil
        }
    }

    /// Does what was asked for, and no more.
    func finish() { queue.finish() }
}

/// The control planes of all backends: one thread at a time. Any thread.
final class ControlPlane: Sendable {
    private let lock = Mutex(())

    /// Nobody else is in a backend's control plane while `body` runs.
    func hold<Value>(_ body: () throws(StorageError) -> Value) throws(StorageError) -> Value {
        try lock.withLock { (_) throws(StorageError) in try body() }
    }
}
