// What differs between shared memory (files on tmpfs) and persistent memory (files on a DAX file system).
internal import CBase
internal import CPmem
internal import Glibc
internal import Storage

/// How the files of a segment become memory. Functions that can fail answer 0 or an errno.
struct SegmentMedium: Sendable {
    let kind: Segment.Kind
    /// Persistent memory may be files whose stores do not last when power fails.
    let isForced: Bool
    private static let tmpfsMagic = 0x0102_1994
    /// The file system takes these exactly where what is persisted lasts.
    private static let durableFlags = MAP_SHARED_VALIDATE | MAP_SYNC

    /// Maps the front of a file, whole pages, over reserved address space. It may be longer than the file.
    func map(_ descriptor: Int32, at address: UnsafeMutableRawPointer, byteCount: Int) -> Int32 {
        // Elsewhere first: a MAP_FIXED that the file refuses has given the reserved space up all the same, and what another
        // thread maps before the next try comes to lie there.
        var mapped = MAP_FAILED
        if kind == .pmem { mapped = SegmentMedium.mapAnywhere(descriptor, byteCount, SegmentMedium.durableFlags) }
        if mapped == MAP_FAILED, kind == .shmem || isForced {
            mapped = SegmentMedium.mapAnywhere(descriptor, byteCount, MAP_SHARED)
        }
        guard mapped != MAP_FAILED else { return errno }
        let reason = apus_pages_move(mapped, address, byteCount)
        guard reason == 0 else {
            munmap(mapped, byteCount)
            return reason
        }
        // Without huge pages it works as well, only slower.
        if kind == .shmem { _ = madvise(address, byteCount, MADV_HUGEPAGE) }
        return 0
    }

    private static func mapAnywhere(_ descriptor: Int32, _ byteCount: Int, _ flags: Int32) -> UnsafeMutableRawPointer? {
        mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, descriptor, 0)
    }

    /// Makes a mapped file longer, with all of the new bytes allocated; in persistent memory that lasts. What fails is
    /// undone.
    func extend(_ descriptor: Int32, at address: UnsafeMutableRawPointer, from now: Int, to end: Int) -> Int32 {
        // Trying would fill the file system for a moment, and others would find it full.
        var room = statvfs()
        guard fstatvfs(descriptor, &room) == 0 else { return errno }
        // A tmpfs without a limit has no blocks.
        if room.f_blocks > 0, UInt(end - now) > UInt(room.f_bavail) * UInt(room.f_frsize) { return ENOSPC }
        let reason = kind == .pmem ? allocate(descriptor, now, end) : populate(descriptor, address, now, end)
        if reason != 0 { _ = ftruncate(descriptor, off_t(now)) }
        return reason
    }

    /// `fallocate` would give small pages, however the mapping is advised; this touches them where they are mapped, but
    /// answers an error where touching would kill the process.
    private func populate(_ descriptor: Int32, _ address: UnsafeMutableRawPointer, _ now: Int, _ end: Int) -> Int32 {
        guard ftruncate(descriptor, off_t(end)) == 0 else { return errno }
        let begin = now & ~4095
        while madvise(address + begin, end - begin, MADV_POPULATE_WRITE) != 0 {
            switch errno {
            case EINTR: continue
            // A kernel older than 5.14.
            case EINVAL: return allocate(descriptor, now, end)
            case EFAULT, ENOMEM: return ENOSPC
            default: return errno
            }
        }
        return 0
    }

    private func allocate(_ descriptor: Int32, _ now: Int, _ end: Int) -> Int32 {
        var reason: Int32
        repeat { reason = posix_fallocate(descriptor, off_t(now), off_t(end - now)) } while reason == EINTR
        guard reason == 0, kind == .pmem else { return reason }
        return fsync(descriptor) == 0 ? 0 : errno
    }

    /// Whether stores to files in this directory last once they are persisted. `pmem_is_pmem` cannot tell: it knows only
    /// the mappings of `pmem_map_file`, and PMEM_IS_PMEM_FORCE makes it say yes. MAP_SYNC works exactly where it is so.
    /// - Throws: `medium` if a file cannot be made there.
    func isDurable(_ folder: String) throws(StorageError) -> Bool {
        guard kind == .pmem else { return false }
        let path = folder + "/probe"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw FileProblem.medium("make", path) }
        defer {
            close(descriptor)
            unlink(path)
        }
        let byteCount = 4096
        let reason = posix_fallocate(descriptor, 0, off_t(byteCount))
        guard reason == 0 else { throw FileProblem.medium("allocate", path, reason) }
        let mapped = SegmentMedium.mapAnywhere(descriptor, byteCount, SegmentMedium.durableFlags)
        guard mapped != MAP_FAILED else { return false }
        munmap(mapped, byteCount)
        return true
    }

    /// Whether a directory lies on tmpfs.
    static func isTmpfs(_ path: String) -> Bool {
        var found = statfs()
        return statfs(path, &found) == 0 && Int(found.f_type) == tmpfsMagic
    }
}

/// Makes stores to persistent memory last.
@inline(__always)
func persistBytes(_ address: UnsafeRawPointer, _ byteCount: Int) { pmem_persist(address, byteCount) }
