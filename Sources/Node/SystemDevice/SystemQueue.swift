// A queue of one device, and what stands behind the queues of one thread.
internal import Device

/// What carries out the operations of several queues, all of one thread: a ring or helper threads. Queues
/// are numbered from 0.
protocol QueueGroup: AnyObject {
    /// Starts an operation that has been checked.
    /// - Throws: `queueFull`.
    func submit(_ operation: Operation) throws(DeviceError)
    func kick()
    /// Hands over what has completed on a queue; on any queue if nil.
    func poll(_ queue: Int?, _ receive: (DeviceCompletion) -> Void)
    func turnEnded(sleeping: Bool)
    func prepare(_ memory: UnsafeMutableRawBufferPointer, queue: Int)
    func wait(_ queue: Int?)
    /// Waits for what is under way on a queue, forgets what it has not been told and the memory prepared for it.
    func letGo(_ queue: Int)
}

/// A queue of a `SystemDevice`. One thread at a time for all queues that were made together, letting go included.
final class SystemQueue: DeviceQueue {
    private let group: any QueueGroup
    private let device: SystemDevice
    private let number: Int

    init(_ group: any QueueGroup, _ device: SystemDevice, number: Int) {
        self.group = group
        self.device = device
        self.number = number
    }

    deinit { group.letGo(number) }

    /// The first queue of a group speaks for all.
    private var reach: Int? { number == 0 ? nil : number }

    func submit(_ operation: DeviceOperation, tag: UInt64) throws(DeviceError) {
        var checked = try device.checked(operation)
        checked.tag = tag
        checked.queue = Int32(truncatingIfNeeded: number)
        try group.submit(checked)
    }

    func kick() { group.kick() }
    func poll(_ receive: (DeviceCompletion) -> Void) { group.poll(reach, receive) }
    func turnEnded(sleeping: Bool) { group.turnEnded(sleeping: sleeping) }
    func prepare(_ memory: UnsafeMutableRawBufferPointer) { group.prepare(memory, queue: number) }
    func wait() { group.wait(reach) }
}
