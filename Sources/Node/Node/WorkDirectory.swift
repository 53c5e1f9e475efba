internal import Base
internal import Files
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
        do throws(FileError) {
            try makeDirectory(path)
        } catch {
            throw StartError(
                "cannot make work directory \(path): \(error.reasonText) at \(error.path); set another work-directory")
        }
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

    /// Who this node is, kept here so that it stays the same: the id that is `configured`, else the one that is kept, else
    /// one that `make` makes. The file has the id in its first line, and the one before it in the second, if there was one.
    func identity(configured: NodeID?, _ make: () -> NodeID) throws(StartError) -> NodeIdentity {
        let file = path + "/node-id"
        do throws(FileError) {
            let text = String(decoding: try readFileIfThere(file, byteCountMax: 64 << 10) ?? [], as: UTF8.self)
            let lines = text.split(separator: "\n", maxSplits: 2, omittingEmptySubsequences: false)
            let kept = lines.prefix(2).map { UInt64($0, radix: 16).flatMap { $0 == 0 ? nil : NodeID(rawValue: $0) } }
            let stored = kept.first ?? nil
            let id = configured ?? stored ?? make()
            guard id != stored else { return NodeIdentity(id: id, former: kept.count > 1 ? kept[1] : nil, isNew: false) }
            try replaceFile(file, with: Array(("\(id)\n" + (stored.map { "\($0)\n" } ?? "")).utf8))
            return NodeIdentity(id: id, former: stored, isNew: stored != nil)
        } catch {
            throw StartError(error.sentence)
        }
    }
}

/// Under which id a node is known.
struct NodeIdentity {
    let id: NodeID
    /// The id before; nil if there was none.
    let former: NodeID?
    /// The id has changed with this start.
    let isNew: Bool
}
