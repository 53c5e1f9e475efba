// Files and directories that last. All may block. Invariants:
// 1. A file is replaced whole: the new one is written beside it, made durable, renamed, and the directory made durable,
//    before `replaceFile` returns. Whenever the machine stops, the old or the new one is there.
// 2. A directory that was made is durable when `makeDirectory` returns.
internal import Glibc

/// Replaces a file, or makes it: invariant 1. One thread at a time for each file; what fails leaves the old one.
package func replaceFile(_ path: String, with bytes: [UInt8]) throws(FileError) {
    let fresh = path + ".new"
    let descriptor = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(.write, fresh) }
    let reason = writeAll(descriptor, bytes) && fsync(descriptor) == 0 ? 0 : errno
    guard close(descriptor) == 0 || reason != 0 else { throw FileError(.write, fresh) }
    guard reason == 0 else { throw FileError(.write, fresh, reason: reason) }
    guard rename(fresh, path) == 0 else { throw FileError(.replace, path) }
    try settleDirectory(parentDirectory(of: path))
}

/// False, with `errno` set, if not all could be written.
private func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes { bytes in
        var written = 0
        while written < bytes.count {
            let count = write(descriptor, bytes.baseAddress! + written, bytes.count - written)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            written += count
        }
        return true
    }
}

/// Makes a directory, and what is missing above it: invariant 2. Nothing happens if there is something with this name.
/// - Throws: the path in the error is that of the directory, of those above too, that cannot be made.
package func makeDirectory(_ path: String) throws(FileError) {
    var partial = ""
    for part in path.split(separator: "/") {
        partial += partial.isEmpty && !path.hasPrefix("/") ? part : "/" + part
        if mkdir(partial, 0o755) == 0 {
            try settleDirectory(parentDirectory(of: partial))
        } else if errno != EEXIST {
            throw FileError(.make, partial)
        }
    }
}

/// Names that were made in a directory, or removed, last from here on.
package func settleDirectory(_ path: String) throws(FileError) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(.open, path) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw FileError(.settle, path) }
}
