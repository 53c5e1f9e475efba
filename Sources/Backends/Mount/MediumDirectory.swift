// The directory of a backend that keeps its data in files. Invariants:
// 1. A directory is written to only under its lock, and only if its identity fits or it was empty.
// 2. `apus-medium` is replaced in one step: it is never half written. It comes before `data`.
// 3. The format in it is raised only when the backend has opened, and so converted, what was there.
internal import Files
internal import Glibc
public import Storage

/// One directory, locked and identified:
///
///     apus-medium        whose it is (`MediumIdentity`)
///     apus-medium.lock   locked while a process has it open; its process id in decimal
///     data/              the backend's own files
///
/// May block; any thread, one at a time.
public final class MediumDirectory: Sendable {
    /// For the backend's files alone.
    public let dataPath: String
    /// The backend's format of what is there: the newest if there was nothing.
    public let storedFormat: Int
    private let path: String
    private let identity: MediumIdentity
    private let lock: Int32

    private static let identityName = "apus-medium"
    private static let lockName = "apus-medium.lock"
    private static let identitySizeMax = 4096
    private static let lockAttempts = 10

    // ---- Looking, without touching ----

    /// Why `path` cannot be opened for `namespace` with `wanted`: every reason, each naming the path. Changes nothing. That
    /// somebody has it open is no reason if `ignoresLock`.
    public static func problems(
        path: String, namespace: String, wanted: Agreement, formats: ClosedRange<Int>, ignoresLock: Bool = false
    ) -> [String] {
        var status = stat()
        guard stat(path, &status) == 0 else {
            return errno == ENOENT ? [] : ["cannot look into directory \(path): \(errnoText())"]
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { return ["\(path) is not a directory"] }
        if !ignoresLock, let owner = lockOwner(path) {
            return ["directory \(path) is in use by process \(owner): stop it, or set another directory"]
        }
        do throws(StorageError) {
            guard let identity = try readIdentity(path) else { return foreignFiles(path) }
            return identity.problems(namespace: namespace, wanted: wanted, formats: formats)
                .map { "directory \(path): \($0)" }
        } catch {
            return ["directory \(path): \(error.text)"]
        }
    }

    /// The name of a process that holds the lock; nil if none does.
    private static func lockOwner(_ path: String) -> String? {
        let file = path + "/" + lockName
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { Glibc.close(descriptor) }
        if flock(descriptor, LOCK_SH | LOCK_NB) == 0 { return nil }
        let text = String(decoding: readAll(descriptor), as: UTF8.self)
        return text.split(separator: "\n").first.map { String($0) } ?? "unknown"
    }

    /// The identity, nil if there is none.
    private static func readIdentity(_ path: String) throws(StorageError) -> MediumIdentity? {
        let descriptor = open(path + "/" + identityName, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw .device(errno: errno, operation: "open \(path)/\(identityName)")
        }
        defer { Glibc.close(descriptor) }
        return try MediumIdentity(parsing: readAll(descriptor))
    }

    private static func readAll(_ descriptor: Int32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: identitySizeMax)
        let got = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        return Array(bytes.prefix(max(got, 0)))
    }

    /// A directory without identity must be empty, but for what a start that was interrupted has left.
    private static func foreignFiles(_ path: String) -> [String] {
        do throws(FileError) {
            let names = try fileNames(in: path)
            guard let name = names.first(where: { $0 != lockName && $0 != identityName + ".new" }) else { return [] }
            return ["directory \(path) holds files that Apus did not write ('\(name)' is one): give it an empty directory"]
        } catch {
            return ["cannot look into directory \(path): \(error.reasonText)"]
        }
    }

    // ---- Opening ----

    /// Makes the directory if it is missing, locks it, checks its identity and writes the new one, one session later.
    /// - Throws: `medium` with every reason; `device`.
    public init(
        path: String, namespace: String, wanted: Agreement, formats: ClosedRange<Int>
    ) throws(StorageError) {
        let problems = MediumDirectory.problems(path: path, namespace: namespace, wanted: wanted, formats: formats)
        guard problems.isEmpty else { throw .medium(problems.joined(separator: "; ")) }
        try MediumDirectory.make(path)
        lock = try MediumDirectory.takeLock(path)
        self.path = path
        dataPath = path + "/data"
        do throws(StorageError) {
            // Nobody else can change it from now on.
            let again = MediumDirectory.problems(
                path: path, namespace: namespace, wanted: wanted, formats: formats, ignoresLock: true)
            guard again.isEmpty else { throw .medium(again.joined(separator: "; ")) }
            let stored = try MediumDirectory.readIdentity(path)
            storedFormat = stored?.agreement.format ?? wanted.format
            identity = MediumIdentity(namespace: namespace, agreement: wanted, session: (stored?.session ?? 0) + 1)
            try MediumDirectory.writeIdentity(identity.with(format: storedFormat), path)
            try MediumDirectory.make(dataPath)
        } catch {
            Glibc.close(lock)
            throw error
        }
    }

    /// The backend has opened what was there: it has the newest format now.
    public func opened() throws(StorageError) {
        if identity.agreement.format != storedFormat { try MediumDirectory.writeIdentity(identity, path) }
    }

    /// Gives the lock back. Once.
    public func close() { Glibc.close(lock) }

    private static func make(_ path: String) throws(StorageError) {
        do throws(FileError) {
            try makeDirectory(path)
        } catch {
            throw .device(errno: error.reason, operation: "make directory \(error.path)")
        }
    }

    private static func sync(directory path: String) throws(StorageError) {
        do throws(FileError) {
            try settleDirectory(path)
        } catch {
            throw .device(errno: error.reason, operation: "sync \(path)")
        }
    }

    private static func takeLock(_ path: String) throws(StorageError) -> Int32 {
        let file = path + "/" + lockName
        let descriptor = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw .device(errno: errno, operation: "open \(file)") }
        // Somebody who only looks holds it for a moment.
        var attempts = 0
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            attempts += 1
            guard attempts < lockAttempts else {
                Glibc.close(descriptor)
                throw .medium("directory \(path) is in use by another process")
            }
            usleep(10_000)
        }
        let text = "\(getpid())\n"
        // In this order it works on a full disk too.
        guard Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count,
            ftruncate(descriptor, off_t(text.utf8.count)) == 0
        else {
            let reason = errno
            Glibc.close(descriptor)
            throw .device(errno: reason, operation: "write \(file)")
        }
        return descriptor
    }

    /// Replaces the identity in one step. On a full disk, which must not keep a node from starting and deleting, it is
    /// written over the old one, which is as long: both fit into one sector.
    private static func writeIdentity(_ identity: MediumIdentity, _ path: String) throws(StorageError) {
        let file = path + "/" + identityName
        do throws(StorageError) {
            try write(identity.encoded, to: file + ".new", O_CREAT | O_TRUNC)
        } catch {
            unlink(file + ".new")
            guard case .device(ENOSPC, _) = error, access(file, F_OK) == 0 else { throw error }
            return try write(identity.encoded, to: file, 0)
        }
        guard rename(file + ".new", file) == 0 else { throw .device(errno: errno, operation: "rename \(file).new") }
        try sync(directory: path)
    }

    private static func write(_ bytes: [UInt8], to file: String, _ flags: Int32) throws(StorageError) {
        let descriptor = open(file, O_WRONLY | O_CLOEXEC | flags, 0o644)
        guard descriptor >= 0 else { throw .device(errno: errno, operation: "open \(file)") }
        let isWritten = Glibc.write(descriptor, bytes, bytes.count) == bytes.count && fsync(descriptor) == 0
        let reason = errno
        Glibc.close(descriptor)
        guard isWritten else { throw .device(errno: reason, operation: "write \(file)") }
    }
}
