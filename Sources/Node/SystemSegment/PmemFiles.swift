// Files of `storage-engine pmem`: mapped whole, over libpmem. Invariants:
// 1. A file that is not only looked at is locked from `open` to `unlock`, or until its region is gone.
// 2. All bytes of a mapped file are allocated: touching them never finds the file system full.
internal import Base
internal import CPmem
internal import Glibc
package import PMEM

/// Opens files of persistent memory. Any thread but a reactor's; may block.
package struct SystemPmem: PmemOpener {
    /// Files whose stores do not last when power fails will do.
    private let isForced: Bool

    /// `isForced` is libpmem's own switch, PMEM_IS_PMEM_FORCE.
    package init(isForced: Bool = Segment.isForcedByEnvironment) { self.isForced = isForced }

    package func open(_ request: PmemRequest) throws(PmemOpenError) -> PmemFile {
        let (descriptor, isNew) = try SystemPmem.open(request)
        do throws(PmemOpenError) {
            let byteCount = try SystemPmem.size(descriptor, request, isNew: isNew)
            try SystemPmem.lock(descriptor, isLookedAt: request.isLookedAt)
            let (region, isDurable) = try map(descriptor, byteCount, isLookedAt: request.isLookedAt)
            let note = isDurable || request.isLookedAt
                ? nil
                : "PMEM_IS_PMEM_FORCE is set and it is not on a DAX file system: what is written there is NOT durable when"
                    + " power fails"
            return PmemFile(region: region, note: note, unlock: { region.unlock() })
        } catch {
            if isNew { unlink(request.path) }
            close(descriptor)
            throw error
        }
    }

    private static func open(_ request: PmemRequest) throws(PmemOpenError) -> (descriptor: Int32, isNew: Bool) {
        let flags = O_CLOEXEC | (request.isLookedAt ? O_RDONLY : O_RDWR)
        let descriptor = Glibc.open(request.path, flags)
        if descriptor >= 0 { return (descriptor, false) }
        guard errno == ENOENT else { throw PmemOpenError("cannot be opened: \(FileProblem.text(errno))") }
        guard !request.isLookedAt, request.byteCount > 0 else { throw PmemOpenError("does not exist", isMissing: true) }
        let made = Glibc.open(request.path, flags | O_CREAT | O_EXCL, 0o600)
        guard made >= 0 else { throw PmemOpenError("cannot be made: \(FileProblem.text(errno))") }
        return (made, true)
    }

    /// The size of a file; a new one is given its own, all of it allocated and there for good.
    private static func size(_ descriptor: Int32, _ request: PmemRequest, isNew: Bool) throws(PmemOpenError) -> Int {
        var found = stat()
        guard fstat(descriptor, &found) == 0 else { throw PmemOpenError("cannot be opened: \(FileProblem.text(errno))") }
        guard found.st_mode & S_IFMT == S_IFREG else { throw PmemOpenError("is not a file") }
        let byteCount = isNew ? request.byteCount : Int(found.st_size)
        guard !request.isLookedAt, isNew || Int(found.st_blocks) * 512 < byteCount else { return byteCount }
        var room = statvfs()
        let missing = byteCount - Int(found.st_blocks) * 512
        if fstatvfs(descriptor, &room) == 0, room.f_blocks > 0, UInt(missing) > UInt(room.f_bavail) * UInt(room.f_frsize) {
            throw PmemOpenError("needs \(missing) bytes and its file system has"
                + " \(UInt(room.f_bavail) * UInt(room.f_frsize)) bytes free")
        }
        var reason: Int32
        repeat { reason = posix_fallocate(descriptor, 0, off_t(byteCount)) } while reason == EINTR
        if reason == 0, fsync(descriptor) != 0 { reason = errno }
        if reason == 0, isNew { reason = FileProblem.flushDirectory(folder(of: request.path)) }
        guard reason == 0 else { throw PmemOpenError("cannot be allocated: \(FileProblem.text(reason))") }
        return byteCount
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// A process that was killed holds its lock until the kernel has taken its memory apart: this waits a little.
    private static func lock(_ descriptor: Int32, isLookedAt: Bool) throws(PmemOpenError) {
        let wanted = isLookedAt ? LOCK_SH : LOCK_EX
        var tries = 0
        while flock(descriptor, wanted | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK || errno == EINTR else {
                throw PmemOpenError("cannot be locked: \(FileProblem.text(errno))")
            }
            tries += 1
            guard tries <= SegmentLock.busyTriesMax else {
                throw PmemOpenError("is in use by another process, or named twice")
            }
            usleep(SegmentLock.busyMicroseconds)
        }
        if isLookedAt { flock(descriptor, LOCK_UN) }
    }

    private func map(
        _ descriptor: Int32, _ byteCount: Int, isLookedAt: Bool
    ) throws(PmemOpenError) -> (PmemFileRegion, isDurable: Bool) {
        guard byteCount > 0 else { throw PmemOpenError("is empty") }
        if isLookedAt {
            return (try region(descriptor, byteCount, PROT_READ, MAP_PRIVATE), false)
        }
        let access = PROT_READ | PROT_WRITE
        let flags = MAP_SHARED_VALIDATE | MAP_SYNC
        if let durable = try? region(descriptor, byteCount, access, flags) { return (durable, true) }
        guard isForced else {
            throw PmemOpenError("is not on persistent memory: put it on the ext4 or XFS of a pmem device that is mounted"
                + " with -o dax; or, for tests only, set PMEM_IS_PMEM_FORCE=1")
        }
        return (try region(descriptor, byteCount, access, MAP_SHARED), false)
    }

    private func region(
        _ descriptor: Int32, _ byteCount: Int, _ access: Int32, _ flags: Int32
    ) throws(PmemOpenError) -> PmemFileRegion {
        guard let address = mmap(nil, byteCount, access, flags, descriptor, 0), address != MAP_FAILED else {
            throw PmemOpenError("cannot be mapped: \(FileProblem.text(errno))")
        }
        return PmemFileRegion(address, byteCount, descriptor)
    }
}

/// A mapped file. Any thread.
private final class PmemFileRegion: MemoryRegion, @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let capacity: Int
    private let descriptor: Int32

    init(_ base: UnsafeMutableRawPointer, _ capacity: Int, _ descriptor: Int32) {
        self.base = base
        self.capacity = capacity
        self.descriptor = descriptor
    }

    deinit {
        unlock()
        munmap(base, capacity)
        close(descriptor)
    }

    func unlock() { flock(descriptor, LOCK_UN) }

    var backedByteCount: Int { capacity }
    func grow(to byteCount: Int) -> Bool { byteCount <= capacity }
    var needsPersist: Bool { true }
    func persist(offset: Int, byteCount: Int) {
        assert(offset >= 0 && byteCount > 0 && offset + byteCount <= capacity)
        persistBytes(base + offset, byteCount)
    }
}
