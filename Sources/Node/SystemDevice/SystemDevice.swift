// A block device or file of this machine. Invariants:
// 1. `descriptor` is open as long as this object, and so are its locks; `readDescriptor` is the same one, or one that goes
//    through the page cache.
// 2. The size only grows, under `growing`; a transfer that was checked against an older size is within the newer one.
// 3. A device that may be written is in `OpenedDevices` from before it is opened until it is unlocked to be closed.
internal import CUring
package import Device
internal import Glibc
internal import Synchronization

/// A device of the machine, see the invariants above. Any thread. Made by `SystemDevices.open`.
package final class SystemDevice: BlockDevice, @unchecked Sendable {
    /// What it was opened as.
    package let path: String
    /// What an operator should know about how it works here, one sentence for the log; nil if all is as it should be.
    package let note: String?
    let descriptor: Int32
    let readDescriptor: Int32
    let isBlockDevice: Bool
    let isLookedAt: Bool
    /// Reads go past the page cache, so they are whole sectors up to the end of the file.
    let readsDirectly: Bool
    private let sectorSize: Int
    private let atomicWriteSize: Int
    private let carrier: SystemDevices.Carrier
    private let byteCount: Atomic<Int>
    private let growing = Mutex<Void>(())
    private let claim: OpenedDevices.Claim?

    init(_ opened: OpenedFile, _ shape: DeviceShape, _ request: DeviceRequest, carrier: SystemDevices.Carrier) {
        path = request.path
        note = shape.note
        descriptor = opened.descriptor
        readDescriptor = shape.readDescriptor
        isBlockDevice = request.isBlockDevice
        isLookedAt = request.isLookedAt
        readsDirectly = opened.isDirect && shape.readDescriptor == opened.descriptor
        sectorSize = shape.geometry.sectorSize
        atomicWriteSize = shape.geometry.atomicWriteSize
        byteCount = Atomic(shape.geometry.byteCount)
        claim = opened.claim
        self.carrier = carrier
    }

    deinit {
        if readDescriptor != descriptor { close(readDescriptor) }
        // A child that is being forked, or the kernel, may keep it open a little longer than we do.
        if !isLookedAt && !isBlockDevice { apus_unlock_file(descriptor) }
        // Before the close: the number of a file that was removed meanwhile may be another file's right afterwards.
        claim?.giveUp()
        close(descriptor)
    }

    /// What it looks like now.
    package var geometry: DeviceGeometry {
        DeviceGeometry(
            sectorSize: sectorSize, byteCount: byteCount.load(ordering: .acquiring), atomicWriteSize: atomicWriteSize)
    }

    /// Allocates more of the file system, or takes note that the block device has been made larger.
    package func grow(to wanted: Int) throws(DeviceError) {
        try growing.withLock { (_) throws(DeviceError) in
            let now = byteCount.load(ordering: .relaxed)
            if isLookedAt { throw .invalid(SystemDevice.lookedAtProblem) }
            guard wanted >= now, wanted % sectorSize == 0 else {
                throw .invalid("\(path) of \(now) bytes cannot grow to \(wanted), in sectors of \(sectorSize)")
            }
            if wanted == now { return }
            if isBlockDevice { try checkBlockDevice(has: wanted) } else { try growFile(from: now, to: wanted) }
            byteCount.store(wanted, ordering: .releasing)
        }
    }

    private func checkBlockDevice(has wanted: Int) throws(DeviceError) {
        let real = apus_block_byte_count(descriptor)
        if real < 0 { throw .failed(errno: errno) }
        if Int(real) < wanted { throw .noSpace }
    }

    /// A file that cannot grow keeps its size, and gives back what was allocated beyond.
    private func growFile(from now: Int, to wanted: Int) throws(DeviceError) {
        var reason = FileRoom.allocate(descriptor, from: now, to: wanted)
        if reason == 0, fdatasync(descriptor) != 0 { reason = errno }
        guard reason != 0 else { return }
        _ = ftruncate(descriptor, off_t(now))
        if reason == ENOSPC || reason == EDQUOT { throw .noSpace }
        throw .failed(errno: reason)
    }

    /// A queue that calls `wake` for every completion until its owner says by `turnEnded` when it sleeps.
    package func makeQueue(depth: Int, wake: @escaping @Sendable () -> Void) throws(DeviceError) -> any DeviceQueue {
        try SystemDevices(carrier: carrier).makeQueues([self], depth: depth, wake: DeviceWake(call: wake))[0]
    }

    private static let lookedAtProblem = "the device was opened to be looked at only"

    /// An operation as the groups of queues take it, if it is whole sectors within the device.
    @inline(__always)
    func checked(_ operation: DeviceOperation) throws(DeviceError) -> Operation {
        var checked = Operation()
        switch operation {
        case .read(let buffer, let offset):
            (checked.kind, checked.offset, checked.byteCount) = (.read, offset, buffer.count)
            checked.address = buffer.baseAddress
        case .write(let buffer, let offset, let durable):
            (checked.kind, checked.offset, checked.byteCount) = (durable ? .durableWrite : .write, offset, buffer.count)
            checked.address = UnsafeMutableRawPointer(mutating: buffer.baseAddress)
        case .flush: return checked
        case .discard(let offset, let byteCount):
            (checked.kind, checked.offset, checked.byteCount) = (.discard, offset, byteCount)
        }
        let last = byteCount.load(ordering: .relaxed) &- checked.byteCount
        let crooked = (checked.offset | checked.byteCount | Int(bitPattern: checked.address)) & (sectorSize &- 1)
        if crooked != 0 || checked.offset < 0 || checked.byteCount <= 0 || checked.offset > last {
            throw .invalid(problem(checked))
        }
        if isLookedAt && checked.kind != .read { throw .invalid(SystemDevice.lookedAtProblem) }
        return checked
    }

    @inline(never)
    private func problem(_ operation: Operation) -> String {
        geometry.problem(offset: operation.offset, byteCount: operation.byteCount)
            ?? "the buffer is not aligned to \(sectorSize) bytes"
    }
}
