// The smallest backend in a directory, for `DirectorySubject`: one file with everything, written by each commit and
// by close.
import Base
import Glibc
import Storage
import StorageConformance
import Synchronization

enum FileFlaw: Sendable {
    /// Commits answer without writing.
    case writesAtCloseOnly
}

enum FileBackend {
    static func descriptor(flaw: FileFlaw? = nil) -> BackendDescriptor {
        BackendDescriptor(
            name: "file", contract: .current, formats: 1...1,
            capabilities: [.keyed, .blocking, .durableAtCommit, .deletesLast],
            limits: BackendLimits(imageSizeMax: 1 << 20, locationBits: 44, atomicWriteSize: 0), medium: .directory,
            settings: [SettingSchema("name-size", .size(1...1 << 10), default: "1K", help: "bytes of a file's name")],
            open: { (request) throws(StorageError) -> any Backend in
                guard request.settings.number("name-size") == 1024, request.settings.number("storage-threads") == 4 else {
                    throw .settings("the defaults of the schema are missing")
                }
                return try FileStore(request.directory + "/all", flaw)
            })
    }
}

private final class FileStore: Backend {
    struct State {
        var images: [Digest: (location: Location, bytes: [UInt8])] = [:]
        var blob: [UInt8] = []
        var partitions: [[UInt8]] = []
    }

    let state = Mutex(State())
    let versions = VersionCounter()
    private let path: String
    private let flaw: FileFlaw?

    init(_ path: String, _ flaw: FileFlaw?) throws(StorageError) {
        self.path = path
        self.flaw = flaw
        guard let file = fopen(path, "r") else { return }
        defer { fclose(file) }
        let lists = FileStore.lists(file)
        state.withLock { state in
            state.blob = lists.first ?? []
            state.partitions = Array(lists.dropFirst().prefix { !$0.isEmpty }).map { Array($0.dropFirst()) }
            for image in lists.dropFirst(state.partitions.count + 2) {
                image.withUnsafeBytes { state.images[Envelope.digest(at: $0.baseAddress!)] = (versions.next(), image) }
            }
        }
    }

    private static func lists(_ file: UnsafeMutablePointer<FILE>) -> [[UInt8]] {
        var lists: [[UInt8]] = []
        var count: UInt32 = 0
        while fread(&count, 4, 1, file) == 1 {
            var bytes = [UInt8](repeating: 0, count: Int(count))
            guard fread(&bytes, 1, bytes.count, file) == bytes.count else { break }
            lists.append(bytes)
        }
        return lists
    }

    /// Under the lock, for the storage threads share the new file's name.
    func write() throws(StorageError) { try state.withLock { (state) throws(StorageError) in try write(state) } }

    private func write(_ state: State) throws(StorageError) {
        let lists = [state.blob] + state.partitions.map { [1] + $0 } + [[]] + state.images.values.map(\.bytes)
        guard let file = fopen(path + "-new", "w") else { throw .device(errno: errno, operation: "write") }
        for list in lists {
            var count = UInt32(list.count)
            fwrite(&count, 4, 1, file)
            fwrite(list, 1, list.count, file)
        }
        guard fclose(file) == 0, rename(path + "-new", path) == 0 else { throw .device(errno: errno, operation: "write") }
    }

    func commit() throws(StorageError) { if flaw != .writesAtCloseOnly { try write() } }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { FileShard(self) }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        for (digest, image) in state.withLock({ $0.images }) where Int(digest.low % UInt64(count)) == segment {
            let decision = image.bytes.withUnsafeBytes {
                visit(ScannedImage(digest: digest, location: image.location, image: $0, sequence: 0))
            }
            if case .stop = decision { return }
            guard case .stale = decision else { continue }
            state.withLock { if $0.images[digest]?.location == image.location { $0.images[digest] = nil } }
        }
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { state.withLock { $0.blob } }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        guard bytes.count <= 1 << 20 else { throw .tooLarge(limitBytes: 1 << 20) }
        state.withLock { $0.blob = bytes }
        try write()
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { state.withLock { $0.partitions } }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        guard metadata.allSatisfy({ $0.count <= 256 }) else { throw .tooLarge(limitBytes: 256) }
        state.withLock { $0.partitions = metadata }
        try write()
    }

    var statistics: BackendStatistics {
        var figures = BackendStatistics()
        figures.usedBytes = state.withLock { state in
            state.images.values.reduce(0) { $0 + UInt64(Envelope.storedByteCount($1.bytes.count)) }
        }
        return figures
    }

    func close() throws(StorageError) { try write() }
}

private final class FileShard: BackendShard {
    private let store: FileStore
    private var lent: [UnsafeMutableRawBufferPointer] = []

    init(_ store: FileStore) { self.store = store }

    deinit { for bytes in lent { bytes.deallocate() } }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Storage.Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        guard image.count <= 1 << 20 else { throw .tooLarge(limitBytes: 1 << 20) }
        let location = store.versions.next()
        store.state.withLock { $0.images[digest] = (location, Array(image)) }
        return .placed(location)
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        guard let found = store.state.withLock({ $0.images[digest]?.bytes }) else { return .absent }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: found.count, alignment: 16)
        bytes.copyBytes(from: found)
        lent.append(bytes)
        return .here(UnsafeRawBufferPointer(bytes))
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        store.state.withLock { $0.images[digest] = nil }
        return .done
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        try store.commit()
        return .done
    }

    func turnEnded(sleeping: Bool) {
        for bytes in lent { bytes.deallocate() }
        lent = []
    }
}
