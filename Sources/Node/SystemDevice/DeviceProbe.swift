// The shape of an open device: sectors, size, what is written whole.
internal import CUring
internal import Device
internal import Glibc

/// Questions to an open device. Any thread but a reactor's.
enum DeviceProbe {
    /// All that `SystemDevice` needs to know. On failure nothing stays open but `opened`.
    static func shape(_ opened: OpenedFile, _ request: DeviceRequest) throws(DeviceOpenError) -> DeviceShape {
        // Some can be opened for writing nevertheless.
        if request.isBlockDevice, !request.isLookedAt, apus_block_is_read_only(opened.descriptor) {
            throw DeviceOpenError("is a read-only device")
        }
        let geometry = request.isBlockDevice ? try blockGeometry(opened) : try fileGeometry(opened)
        var shape = DeviceShape(geometry: geometry, readDescriptor: opened.descriptor)
        shape.note = opened.notes.isEmpty ? nil : opened.notes.joined(separator: "; ")
        if request.readsThroughPageCache && opened.isDirect {
            // Through /proc, so that it is this file, whatever has become of the path.
            let descriptor = apus_device_open("/proc/self/fd/\(opened.descriptor)", 0)
            let cached = descriptor >= 0 ? descriptor : apus_device_open(request.path, 0)
            if cached < 0 {
                throw DeviceOpenError("cannot be opened for reading by the page cache: \(DeviceOpening.systemText(errno))")
            }
            shape.readDescriptor = cached
        }
        return shape
    }

    // ---- Block devices ----

    private static func blockGeometry(_ opened: OpenedFile) throws(DeviceOpenError) -> DeviceGeometry {
        let sectorSize = Int(apus_block_sector_size(opened.descriptor))
        guard sectorSize == 512 || sectorSize == 4096 else {
            throw DeviceOpenError("has sectors of \(sectorSize) bytes: they must have 512 or 4096")
        }
        let byteCount = Int(apus_block_byte_count(opened.descriptor)) / sectorSize * sectorSize
        guard byteCount > 0 else { throw DeviceOpenError("has a size of 0 bytes: no medium is behind it") }
        let physicalSize = Int(apus_block_physical_size(opened.descriptor))
        return DeviceGeometry(
            sectorSize: sectorSize, byteCount: byteCount, atomicWriteSize: pieceSize(sectorSize, physicalSize))
    }

    /// Bytes that reach the medium whole.
    private static func pieceSize(_ sectorSize: Int, _ physicalSize: Int) -> Int {
        sectorSize == 4096 || physicalSize >= 4096 ? 4096 : 512
    }

    // ---- Files ----

    private static func fileGeometry(_ opened: OpenedFile) throws(DeviceOpenError) -> DeviceGeometry {
        var found = apus_identity()
        guard apus_identity_of(opened.descriptor, &found) == 0 else {
            throw DeviceOpenError("cannot be looked at: \(DeviceOpening.systemText(errno))")
        }
        let byteCount = Int(found.byte_count)
        guard byteCount > 0 else { throw DeviceOpenError("has a size of 0 bytes, and no size is given to make it") }
        let sectorSize = opened.isDirect ? try fileSectorSize(opened.descriptor) : 512
        guard byteCount % sectorSize == 0 else { throw DeviceOpening.unaligned(byteCount, sectorSize: sectorSize) }
        let physicalSize = Int(apus_physical_size_under(found.device))
        return DeviceGeometry(
            sectorSize: sectorSize, byteCount: byteCount, atomicWriteSize: pieceSize(sectorSize, physicalSize))
    }

    /// The smallest sectors that direct transfers may have: the kernel's word, else what a read shows.
    private static func fileSectorSize(_ descriptor: Int32) throws(DeviceOpenError) -> Int {
        let told = Int(apus_direct_alignment(descriptor))
        let candidates = [512, 4096].filter { $0 >= told }
        if told > 0, let size = candidates.first { return size }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
        defer { buffer.deallocate() }
        for size in candidates where isReadable(descriptor, buffer, sectorSize: size) { return size }
        throw DeviceOpenError("its file system has no direct transfers of 512 or 4096 bytes: put it on another one")
    }

    /// Reads the second sector into memory that is aligned to a sector and no more.
    private static func isReadable(_ descriptor: Int32, _ buffer: UnsafeMutableRawPointer, sectorSize: Int) -> Bool {
        let place = sectorSize < 4096 ? buffer + sectorSize : buffer
        return pread(descriptor, place, sectorSize, off_t(sectorSize)) >= 0
    }
}
