// How a path becomes a device: look what is there, claim it, open and lock it, make sure of its size, ask for its shape.
// Invariants:
// 1. What fails leaves nothing behind: no descriptor, no claim, no file that was made here, no growth.
// 2. What is only looked at is neither made nor locked nor changed.
internal import CUring
internal import Device
internal import Files
internal import Glibc

/// A descriptor with what has to be undone.
struct OpenedFile {
    var descriptor: Int32
    var isDirect: Bool
    var claim: OpenedDevices.Claim?
    /// The file was not there before.
    var wasMade = false
    /// The size before it grew.
    var grewFrom: Int?
    /// For the operator.
    var notes: [String] = []
}

/// What was found out about an open device.
struct DeviceShape {
    var geometry: DeviceGeometry
    /// The descriptor for reads: the device's own, or one that goes through the page cache.
    var readDescriptor: Int32
    var note: String?
}

/// The steps; see the invariants above. Any thread but a reactor's.
enum DeviceOpening {
    private static let busyTriesMax = 150
    private static let busyMicroseconds: UInt32 = 20_000

    /// Opens what a request names.
    static func open(_ request: DeviceRequest, carrier: SystemDevices.Carrier) throws(DeviceOpenError) -> SystemDevice {
        try checkWishes(request)
        var opened = try openFile(request)
        do throws(DeviceOpenError) {
            if !request.isBlockDevice && !request.isLookedAt { try FileRoom.make(&opened, request) }
            let shape = try DeviceProbe.shape(opened, request)
            return SystemDevice(opened, shape, request, carrier: carrier)
        } catch {
            if opened.wasMade { unlink(request.path) }
            if let before = opened.grewFrom { _ = ftruncate(opened.descriptor, off_t(before)) }
            if opened.claim != nil, !request.isBlockDevice { apus_unlock_file(opened.descriptor) }
            opened.claim?.giveUp()
            close(opened.descriptor)
            throw error
        }
    }

    private static func checkWishes(_ request: DeviceRequest) throws(DeviceOpenError) {
        if request.path.isEmpty { throw DeviceOpenError("the path is empty") }
        if request.path.utf8.contains(0) { throw DeviceOpenError("the path has a zero byte") }
        if request.fileByteCount < 0 { throw DeviceOpenError("a size of \(request.fileByteCount) bytes is not possible") }
        guard !request.isBlockDevice, request.fileByteCount % 512 != 0 else { return }
        throw unaligned(request.fileByteCount, sectorSize: 512)
    }

    static func unaligned(_ byteCount: Int, sectorSize: Int) -> DeviceOpenError {
        DeviceOpenError("unaligned size: \(byteCount) bytes are not whole sectors of \(sectorSize) bytes")
    }

    // ---- Opening ----

    private static func openFile(_ request: DeviceRequest) throws(DeviceOpenError) -> OpenedFile {
        // Between the look and the opening somebody else may have made or removed the file: look again then, a few times.
        for _ in 0..<8 {
            var found = apus_identity()
            if apus_identity_of_path(request.path, &found) == 0 {
                try checkKind(found, request)
                if let opened = try openExisting(found, request) { return opened }
            } else if errno == ENOENT, !request.isBlockDevice, !request.isLookedAt, request.fileByteCount > 0 {
                if let opened = try makeFile(request) { return opened }
            } else {
                throw failure(errno, request)
            }
        }
        throw DeviceOpenError("another process makes and removes it again and again")
    }

    private static func checkKind(_ found: apus_identity, _ request: DeviceRequest) throws(DeviceOpenError) {
        if found.is_directory { throw DeviceOpenError("is a directory: name a file in it, or a block device") }
        if request.isBlockDevice, found.is_file {
            throw DeviceOpenError("is a file, not a block device: name it with the setting 'file'")
        }
        if !request.isBlockDevice, found.is_block_device {
            throw DeviceOpenError("is a block device, not a file: name it with the setting 'device'")
        }
        guard found.is_file || found.is_block_device else {
            throw DeviceOpenError("is neither a file nor a block device")
        }
    }

    /// nil if it is not what was looked at any more.
    private static func openExisting(
        _ found: apus_identity, _ request: DeviceRequest
    ) throws(DeviceOpenError) -> OpenedFile? {
        var claim: OpenedDevices.Claim?
        if !request.isLookedAt {
            let result = OpenedDevices.claim(found, path: request.path)
            if let openPath = result.openPath { throw DeviceOpenError("is the same \(kind(request)) as \(openPath)") }
            claim = result.claim
        }
        do throws(DeviceOpenError) {
            guard var opened = try openDescriptor(request, extra: exclusive(request)) else {
                claim?.giveUp()
                return nil
            }
            opened.claim = claim
            var now = apus_identity()
            let isKnown = apus_identity_of(opened.descriptor, &now) == 0
            let isSame = isKnown && now.device == found.device && now.inode == found.inode
            let reason = isSame ? lock(opened, request) : 0
            if isSame, reason == 0 { return opened }
            close(opened.descriptor)
            if isSame { throw lockFailure(reason) }
            claim?.giveUp()
            return nil
        } catch {
            claim?.giveUp()
            throw error
        }
    }

    /// A block device that is mounted, or opened so elsewhere, refuses.
    private static func exclusive(_ request: DeviceRequest) -> UInt32 {
        request.isBlockDevice && !request.isLookedAt ? APUS_OPEN_EXCLUSIVE.rawValue : 0
    }

    private static func kind(_ request: DeviceRequest) -> String { request.isBlockDevice ? "block device" : "file" }

    /// A new file, locked; nil if there is one now.
    private static func makeFile(_ request: DeviceRequest) throws(DeviceOpenError) -> OpenedFile? {
        let making = APUS_OPEN_MAKES.rawValue | APUS_OPEN_EXCLUSIVE.rawValue
        guard var opened = try openDescriptor(request, extra: making) else { return nil }
        opened.wasMade = true
        var found = apus_identity()
        guard apus_identity_of(opened.descriptor, &found) == 0 else {
            let reason = errno
            unlink(request.path)
            close(opened.descriptor)
            throw failure(reason, request)
        }
        let (claim, openPath) = OpenedDevices.claim(found, path: request.path)
        opened.claim = claim
        // Somebody found it between these two steps: it is theirs.
        let reason = openPath == nil ? lock(opened, request) : EAGAIN
        guard reason != 0 else { return opened }
        close(opened.descriptor)
        claim?.giveUp()
        throw lockFailure(reason)
    }

    /// 0 or an errno. The kernel takes the rings of a process that has ended apart some time after its end, and keeps
    /// its files locked until then: a node that is started again waits for the one before.
    private static func lock(_ opened: OpenedFile, _ request: DeviceRequest) -> Int32 {
        if request.isLookedAt || request.isBlockDevice { return 0 }
        var result = apus_lock_file(opened.descriptor)
        for _ in 0..<busyTriesMax where result != 0 && (errno == EAGAIN || errno == EACCES) {
            usleep(busyMicroseconds)
            result = apus_lock_file(opened.descriptor)
        }
        return result == 0 ? 0 : errno
    }

    private static func lockFailure(_ reason: Int32) -> DeviceOpenError {
        let isHeld = reason == EAGAIN || reason == EACCES
        return DeviceOpenError(isHeld ? "is in use by another process" : "cannot be locked: \(systemText(reason))")
    }

    /// Opens past the page cache if the file system can; nil if it is not there, or not missing, any more.
    private static func openDescriptor(
        _ request: DeviceRequest, extra: UInt32
    ) throws(DeviceOpenError) -> OpenedFile? {
        let wanted = extra | (request.isLookedAt ? 0 : APUS_OPEN_WRITES.rawValue)
        let isMaking = extra & APUS_OPEN_MAKES.rawValue != 0
        // Some file systems refuse direct transfers only after having made the file: it is asked for once it is there.
        var descriptor = apus_device_open(request.path, isMaking ? wanted : wanted | APUS_OPEN_DIRECT.rawValue)
        var isDirect = false
        // What had it open until now, this process or another, may not have let go of it quite: wait a little.
        for _ in 0..<busyTriesMax where descriptor < 0 && errno == EBUSY {
            usleep(busyMicroseconds)
            descriptor = apus_device_open(request.path, wanted | APUS_OPEN_DIRECT.rawValue)
        }
        isDirect = descriptor >= 0 && !isMaking
        if descriptor < 0, errno == EINVAL, !isMaking { descriptor = apus_device_open(request.path, wanted) }
        if descriptor < 0 {
            let reason = errno
            if reason == (isMaking ? EEXIST : ENOENT) { return nil }
            throw failure(reason, request)
        }
        if isMaking { isDirect = apus_go_direct(descriptor) == 0 }
        var opened = OpenedFile(descriptor: descriptor, isDirect: isDirect)
        if !isDirect {
            opened.notes.append("its file system has no direct transfers: what is read and written is in the page cache too")
        }
        return opened
    }

    /// What an operator reads about an errno of opening.
    private static func failure(_ reason: Int32, _ request: DeviceRequest) -> DeviceOpenError {
        let use = request.isLookedAt ? "read" : "read and write"
        switch reason {
        case ENOENT, ENOTDIR:
            if request.isBlockDevice { return DeviceOpenError("does not exist: is the device attached?", isMissing: true) }
            if !request.isLookedAt, request.fileByteCount > 0 {
                return DeviceOpenError("cannot be made: its directory does not exist", isMissing: true)
            }
            let hint = request.isLookedAt ? "" : ", and no size is given to make it"
            return DeviceOpenError("does not exist\(hint)", isMissing: true)
        case EACCES, EPERM: return DeviceOpenError("no permission to \(use) it: ask for its owner's or its group's rights")
        case EROFS: return DeviceOpenError("is on a file system that is mounted read-only, or is a read-only device")
        case EBUSY: return DeviceOpenError("is in use by another process, or mounted")
        case ETXTBSY: return DeviceOpenError("is in use by another process as a program or for swapping")
        case ENXIO, ENODEV, ENOMEDIUM: return DeviceOpenError("no device is behind it", isMissing: true)
        case ELOOP: return DeviceOpenError("is a symbolic link that leads nowhere")
        case ENOSPC, EDQUOT: return DeviceOpenError("cannot be made: its file system is full")
        default: return DeviceOpenError("cannot be opened: \(systemText(reason))")
        }
    }

    /// The system's words for an errno.
    static func systemText(_ reason: Int32) -> String { "\(errnoText(reason)) (errno \(reason))" }
}
