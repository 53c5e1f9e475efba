// Times before which records count as gone. Invariants:
// 1. A record whose last update is before the time of its namespace or of its set is absent for everybody, whether its
//    entry is still in the index or not.
// 2. `latest` is at least every other time here: a record that is not older is not truncated. 0: nothing is.
// 3. One thread changes times; all may read. A time is stored before `latest` covers it, and taken away after.
package import Base
internal import CBase

/// The truncation times of one namespace, in milliseconds since 2010; 0 for none.
package final class Truncation: @unchecked Sendable {
    // Line 0: latest, namespace. Then a time for each set id: address space, pages come with the first touch.
    private let words: UnsafeMutableRawPointer
    private static let setsOffset = 64
    private static let byteCount = setsOffset + 8 * (Limits.setsMax + 1)

    package init() {
        guard let pages = apus_pages_reserve(Truncation.byteCount, false) else { fatalError("no address space for sets") }
        words = pages
    }

    deinit { apus_pages_release(words, Truncation.byteCount) }

    private func word(_ set: UInt16) -> UnsafeMutableRawPointer {
        words + (set == 0 ? 8 : Truncation.setsOffset + 8 * Int(set))
    }

    /// Whether anything was truncated. Any thread.
    package var isEmpty: Bool { apus_load_relaxed_u64(words) == 0 }

    /// Time of a set, or with 0 of the whole namespace. Any thread.
    package func time(of set: UInt16) -> UInt64 { apus_load_relaxed_u64(word(set)) }

    /// Whether a record of `set` that was last updated at `time` is truncated. Any thread.
    @inline(__always)
    func covers(_ time: UInt64, set: UInt16) -> Bool {
        guard time < apus_load_relaxed_u64(words) else { return false }
        return isBefore(time, set)
    }

    private func isBefore(_ time: UInt64, _ set: UInt16) -> Bool {
        time < self.time(of: 0) || set != 0 && time < self.time(of: set)
    }

    /// Records of a set, or with 0 of the namespace, that are older than `time` are gone from now on; 0 takes that back for
    /// those that are still there.
    func set(_ set: UInt16, to time: UInt64, setCount: Int) {
        apus_store_relaxed_u64(word(set), time)
        var latest = self.time(of: 0)
        for id in 0..<setCount { latest = max(latest, self.time(of: UInt16(id + 1))) }
        apus_store_release_u64(words, latest)
    }
}

extension Namespace {
    /// A time for a truncate without one: every version that was published before is older, every later one is not.
    package func reserveTruncationTime(wall: RecordTime) -> UInt64 {
        let time = issueTime(wall: wall, previous: 0) + 1
        raiseClock(to: time)
        return time
    }

    /// Puts a truncation time in force, 0 for none: it has been made durable. `set` 0 is the whole namespace. One thread at
    /// a time. What it covers is removed in the background.
    package func truncate(set: UInt16, to time: UInt64) {
        precondition(Int(set) <= sets.count)
        raiseClock(to: time)
        truncation.set(set, to: time, setCount: sets.count)
        guard time > 0 else { return }
        sweepTruncated(set)
    }

    /// Has what is truncated removed: a pass of all reactors.
    package func sweepTruncated(_ set: UInt16 = 0) {
        guard !truncation.isEmpty else { return }
        let pass = truncateBoard.order()
        setValues.set(set, .truncatePass, to: pass)
    }

    /// Whether records that a truncate has covered may still be in the index. `set` 0 is the whole namespace. Any thread.
    package func isTruncating(set: UInt16) -> Bool {
        guard set != 0 else { return !truncateBoard.isEnded(truncateBoard.ordered) }
        return !truncateBoard.isEnded(max(setValues.value(set, .truncatePass), setValues.value(0, .truncatePass)))
    }
}
