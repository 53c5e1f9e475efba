// `storage-engine template`: one file for each record. Copy this folder, rename it, pass the kit, then replace what
// touches files by what you came for. docs/WRITE-A-BACKEND.md goes through it.
internal import Base
internal import Glibc
public import Storage
internal import Synchronization

/// The backend as the registry knows it.
public enum Template {
    static let limits = BackendLimits(imageSizeMax: 8 << 20, locationBits: Location.bitCount, atomicWriteSize: 0)

    /// What the operator writes as `storage-engine template`. Each capability is a promise that the kit holds you to.
    public static let descriptor = BackendDescriptor(
        name: "template", contract: .current, formats: 1...1,
        capabilities: [.keyed, .blocking, .durableAtCommit, .deletesLast], limits: limits, medium: .directory, settings: [],
        open: { (request) throws(StorageError) -> any Backend in TemplateBackend(request) })
}

/// The control plane: one object for each namespace. Everything here may block.
final class TemplateBackend: Backend {
    let files: Files
    let versions = VersionCounter()
    /// Held by every change, so that a scan deletes what it has seen and nothing newer.
    let changes = Mutex(())
    private let log: @Sendable (String) -> Void

    init(_ request: OpenRequest) {
        files = Files(path: request.directory)
        log = request.log
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { TemplateShard(self) }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        for name in try files.names() where name.utf8.count == 2 * Digest.byteCount {
            guard Int(name.utf8.reduce(0) { $0 &* 31 &+ UInt32($1) }) % count == segment else { continue }
            guard let bytes = try files.read(name) else { continue }
            guard let digest = Template.digest(of: bytes, name) else {
                log("file \(name) is damaged: it is left out")
                continue
            }
            let decision = bytes.withUnsafeBytes {
                visit(ScannedImage(digest: digest, location: versions.next(), image: $0, sequence: 0))
            }
            if case .stop = decision { return }
            if case .stale = decision { try deleteIfUnchanged(name, bytes) }
        }
    }

    private func deleteIfUnchanged(_ name: String, _ bytes: [UInt8]) throws(StorageError) {
        try changes.withLock { (_) throws(StorageError) in
            if try files.read(name) == bytes { try files.remove(name) }
        }
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try files.read("namespace") ?? [] }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try StoredMetadata.check(blob: bytes)
        try files.replace("namespace", bytes)
        try files.sync()
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        StoredMetadata.decode(partitions: try files.read("partitions") ?? [])
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try StoredMetadata.check(partitions: metadata)
        try files.replace("partitions", StoredMetadata.encode(partitions: metadata))
        try files.sync()
    }

    /// A keyed backend need not count: the node knows the sum from its index.
    var statistics: BackendStatistics { BackendStatistics() }

    func close() throws(StorageError) { try files.sync() }
}

/// The data plane: one object for each storage thread, used on that thread only. Plain blocking calls.
final class TemplateShard: BackendShard {
    private let backend: TemplateBackend
    private var lent: [UnsafeMutableRawBufferPointer] = []

    init(_ backend: TemplateBackend) { self.backend = backend }

    deinit { turnEnded(sleeping: true) }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        guard image.count <= Template.limits.imageSizeMax else { throw .tooLarge(limitBytes: Template.limits.imageSizeMax) }
        try backend.changes.withLock { (_) throws(StorageError) in
            try backend.files.replace(digest.description, Array(image))
        }
        return .placed(backend.versions.next())
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        guard let bytes = try backend.files.read(digest.description) else { return .absent }
        let lent = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        lent.copyBytes(from: bytes)
        self.lent.append(lent)
        return .here(UnsafeRawBufferPointer(lent))
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        try backend.changes.withLock { (_) throws(StorageError) in try backend.files.remove(digest.description) }
        return .done
    }

    /// The bytes of a file are on the medium before it gets its name; what a commit adds is the names.
    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        try backend.files.sync()
        return .done
    }

    /// What reads have lent is not used any more.
    func turnEnded(sleeping: Bool) {
        for bytes in lent { bytes.deallocate() }
        lent.removeAll(keepingCapacity: true)
    }
}

extension Template {
    /// The digest of the image in a file of this name; nil if it is damaged.
    static func digest(of bytes: [UInt8], _ name: String) -> Digest? {
        bytes.withUnsafeBytes { bytes in
            guard bytes.count >= Envelope.byteCount, let base = bytes.baseAddress else { return nil }
            let digest = Envelope.digest(at: base)
            return Envelope.fits(bytes, digest: digest) && digest.description == name ? digest : nil
        }
    }
}
