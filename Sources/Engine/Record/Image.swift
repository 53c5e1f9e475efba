// The flat image of a record, format 1 (docs/formats.md): a little-endian header, the set name, the key if it
// is stored, then the bins exactly as they travel in an answer.
package import Base

/// Offsets and sizes of format 1.
enum ImageFormat {
    static let number: UInt8 = 1
    static let headerSize = 28
    static let keyStoredFlag: UInt8 = 1
    /// Bytes of a bin in front of its name.
    static var binHeaderSize: Int { OperationSequence.headerSize }
}

/// One bin, as views into an image, a request or the editor's memory.
package struct BinView: BitwiseCopyable {
    package var particleType: UInt8
    package var name: UnsafeRawBufferPointer
    package var value: UnsafeRawBufferPointer
}

/// A record image, checked once: no size in it reaches outside. Valid as long as its bytes are.
package struct ImageView: BitwiseCopyable {
    package let generation: UInt16
    /// Seconds since 2010, 0 for never.
    package let voidTime: UInt32
    /// Milliseconds since 2010.
    package let lastUpdate: UInt64
    package let epoch: Epoch
    package let binCount: Int
    package let setName: UnsafeRawBufferPointer
    /// Particle type byte and key bytes; empty if no key is stored.
    package let key: UnsafeRawBufferPointer
    /// All bins as answer operations.
    package let binBytes: UnsafeRawBufferPointer

    /// Nil if the bytes are not a whole image of a known format.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= ImageFormat.headerSize, let base = bytes.baseAddress,
            base.load(as: UInt8.self) == ImageFormat.number
        else { return nil }
        generation = base.littleEndian(UInt16.self, at: 2)
        voidTime = base.littleEndian(UInt32.self, at: 4)
        lastUpdate = base.littleEndian(UInt64.self, at: 8)
        epoch = Epoch(rawValue: base.littleEndian(UInt64.self, at: 16))
        binCount = Int(base.littleEndian(UInt16.self, at: 24))
        let setSize = Int(base.load(fromByteOffset: 26, as: UInt8.self))
        var offset = ImageFormat.headerSize
        var keySize = 0
        if base.load(fromByteOffset: 1, as: UInt8.self) & ImageFormat.keyStoredFlag != 0 {
            guard bytes.count >= offset + 4 else { return nil }
            keySize = Int(base.littleEndian(UInt32.self, at: offset))
            offset += 4
        }
        guard bytes.count - offset >= setSize + keySize else { return nil }
        setName = UnsafeRawBufferPointer(start: base + offset, count: setSize)
        key = UnsafeRawBufferPointer(start: base + offset + setSize, count: keySize)
        offset += setSize + keySize
        binBytes = UnsafeRawBufferPointer(start: base + offset, count: bytes.count - offset)
        guard OperationSequence.fits(binBytes, count: binCount) else { return nil }
    }

    /// The bins in order.
    package var bins: BinSequence { BinSequence(binBytes, count: binCount) }

    /// The bin of that name; looks at one after the other.
    package func bin(named name: UnsafeRawBufferPointer) -> BinView? {
        var bins = bins
        while let bin = bins.next() { if bin.name.equals(name) { return bin } }
        return nil
    }
}

/// Walks the bins of an image, which are stored as the operations of an answer.
package struct BinSequence: BitwiseCopyable {
    private var operations: OperationSequence

    init(_ bytes: UnsafeRawBufferPointer, count: Int) { operations = OperationSequence(bytes, count: count) }

    /// The next bin, nil at the end.
    package mutating func next() -> BinView? {
        guard let bin = operations.next() else { return nil }
        return BinView(particleType: bin.particleType, name: bin.name, value: bin.value)
    }
}

/// What stands in an image beside the bins.
package struct ImageHeader {
    package var generation: UInt16
    package var voidTime: UInt32
    package var lastUpdate: UInt64
    package var epoch: Epoch
    package var setName: UnsafeRawBufferPointer
    /// Particle type byte and key bytes; empty for none.
    package var key: UnsafeRawBufferPointer

    package init(
        generation: UInt16, voidTime: UInt32, lastUpdate: UInt64, epoch: Epoch, setName: UnsafeRawBufferPointer,
        key: UnsafeRawBufferPointer
    ) {
        precondition(setName.count <= Limits.setNameSizeMax)
        self.generation = generation
        self.voidTime = voidTime
        self.lastUpdate = lastUpdate
        self.epoch = epoch
        self.setName = setName
        self.key = key
    }

    /// Size in bytes of everything in front of the bins.
    var byteCount: Int { ImageFormat.headerSize + (key.isEmpty ? 0 : 4 + key.count) + setName.count }

    /// Writes header, set name and key to `target`; returns where the bins go.
    func write(to target: UnsafeMutableRawPointer, binCount: Int) -> UnsafeMutableRawPointer {
        let flags = key.isEmpty ? 0 : ImageFormat.keyStoredFlag
        target.storeLittleEndian(
            UInt32(ImageFormat.number) | UInt32(flags) << 8 | UInt32(generation) << 16)
        target.storeLittleEndian(voidTime, at: 4)
        target.storeLittleEndian(lastUpdate, at: 8)
        target.storeLittleEndian(epoch.rawValue, at: 16)
        target.storeLittleEndian(UInt32(binCount) | UInt32(setName.count) << 16, at: 24)
        var cursor = target + ImageFormat.headerSize
        if !key.isEmpty {
            cursor.storeLittleEndian(UInt32(key.count))
            cursor += 4
        }
        if let source = setName.baseAddress { cursor.copyMemory(from: source, byteCount: setName.count) }
        cursor += setName.count
        if let source = key.baseAddress { cursor.copyMemory(from: source, byteCount: key.count) }
        return cursor + key.count
    }
}
