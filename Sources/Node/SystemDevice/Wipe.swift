// Wiping: what a device held cannot be taken for records any more.
internal import CUring
package import Device
internal import Glibc

extension SystemDevices {
    /// Overwrites the first `byteCount` bytes of a file or block device with zeros, all if it has fewer, and discards the
    /// rest where the system can. Lasts when it returns. Locks and refuses as `open` does. May block for long; any thread
    /// but a reactor's.
    /// - Parameter progress: called on this thread with the bytes done and the bytes in all.
    package static func wipe(
        path: String, byteCount: Int, progress: (_ doneByteCount: Int, _ byteCount: Int) -> Void = { _, _ in }
    ) throws(DeviceOpenError) {
        guard byteCount >= 0 else { throw DeviceOpenError("a size of \(byteCount) bytes is not possible") }
        var found = apus_identity()
        let isBlockDevice = apus_identity_of_path(path, &found) == 0 && found.is_block_device
        let device = try DeviceOpening.open(
            DeviceRequest(path: path, isBlockDevice: isBlockDevice), carrier: .threads)
        let shape = device.geometry
        let rounded = shape.byteCount - max(0, shape.byteCount - byteCount) / shape.sectorSize * shape.sectorSize
        try overwrite(device, rounded, of: shape.byteCount, progress)
        try discardRest(device, from: rounded, of: shape.byteCount, progress)
        // The descriptor is the device's, which would otherwise be free to go before the call.
        let reason = withExtendedLifetime(device) { fsync(device.descriptor) == 0 ? 0 : errno }
        if reason != 0 { throw unwiped("made durable", 0, reason) }
    }

    private static func unwiped(_ what: String, _ offset: Int, _ reason: Int32) -> DeviceOpenError {
        DeviceOpenError("cannot be \(what) at byte \(offset): \(DeviceOpening.systemText(reason))")
    }

    private static func overwrite(
        _ device: SystemDevice, _ end: Int, of byteCount: Int, _ progress: (Int, Int) -> Void
    ) throws(DeviceOpenError) {
        let stepBytes = 1 << 20
        let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: stepBytes, alignment: 4096)
        defer { zeros.deallocate() }
        zeros.initializeMemory(as: UInt8.self, repeating: 0)
        var offset = 0
        while offset < end {
            let written = pwrite(device.descriptor, zeros.baseAddress, min(stepBytes, end - offset), off_t(offset))
            if written <= 0 {
                if written < 0, errno == EINTR || errno == EAGAIN { continue }
                throw unwiped("overwritten", offset, written < 0 ? errno : EIO)
            }
            offset += written
            progress(offset, byteCount)
        }
    }

    /// In steps, so that progress is seen; a device that cannot discard keeps its bytes.
    private static func discardRest(
        _ device: SystemDevice, from begin: Int, of byteCount: Int, _ progress: (Int, Int) -> Void
    ) throws(DeviceOpenError) {
        let stepBytes = 1 << 30
        var offset = begin
        while offset < byteCount {
            let step = min(stepBytes, byteCount - offset)
            let result =
                device.isBlockDevice
                ? apus_block_discard(device.descriptor, UInt64(offset), UInt64(step))
                : apus_punch_hole(device.descriptor, Int64(offset), Int64(step))
            if result != 0 {
                if errno == EINTR { continue }
                if errno == EOPNOTSUPP || errno == ENOTTY { return progress(byteCount, byteCount) }
                throw unwiped("discarded", offset, errno)
            }
            offset += step
            progress(offset, byteCount)
        }
    }
}
