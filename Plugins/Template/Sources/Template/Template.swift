// A whole storage backend, one file for each record: plain and correct, not fast. Copy it, then put your store in the
// place of `Folder`.
//
// Invariants: 1. A file named by the 40 digits of a digest holds the newest image of that digest. 2. What takes a file's
// place is durable first, so a crash leaves the one or the other. 3. Who changes the file of a digest holds the lock of that
// digest, so that a scan deletes only what it has visited, and `liveBytes` is the sum of all files.
internal import Base
public import Storage
internal import Synchronization

/// The backend as the registry knows it.
public enum Template {
    static let limits = BackendLimits(imageSizeMax: 16 << 20, locationBits: Location.bitCount, atomicWriteSize: 0)

    /// What the operator writes as `storage-engine template { ... }`. Each capability is a promise that the kit tests:
    /// calls may block (so the node gives them threads), one image for each digest, what a commit has answered survives a
    /// crash, deletes too.
    public static let descriptor = BackendDescriptor(
        name: "template", contract: .current, formats: 1...1,
        capabilities: [.keyed, .blocking, .durableAtCommit, .deletesLast],
        limits: limits, medium: .directory, settings: [],
        open: { (request) throws(StorageError) -> any Backend in try TemplateBackend(request) })
}

/// The control plane: one object for each namespace, used by several threads.
final class TemplateBackend: Backend {
    let folder: Folder
    let versions = VersionCounter()
    private let liveBytes = Atomic<Int>(0)
    private let locks = (0..<64).map { _ in DigestLock() }
    private let log: @Sendable (String) -> Void

    init(_ request: OpenRequest) throws(StorageError) {
        log = request.log
        folder = try Folder(request.directory)
        do throws(StorageError) {
            for name in try folder.names() where name.utf8.count == 2 * Digest.byteCount {
                replaced(nil, try folder.size(name))
            }
        } catch {
            folder.close()
            throw error
        }
    }

    /// Runs `body` while nobody else changes the file of `digest`.
    func locked<Value: Sendable>(
        _ digest: Digest, _ body: () throws(StorageError) -> Value
    ) throws(StorageError) -> Value {
        try locks[Int(digest.low % UInt64(locks.count))].locked(body)
    }

    /// Keeps the figure for `statistics`: an image of `before` bytes, if there was one, gave way to one of `after`.
    func replaced(_ before: Int?, _ after: Int?) {
        let grown = Envelope.storedByteCount(after ?? 0) - Envelope.storedByteCount(before ?? 0)
        let now = liveBytes.wrappingAdd(grown, ordering: .relaxed).newValue
        assert(now >= 0, "more bytes went than came")
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { TemplateShard(self) }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        for name in try folder.names() where name.utf8.count == 2 * Digest.byteCount {
            guard let first = Int(name.prefix(2), radix: 16), first * count / 256 == segment,
                let bytes = try folder.read(name)  // Nil: removed since it was listed.
            else { continue }
            defer { bytes.deallocate() }
            let image = UnsafeRawBufferPointer(bytes)
            guard let digest = digest(of: image, in: name), Envelope.checksumFits(image) else {
                log("template: \(name) is not whole, it is left out")  // Written without a commit when the power failed.
                continue
            }
            switch visit(ScannedImage(digest: digest, location: versions.next(), image: image, sequence: 0)) {
            case .live, .replaces: continue
            case .stop: return
            case .stale: try delete(digest, ifStill: image)
            }
        }
    }

    /// A client may have put another image there since the visit. The same bytes are the same image.
    private func delete(_ digest: Digest, ifStill image: UnsafeRawBufferPointer) throws(StorageError) {
        try locked(digest) { () throws(StorageError) in
            guard let now = try folder.read(digest.description) else { return }
            defer { now.deallocate() }
            guard now.elementsEqual(image) else { return }
            try folder.remove(digest.description)
            replaced(image.count, nil)
        }
    }

    private func digest(of image: UnsafeRawBufferPointer, in name: String) -> Digest? {
        guard image.count >= Envelope.byteCount, let base = image.baseAddress else { return nil }
        let digest = Envelope.digest(at: base)
        return Envelope.fits(image, digest: digest) && digest.description == name ? digest : nil
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try folder.load("namespace") }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        guard bytes.count <= 1 << 20 else { throw .tooLarge(limitBytes: 1 << 20) }
        try folder.store("namespace", bytes)
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        var rest = try folder.load("partitions")[...]
        var metadata: [[UInt8]] = []
        while rest.count >= 2 {
            let size = Int(rest.removeFirst()) | Int(rest.removeFirst()) << 8
            metadata.append(Array(rest.prefix(size)))
            rest = rest.dropFirst(size)
        }
        return metadata
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        guard metadata.allSatisfy({ $0.count <= 256 }) else { throw .tooLarge(limitBytes: 256) }
        try folder.store("partitions", metadata.flatMap { [UInt8($0.count & 0xFF), UInt8($0.count >> 8)] + $0 })
    }

    var statistics: BackendStatistics {
        var figures = BackendStatistics()
        figures.usedBytes = UInt64(liveBytes.load(ordering: .relaxed))
        figures.allocatedBytes = figures.usedBytes
        return figures
    }

    func close() throws(StorageError) { folder.close() }
}

/// The data plane: one object for each storage thread, used on that thread only.
final class TemplateShard: BackendShard {
    private let backend: TemplateBackend
    private var lent: [UnsafeMutableRawBufferPointer] = []

    init(_ backend: TemplateBackend) { self.backend = backend }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        guard image.count <= Template.limits.imageSizeMax else { throw .tooLarge(limitBytes: Template.limits.imageSizeMax) }
        let name = digest.description
        return try backend.locked(digest) { () throws(StorageError) in
            let before = try backend.folder.size(name)
            try backend.folder.replace(name, image, durably: before != nil)
            backend.replaced(before, image.count)
            return .placed(backend.versions.next())
        }
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        guard let bytes = try backend.folder.read(digest.description) else { return .absent }
        lent.append(bytes)
        guard Envelope.fits(UnsafeRawBufferPointer(bytes), digest: digest) else { throw .corrupt(location) }
        return .here(UnsafeRawBufferPointer(bytes))
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        try backend.locked(digest) { () throws(StorageError) in
            guard let before = try backend.folder.size(digest.description) else { return .done }
            try backend.folder.remove(digest.description)
            backend.replaced(before, nil)
            return .done
        }
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        try backend.folder.sync(digest.description)
        return .done
    }

    /// What `read` has lent is ours again.
    func turnEnded(sleeping: Bool) {
        for bytes in lent { bytes.deallocate() }
        lent.removeAll(keepingCapacity: true)
    }
}

/// Held by whoever changes the file of one of its digests; a class, because a lock cannot stand in an array.
private final class DigestLock: Sendable {
    private let lock = Mutex(())

    func locked<Value: Sendable>(_ body: () throws(StorageError) -> Value) throws(StorageError) -> Value {
        try lock.withLock { _ throws(StorageError) in try body() }
    }
}
