// What a namespace stores beside its images: two values, each in two places on up to three devices. Invariants:
// 1. A value is written with a version that was never used before, over the older of the two places of each device.
// 2. Of all values that prove themselves, on whatever device, the one with the highest version counts.
// 3. What was found at the start is on all devices that hold metadata before anything relies on it.
internal import Base
internal import Storage

/// Under the lock of the backend's control plane.
final class LogMetadata {
    enum Kind: Int, CaseIterable { case namespaceBlob = 0, partitions = 1 }

    /// In front of each value: magic, kind, version, identity of the set, byte count, CRC32C of all that with the value.
    private static let headerSize = 32
    private static let magic: UInt32 = 0x4154_4D41
    /// So many devices hold each value.
    private static let devicesMax = 3

    /// One device's part of it.
    private struct Place {
        /// Copy that holds the newest value of each kind, and its version; 0 if there is none.
        var copies = [1, 1]
        var versions: [UInt64] = [0, 0]
    }

    private let setIdentity: UInt64
    private let flushUnit: Int
    private var places: [Place] = []
    private var values: [[UInt8]] = [[], []]
    private var versions: [UInt64] = [0, 0]

    /// Reads what the devices hold.
    /// - Throws: `device`.
    init(_ controls: [DeviceControl], setIdentity: UInt64, flushUnit: Int) throws(StorageError) {
        self.setIdentity = setIdentity
        self.flushUnit = flushUnit
        places = controls.map { _ in Place() }
        for (number, control) in controls.enumerated() {
            for kind in Kind.allCases {
                for copy in 0..<HeadLayout.copies {
                    guard let (version, value) = try load(control, kind, copy),
                        version > places[number].versions[kind.rawValue]
                    else { continue }
                    places[number].copies[kind.rawValue] = copy
                    places[number].versions[kind.rawValue] = version
                    guard version > versions[kind.rawValue] else { continue }
                    versions[kind.rawValue] = version
                    values[kind.rawValue] = value
                }
            }
        }
        for kind in Kind.allCases where versions[kind.rawValue] > 0 {
            let isOnAll = places.prefix(LogMetadata.devicesMax).allSatisfy {
                $0.versions[kind.rawValue] == versions[kind.rawValue]
            }
            if !isOnAll { try store(kind, values[kind.rawValue], controls) { _, error throws(StorageError) in throw error } }
        }
    }

    /// Version and value in a place; nil if nothing of this set that proves itself is there.
    private func load(
        _ control: DeviceControl, _ kind: Kind, _ copy: Int
    ) throws(StorageError) -> (version: UInt64, value: [UInt8])? {
        let offset = control.head.areaOffset(kind, copy)
        let header = try control.channel.read(offset, byteCount: flushUnit)
        let base = UnsafeRawPointer(header.base)
        guard base.littleEndian(UInt32.self) == LogMetadata.magic,
            base.littleEndian(UInt32.self, at: 4) == UInt32(kind.rawValue),
            base.littleEndian(UInt64.self, at: 16) == setIdentity
        else { return nil }
        let byteCount = LogMetadata.headerSize + Int(base.littleEndian(UInt32.self, at: 24))
        guard byteCount <= control.head.areaSize else { return nil }
        let whole = try control.channel.read(offset, byteCount: padded(byteCount))
        guard UnsafeRawPointer(whole.base).littleEndian(UInt32.self, at: 28) == checksum(whole, byteCount)
        else { return nil }
        return (base.littleEndian(UInt64.self, at: 8), Array(whole.bytes[LogMetadata.headerSize..<byteCount]))
    }

    private func padded(_ byteCount: Int) -> Int { (byteCount + flushUnit - 1) / flushUnit * flushUnit }

    private func checksum(_ memory: DeviceMemory, _ byteCount: Int) -> UInt32 {
        let front = crc32c(UnsafeRawBufferPointer(rebasing: memory.view[..<28]))
        return crc32c(UnsafeRawBufferPointer(rebasing: memory.view[LogMetadata.headerSize..<byteCount]), seed: front)
    }

    func value(_ kind: Kind) -> [UInt8] { values[kind.rawValue] }

    /// Replaces a value on the first devices that are not `isLeftOut`; `failed` decides what becomes of one that cannot be
    /// written. A write that failed may have arrived: its version is never used again.
    /// - Throws: `outOfSpace`, `device` if no device has it, and what `failed` throws.
    func store(
        _ kind: Kind, _ value: [UInt8], _ controls: [DeviceControl], isLeftOut: (DeviceControl) -> Bool = { _ in false },
        failed: (DeviceControl, StorageError) throws(StorageError) -> Void
    ) throws(StorageError) {
        let byteCount = LogMetadata.headerSize + value.count
        let number = kind.rawValue
        guard controls.allSatisfy({ byteCount <= $0.head.areaSize }) else { throw .outOfSpace }
        versions[number] += 1
        let memory = DeviceMemory(byteCount: padded(byteCount))
        memory.base.storeLittleEndian(LogMetadata.magic)
        memory.base.storeLittleEndian(UInt32(number), at: 4)
        memory.base.storeLittleEndian(versions[number], at: 8)
        memory.base.storeLittleEndian(setIdentity, at: 16)
        memory.base.storeLittleEndian(UInt32(value.count), at: 24)
        UnsafeMutableRawBufferPointer(rebasing: memory.bytes[LogMetadata.headerSize...]).copyBytes(from: value)
        memory.base.storeLittleEndian(checksum(memory, byteCount), at: 28)
        var written = 0
        for (place, control) in controls.enumerated() where written < LogMetadata.devicesMax && !isLeftOut(control) {
            let copy = HeadLayout.copies - 1 - places[place].copies[number]
            do throws(StorageError) {
                try control.channel.write(memory.view, control.head.areaOffset(kind, copy))
            } catch {
                try failed(control, error)
                continue
            }
            places[place].copies[number] = copy
            places[place].versions[number] = versions[number]
            written += 1
        }
        guard written > 0 else {
            throw .device(errno: 5, operation: "write metadata: no device of the set can be written")
        }
        values[number] = value
    }
}
