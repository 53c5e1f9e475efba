// What a set is set to. One thread changes it, all may read: each value is a word of its own.
internal import Base
internal import CBase
internal import Record

/// The settings of all sets of one namespace.
package final class SetValues: @unchecked Sendable {
    /// What is kept of a set. 0 is the default everywhere.
    package enum Word: Int, CaseIterable, Sendable {
        /// `default-ttl` in seconds; 0 as the namespace says.
        case defaultTimeToLive
        /// `default-read-touch-ttl-pct`; 0 as the namespace says, `readTouchNever` for never.
        case readTouchPercent
        /// `disable-eviction`, 1 for true.
        case disablesEviction
        /// `enable-index`, 1 for true; no effect yet.
        case enablesIndex
        /// `stop-writes-count` in records.
        case stopWritesCount
        /// `stop-writes-size` in bytes.
        case stopWritesSize
        /// Not a setting: the pass that removes what the last truncate has covered.
        case truncatePass
    }
    /// `default-read-touch-ttl-pct` -1.
    package static let readTouchNever = UInt64.max
    private static let lineSize = 64
    private static let byteCount = (Limits.setsMax + 1) * lineSize
    // A line for each id; that of id 0, which is no set, ends with a word that says whether any set has anything.
    private let lines: UnsafeMutableRawPointer
    private var any: UnsafeMutableRawPointer { lines + SetValues.lineSize - 8 }

    package init() {
        guard let pages = apus_pages_reserve(SetValues.byteCount, false) else { fatalError("no address space for sets") }
        lines = pages
    }

    deinit { apus_pages_release(lines, SetValues.byteCount) }

    /// A value of a set. Any thread.
    package func value(_ set: UInt16, _ word: Word) -> UInt64 {
        apus_load_relaxed_u64(lines + Int(set) * SetValues.lineSize + word.rawValue * 8)
    }

    /// Changes a value of a set. One thread at a time.
    package func set(_ set: UInt16, _ word: Word, to value: UInt64) {
        apus_store_relaxed_u64(lines + Int(set) * SetValues.lineSize + word.rawValue * 8, value)
        if word != .truncatePass, value != 0 { apus_store_relaxed_u64(any, 1) }
    }

    /// False if every set has the defaults. Any thread; one load.
    @inline(__always)
    package var isAnySet: Bool { apus_load_relaxed_u64(any) != 0 }

    /// Whether records of that set are kept from eviction. Any thread.
    package func disablesEviction(_ set: UInt16) -> Bool { isAnySet && value(set, .disablesEviction) != 0 }
}

extension NamespaceShard {
    /// The rules for void-times of a write to a set; 0 for none.
    func timeToLiveRules(set: UInt16) -> TimeToLive.Settings {
        var rules = namespace.live.current.pointee.timeToLiveRules
        guard namespace.setValues.isAnySet, set != 0 else { return rules }
        let seconds = namespace.setValues.value(set, .defaultTimeToLive)
        if seconds > 0 { rules.defaultSeconds = UInt32(clamping: seconds) }
        return rules
    }

    /// The percentage that reads of a set renew at which bring none; 0 for never.
    func readTouchPercent(set: UInt16) -> UInt32 {
        let percent = namespace.live.current.pointee.readTouchPercent
        guard namespace.setValues.isAnySet, set != 0 else { return percent }
        switch namespace.setValues.value(set, .readTouchPercent) {
        case 0: return percent
        case SetValues.readTouchNever: return 0
        case let own: return UInt32(clamping: own)
        }
    }

    /// Whether a new record of that set is too much: `stop-writes-count` or `stop-writes-size` is reached.
    func isFull(set: UInt16) -> Bool {
        let values = namespace.setValues
        guard values.isAnySet, set != 0 else { return false }
        let count = values.value(set, .stopWritesCount)
        let size = values.value(set, .stopWritesSize)
        if count > 0, namespace.objectCount(set: set) >= count { return true }
        return size > 0 && namespace.byteCount(set: set) >= size
    }
}

extension Namespace {
    /// How many records a set has. Any thread; a moment old.
    package func objectCount(set: UInt16) -> UInt64 {
        UInt64(max(counters.reduce(Int64(0)) { $0 + $1.setObjects(set) }, 0))
    }

    /// Bytes of the images of a set, each rounded to its unit. Any thread; a moment old.
    package func byteCount(set: UInt16) -> UInt64 {
        UInt64(max(counters.reduce(Int64(0)) { $0 + $1.setBytes(set) }, 0))
    }
}
