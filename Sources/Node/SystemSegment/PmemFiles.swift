// Files of `storage-engine pmem`: mapped whole, over libpmem. Invariants:
// 1. A file that is not only looked at is locked from `open` to `unlock`, or until its region is gone.
// 2. All bytes of a mapped file are allocated: touching them never finds the file system full.
// 3. A file has its name only once it is whole: until then it is made under `<path>.new`, by whoever has locked that. What
//    a killed process left there the next one overwrites.
internal import Base
internal import CPmem
internal import Files
internal import Glibc
package import PMEM

/// Opens files of persistent memory. Any thread but a reactor's; may block.
package struct SystemPmem: PmemOpener {
    private static let triesMax = 8
    /// Files whose stores do not last when power fails will do.
    private let isForced: Bool

    /// `isForced` is libpmem's own switch, PMEM_IS_PMEM_FORCE.
    package init(isForced: Bool = Segment.isForcedByEnvironment) { self.isForced = isForced }

    package func open(_ request: PmemRequest) throws(PmemOpenError) -> PmemFile {
        // Another process may make the file between any two steps: look again then, a few times.
        for _ in 0..<SystemPmem.triesMax {
            if try SystemPmem.isThere(request) { return try openThere(request) }
            guard !request.isLookedAt, request.byteCount > 0 else { throw PmemOpenError("does not exist", isMissing: true) }
            if let file = try make(request) { return file }
        }
        throw PmemOpenError("cannot be made: another process makes and removes it again and again")
    }

    /// An empty file that could be made with a size holds nothing: it is as good as none.
    private static func isThere(_ request: PmemRequest) throws(PmemOpenError) -> Bool {
        var found = stat()
        guard stat(request.path, &found) == 0 else {
            if errno == ENOENT { return false }
            throw PmemOpenError("cannot be opened: \(FileProblem.text(errno))")
        }
        return found.st_mode & S_IFMT != S_IFREG || found.st_size > 0 || request.byteCount == 0
    }

    private func openThere(_ request: PmemRequest) throws(PmemOpenError) -> PmemFile {
        // O_NONBLOCK: what is no file, a pipe for one, must not make us wait for its other end.
        let flags = O_CLOEXEC | O_NONBLOCK | (request.isLookedAt ? O_RDONLY : O_RDWR)
        let descriptor = Glibc.open(request.path, flags)
        guard descriptor >= 0 else { throw PmemOpenError("cannot be opened: \(FileProblem.text(errno))") }
        let file = OpenFile(descriptor)
        try SystemPmem.lock(file, isLookedAt: request.isLookedAt)
        let found = try SystemPmem.status(file)
        let byteCount = Int(found.st_size)
        let backed = Int(found.st_blocks) * 512
        if !request.isLookedAt, backed < byteCount { try SystemPmem.allocate(file, byteCount, backed: backed) }
        return try map(file, byteCount, isLookedAt: request.isLookedAt)
    }

    // ---- Making ----

    /// Nil if somebody else has made it meanwhile.
    private func make(_ request: PmemRequest) throws(PmemOpenError) -> PmemFile? {
        let newPath = request.path + ".new"
        guard let file = try SystemPmem.lockNew(newPath) else { return nil }
        // The lock has to last until its file has its name, or is gone.
        defer { withExtendedLifetime(file) {} }
        let made: PmemFile
        do throws(PmemOpenError) {
            guard try SystemPmem.isFree(request.path) else {
                unlink(newPath)
                return nil
            }
            guard ftruncate(file.descriptor, 0) == 0 else {
                throw PmemOpenError("cannot be made: \(FileProblem.text(errno))")
            }
            try SystemPmem.allocate(file, request.byteCount, backed: 0)
            made = try map(file, request.byteCount, isLookedAt: false)
        } catch {
            unlink(newPath)
            throw error
        }
        try SystemPmem.publish(newPath, request.path)
        return made
    }

    /// Opens a file to be made, or what is left of one, and locks it; nil if it has got its name meanwhile, or is gone.
    private static func lockNew(_ newPath: String) throws(PmemOpenError) -> OpenFile? {
        let descriptor = Glibc.open(newPath, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { throw PmemOpenError("cannot be made, as \(newPath): \(FileProblem.text(errno))") }
        let file = OpenFile(descriptor)
        try lock(file, isLookedAt: false)
        let opened = try status(file)
        var found = stat()
        let isSame = lstat(newPath, &found) == 0 && found.st_ino == opened.st_ino && found.st_dev == opened.st_dev
        return isSame ? file : nil
    }

    /// Whether a new file may take this name. Nobody else gives it to one as long as the caller has the lock.
    private static func isFree(_ path: String) throws(PmemOpenError) -> Bool {
        var found = stat()
        guard lstat(path, &found) == 0 else { return errno == ENOENT }
        guard found.st_mode & S_IFMT != S_IFLNK else {
            throw PmemOpenError("is a symbolic link to a file that is missing or empty: make that file, or remove the link")
        }
        return found.st_mode & S_IFMT == S_IFREG && found.st_size == 0
    }

    /// Gives a whole file its name, for good.
    private static func publish(_ newPath: String, _ path: String) throws(PmemOpenError) {
        var reason = rename(newPath, path) == 0 ? 0 : errno
        if reason != 0 {
            unlink(newPath)
        } else {
            reason = FileProblem.flushDirectory(parentDirectory(of: path))
            if reason != 0 { unlink(path) }
        }
        guard reason == 0 else { throw PmemOpenError("cannot be made: \(FileProblem.text(reason))") }
    }

    // ---- Steps of both ----

    private static func status(_ file: OpenFile) throws(PmemOpenError) -> stat {
        var found = stat()
        guard fstat(file.descriptor, &found) == 0 else {
            throw PmemOpenError("cannot be opened: \(FileProblem.text(errno))")
        }
        guard found.st_mode & S_IFMT == S_IFREG else { throw PmemOpenError("is not a file") }
        return found
    }

    /// Gives a file its size with all of it allocated, and there for good.
    private static func allocate(_ file: OpenFile, _ byteCount: Int, backed: Int) throws(PmemOpenError) {
        let missing = UInt(byteCount - backed)
        var room = statvfs()
        if fstatvfs(file.descriptor, &room) == 0, room.f_blocks > 0, missing > UInt(room.f_bavail) * UInt(room.f_frsize) {
            throw PmemOpenError("needs \(missing) bytes and its file system has"
                + " \(UInt(room.f_bavail) * UInt(room.f_frsize)) bytes free")
        }
        var reason: Int32
        repeat { reason = posix_fallocate(file.descriptor, 0, off_t(byteCount)) } while reason == EINTR
        if reason == 0, fsync(file.descriptor) != 0 { reason = errno }
        guard reason == 0 else { throw PmemOpenError("cannot be allocated: \(FileProblem.text(reason))") }
    }

    private static func lock(_ file: OpenFile, isLookedAt: Bool) throws(PmemOpenError) {
        switch FileLock.take(file.descriptor, isLookedAt ? LOCK_SH : LOCK_EX) {
        case 0: if isLookedAt { file.unlock() }
        case EWOULDBLOCK: throw PmemOpenError("is in use by another process, or named twice")
        case let reason: throw PmemOpenError("cannot be locked: \(FileProblem.text(reason))")
        }
    }

    private func map(_ file: OpenFile, _ byteCount: Int, isLookedAt: Bool) throws(PmemOpenError) -> PmemFile {
        guard byteCount > 0 else { throw PmemOpenError("is empty") }
        let (region, isDurable) = try region(file, byteCount, isLookedAt: isLookedAt)
        let note = isDurable || isLookedAt
            ? nil
            : "PMEM_IS_PMEM_FORCE is set and it is not on a DAX file system: what is written there is NOT durable when"
                + " power fails"
        return PmemFile(region: region, note: note, unlock: { region.unlock() })
    }

    private func region(
        _ file: OpenFile, _ byteCount: Int, isLookedAt: Bool
    ) throws(PmemOpenError) -> (PmemFileRegion, isDurable: Bool) {
        if isLookedAt { return (try PmemFileRegion(file, byteCount, PROT_READ, MAP_PRIVATE), false) }
        let access = PROT_READ | PROT_WRITE
        if let durable = try? PmemFileRegion(file, byteCount, access, MAP_SHARED_VALIDATE | MAP_SYNC) {
            return (durable, true)
        }
        guard isForced else {
            throw PmemOpenError("is not on persistent memory: put it on the ext4 or XFS of a pmem device that is mounted"
                + " with -o dax; or, for tests only, set PMEM_IS_PMEM_FORCE=1")
        }
        return (try PmemFileRegion(file, byteCount, access, MAP_SHARED), false)
    }
}

/// An open file, closed with this object. Any thread.
private final class OpenFile: Sendable {
    let descriptor: Int32

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit {
        // A child that is being forked may keep it open a little longer than we do.
        unlock()
        close(descriptor)
    }

    func unlock() { flock(descriptor, LOCK_UN) }
}

/// A mapped file. Any thread.
private final class PmemFileRegion: MemoryRegion, @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let capacity: Int
    private let file: OpenFile

    init(_ file: OpenFile, _ byteCount: Int, _ access: Int32, _ flags: Int32) throws(PmemOpenError) {
        guard let address = mmap(nil, byteCount, access, flags, file.descriptor, 0), address != MAP_FAILED else {
            throw PmemOpenError("cannot be mapped: \(FileProblem.text(errno))")
        }
        base = address
        capacity = byteCount
        self.file = file
    }

    deinit { munmap(base, capacity) }

    func unlock() { file.unlock() }

    var backedByteCount: Int { capacity }
    func grow(to byteCount: Int) -> Bool { byteCount <= capacity }
    var needsPersist: Bool { true }
    func persist(offset: Int, byteCount: Int) {
        assert(offset >= 0 && byteCount > 0 && offset + byteCount <= capacity)
        persistBytes(base + offset, byteCount)
    }
}
