// A block written again as one group: the images that are to stay lie where they lay, and a skip header takes the place of
// each stretch between them. Invariants:
// 1. What stays keeps its place and its bytes: images, because the index points at them, and the headers of their runs. So a
//    power failure in the middle of the write can harm nothing that was there before: old and new pieces have the same.
// 2. A skip header covers nothing that stays. One unit is enough for it, and each stretch has one at least.
// 3. What follows the last header is skipped by it, and need not be written: whatever is there does not count.
internal import Base
internal import Storage

/// An image that may stay.
struct StayingImage: Equatable {
    let unit: Int
    let units: Int
    /// Where the header of its run stands; -1 without a run.
    let runUnit: Int
}

/// One use of a block.
struct BlockRewrite {
    let layout: LogLayout
    let block: Int
    let sequence: UInt64
    let identity: UInt32

    /// Every image in the bytes of the block, front to back.
    func images(in bytes: UnsafeRawPointer) -> [StayingImage] {
        var walker = BlockWalker(bytes, sequence: sequence, loadedUnits: layout.unitsPerBlock)
        var images: [StayingImage] = []
        while let image = walker.next() {
            let runUnit = image.unit < walker.runEnd ? walker.runUnit : -1
            images.append(StayingImage(unit: image.unit, units: image.units, runUnit: runUnit))
        }
        return images
    }

    /// Puts `images`, some of those in `bytes`, front to back, into `target`, which has room for a block; how many bytes of
    /// it are to be written from the front of the block on.
    func build(_ images: [StayingImage], from bytes: UnsafeRawPointer, into target: UnsafeMutableRawPointer) -> Int {
        target.initializeMemory(as: UInt8.self, repeating: 0, count: layout.blockSize)
        LogFormat.writeGroup(
            GroupHeader(
                units: layout.unitsPerBlock, sequence: sequence, block: block, unit: 0, identity: identity,
                stream: Int(sequence % 2)),
            to: target)
        var end = LogFormat.groupHeaderUnits
        var runUnit = -1
        for image in images {
            if image.runUnit != runUnit, image.runUnit >= 0 {
                keep(image.runUnit, LogFormat.runHeaderUnits, &end, bytes, target)
            }
            runUnit = image.runUnit
            keep(image.unit, image.units, &end, bytes, target)
        }
        skip(from: end, to: layout.unitsPerBlock, target)
        let written = min(end + LogFormat.skipHeaderUnits, layout.unitsPerBlock)
        return layout.padded(written * LogFormat.unitSize)
    }

    /// Takes units over from `bytes`; whatever was between them and `end` is skipped.
    private func keep(
        _ unit: Int, _ units: Int, _ end: inout Int, _ bytes: UnsafeRawPointer, _ target: UnsafeMutableRawPointer
    ) {
        precondition(unit >= end && unit + units <= layout.unitsPerBlock, "images of a block lie one behind the other")
        skip(from: end, to: unit, target)
        let place = unit * LogFormat.unitSize
        (target + place).copyMemory(from: bytes + place, byteCount: units * LogFormat.unitSize)
        end = unit + units
    }

    private func skip(from unit: Int, to end: Int, _ target: UnsafeMutableRawPointer) {
        guard end > unit else { return }
        LogFormat.writeSkip(units: end - unit, sequence: sequence, unit: unit, to: target + unit * LogFormat.unitSize)
    }
}
