// The devices of this machine: files and block devices over io_uring, or over helper threads where that is not to be had.
internal import CUring
package import Device
internal import Files
internal import Glibc
internal import Synchronization

/// Opens the devices of this machine. Stateless: what is open is known to the whole process.
package struct SystemDevices: DeviceOpener {
    /// What carries out the operations.
    package enum Carrier: Sendable {
        /// A ring if the system allows it and APUS_NO_IO_URING is not 1, else threads.
        case automatic
        /// Helper threads, in any case.
        case threads
    }

    /// Operations under way on the queues of one thread, at most.
    package static let operationsMax = 32_768

    let carrier: Carrier

    /// An opener.
    package init(carrier: Carrier = .automatic) { self.carrier = carrier }

    /// Why helper threads do what io_uring would, one sentence for the log; nil if they do not. Any thread.
    package static var ringNote: String? { RingSupport.shared.problem }

    /// Why memory could not be registered with io_uring, one sentence for the log; nil if it could, so far. Any thread.
    package static var memoryNote: String? { SystemNotes.memory.withLock { $0 } }

    /// The same, for whoever opens devices through the seam.
    package var notes: [String] { [SystemDevices.ringNote, SystemDevices.memoryNote].compactMap { $0 } }

    /// Opens a block device or a file. Unless it is only looked at, it is locked against other processes.
    package func open(_ request: DeviceRequest) throws(DeviceOpenError) -> any BlockDevice {
        try DeviceOpening.open(request, carrier: carrier)
    }

    /// Queues over one ring, or one set of helper threads. They may go from thread to thread, together.
    package func makeQueues(
        _ devices: [any BlockDevice], depth: Int, wake: DeviceWake
    ) throws(DeviceError) -> [any DeviceQueue] {
        guard !devices.isEmpty else { return [] }
        guard depth > 0, depth <= SystemDevices.operationsMax / devices.count else {
            throw .invalid("\(devices.count) queues of \(depth) operations: at most \(SystemDevices.operationsMax) in all")
        }
        var own: [SystemDevice] = []
        for device in devices {
            guard let one = device as? SystemDevice else { throw .invalid("a device that was opened by another opener") }
            own.append(one)
        }
        let group = try makeGroup(own, depth: depth, wake: wake)
        return own.enumerated().map { SystemQueue(group, $1, number: $0) }
    }

    private func makeGroup(
        _ devices: [SystemDevice], depth: Int, wake: DeviceWake
    ) throws(DeviceError) -> any QueueGroup {
        if carrier == .automatic, RingSupport.shared.problem == nil {
            do throws(DeviceError) {
                return try RingGroup(devices, depth: depth, wake: wake)
            } catch {
                // Locked memory (kernels before 5.12) or descriptors may have run out since the probe.
                guard case .failed(let reason) = error, reason != EMFILE, reason != ENFILE else { throw error }
                RingSupport.shared.note(failure: reason)
            }
        }
        return try ThreadGroup(devices, depth: depth, wake: wake)
    }
}

/// Whether this process has io_uring: tried once.
final class RingSupport: Sendable {
    static let shared = RingSupport()

    private let found: Mutex<String?>

    private init() {
        if let forbidden = getenv("APUS_NO_IO_URING"), String(cString: forbidden) == "1" {
            found = Mutex("io_uring is switched off by APUS_NO_IO_URING=1: helper threads read and write the devices")
            return
        }
        var failure: Int32 = 0
        if let ring = apus_ring_open(4, 8, &failure) {
            apus_ring_close(ring)
            found = Mutex(nil)
        } else {
            found = Mutex(RingSupport.sentence(-failure))
        }
    }

    var problem: String? { found.withLock { $0 } }

    /// A ring could not be made although the probe went well.
    func note(failure: Int32) { found.withLock { $0 = RingSupport.sentence(failure) } }

    private static func sentence(_ failure: Int32) -> String {
        let reason =
            switch failure {
            case ENOSYS: "this kernel is older than 5.6 or has no io_uring"
            case EPERM, EACCES: "the system forbids it (a container's seccomp profile, or kernel.io_uring_disabled)"
            case ENOMEM: "not enough memory may be locked (ulimit -l, or LimitMEMLOCK of the service)"
            default: errnoText(failure)
            }
        return "io_uring cannot be used: \(reason): helper threads read and write the devices"
    }
}

/// Sentences that are said once for the whole process.
enum SystemNotes {
    static let memory = Mutex<String?>(nil)
}
