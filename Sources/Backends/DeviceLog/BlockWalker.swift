// Finds everything in the bytes of a block, whatever has happened to them.
internal import Base
internal import Storage

/// One image in a block.
struct WalkedImage {
    let unit: Int
    let byteCount: Int
    /// `LogFormat.order`.
    let order: UInt64
    /// The block it was first written in.
    let origin: UInt64
    var units: Int { LogFormat.units(byteCount) }
}

/// Walks a block of known sequence from front to back. What is no image, run, skip or group of that sequence is passed over
/// unit by unit; the bytes may belong to an earlier use of the block.
struct BlockWalker {
    let bytes: UnsafeRawPointer
    let sequence: UInt64
    /// Units from the front of the block on that can be looked at; may grow between calls.
    var loadedUnits: Int
    private(set) var unit = 0
    /// Units inside of groups that hold something else than images, headers and zeros.
    private(set) var damagedUnits = 0
    /// Where the first of these is.
    private(set) var firstDamagedUnit = -1
    private var groupEnd = 0
    /// Where the header of the last run stood, and where that run ends.
    private(set) var runUnit = 0
    private(set) var runEnd = 0
    private var origin: UInt64
    /// Bytes that were taken for an image by their first word, and were none. Payloads can be made to look so: after too
    /// many of them only small images are believed, and a block takes no minutes.
    private var wastedBytes = 0
    private static let wastedMax = 64 << 20
    private static let smallImage = 16 << 10

    init(_ bytes: UnsafeRawPointer, sequence: UInt64, loadedUnits: Int) {
        self.bytes = bytes
        self.sequence = sequence
        self.loadedUnits = loadedUnits
        origin = sequence
    }

    /// The next image; nil at the end of what is loaded. An image that is not loaded whole is not passed if `isPartial`.
    mutating func next(isPartial: Bool = false) -> WalkedImage? {
        while unit < loadedUnits {
            let place = bytes + unit * LogFormat.unitSize
            let left = (loadedUnits - unit) * LogFormat.unitSize
            let kind = LogFormat.kind(at: place)
            if kind == 0 {
                pass(place)
            } else if kind < LogFormat.groupKind {
                let claimed = LogFormat.isEnvelope(at: place) ? Envelope.byteCount(at: place) : 0
                if isPartial, claimed > left { return nil }
                let most = wastedBytes < BlockWalker.wastedMax ? left : min(left, BlockWalker.smallImage)
                guard let byteCount = LogFormat.image(at: place, byteCountMax: most, sequence: sequence, unit: unit) else {
                    if claimed <= most { wastedBytes += claimed }
                    pass(place)
                    continue
                }
                return take(byteCount)
            } else if kind == LogFormat.groupKind, left >= LogFormat.groupHeaderUnits * LogFormat.unitSize,
                let group = LogFormat.group(at: place), group.sequence == sequence, group.unit == unit {
                groupEnd = unit + group.units
                runEnd = 0
                unit += LogFormat.groupHeaderUnits
            } else if kind == LogFormat.runKind,
                let named = LogFormat.runOrigin(at: place, sequence: sequence, unit: unit) {
                runUnit = unit
                runEnd = unit + LogFormat.lengthUnits(at: place)
                origin = named
                unit += LogFormat.runHeaderUnits
            } else if kind == LogFormat.skipKind,
                let skipped = LogFormat.skippedUnits(at: place, sequence: sequence, unit: unit) {
                unit += skipped
            } else {
                let isCut = left < LogFormat.groupHeaderUnits * LogFormat.unitSize
                if isPartial, kind == LogFormat.groupKind, isCut { return nil }
                pass(place)
            }
        }
        return nil
    }

    private mutating func take(_ byteCount: Int) -> WalkedImage {
        // A moved image whose run header is not there (a crash cut it off, or it is damaged) may be older than any other: it
        // counts only if there is no other.
        let isMoved = sequence % 2 == 1
        let named = isMoved ? (unit < runEnd ? origin : 0) : sequence
        let image = WalkedImage(
            unit: unit, byteCount: byteCount,
            order: LogFormat.order(sequence: named, unit: unit, isMoved: isMoved), origin: named)
        unit += image.units
        return image
    }

    /// Nothing begins here.
    private mutating func pass(_ place: UnsafeRawPointer) {
        if unit < groupEnd, place.littleEndian(UInt64.self) | place.littleEndian(UInt64.self, at: 8) != 0 {
            if damagedUnits == 0 { firstDamagedUnit = unit }
            damagedUnits += 1
        }
        unit += 1
    }
}
