internal import Glibc
internal import Storage

/// Small files in one directory, each replaced in one step: the part to throw away. Any thread.
struct Files: Sendable {
    let path: String

    private func failure(_ operation: String) -> StorageError {
        let reason = errno
        return reason == ENOSPC || reason == EDQUOT
            ? .outOfSpace : .device(errno: reason, operation: "\(operation) (\(String(cString: strerror(reason))))")
    }

    /// The content of a file; nil if there is none of that name.
    func read(_ name: String) throws(StorageError) -> [UInt8]? {
        let file = open(path + "/" + name, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw failure("open \(path)/\(name)")
        }
        defer { close(file) }
        var status = stat()
        errno = EISDIR
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { throw failure("look at \(path)/\(name)") }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        errno = EIO
        guard Glibc.read(file, &bytes, bytes.count) == bytes.count else { throw failure("read \(path)/\(name)") }
        return bytes
    }

    /// Gives a file new content; its bytes are on the medium before its name is.
    func replace(_ name: String, _ bytes: [UInt8]) throws(StorageError) {
        let fresh = path + "/" + name + ".new"
        let file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw failure("open \(fresh)") }
        let isWritten = write(file, bytes, bytes.count) == bytes.count && fdatasync(file) == 0
        let problem = isWritten ? nil : failure("write \(fresh)")
        close(file)
        if let problem {
            unlink(fresh)
            throw problem
        }
        guard rename(fresh, path + "/" + name) == 0 else { throw failure("rename \(fresh)") }
    }

    func remove(_ name: String) throws(StorageError) {
        guard unlink(path + "/" + name) == 0 || errno == ENOENT else { throw failure("remove \(path)/\(name)") }
    }

    /// Names that were given and taken are on the medium when it returns.
    func sync() throws(StorageError) {
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure("open \(path)") }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw failure("sync \(path)") }
    }

    /// The names of all files.
    func names() throws(StorageError) -> [String] {
        guard let directory = opendir(path) else { throw failure("list \(path)") }
        defer { closedir(directory) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(directory) else { break }
            names.append(withUnsafePointer(to: &entry.pointee.d_name) { name in
                name.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            })
        }
        guard errno == 0 else { throw failure("list \(path)") }
        return names
    }
}
