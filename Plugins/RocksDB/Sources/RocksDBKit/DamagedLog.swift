// The write-ahead log after a crash: cut short at its end it is as it should be, damaged before its end it is refused.
internal import Base
internal import Glibc
internal import RocksDB
internal import Storage

enum DamagedLog {
    private static let imageCount = 50
    private static let imageSize = 1000

    /// What a crash cuts off was not acknowledged; everything before it is there.
    static func brokenTail() throws(StorageError) -> String? {
        try onCrashedDirectory { (directory, log) throws(StorageError) in
            guard truncate(log, off_t(size(log) - imageSize / 2)) == 0 else { return "the log cannot be cut" }
            let found = try countImages(directory, [])
            return found == imageCount - 1 ? nil : "\(found) images after the last of \(imageCount) was cut short"
        }
    }

    /// Damage before the end: refused, unless the operator says otherwise.
    static func brokenMiddle() throws(StorageError) -> String? {
        try onCrashedDirectory { (directory, log) throws(StorageError) in
            let file = open(log, O_WRONLY | O_CLOEXEC)
            defer { close(file) }
            let rubbish = [UInt8](repeating: 0xA5, count: 64)
            guard pwrite(file, rubbish, rubbish.count, off_t(size(log) / 2)) == rubbish.count else {
                return "the log cannot be damaged"
            }
            do throws(StorageError) {
                return "it opens with \(try countImages(directory, [])) of \(imageCount) images and says nothing"
            } catch {
                guard case .medium(let sentence) = error, sentence.contains("damaged-log") else { throw error }
            }
            let found = try countImages(directory, [("damaged-log", "cut")])
            return found > 0 && found < imageCount ? nil : "damaged-log cut finds \(found) of \(imageCount) images"
        }
    }

    // ---- A directory as a crash leaves it, with its only log ----

    private static func onCrashedDirectory(
        _ body: (String, String) throws(StorageError) -> String?
    ) throws(StorageError) -> String? {
        var template = Array("/tmp/rocksdb-log-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw .device(errno: errno, operation: "make a directory") }
        let root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { shell("rm -rf \(root)") }
        mkdir(root + "/live", 0o755)
        let backend = try openBackend(root + "/live", [])
        try fill(backend)
        // The copy is what is left when the process ends now.
        shell("cp -r \(root)/live \(root)/crashed")
        try backend.close()
        // A fresh database calls its first log so.
        return try body(root + "/crashed", root + "/crashed/000004.log")
    }

    private static func fill(_ backend: any Backend) throws(StorageError) {
        let shard = try backend.makeShard(ShardRequest(index: 0, count: 1, wake: {}))
        var failure: StorageError?
        let image = UnsafeMutableRawBufferPointer.allocate(byteCount: imageSize, alignment: 16)
        defer { image.deallocate() }
        for number in 0..<imageCount {
            for place in image.indices { image[place] = UInt8(number) }
            Envelope.seal(image, digest: digest(number))
            _ = try shard.append(
                digest(number), UnsafeRawBufferPointer(image), stream: .fresh, tag: Tag(rawValue: UInt64(number)))
            shard.poll { if case .failed(let error) = $0.result { failure = error } }
            if let failure { throw failure }
            shard.turnEnded(sleeping: false)
        }
    }

    private static func countImages(
        _ directory: String, _ settings: [(name: String, value: String)]
    ) throws(StorageError) -> Int {
        let backend = try openBackend(directory, settings)
        var count = 0
        try backend.scan(segment: 0, of: 1) { _ in
            count += 1
            return .live
        }
        try backend.close()
        return count
    }

    private static func openBackend(
        _ directory: String, _ settings: [(name: String, value: String)]
    ) throws(StorageError) -> any Backend {
        let agreement = Agreement(backend: "rocksdb", format: 1, capabilities: RocksDB.descriptor.capabilities)
        return try RocksDB.descriptor.open(
            OpenRequest(
                namespace: "test", settings: BackendSettings(settings), agreement: agreement, directory: directory,
                log: { _ in }))
    }

    private static func digest(_ number: Int) -> Digest {
        Digest(low: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, middle: UInt64(number), high: UInt32(number))
    }

    private static func size(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }

    private static func shell(_ command: String) { _ = system(command) }
}
