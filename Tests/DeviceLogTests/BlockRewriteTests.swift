import Base
@testable import DeviceLog
import Storage
import TestSupport
import Testing

/// A block of images of chance, as appending or defragmentation would have filled it.
private struct FilledBlock {
    let bytes: UnsafeMutableRawPointer
    let rewrite: BlockRewrite
    private(set) var images: [StayingImage] = []

    init(_ layout: LogLayout, sequence: UInt64, _ random: inout SeededRandom) {
        bytes = .allocate(byteCount: layout.blockSize, alignment: 4096)
        for place in stride(from: 0, to: layout.blockSize, by: 8) {
            bytes.storeBytes(of: random.next(), toByteOffset: place, as: UInt64.self)
        }
        rewrite = BlockRewrite(layout: layout, block: 3, sequence: sequence, identity: 9)
        var unit = 0
        while unit < layout.unitsPerBlock - 8 {
            let begin = unit
            unit += LogFormat.groupHeaderUnits
            for _ in 0..<Int.random(in: 1...4, using: &random) { addRun(&unit, &random) }
            LogFormat.writeGroup(
                GroupHeader(
                    units: unit - begin, sequence: sequence, block: 3, unit: begin, identity: 9, stream: Int(sequence % 2)),
                to: bytes + begin * LogFormat.unitSize)
            unit = layout.padded(unit * LogFormat.unitSize) / LogFormat.unitSize
        }
    }

    private mutating func addRun(_ unit: inout Int, _ random: inout SeededRandom) {
        let isMoved = rewrite.sequence % 2 == 1
        let origin = isMoved ? UInt64.random(in: 1..<50, using: &random) * 2 : rewrite.sequence
        let begin = unit
        if isMoved { unit += LogFormat.runHeaderUnits }
        for _ in 0..<Int.random(in: 1...5, using: &random) {
            let byteCount = Int.random(in: Envelope.byteCount...200, using: &random)
            let units = LogFormat.units(byteCount)
            guard unit + units <= rewrite.layout.unitsPerBlock else { break }
            let place = bytes + unit * LogFormat.unitSize
            Envelope.seal(
                UnsafeMutableRawBufferPointer(start: place, count: byteCount),
                digest: Digest(low: UInt64(images.count), middle: 1, high: 2))
            LogFormat.toggleStamp(place, sequence: rewrite.sequence, unit: unit)
            images.append(StayingImage(unit: unit, units: units, runUnit: isMoved ? begin : -1))
            unit += units
        }
        if isMoved, unit > begin + LogFormat.runHeaderUnits {
            LogFormat.writeRun(
                units: unit - begin, origin: origin, sequence: rewrite.sequence, unit: begin,
                to: bytes + begin * LogFormat.unitSize)
        } else if isMoved {
            unit = begin
        }
    }
}

@Suite struct BlockRewriting {
    private static let layout = LogLayout(sectorSize: 512, flushUnit: 512, blockSize: 8 << 10, headSize: 8 << 10)

    /// Any images of a block may stay: a walk finds those, with the headers of their runs, and no damage; also while some
    /// pieces of the block are new and some old, at least those.
    @Test func whatStaysIsFoundAndNothingElse() {
        var random = SeededRandom(seed: runSeed("whatStaysIsFoundAndNothingElse"))
        let layout = BlockRewriting.layout
        let target = UnsafeMutableRawPointer.allocate(byteCount: layout.blockSize, alignment: 4096)
        defer { target.deallocate() }
        for _ in 0..<2000 {
            let block = FilledBlock(layout, sequence: UInt64.random(in: 100..<200, using: &random), &random)
            defer { block.bytes.deallocate() }
            #expect(block.rewrite.images(in: block.bytes) == block.images)
            let percent = Int.random(in: 0...100, using: &random)
            let staying = block.images.filter { _ in Int.random(in: 0..<100, using: &random) < percent }
            let byteCount = block.rewrite.build(staying, from: block.bytes, into: target)
            // As on the device: what is not written stays.
            let onDevice = UnsafeMutableRawPointer.allocate(byteCount: layout.blockSize, alignment: 16)
            defer { onDevice.deallocate() }
            for isTorn in [true, false] {
                onDevice.copyMemory(from: block.bytes, byteCount: layout.blockSize)
                for piece in stride(from: 0, to: byteCount, by: 512) where !isTorn || Bool.random(using: &random) {
                    (onDevice + piece).copyMemory(from: target + piece, byteCount: 512)
                }
                let found = block.rewrite.images(in: onDevice)
                #expect(isTorn ? staying.allSatisfy { found.contains($0) } : found == staying)
                var walker = BlockWalker(onDevice, sequence: block.rewrite.sequence, loadedUnits: layout.unitsPerBlock)
                while walker.next() != nil {}
                #expect(isTorn || walker.damagedUnits == 0)
            }
        }
    }

    /// Nothing stays: one flush unit is enough.
    @Test func anEmptyBlockTakesOneUnit() {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: 16 << 10, alignment: 4096)
        defer { bytes.deallocate() }
        let rewrite = BlockRewrite(layout: BlockRewriting.layout, block: 3, sequence: 7, identity: 9)
        #expect(rewrite.build([], from: bytes, into: bytes + (8 << 10)) == 512)
    }
}
