// What an operator reads about files and directories.
internal import Files
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
    static func text(_ reason: Int32) -> String { "\(errnoText(reason)) (errno \(reason))" }

    /// Makes names that were made in a directory, or removed, last; 0 or an errno.
    static func flushDirectory(_ path: String) -> Int32 {
        do throws(FileError) {
            try settleDirectory(path)
            return 0
        } catch {
            return error.reason
        }
    }

    /// The names in a directory, sorted.
    /// - Throws: `medium`.
    static func names(in path: String) throws(StorageError) -> [String] {
        do throws(FileError) {
            return try fileNames(in: path)
        } catch {
            throw medium("read", path, error.reason)
        }
    }
}
