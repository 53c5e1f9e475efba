// `storage-engine rocksdb`: records in an LSM tree, for data that is larger than memory and written more than it is read.
public import Storage

/// RocksDB as the registry knows it.
public enum RocksDB {
    static let limits = BackendLimits(imageSizeMax: 8 << 20, locationBits: Location.bitCount, atomicWriteSize: 0)

    /// What the operator writes as `storage-engine rocksdb`.
    public static let descriptor = BackendDescriptor(
        name: "rocksdb", contract: .current, formats: 1...1,
        capabilities: [.keyed, .blocking, .durableAtCommit, .deletesLast], limits: limits, medium: .directory,
        settings: settings,
        open: { (request) throws(StorageError) -> any Backend in try RocksBackend(request) })

    private static let settings: [SettingSchema] = [
        SettingSchema("data-size", .size(0...1 << 47), default: "0",
            help: "limit of the live data in bytes; 0 for what the file system holds"),
        SettingSchema("cache-size", .size(1 << 20...1 << 42), default: "256M",
            help: "memory in bytes for blocks of the files, their indexes and filters"),
        SettingSchema("write-buffer-size", .size(1 << 20...4 << 30), default: "64M",
            help: "bytes gathered in memory before a file is written; up to four such buffers"),
        SettingSchema("background-threads", .integer(1...64), default: "2",
            help: "threads that write files and merge them, with low priority"),
        SettingSchema("compression", .word(["none", "lz4", "zstd"]), default: "none",
            help: "compression of the files' blocks"),
        SettingSchema("damaged-log", .word(["refuse", "cut"]), default: "refuse",
            help: "a write-ahead log that is damaged before its end: do not start, or go on with what stands before"),
    ]
}
