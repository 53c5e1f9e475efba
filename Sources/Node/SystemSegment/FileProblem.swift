// What an operator reads about files and directories, and the few things all files here need.
internal import Glibc
internal import Storage

/// Errors of the file system in words.
enum FileProblem {
    /// Why `path` could not be used for what `verb` says, with what to do about it.
    static func medium(_ verb: String, _ path: String, _ reason: Int32 = errno) -> StorageError {
        switch reason {
        case ENOENT:
            .medium("cannot \(verb) \(path): it does not exist: make the directory, or mount it, or set another mount")
        case ENOTDIR: .medium("cannot \(verb) \(path): it, or what it is in, is not a directory: set another mount")
        case EACCES, EPERM:
            .medium("cannot \(verb) \(path): no permission: give the node's user its rights, or set another mount")
        case EROFS: .medium("cannot \(verb) \(path): its file system is mounted read-only: mount it for writing")
        case ENOSPC, EDQUOT:
            .medium("cannot \(verb) \(path): its file system is full: make it larger, or remove what 'apus shm list' shows"
                + " and nobody needs")
        case ELOOP: .medium("cannot \(verb) \(path): it is a symbolic link, and not ours: remove it")
        default: .medium("cannot \(verb) \(path): \(text(reason))")
        }
    }

    /// The system's words for an errno.
    static func text(_ reason: Int32) -> String { "\(String(cString: strerror(reason))) (errno \(reason))" }

    /// Makes names that were made in a directory, or removed, last; 0 or an errno.
    static func flushDirectory(_ path: String) -> Int32 {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        return fsync(descriptor) == 0 ? 0 : errno
    }

    /// The names in a directory, sorted; nil, with `errno` set, if it cannot be read.
    static func names(in path: String) -> [String]? {
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                tuple.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: tuple.pointee)) {
                    String(cString: $0)
                }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
