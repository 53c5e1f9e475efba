// The file `lock` in each directory of a segment: locked while a process uses the segment, and with the id of that process,
// for whoever finds it locked. The lock is the open file: it ends with the process, whatever it died of.
internal import Glibc
internal import Storage

/// A directory of a segment that is ours as long as this object.
final class SegmentLock: Sendable {
    private static let ownBusyTriesMax = 10
    private let descriptor: Int32

    private init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit {
        // A child that is being forked may keep it open a little longer than we do.
        flock(descriptor, LOCK_UN)
        close(descriptor)
    }

    /// Locks a directory; nil if it was removed meanwhile.
    /// - Throws: `medium`, with the other's process id if it is in use.
    static func take(_ folder: String, isPatient: Bool) throws(StorageError) -> SegmentLock? {
        let path = folder + "/lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        if descriptor < 0, errno == ENOENT { return nil }
        guard descriptor >= 0 else { throw FileProblem.medium("open", path) }
        let lock = SegmentLock(descriptor)
        try wait(descriptor, folder, isPatient: isPatient)
        var opened = stat()
        var found = stat()
        guard fstat(descriptor, &opened) == 0, stat(path, &found) == 0, opened.st_ino == found.st_ino,
            opened.st_dev == found.st_dev
        else { return nil }
        let text = "\(getpid())\n"
        // On a full file system the id is missing; the lock holds all the same.
        _ = pwrite(descriptor, text, text.utf8.count, 0)
        _ = ftruncate(descriptor, off_t(text.utf8.count))
        return lock
    }

    /// `holder` takes it for a moment, too. Our own process will not let go of it soon.
    private static func wait(_ descriptor: Int32, _ folder: String, isPatient: Bool) throws(StorageError) {
        let reason = FileLock.take(descriptor) {
            isPatient && processID(descriptor) != getpid() ? FileLock.patientTries : ownBusyTriesMax
        }
        guard reason != 0 else { return }
        guard reason == EWOULDBLOCK else { throw FileProblem.medium("lock", folder + "/lock", reason) }
        let process = processID(descriptor).map { "\($0)" } ?? "?"
        throw .medium("\(folder) is in use by the process \(process): stop that node first")
    }

    private static func processID(_ descriptor: Int32) -> pid_t? {
        var bytes = [UInt8](repeating: 0, count: 16)
        let got = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
        return pid_t(String(decoding: bytes.prefix(max(got, 0)), as: UTF8.self).prefix { $0.isNumber })
    }

    /// Whether a process uses a directory, and which one as far as that is known. Locks it for a moment.
    static func holder(_ folder: String) -> (isHeld: Bool, processID: pid_t?) {
        let descriptor = open(folder + "/lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { return (false, nil) }
        defer { close(descriptor) }
        return (flock(descriptor, LOCK_SH | LOCK_NB) != 0, processID(descriptor))
    }
}
