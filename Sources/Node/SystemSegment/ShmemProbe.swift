// How much memory a tmpfs has: the default of containers, 64 MB, is found out before an index fills it.
internal import Glibc
package import Storage

/// A mount for shared memory, as it is now.
package struct ShmemProbe: Sendable {
    /// The mount.
    package let path: String
    /// Whether it is memory at all.
    package let isTmpfs: Bool
    /// Its size, bytes; `Int.max` without a limit.
    package let byteCount: Int
    /// What of that is free, bytes.
    package let freeByteCount: Int

    /// Looks at a mount. Any thread but a reactor's.
    /// - Throws: `medium` if it cannot be looked at.
    package init(_ path: String) throws(StorageError) {
        var found = statvfs()
        guard statvfs(path, &found) == 0 else { throw FileProblem.medium("use", path) }
        self.path = path
        isTmpfs = SegmentMedium.isTmpfs(path)
        // A tmpfs without a limit says that it has no blocks.
        byteCount = found.f_blocks == 0 ? .max : Int(found.f_blocks) * Int(found.f_frsize)
        freeByteCount = found.f_blocks == 0 ? .max : Int(found.f_bavail) * Int(found.f_frsize)
    }

    /// What to tell the operator if less than `neededByteCount` is free; nil if there is enough.
    package func shortage(neededByteCount: Int = 1 << 30) -> String? {
        guard freeByteCount < neededByteCount else { return nil }
        return "\(path) has \(byteCount >> 20) MB, \(freeByteCount >> 20) MB of it free; the index may need"
            + " \(neededByteCount >> 20) MB: make it larger (docker run --shm-size=4g, or mount -o remount,size=4G \(path)),"
            + " or name another tmpfs with index-type shmem { mount ... }"
    }
}
