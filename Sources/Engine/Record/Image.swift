// The flat image of a record, format 2 (docs/formats.md): a little-endian header, the set name, the key if it
// is stored, then the bins exactly as they travel in an answer. A header is as small as its values allow:
//
//     0  u8   bits 4-7: format, 2; bits 0-3: flags
//     1  u8   bytes of the set name
//     2  u16  generation
//     4  40   last update in milliseconds since 2010
//     9  40   view key of the epoch
//     14 u8   bits 0-7 of the regime of the epoch
//     15 u8   bits 0-7 of the number of bins
//     16      for each flag that is set four bytes, in this order:
//             wide (bit 2): u16 bits 8-23 of the regime, u8 bits 8-15 of the number of bins, u8 0
//             void-time (bit 1): u32 seconds since 2010
//             key stored (bit 0): u32 bytes of the key
package import Base

/// Offsets and sizes of format 2.
enum ImageFormat {
    static let number: UInt8 = 2
    static let headerSize = 16
    static let keyStoredFlag: UInt8 = 1
    static let voidTimeFlag: UInt8 = 2
    static let wideFlag: UInt8 = 4
    static let flagMask: UInt8 = 7
    /// What each flag adds to the header.
    static let optionSize = 4
    static let lastUpdateMax: UInt64 = 1 << 40 - 1

    /// How many flags are set. Spelled out: without an instruction for it, counting bits is a loop on the way of every read.
    @inline(__always)
    static func optionCount(_ flags: UInt8) -> Int { Int(flags & 1 + flags >> 1 & 1 + flags >> 2 & 1) }
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
    /// Milliseconds since 2010, 40 bits.
    package let lastUpdate: UInt64
    package let epoch: Epoch
    package let binCount: Int
    package let setName: UnsafeRawBufferPointer
    /// Particle type byte and key bytes; empty if no key is stored.
    package let key: UnsafeRawBufferPointer
    /// All bins as answer operations.
    package let binBytes: UnsafeRawBufferPointer

    /// Nil if the bytes are not a whole image of a known format. Every read of memory comes through here: two loads
    /// for what every image has, one branch for each part that few have.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= ImageFormat.headerSize, let base = bytes.baseAddress else { return nil }
        let front = base.littleEndian(UInt64.self)
        let back = base.littleEndian(UInt64.self, at: 8)
        let flags = UInt8(truncatingIfNeeded: front) ^ ImageFormat.number << 4
        // Also refuses other formats: their bits are left among the flags.
        guard flags & ~ImageFormat.flagMask == 0,
            bytes.count >= ImageFormat.headerSize + ImageFormat.optionCount(flags) * ImageFormat.optionSize
        else { return nil }
        generation = UInt16(truncatingIfNeeded: front >> 16)
        lastUpdate = front >> 32 | (back & 0xFF) << 32
        var regime = UInt32(truncatingIfNeeded: back >> 48) & 0xFF
        var binCount = Int(back >> 56)
        var offset = ImageFormat.headerSize
        if flags & ImageFormat.wideFlag != 0 {
            let wide = base.littleEndian(UInt32.self, at: offset)
            regime |= (wide & 0xFFFF) << 8
            binCount |= Int(wide >> 8 & 0xFF00)
            offset += ImageFormat.optionSize
        }
        epoch = Epoch(regime: regime, viewKey: back >> 8)
        self.binCount = binCount
        if flags & ImageFormat.voidTimeFlag != 0 {
            voidTime = base.littleEndian(UInt32.self, at: offset)
            offset += ImageFormat.optionSize
        } else {
            voidTime = 0
        }
        var keySize = 0
        if flags & ImageFormat.keyStoredFlag != 0 {
            keySize = Int(base.littleEndian(UInt32.self, at: offset))
            offset += ImageFormat.optionSize
        }
        let setSize = Int(front >> 8 & 0xFF)
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
    /// Seconds since 2010, 0 for never.
    package var voidTime: UInt32
    /// Milliseconds since 2010, 40 bits.
    package var lastUpdate: UInt64
    package var epoch: Epoch
    package var setName: UnsafeRawBufferPointer
    /// Particle type byte and key bytes; empty for none.
    package var key: UnsafeRawBufferPointer

    package init(
        generation: UInt16, voidTime: UInt32, lastUpdate: UInt64, epoch: Epoch, setName: UnsafeRawBufferPointer,
        key: UnsafeRawBufferPointer
    ) {
        precondition(setName.count <= Limits.setNameSizeMax && lastUpdate <= ImageFormat.lastUpdateMax)
        self.generation = generation
        self.voidTime = voidTime
        self.lastUpdate = lastUpdate
        self.epoch = epoch
        self.setName = setName
        self.key = key
    }

    /// Which parts the header of an image with `binCount` bins has.
    private func flags(_ binCount: Int) -> UInt8 {
        (key.isEmpty ? 0 : ImageFormat.keyStoredFlag) | (voidTime == 0 ? 0 : ImageFormat.voidTimeFlag)
            | (epoch.regime > 0xFF || binCount > 0xFF ? ImageFormat.wideFlag : 0)
    }

    /// Size in bytes of everything in front of `binCount` bins.
    func byteCount(binCount: Int) -> Int {
        ImageFormat.headerSize + ImageFormat.optionCount(flags(binCount)) * ImageFormat.optionSize
            + setName.count + key.count
    }

    /// Writes header, set name and key to `target`; returns where the bins go.
    func write(to target: UnsafeMutableRawPointer, binCount: Int) -> UnsafeMutableRawPointer {
        let flags = flags(binCount)
        let count = UInt64(binCount)
        let regime = UInt64(epoch.regime)
        let front = UInt64(ImageFormat.number << 4 | flags) | UInt64(setName.count) << 8
        target.storeLittleEndian(front | UInt64(generation) << 16 | lastUpdate << 32)
        target.storeLittleEndian(lastUpdate >> 32 | epoch.viewKey << 8 | (regime & 0xFF) << 48 | count << 56, at: 8)
        var cursor = target + ImageFormat.headerSize
        func add(_ option: UInt32) {
            cursor.storeLittleEndian(option)
            cursor += ImageFormat.optionSize
        }
        if flags & ImageFormat.wideFlag != 0 { add(UInt32(regime >> 8) | UInt32(count >> 8) << 16) }
        if flags & ImageFormat.voidTimeFlag != 0 { add(voidTime) }
        if flags & ImageFormat.keyStoredFlag != 0 { add(UInt32(key.count)) }
        if let source = setName.baseAddress { cursor.copyMemory(from: source, byteCount: setName.count) }
        cursor += setName.count
        if let source = key.baseAddress { cursor.copyMemory(from: source, byteCount: key.count) }
        return cursor + key.count
    }
}
