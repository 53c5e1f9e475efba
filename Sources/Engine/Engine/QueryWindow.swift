// The records that a part of a query looks at together. Invariants:
// 1. 0 <= next <= started <= count <= capacity; records below `next` have been answered or left out, those from `started`
//    on have not been looked at.
// 2. A record is read, waiting, ready or left out; `next` stops at the first that is waiting.
// 3. What is ready before its turn lies in `answers` until then.
internal import Base
internal import Index
internal import Wire

/// Entries copied out of the index in the order of the walk, and what has become of them. Not thread-safe.
struct QueryWindow: ~Copyable {
    /// Entries that are looked at together: one slice.
    static let capacity = 64
    enum State: UInt8, BitwiseCopyable {
        /// Nothing has been done.
        case fresh
        /// The backend has not answered.
        case waiting
        /// Its answer lies in `answers`.
        case ready
        /// Not for the client.
        case leftOut
    }
    struct Place: BitwiseCopyable {
        var state = State.fresh
        var offset = 0
        var byteCount = 0
        /// Its entry does not decide the filter.
        var isUndecided = false
        /// How often it was looked up.
        var attempts: UInt8 = 0
    }

    let records: UnsafeMutableBufferPointer<IndexedRecord>
    let places: UnsafeMutablePointer<Place>
    let answers = OutputBuffer(capacity: 4096)
    private(set) var count = 0
    private(set) var next = 0
    private(set) var started = 0
    /// Records below this have been counted as put off by the limit on records per second.
    private var throttled = 0
    private var room = SliceRoom()

    init() {
        records = .allocate(capacity: QueryWindow.capacity)
        records.initialize(repeating: IndexedRecord(
            digest: Digest(low: 0, middle: 0, high: 0), entry: IndexEntry(digest: Digest(low: 0, middle: 0, high: 0))))
        places = .allocate(capacity: QueryWindow.capacity)
        places.initialize(repeating: Place(), count: QueryWindow.capacity)
    }

    deinit {
        records.deallocate()
        places.deallocate()
    }

    /// `count` records have been copied into `records`; bit n of `undecided` is set if the filter needs the bins of n.
    mutating func fill(_ count: Int, undecided: UInt64) {
        precondition(next == self.count && count <= QueryWindow.capacity)
        self.count = count
        next = 0
        started = 0
        throttled = 0
        answers.truncate(to: 0)
        places.update(repeating: Place(), count: count)
        for row in 0..<count where undecided >> UInt64(row) & 1 == 1 { places[row].isUndecided = true }
    }

    var isEmpty: Bool { next == count }

    /// The record at `next` has been answered or left out.
    mutating func advance() {
        precondition(next < count && places[next].state != .waiting)
        next += 1
    }

    /// Nothing that is left is for the client.
    mutating func drop() {
        next = count
        started = count
    }

    /// Copies the next entries of a walk into `records`; returns how many. Under the partition's lock.
    mutating func copy(_ index: PrimaryIndex, _ partition: PartitionID, _ cursor: inout IndexCursor) -> Int {
        index.slice(partition, &cursor, into: records, &room)
    }

    /// How many of the next records may be looked at in one slice: those that `byteBudget` allows, at least one.
    func freshCount(byteBudget: Int, needsImage: (Int) -> Bool) -> Int {
        var bytes = 0
        var row = started
        while row < count {
            if needsImage(row) { bytes += records[row].entry.byteCount }
            guard bytes <= byteBudget || row == started else { break }
            row += 1
        }
        return row - started
    }

    /// Only `allowed` of the next `wanted` records may be looked at now; returns how many are put off for the first time.
    mutating func putOff(_ wanted: Int, allowed: Int) -> Int {
        let first = max(throttled, started + allowed)
        throttled = max(throttled, started + wanted)
        return max(started + wanted - first, 0)
    }

    var hasFresh: Bool { started < count }

    /// The next `wanted` records are looked at now.
    mutating func takeFresh(_ wanted: Int) -> Range<Int> {
        let rows = started..<(started + wanted)
        precondition(rows.upperBound <= count)
        started = rows.upperBound
        return rows
    }

    /// A record is to be looked at again later, with all behind it that nothing has become of.
    mutating func putBack(_ row: Int) {
        places[row].state = .fresh
        started = min(started, row)
    }
}
