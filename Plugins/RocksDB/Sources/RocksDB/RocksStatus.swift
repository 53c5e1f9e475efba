// What RocksDB says has gone wrong, in the contract's words.
internal import CRocksDB
internal import Glibc
internal import Storage

enum RocksStatus {
    /// Errors of the system that RocksDB names at the end of its sentences, as `strerror` does.
    private static let systemErrors = [
        EMFILE, ENFILE, EIO, EROFS, EACCES, EPERM, ENOENT, ENOMEM, EFBIG, ENOTDIR, EISDIR, EEXIST, ENODEV, ENXIO, ESTALE,
    ]

    /// The error for a status; frees the text. Without a text it is unknown what RocksDB did not like.
    static func error(_ text: UnsafeMutablePointer<CChar>?, _ operation: String) -> StorageError {
        guard let text else { return .device(errno: 0, operation: "rocksdb: \(operation)") }
        defer { rocksdb_free(text) }
        let status = String(cString: text)
        if status.contains("No space left") || status.contains("Disk quota exceeded") { return .outOfSpace }
        if status.hasPrefix("Invalid argument") || status.hasPrefix("Not implemented") {
            return .settings("rocksdb cannot \(operation): \(status)")
        }
        // 0 if it is no error of the system: a number would be a lie then.
        let number = systemErrors.first { status.hasSuffix(String(cString: strerror($0))) } ?? 0
        return .device(errno: number, operation: "rocksdb: \(operation): \(status)")
    }

    /// The error of opening `directory`; frees the text.
    static func openError(_ text: UnsafeMutablePointer<CChar>?, _ directory: String) -> StorageError {
        guard let text, case let status = String(cString: text), status.hasPrefix("Corruption") else {
            return error(text, "open \(directory)")
        }
        rocksdb_free(text)
        return .medium(
            "rocksdb does not open \(directory), because a file in it is damaged: \(status). Restore it from a copy; or if"
                + " it is the write-ahead log, a .log file, 'damaged-log cut' opens with what was written before the damage")
    }
}
