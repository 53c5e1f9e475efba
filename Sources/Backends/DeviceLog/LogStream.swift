// Where one device is appended to: an open block, and in it an open group. Invariants:
// 1. The word says it all: buffer of the open block, flush unit where the open group begins, units reserved in the block.
//    Whoever moves it forward by compare-and-swap owns what it has passed over.
// 2. A group is sealed by moving the word to where the next one begins, under the device's lock. Its counter held the units
//    copied so far; sealing takes away what was reserved. Whoever brings it to 0 then has completed the group and sees to
//    it that it is written: so bytes are written only when all of them are there.
// 3. Groups have numbers in the order of their sealing. `durableCount` says how many of the first of them last.
internal import Base
internal import CBase

/// The word of a stream, taken apart.
struct StreamWord {
    static let closed = UInt64.max
    let rawValue: UInt64

    init(_ rawValue: UInt64) { self.rawValue = rawValue }
    init(buffer: Int, group: Int, units: Int) {
        rawValue = UInt64(buffer) << 48 | UInt64(group) << 24 | UInt64(units)
    }

    @inline(__always) var isOpen: Bool { rawValue != StreamWord.closed }
    @inline(__always) var buffer: Int { Int(rawValue >> 48) }
    /// Flush units from the front of the block.
    @inline(__always) var group: Int { Int(rawValue >> 24 & 0xFF_FFFF) }
    @inline(__always) var units: Int { Int(rawValue & 0xFF_FFFF) }
}

/// Units that an appender owns.
struct Reserved {
    let buffer: Int
    let group: Int
    let unit: Int
}

/// A group that can be written.
struct GroupWrite: BitwiseCopyable {
    let device: Int
    let stream: Int
    let buffer: Int
    let number: UInt64
    /// Bytes from the front of the block.
    let offset: Int
    let byteCount: Int
    let isDurable: Bool
    var attempts = 0
}

/// A group that was sealed and does not last yet.
struct PendingGroup {
    let write: GroupWrite
    var isWritten = false
}

/// Everything but the word is under the device's lock.
final class LogStream: @unchecked Sendable {
    let number: Int
    let word: UnsafeMutablePointer<UInt64>
    /// When the open group got its first image, milliseconds; `UInt64.max` if it is empty. A hint outside of the lock.
    let born: UnsafeMutablePointer<UInt64>
    private let unitsPerBlock: Int
    private let unitsPerFlushUnit: Int
    /// Groups sealed so far.
    var sealedCount: UInt64 = 0
    /// So many of the first groups are written.
    var writtenCount: UInt64 = 0
    /// So many of the first groups last.
    var durableCount: UInt64 = 0
    /// From the group `writtenCount` on.
    var pending: [PendingGroup] = []

    init(number: Int, layout: LogLayout) {
        self.number = number
        unitsPerBlock = layout.unitsPerBlock
        unitsPerFlushUnit = layout.flushUnit / LogFormat.unitSize
        // Each on a line of its own.
        word = .allocate(capacity: 24)
        word.initialize(repeating: StreamWord.closed, count: 24)
        born = word + 16
        pending.reserveCapacity(64)
    }

    deinit { word.deallocate() }

    @inline(__always)
    var now: StreamWord { StreamWord(apus_load_acquire_u64(word)) }

    /// Takes `units` of the open block; nil if there is none, or it has no room for them.
    @inline(__always)
    func reserve(_ units: Int) -> Reserved? {
        while true {
            let old = now
            guard old.isOpen, old.units + units <= unitsPerBlock else { return nil }
            if apus_compare_exchange_u64(word, old.rawValue, old.rawValue + UInt64(units)) {
                return Reserved(buffer: old.buffer, group: old.group, unit: old.units)
            }
        }
    }

    func firstUnit(_ group: Int) -> Int { group * unitsPerFlushUnit }

    /// Whether nothing was reserved in the open group.
    func isEmpty(_ word: StreamWord) -> Bool {
        !word.isOpen || word.units <= firstUnit(word.group) + LogFormat.groupHeaderUnits
    }

    /// How many groups must last so that everything appended until now does. Under the lock.
    var neededCount: UInt64 { sealedCount + (isEmpty(now) ? 0 : 1) }

    /// Opens the block in `buffer`. Under the lock; the stream is closed.
    func open(_ buffer: Int) {
        precondition(!now.isOpen)
        apus_store_release_u64(
            word, StreamWord(buffer: buffer, group: 0, units: LogFormat.groupHeaderUnits).rawValue)
    }

    /// Ends the open group; what was reserved in it, the word before. Nil if it is empty. Under the lock.
    func endGroup() -> StreamWord? {
        while true {
            let old = now
            guard !isEmpty(old) else { return nil }
            let next = (old.units + unitsPerFlushUnit - 1) / unitsPerFlushUnit
            let start = firstUnit(next) + LogFormat.groupHeaderUnits
            // At the end of the block nothing fits any more, but it is open until its successor is.
            let new = StreamWord(buffer: old.buffer, group: next, units: min(start, unitsPerBlock))
            // Before the word moves on: whoever is first in the next group writes down when that was.
            apus_store_release_u64(born, .max)
            guard apus_compare_exchange_u64(word, old.rawValue, new.rawValue) else { continue }
            return old
        }
    }

    /// No block is open from now on. Under the lock; the open group is empty. False: somebody has just appended.
    func close() -> Bool {
        let old = now
        guard isEmpty(old) else { return false }
        return apus_compare_exchange_u64(word, old.rawValue, StreamWord.closed)
    }
}
