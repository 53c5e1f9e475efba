// Applies operations to the bins of one record and writes the new image. Invariants:
// 1. Values point into the old image, the request, or `arena`; all of them outlive the edit.
// 2. A computed value is written once and never changed, except that the last one in the arena may grow at
//    its end.
package import Base
internal import Glibc

/// One per reactor, reused for every request; allocates nothing in steady state. Not thread-safe.
package final class RecordEditor {
    private var table = BinTable()
    private let arena: UnsafeMutableRawPointer
    private var arenaUsed = 0
    /// Room for computed values of one request: eight times the largest record.
    private static let arenaRoom = 8 * Limits.recordSizeCeiling

    package init() {
        arena = .allocate(byteCount: RecordEditor.arenaRoom, alignment: 16)
    }

    deinit { arena.deallocate() }

    /// Begins with the bins of `existing`, or with none. Its bytes must outlive the edit.
    package func begin(_ existing: ImageView?) {
        table.removeAll()
        arenaUsed = 0
        guard let existing else { return }
        var bins = existing.bins
        while let bin = bins.next() { table.append(bin) }
    }

    /// How many bins there are now.
    package var binCount: Int { table.liveCount }

    /// The bin of that name as it is now.
    package func read(_ name: UnsafeRawBufferPointer) -> BinView? {
        guard let place = table.place(of: name) else { return nil }
        let bin = table[place]
        return bin.particleType == ParticleType.null ? nil : bin
    }

    /// Calls `visit` with every bin in order.
    package func forEachBin(_ visit: (BinView) -> Void) {
        for place in 0..<table.used where table[place].particleType != ParticleType.null { visit(table[place]) }
    }

    /// Applies one operation that changes bins. `read` and `touch` change none.
    package func apply(_ operation: OperationView) -> ResultCode {
        switch operation.code {
        case OperationCode.write: return write(operation)
        case OperationCode.increment: return increment(operation)
        case OperationCode.append: return join(operation, atFront: false)
        case OperationCode.prepend: return join(operation, atFront: true)
        case OperationCode.deleteAll:
            table.deleteAll()
            return .ok
        case OperationCode.touch, OperationCode.read: return .ok
        default: return .unsupportedFeature
        }
    }

    // ---- The image ----

    /// Size of the image in bytes.
    package func imageByteCount(_ header: ImageHeader) -> Int {
        header.byteCount(binCount: table.liveCount) + table.liveBytes
    }

    /// Writes the image to `target`, which has room for `imageByteCount` bytes and overlaps nothing that the
    /// bins point to.
    package func writeImage(_ header: ImageHeader, to target: UnsafeMutableRawPointer) {
        var cursor = header.write(to: target, binCount: table.liveCount)
        for place in 0..<table.used where table[place].particleType != ParticleType.null {
            let bin = table[place]
            cursor.storeBigEndian(UInt32(4 + bin.name.count + bin.value.count))
            cursor.storeBigEndian(
                UInt32(OperationCode.read) << 24 | UInt32(bin.particleType) << 16 | UInt32(bin.name.count), at: 4)
            cursor += ImageFormat.binHeaderSize
            memcpy(cursor, bin.name.baseAddress!, bin.name.count)
            cursor += bin.name.count
            if let source = bin.value.baseAddress { memcpy(cursor, source, bin.value.count) }
            cursor += bin.value.count
        }
        assert(cursor == target + imageByteCount(header))
    }

    // ---- Operations ----

    private func write(_ operation: OperationView) -> ResultCode {
        let check = Particle.check(operation.particleType, operation.value)
        guard check == .ok else { return check }
        var value = operation.value
        if operation.particleType == ParticleType.integer, value.count != 8 {
            guard let wide = newInteger(Particle.integer(value)) else { return .recordTooBig }
            value = wide
        }
        return set(operation.name, operation.particleType, value)
    }

    /// Gives a bin a copy of a computed value, or deletes it (type null). `name` must outlive the edit.
    package func set(_ name: UnsafeRawBufferPointer, _ type: UInt8, copying value: UnsafeRawBufferPointer) -> ResultCode {
        guard value.count <= Limits.recordSizeCeiling, let room = allocate(value.count) else { return .recordTooBig }
        if let source = value.baseAddress { memcpy(room, source, value.count) }
        return set(name, type, UnsafeRawBufferPointer(start: room, count: value.count))
    }

    private func set(_ name: UnsafeRawBufferPointer, _ type: UInt8, _ value: UnsafeRawBufferPointer) -> ResultCode {
        guard table.set(BinView(particleType: type, name: name, value: value)) else { return .parameter }
        return .ok
    }

    /// Integers wrap; a missing bin starts at the operand. Both must be integers or both floats.
    private func increment(_ operation: OperationView) -> ResultCode {
        let type = operation.particleType
        guard type == ParticleType.integer || type == ParticleType.float else { return .parameter }
        let check = Particle.check(type, operation.value)
        guard check == .ok else { return check }
        let bin = read(operation.name)
        if let bin, bin.particleType != type { return .incompatibleType }
        let sum: UInt64
        if type == ParticleType.integer {
            sum = (bin.map { Particle.integer($0.value) } ?? 0) &+ Particle.integer(operation.value)
        } else {
            let old = bin.map { Double(bitPattern: Particle.integer($0.value)) } ?? 0
            sum = (old + Double(bitPattern: Particle.integer(operation.value))).bitPattern
        }
        guard let value = newInteger(sum) else { return .recordTooBig }
        return set(operation.name, type, value)
    }

    /// Append and prepend: string to string, blob to a blob of the same kind. A missing bin starts empty.
    private func join(_ operation: OperationView, atFront: Bool) -> ResultCode {
        let type = operation.particleType
        guard type == ParticleType.string || Particle.isBlob(type) else { return .incompatibleType }
        guard let bin = read(operation.name) else { return set(operation.name, type, operation.value) }
        guard bin.particleType == type else { return .incompatibleType }
        let size = bin.value.count + operation.value.count
        guard size <= Limits.recordSizeCeiling else { return .recordTooBig }
        if !atFront, let grown = grow(bin.value, by: operation.value) {
            return set(operation.name, type, grown)
        }
        guard let room = allocate(size) else { return .recordTooBig }
        let parts = atFront ? (operation.value, bin.value) : (bin.value, operation.value)
        if let source = parts.0.baseAddress { memcpy(room, source, parts.0.count) }
        if let source = parts.1.baseAddress { memcpy(room + parts.0.count, source, parts.1.count) }
        return set(operation.name, type, UnsafeRawBufferPointer(start: room, count: size))
    }

    /// Adds to a value in place if it is the last one in the arena: many appends to one bin stay linear. What
    /// an earlier read of this request points to does not change.
    private func grow(_ value: UnsafeRawBufferPointer, by more: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard let base = value.baseAddress, base + value.count == UnsafeRawPointer(arena + arenaUsed),
            base >= UnsafeRawPointer(arena), RecordEditor.arenaRoom - arenaUsed >= more.count
        else { return nil }
        if let source = more.baseAddress { memcpy(arena + arenaUsed, source, more.count) }
        arenaUsed += more.count
        return UnsafeRawBufferPointer(start: base, count: value.count + more.count)
    }

    private func newInteger(_ bits: UInt64) -> UnsafeRawBufferPointer? {
        guard let room = allocate(8) else { return nil }
        room.storeBigEndian(bits)
        return UnsafeRawBufferPointer(start: room, count: 8)
    }

    private func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        guard RecordEditor.arenaRoom - arenaUsed >= byteCount else { return nil }
        defer { arenaUsed += byteCount }
        return arena + arenaUsed
    }
}

/// Rules of bin values.
enum Particle {
    /// The bits of an integer or float value of 1, 2, 4 or 8 bytes, zero-extended.
    static func integer(_ value: UnsafeRawBufferPointer) -> UInt64 {
        if value.count == 8, let base = value.baseAddress { return base.bigEndian(UInt64.self) }
        return value.reduce(0) { $0 << 8 | UInt64($1) }
    }

    static func isBlob(_ type: UInt8) -> Bool {
        type == ParticleType.blob || ParticleType.languageBlobs.contains(type)
    }

    /// Whether a value may be written.
    static func check(_ type: UInt8, _ value: UnsafeRawBufferPointer) -> ResultCode {
        let fits = switch type {
        case ParticleType.null, ParticleType.string, ParticleType.map, ParticleType.list: true
        case ParticleType.integer: value.count == 8 || value.count == 4 || value.count == 2 || value.count == 1
        case ParticleType.float: value.count == 8
        case ParticleType.bool: value.count == 1 && value[0] <= 1
        case ParticleType.hyperLogLog: value.count >= 11
        case ParticleType.geoJSON: geoJSONFits(value)
        default: isBlob(type)
        }
        return fits ? .ok : .parameter
    }

    /// Flags, a 16-bit count of cells, eight bytes for each cell, text.
    private static func geoJSONFits(_ value: UnsafeRawBufferPointer) -> Bool {
        guard value.count >= 3, let base = value.baseAddress else { return false }
        return value.count >= 3 + 8 * Int(base.bigEndian(UInt16.self, at: 1))
    }
}
