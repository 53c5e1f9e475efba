internal import DeviceLog
internal import Memory
public import Storage
internal import SystemDevice

/// The backends in this package. A server with others names its own list beside these.
public enum Builtin {
    /// In the order in which they are shown.
    public static let descriptors: [BackendDescriptor] = [
        Memory.descriptor,
        DeviceLog.descriptor(
            opener: SystemDevices(),
            entropy: {
                var system = SystemRandomNumberGenerator()
                return system.next()
            }),
    ]
}
