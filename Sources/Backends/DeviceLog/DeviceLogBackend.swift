// The control plane of a device log. Invariants:
// 1. Superblocks and metadata are written under `control`, one thread at a time; statistics never wait for it.
// 2. Nothing is appended before the cold start has ended (LogScan.swift).
internal import Base
internal import CBase
public import Device
public import Storage
internal import Synchronization

/// Device logs for a registry of backends.
public enum DeviceLog {
    /// What the operator writes after `storage-engine`.
    public static let name = "device"
    /// Name of the log that is in memory, too (`residentDescriptor`).
    public static let residentName = "memory-device"

    /// A log on raw devices or files that `opener` opens. `entropy` gives bits of chance when a device set is made.
    public static func descriptor(
        opener: any DeviceOpener, entropy: @escaping @Sendable () -> UInt64
    ) -> BackendDescriptor {
        descriptor(opener: opener, entropy: entropy, shape: LogShape())
    }

    /// The same log with every block in memory, too: reads never go to a device. What `storage-engine memory` means with a
    /// `device` or `file` in it. On the devices it is a log like any other.
    public static func residentDescriptor(
        opener: any DeviceOpener, entropy: @escaping @Sendable () -> UInt64
    ) -> BackendDescriptor {
        descriptor(opener: opener, entropy: entropy, shape: LogShape(), isResident: true)
    }

    /// Both with other sizes, for tests.
    package static func descriptor(
        opener: any DeviceOpener, entropy: @escaping @Sendable () -> UInt64, shape: LogShape, isResident: Bool = false
    ) -> BackendDescriptor {
        let layout = LogLayout(
            sectorSize: shape.flushUnit, flushUnit: shape.flushUnit, blockSize: shape.blockSize, headSize: shape.headSize)
        return BackendDescriptor(
            name: isResident ? residentName : name, contract: .current, formats: LogFormat.number...LogFormat.number,
            capabilities: [.durableAtCommit],
            limits: BackendLimits(
                imageSizeMax: layout.imageSizeMax, locationBits: Location.bitCount, atomicWriteSize: 512),
            medium: .own, settings: LogSettings.schema, keepsMemory: isResident ? .records : .unwritten,
            problems: {
                LogOpening($0, opener: opener, entropy: entropy, shape: shape, isResident: isResident).problems
            },
            open: { (request) throws(StorageError) -> any Backend in
                try LogOpening(
                    request, opener: opener, entropy: entropy, shape: shape, isResident: isResident
                ).open()
            })
    }
}

/// How a log begins.
enum LogStart: Equatable {
    /// There is nothing in it.
    case empty
    /// What lives is found out by a scan.
    case cold
    /// The index is there, and perhaps (not if `wasClosed`) what was not written.
    case warm(wasClosed: Bool)
}

/// What the control plane needs beside the core. Under the backend's lock.
private struct Control {
    let devices: [DeviceControl]
    let metadata: LogMetadata
}

/// See the top of the file. Any thread.
final class DeviceLogBackend: Backend, @unchecked Sendable {
    let core: LogCore
    /// What the settings of its devices are called: `device` or `file`.
    let names: String
    /// In the order of the configuration.
    let paths: [String]
    let figures: ScanFigures
    let progress: ScanProgress
    let compaction: (any Compacting)?
    let warmStart: (any WarmStarting)?
    private let firstSequence: UInt64
    private let control: Control
    private let controlLock = Mutex<Void>(())
    /// Members of the core's epochs that no scan uses.
    private let spareMembers = Mutex<[Int]>([])

    init(
        _ core: LogCore, _ controls: [DeviceControl], _ metadata: LogMetadata, names: String, paths: [String],
        firstSequence: UInt64, start: LogStart
    ) {
        self.core = core
        self.names = names
        self.paths = paths
        self.firstSequence = firstSequence
        control = Control(devices: controls, metadata: metadata)
        compaction = LogCompaction(core)
        let blocks = core.present.reduce(0) { $0 + $1.blockCount }
        figures = ScanFigures(totalBytes: start == .cold ? UInt64(blocks * core.shape.blockSize) : 0)
        switch start {
        case .empty:
            progress = ScanProgress(core, isCold: false, isWarmAwaited: false)
            warmStart = nil
            core.buffers.start()
            core.settleBlocks()
        case .cold:
            progress = ScanProgress(core, isCold: true, isWarmAwaited: false)
            warmStart = nil
            core.buffers.start()
        case .warm(let wasClosed):
            progress = ScanProgress(core, isCold: true, isWarmAwaited: true)
            // A long session may have gone beyond the floor that it began with.
            let highest = core.present.reduce(0) { max($0, $1.highestSequence) }
            core.nextSequence = max(core.nextSequence, highest + 1)
            warmStart = LogWarmStart(core, progress, wasClosed: wasClosed, firstSequence: firstSequence)
        }
    }

    private func checkOpen() throws(StorageError) {
        guard !core.isClosed else { throw .closed }
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        try checkOpen()
        let shard = try LogShard(core, request)
        if shard.number == 0 {
            try raiseFloor()
            for note in core.opener.notes { core.log(note) }
        }
        return shard
    }

    // ---- Scans ----

    func scan(
        segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision
    ) throws(StorageError) {
        try checkOpen()
        let kind = try progress.begin(segment, of: count)
        var part = ScanSegment(core, kind, segment: segment, of: count, firstSequence: firstSequence, figures)
        var failure: StorageError?
        do throws(StorageError) {
            let member = try takeMember()
            defer { spareMembers.withLock { $0.append(member) } }
            try part.run(member: member, visit)
        } catch {
            failure = error
        }
        try progress.end(isStopped: part.isStopped || failure != nil, highestSequence: part.highestSequence) {
            (highest) throws(StorageError) in try endColdStart(highest)
        }
        if let failure { throw failure }
    }

    private func takeMember() throws(StorageError) -> Int {
        if let spare = spareMembers.withLock({ $0.popLast() }) { return spare }
        guard let member = core.epochs.join() else { throw .overloaded }
        return member
    }

    private func endColdStart(_ highestSequence: UInt64) throws(StorageError) {
        core.nextSequence = max(core.nextSequence, highestSequence + 1)
        try raiseFloor()
        try forgetMemoryIfIncomplete()
        for device in core.present { device.keepSequences() }
        if core.isResident { core.discardDeadBlocks() }
        core.settleBlocks()
    }

    /// A device that was given up during the cold start was not seen whole: when it is in order again the index does not
    /// know what lives there, and a warm start would take its blocks for free ones. So the next start is cold.
    private func forgetMemoryIfIncomplete() throws(StorageError) {
        guard core.present.contains(where: \.isFenced) else { return }
        try locked { (control) throws(StorageError) in
            for device in control.devices where !isFenced(device) { try device.rewrite { $0.sessionKey = 0 } }
        }
    }

    /// The next session begins above what this one can use.
    private func raiseFloor() throws(StorageError) {
        try locked { (control) throws(StorageError) in
            let floor = control.devices.map(\.superblock.sequenceFloor).min() ?? .max
            let next = core.nextSequence
            guard next + LogOpening.sequencesOfSession / 2 > floor else { return }
            for device in control.devices {
                try device.rewrite { $0.sequenceFloor = next + LogOpening.sequencesOfSession }
            }
        }
    }

    // ---- Metadata ----

    private func locked<Value>(_ body: (Control) throws(StorageError) -> Value) throws(StorageError) -> Value {
        var value: Value?
        try controlLock.withLock { (_) throws(StorageError) in value = try body(control) }
        return value!
    }

    private func load(_ kind: LogMetadata.Kind) throws(StorageError) -> [UInt8] {
        try checkOpen()
        return try locked { (control) throws(StorageError) in control.metadata.value(kind) }
    }

    private func store(_ kind: LogMetadata.Kind, _ value: [UInt8]) throws(StorageError) {
        try checkOpen()
        try locked { (control) throws(StorageError) in
            try control.metadata.store(kind, value, control.devices, isLeftOut: isFenced) {
                (device, error) throws(StorageError) in
                // With another device that has it, it is there. Else the store fails, and the device is not to blame alone.
                guard control.devices.count > 1, let device = core.device(device.slot) else { throw error }
                core.fence(device, error.text)
            }
        }
    }

    private func isFenced(_ control: DeviceControl) -> Bool { core.device(control.slot)?.isFenced ?? true }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { try load(.namespaceBlob) }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try StoredMetadata.check(blob: bytes)
        try store(.namespaceBlob, bytes)
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        StoredMetadata.decode(partitions: try load(.partitions))
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try StoredMetadata.check(partitions: metadata)
        try store(.partitions, StoredMetadata.encode(partitions: metadata))
    }

    // ---- Facets ----

    var locating: (any Locating)? { self }
    var resizing: (any Resizing)? { self }
    var adjusting: (any Adjusting)? { core }

    // ---- The end ----

    func close() throws(StorageError) {
        guard core.close() else { return }
        let hasServed = !progress.isCold
        try locked { (control) throws(StorageError) in
            var failure: StorageError?
            for device in control.devices {
                do throws(StorageError) { try writeOut(device, hasServed: hasServed) } catch { failure = failure ?? error }
            }
            if let failure { throw failure }
        }
    }

    /// Everything that was appended to a device lasts when this returns. What is under way on some queue is written again:
    /// the same bytes at the same place.
    private func writeOut(_ control: DeviceControl, hasServed: Bool) throws(StorageError) {
        guard let device = core.device(control.slot) else { return }
        guard !device.isFenced else {
            throw .device(errno: DeviceErrno.inputOutput, operation: "close \(device.path), which was given up")
        }
        let writes = device.locked {
            for stream in device.streams { _ = device.seal(stream) }
            return device.streams.flatMap { $0.pending.filter { !$0.isWritten }.map(\.write) }
        }
        for write in writes {
            let bytes = UnsafeRawBufferPointer(
                start: core.buffers.bytes(write.buffer) + write.offset, count: write.byteCount)
            let block = core.buffers[write.buffer].block
            try control.channel.write(bytes, device.layout.offset(ofBlock: block) + write.offset)
        }
        try control.channel.flush()
        // A cold start that did not end has not seen every sequence.
        guard hasServed else { return }
        let next = core.nextSequence
        try control.rewrite { $0.sequenceFloor = next }
    }
}

// ---- Growth, places ----

extension DeviceLogBackend: Resizing, Locating {
    func grow(to byteCount: UInt64?) throws(StorageError) -> String {
        try checkOpen()
        guard !progress.isCold else { throw .settings("the log cannot grow before its cold start has ended") }
        let wanted = byteCount.map { Int(clamping: $0) }
        return try locked { (control) throws(StorageError) in
            var sentences: [String] = []
            for device in control.devices where !isFenced(device) {
                sentences.append(try grow(device, to: names == "file" ? wanted : nil))
            }
            return sentences.joined(separator: "; ")
        }
    }

    /// - Throws: `device`, `outOfSpace`, `settings` if it would shrink.
    private func grow(_ control: DeviceControl, to wanted: Int?) throws(StorageError) -> String {
        let before = control.superblock.deviceByteCount
        if let wanted {
            guard wanted >= before else {
                throw .settings("\(control.path) has \(before) bytes and cannot shrink to \(wanted)")
            }
            do throws(DeviceError) {
                if wanted > control.device.geometry.byteCount { try control.device.grow(to: wanted) }
            } catch {
                if error == .noSpace {
                    throw .medium(
                        "\(control.path) cannot grow from \(before) to \(wanted) bytes: its file system has no room")
                }
                throw .device(errno: error.errno, operation: "grow \(control.path) to \(wanted) bytes: \(error)")
            }
        }
        let now = control.device.geometry.byteCount
        guard now > before else { return "\(control.path) has \(before) bytes as before" }
        guard !core.isResident else {
            throw .settings("a log in memory takes new blocks of \(control.path) in at a start only")
        }
        if let device = core.device(control.slot), !device.backSequences(device.layout.blockCount(deviceByteCount: now)) {
            throw .settings("the index's memory is full: there is no room to know of the new blocks of \(control.path)")
        }
        // First the superblock: a file that ends before what it says is a truncated one.
        try control.rewrite { $0.deviceByteCount = now }
        if let device = core.device(control.slot) { device.locked { device.grown() } }
        return "\(control.path) has grown from \(before) to \(now) bytes"
    }

    func place(of location: Location) -> [(name: String, value: String)] {
        guard let device = core.device(LogLayout.device(of: location)) else { return [] }
        let block = device.layout.block(of: location)
        let count = device.locked { device.blockCount }
        guard block < count else { return [] }
        let inBlock = device.layout.unit(of: location) * LogFormat.unitSize
        return [
            ("device", device.path), ("slot", "\(device.slot)"), ("block", "\(block)"), ("offset-in-block", "\(inBlock)"),
            ("offset", "\(device.layout.offset(ofBlock: block) + inBlock)"),
        ]
    }
}
