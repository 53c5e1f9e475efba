internal import DeviceLog
internal import Memory
internal import PMEM
public import Storage
internal import SystemDevice
internal import SystemSegment

/// The backends in this package. A server with others names its own list beside these.
public enum Builtin {
    /// In the order in which they are shown.
    public static let descriptors: [BackendDescriptor] = [
        memory,
        DeviceLog.descriptor(opener: SystemDevices(), entropy: chance),
        DeviceLog.residentDescriptor(opener: SystemDevices(), entropy: chance),
        PMEM.descriptor(opener: SystemPmem(), entropy: chance),
    ]

    /// With a file or a device in its settings, a namespace in memory is a log that is in memory, too.
    private static var memory: BackendDescriptor {
        var memory = Memory.descriptor
        memory.alternative = Alternative(settings: ["file", "device"], name: DeviceLog.residentName)
        return memory
    }

    private static let chance: @Sendable () -> UInt64 = {
        var system = SystemRandomNumberGenerator()
        return system.next()
    }
}
