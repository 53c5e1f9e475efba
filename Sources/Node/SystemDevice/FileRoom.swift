// Room for a file: all of it is allocated before it is used, so that a full file system is found out at once.
internal import CUring
internal import Device
internal import Files
internal import Glibc

/// Allocation of files. Any thread but a reactor's.
enum FileRoom {
    /// Gives a file its size: one that was made, or one that is smaller than wanted. Lasts when it returns;
    /// what fails is undone by the caller, from `grewFrom`.
    static func make(_ opened: inout OpenedFile, _ request: DeviceRequest) throws(DeviceOpenError) {
        var found = apus_identity()
        guard apus_identity_of(opened.descriptor, &found) == 0 else { throw unusable(errno) }
        let now = Int(found.byte_count)
        guard request.fileByteCount > now else { return }
        let free = apus_free_byte_count(opened.descriptor)
        var reason = allocate(opened.descriptor, from: now, to: request.fileByteCount)
        if reason == EOPNOTSUPP {
            reason = ftruncate(opened.descriptor, off_t(request.fileByteCount)) == 0 ? 0 : errno
            opened.notes.append("its file system allocates late: that it is full is found out only by writing")
        }
        if reason == 0, fsync(opened.descriptor) != 0 { reason = errno }
        if reason == 0, opened.wasMade { reason = flushDirectory(of: request.path) }
        opened.grewFrom = now
        guard reason != 0 else { return }
        switch reason {
        case ENOSPC, EDQUOT:
            throw DeviceOpenError(
                "needs \(request.fileByteCount - now) bytes and its file system has \(max(free, 0)) bytes free")
        case EFBIG: throw DeviceOpenError("its file system takes no file of \(request.fileByteCount) bytes")
        default: throw unusable(reason)
        }
    }

    private static func unusable(_ reason: Int32) -> DeviceOpenError {
        DeviceOpenError("cannot be allocated: \(DeviceOpening.systemText(reason))")
    }

    /// Allocates a file from its beginning to `byteCount`; 0 or an errno.
    static func allocate(_ descriptor: Int32, from now: Int, to byteCount: Int) -> Int32 {
        // Trying would fill the file system for a moment, and others would find it full.
        let free = apus_free_byte_count(descriptor)
        if free >= 0, byteCount - now > Int(free) { return ENOSPC }
        while apus_allocate(descriptor, Int64(byteCount)) != 0 {
            if errno != EINTR { return errno }
        }
        return 0
    }

    /// The name of a file that was made lasts; 0 or an errno.
    private static func flushDirectory(of path: String) -> Int32 {
        do throws(FileError) {
            try settleDirectory(parentDirectory(of: path))
            return 0
        } catch {
            return error.reason
        }
    }
}
