// A pass of one reactor over its partitions, those whose number mod the number of reactors is its own, as background work.
// Invariants:
// 1. Under a partition's lock entries are looked at, and those that match copied out: at most `VisitRoom.capacity`. Whatever
//    is done about them is done after that, and looks the record up again.
// 2. What was copied out is handled before the walk goes on: `handledCount` of `matchCount` are.
// 3. Nothing is allocated between `begin` and `end` of a pass.
internal import Base
internal import Index

/// What a sweep looks for, and what it does about it. All on the reactor that owns it.
protocol SweepTask: AnyObject {
    /// A pass begins. May allocate what is small.
    func begin(_ shard: NamespaceShard, _ now: TurnTime)
    /// Whether something is to be done about the entry. Under the partition's lock, for every entry: nothing slow.
    func matches(_ entry: UnsafePointer<IndexEntry>) -> Bool
    /// Does it; the record may have changed since. False: not now, ask again in a later slice.
    func handle(_ record: IndexedRecord, _ shard: NamespaceShard, _ now: TurnTime) -> Bool
    /// Records that something was done about in this pass.
    var changedCount: UInt64 { get }
    /// Records that something should have been done about in this pass, and was not: it failed.
    var failedCount: UInt64 { get }
    /// Whether something that `handle` has begun goes on: the pass ends after that.
    var isUnderWay: Bool { get }
    /// All was seen and handled.
    func end(_ shard: NamespaceShard, _ now: TurnTime)
}

/// See the invariants above. Reactor's thread only.
final class Sweep<Task: SweepTask> {
    let task: Task
    private let board: SweepBoard
    private let reactor: Int
    private let room = VisitRoom()
    private let matches: UnsafeMutablePointer<IndexedRecord>
    private var matchCount = 0
    private var handledCount = 0
    private var cursor = VisitCursor()
    private var partition: Int
    /// The pass that was begun last.
    private var pass: UInt64 = 0
    private var isRunning = false
    private var figures = SweepFigures()
    /// Holds of a lock in one slice, some 10 us together if nothing matches.
    private static var holdsPerSlice: Int { 8 }
    /// Records handled in one slice at most, some 30 us if the backend answers at once.
    private static var handledPerSlice: Int { 64 }

    init(_ task: Task, board: SweepBoard, reactor: Int) {
        self.task = task
        self.board = board
        self.reactor = reactor
        partition = reactor
        matches = .allocate(capacity: VisitRoom.capacity)
    }

    deinit {
        room.release()
        matches.deallocate()
    }

    /// One slice of the pass at hand, or the beginning of one that was ordered. `none`: nothing is to be done now.
    func slice(_ shard: NamespaceShard, _ now: TurnTime) -> BackgroundWork {
        guard isRunning || begin(shard, now) else { return .none }
        var handledLeft = Sweep.handledPerSlice
        guard handle(shard, now, &handledLeft) else { return .none }
        var holdsLeft = Sweep.holdsPerSlice
        while holdsLeft > 0, handledLeft > 0, partition < PartitionID.count {
            visit(shard)
            holdsLeft -= 1
            guard handle(shard, now, &handledLeft) else { break }
        }
        figures.changed = task.changedCount
        figures.failed = task.failedCount
        board.show(reactor, figures)
        guard partition >= PartitionID.count, handledCount == matchCount else { return .some }
        // What is under way wakes the reactor when it ends.
        guard !task.isUnderWay else { return .none }
        task.end(shard, now)
        isRunning = false
        board.end(reactor, pass: pass, at: now)
        return .some
    }

    private func begin(_ shard: NamespaceShard, _ now: TurnTime) -> Bool {
        let ordered = board.ordered
        guard ordered != pass else { return false }
        pass = ordered
        isRunning = true
        partition = reactor
        cursor = VisitCursor()
        figures = SweepFigures()
        board.begin(reactor, pass: pass)
        task.begin(shard, now)
        return true
    }

    /// Looks at the next entries, in one hold of the lock of their partition.
    private func visit(_ shard: NamespaceShard) {
        precondition(handledCount == matchCount, "what was copied out is handled first")
        let id = PartitionID(UInt16(partition))
        var found = 0
        shard.partitions.lock(id)
        let seen = shard.index.visit(id, &cursor, room: room) { visited in
            guard task.matches(visited.entry) else { return }
            matches[found] = visited.record(id)
            found += 1
        }
        shard.partitions.unlock(id)
        matchCount = found
        handledCount = 0
        figures.seen += UInt64(seen)
        figures.matched += UInt64(found)
        guard cursor.isDone else { return }
        cursor = VisitCursor()
        partition += board.reactorCount
    }

    /// Handles what was copied out. False: the rest has to wait.
    private func handle(_ shard: NamespaceShard, _ now: TurnTime, _ left: inout Int) -> Bool {
        while handledCount < matchCount {
            guard left > 0 else { return true }
            guard task.handle(matches[handledCount], shard, now) else { return false }
            handledCount += 1
            left -= 1
        }
        return true
    }
}
