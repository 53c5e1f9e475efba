// What a simulated device holds. Invariants:
// 1. `visible` is what reads give: `durable` with all of `unsynced` on top, in their order.
// 2. `unsynced` are the pieces of completed writes that a power failure may still take back, in order of completion.
// 3. A piece that becomes durable takes everything before it in the same piece along.
internal import Base

/// Bytes in chunks that copies share until one of them is changed: a crash image costs next to nothing.
struct DeviceImage {
    private static let chunkSize = 16 << 10
    private var chunks: [[UInt8]]

    init(byteCount: Int) {
        let zeros = [UInt8](repeating: 0, count: DeviceImage.chunkSize)
        chunks = Array(repeating: zeros, count: DeviceImage.chunkCount(byteCount))
    }

    private static func chunkCount(_ byteCount: Int) -> Int { (byteCount + chunkSize - 1) / chunkSize }

    mutating func grow(to byteCount: Int) {
        let zeros = [UInt8](repeating: 0, count: DeviceImage.chunkSize)
        while chunks.count < DeviceImage.chunkCount(byteCount) { chunks.append(zeros) }
    }

    /// Calls `visit` with each chunk that the range touches: its number, the range in it, and where that begins in the
    /// whole.
    private func forEachChunk(_ offset: Int, _ byteCount: Int, _ visit: (Int, Range<Int>, Int) -> Void) {
        var done = 0
        while done < byteCount {
            let place = (offset + done) % DeviceImage.chunkSize
            let count = min(byteCount - done, DeviceImage.chunkSize - place)
            visit((offset + done) / DeviceImage.chunkSize, place..<(place + count), done)
            done += count
        }
    }

    func read(_ offset: Int, into buffer: UnsafeMutableRawBufferPointer) {
        forEachChunk(offset, buffer.count) { number, range, done in
            chunks[number].withUnsafeBytes { chunk in
                UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + range.count)])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: chunk[range]))
            }
        }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        var all = chunks
        chunks = []
        forEachChunk(offset, bytes.count) { number, range, done in
            all[number].withUnsafeMutableBytes { chunk in
                UnsafeMutableRawBufferPointer(rebasing: chunk[range])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[done..<(done + range.count)]))
            }
        }
        chunks = all
    }

    mutating func write(_ bytes: ArraySlice<UInt8>, at offset: Int) {
        bytes.withUnsafeBytes { write($0, at: offset) }
    }

    func bytes(_ offset: Int, _ byteCount: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            read(offset, into: UnsafeMutableRawBufferPointer(buffer))
            count = byteCount
        }
    }
}

/// The part of one write that falls into one piece.
struct Fragment {
    /// Which write it belongs to, in order of completion.
    let write: UInt64
    let piece: Int
    let offset: Int
    let bytes: ArraySlice<UInt8>
}

/// See the invariants above.
struct SimulatedMedium {
    private(set) var durable: DeviceImage
    private(set) var visible: DeviceImage
    private(set) var unsynced: [Fragment] = []
    /// Writes completed so far.
    private(set) var writes: UInt64 = 0
    private let pieceSize: Int

    init(_ image: DeviceImage, pieceSize: Int) {
        durable = image
        visible = image
        self.pieceSize = pieceSize
    }

    mutating func grow(to byteCount: Int) {
        durable.grow(to: byteCount)
        visible.grow(to: byteCount)
    }

    private func fragments(_ bytes: [UInt8], at offset: Int, write: UInt64) -> [Fragment] {
        var fragments: [Fragment] = []
        var done = 0
        while done < bytes.count {
            let piece = (offset + done) / pieceSize
            let end = min(bytes.count, (piece + 1) * pieceSize - offset)
            fragments.append(Fragment(write: write, piece: piece, offset: offset + done, bytes: bytes[done..<end]))
            done = end
        }
        return fragments
    }

    // ---- Completed operations ----

    /// A write has completed.
    mutating func store(_ bytes: [UInt8], at offset: Int, durable isDurable: Bool) {
        keep(fragments(bytes, at: offset, write: writes))
        guard isDurable, let last = bytes.indices.last else { return }
        let pieces = offset / pieceSize...(offset + last) / pieceSize
        settle { pieces.contains($0.piece) }
    }

    /// A write has failed: some of its pieces are there, some are not.
    mutating func storeSome(_ bytes: [UInt8], at offset: Int, _ random: inout SeededRandom) {
        keep(fragments(bytes, at: offset, write: writes).filter { _ in Bool.random(using: &random) })
    }

    /// Sectors read as zero or as before.
    mutating func discard(_ offset: Int, _ byteCount: Int, sectorSize: Int, _ random: inout SeededRandom) {
        let zeros = [UInt8](repeating: 0, count: sectorSize)
        for sector in stride(from: offset, to: offset + byteCount, by: sectorSize) where Bool.random(using: &random) {
            keep(fragments(zeros, at: sector, write: writes))
        }
    }

    private mutating func keep(_ fragments: [Fragment]) {
        writes += 1
        for fragment in fragments { visible.write(fragment.bytes, at: fragment.offset) }
        unsynced += fragments
    }

    /// A flush has completed that was submitted after `writes` writes.
    mutating func flush(upTo writes: UInt64) { settle { $0.write < writes } }

    /// Makes durable what `isMeant`, in order.
    private mutating func settle(_ isMeant: (Fragment) -> Bool) {
        var left: [Fragment] = []
        for fragment in unsynced {
            if isMeant(fragment) { durable.write(fragment.bytes, at: fragment.offset) } else { left.append(fragment) }
        }
        unsynced = left
    }

    /// Turns over one bit of what is stored, for ever. Only what is on the medium rots, so its piece is durable from now on.
    mutating func rot(_ byte: Int, bit: Int) {
        let piece = byte / pieceSize
        settle { $0.piece == piece }
        let spoiled = [visible.bytes(byte, 1)[0] ^ UInt8(1 << bit)][...]
        durable.write(spoiled, at: byte)
        visible.write(spoiled, at: byte)
    }

    // ---- Power failure ----

    /// What is on the medium if power fails now and `underWay` had been submitted: everything durable, and of each piece
    /// a prefix of what else was written to it.
    func crashed(underWay: [(bytes: [UInt8], offset: Int)], _ random: inout SeededRandom) -> DeviceImage {
        var all = unsynced
        for (number, write) in underWay.shuffled(using: &random).enumerated() {
            all += fragments(write.bytes, at: write.offset, write: writes + UInt64(number))
        }
        // Some writes have arrived wholly, some not at all, of others each piece has its own fate.
        var chances: [(write: UInt64, percent: Int)] = []
        for fragment in all where chances.last?.write != fragment.write {
            chances.append((fragment.write, [0, 100, Int.random(in: 1...99, using: &random)].randomElement(using: &random)!))
        }
        var image = durable
        var chance = 0
        var isBroken = [Bool](repeating: false, count: (all.map(\.piece).max() ?? 0) + 1)
        for fragment in all {
            while chances[chance].write != fragment.write { chance += 1 }
            if isBroken[fragment.piece] { continue }
            if Int.random(in: 0..<100, using: &random) < chances[chance].percent {
                image.write(fragment.bytes, at: fragment.offset)
            } else {
                isBroken[fragment.piece] = true
            }
        }
        return image
    }
}
