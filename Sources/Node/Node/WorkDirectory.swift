internal import Base
internal import Glibc
internal import SystemSegment

/// Why the node does not start: one sentence for the operator, and the exit code.
struct StartError: Error {
    let message: String
    init(_ message: String) { self.message = message }
}

/// The directory that belongs to one running node. The lock is the open file: it ends with the process.
struct WorkDirectory {
    let path: String
    private let lock: Int32

    /// Makes the directory if it is missing and takes its lock. May block for 3 s.
    init(path: String) throws(StartError) {
        self.path = path
        try WorkDirectory.make(path)
        let file = path + "/apus.lock"
        lock = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard lock >= 0 else {
            throw StartError("cannot open \(file): \(errnoText()); give this user write access or set work-directory")
        }
        guard FileLock.take(lock) == 0 else {
            let other = readSmallFile(file).split(separator: "\n").first.map { String($0) } ?? "unknown"
            throw StartError(
                "work directory \(path) is in use by the node with process id \(other): stop it, or set another"
                    + " work-directory")
        }
        let text = "\(getpid())\n"
        // In this order it works on a full disk too.
        guard write(lock, text, text.utf8.count) == text.utf8.count, ftruncate(lock, off_t(text.utf8.count)) == 0 else {
            throw StartError("cannot write \(file): \(errnoText())")
        }
    }

    private static func make(_ path: String) throws(StartError) {
        var partial = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            partial += part + "/"
            guard mkdir(partial, 0o755) == 0 || errno == EEXIST else {
                throw StartError(
                    "cannot make work directory \(path): \(errnoText()) at \(partial); set another work-directory")
            }
        }
    }

    /// The node's id, kept here so that it stays the same: read, or made by `make` and written.
    func nodeID(_ make: () -> NodeID) throws(StartError) -> NodeID {
        let file = path + "/node-id"
        let stored = readSmallFile(file).split(separator: "\n").first
        if let stored, let value = UInt64(stored, radix: 16), value != 0 { return NodeID(rawValue: value) }
        let id = make()
        let text = "\(id)\n"
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0, write(descriptor, text, text.utf8.count) == text.utf8.count, fsync(descriptor) == 0,
            close(descriptor) == 0
        else { throw StartError("cannot write \(file): \(errnoText())") }
        return id
    }
}

/// What the last failed system call said.
func errnoText() -> String { String(cString: strerror(errno)) }
