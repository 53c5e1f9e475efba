// One pass over all records of the source: reads each image and hands it to a step, which copies or compares it. Many are
// under way at once. Invariants:
// 1. A slot is free, or its record is being read, or is in the hands of the step, or is in `waiting` (its image is held, the
//    step had no room) or in `again` (to be read anew).
// 2. Every record is handed to the step until that has taken it, or is in `lost`.
// 3. After a failure or a signal nothing is started any more; `run` returns when nothing is under way.
internal import Base
internal import Glibc
internal import Index
internal import Logging
internal import Reactor
internal import Storage

/// What a pass does with a record.
protocol ConversionStep: AnyObject {
    /// Where it does it.
    var shard: any BackendShard { get }
    /// Begins with a record whose whole image the source has given. The bytes are lent for the call.
    /// - Returns: false if it is over, true if `finish` comes.
    /// - Throws: `overloaded`: later; whatever else ends the pass.
    func begin(_ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ tag: Tag) throws(StorageError) -> Bool
    /// The operation with the tag of the record has ended.
    /// - Throws: as `begin`.
    func finish(
        _ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ result: Completion.Result
    ) throws(StorageError)
    /// An operation with the tag `ConversionPass.stepTag` has ended.
    func finish(_ result: Completion.Result) throws(StorageError)
    /// Starts operations of the step's own. Once a turn; `isLast` if every record was taken.
    func turn(isLast: Bool) throws(StorageError)
    /// An operation of the step's own is under way, or is to be started again.
    var isBusy: Bool { get }
    /// The target should get less.
    var isPressed: Bool { get }
}

/// See the invariants above. One thread, which drives both shards.
final class ConversionPass {
    /// For operations of the step that belong to no record.
    static let stepTag = Tag(rawValue: .max)
    private static let slotsMax = 256
    private static let bytesMax = 64 << 20
    private static let waitMilliseconds: Int32 = 10
    private static let lookNanoseconds: UInt64 = 50_000_000
    private static let noteNanoseconds: UInt64 = 2_000_000_000
    private static let linesMax = 20

    private struct Slot {
        var record: IndexedRecord?
        /// Held while the record waits, or the step needs it.
        var image = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }

    private let source: ConversionNamespace
    private let step: any ConversionStep
    private let bell: ConversionBell
    private let walk: ConversionWalk
    private let isWanted: (IndexedRecord) -> Bool
    private let log: Logger
    private let total: Int
    private let verb: String
    private var slots = Array(repeating: Slot(), count: slotsMax)
    private var free = Array(0..<slotsMax)
    private var waiting: [Int] = []
    private var again: [Int] = []
    private var bytesUnderWay = 0
    private var isWalked = false
    private var hasMoved = false
    /// Records that the source could not give.
    private(set) var lost: Set<Digest> = []
    /// What has ended the pass, and with which record.
    private(set) var failure: (error: StorageError, record: IndexedRecord?)?
    private(set) var isStopped = false
    private let begun = SystemClock.monotonic()
    private var doneRecords = 0
    private var doneBytes = 0

    /// `verb` is for the log: `copied`. Records that are not wanted are passed over.
    init(
        _ source: ConversionNamespace, _ step: any ConversionStep, _ bell: ConversionBell, _ log: Logger, verb: String,
        isWanted: @escaping (IndexedRecord) -> Bool
    ) {
        self.source = source
        self.step = step
        self.bell = bell
        self.log = log
        self.verb = verb
        self.isWanted = isWanted
        walk = ConversionWalk(source.index)
        total = source.index.count
    }

    deinit { for slot in slots { slot.image.deallocate() } }

    /// Goes through all records, or up to what ends it (`failure`, `isStopped`).
    func run(_ signals: SignalSet) {
        var signals = signals
        var nextLook = begun.nanoseconds
        var nextNote = begun.nanoseconds + ConversionPass.noteNanoseconds
        repeat {
            turn()
            let now = SystemClock.monotonic().nanoseconds
            if now >= nextLook {
                nextLook = now + ConversionPass.lookNanoseconds
                if let signal = signals.wait(milliseconds: 0), signal != SIGHUP { isStopped = true }
                if let fatal = source.fatal, failure == nil { failure = (.medium(fatal), nil) }
            }
            if now >= nextNote {
                nextNote = now + ConversionPass.noteNanoseconds
                log.info(.storage, note)
            }
        } while !isOver
        source.shard.turnEnded(sleeping: true)
        step.shard.turnEnded(sleeping: true)
    }

    private var isGoingOn: Bool { failure == nil && !isStopped }

    private var isIdle: Bool { free.count == slots.count }

    private var isOver: Bool { isIdle && !step.isBusy && (isWalked || !isGoingOn) }

    private var note: String {
        let seconds = Double(SystemClock.monotonic().nanoseconds(since: begun)) / 1e9
        let left = doneRecords > 0 ? Int(seconds * Double(total - doneRecords) / Double(doneRecords)) + 1 : 0
        return "\(verb) \(doneRecords) of \(total) records, \(doneBytes >> 20) MB"
            + " (\(total > 0 ? doneRecords * 100 / total : 100) %), about \(left) s left"
    }

    // ---- Turns ----

    private func turn() {
        hasMoved = false
        source.shard.poll { ended($0) }
        step.shard.poll { finished($0) }
        retry()
        if isGoingOn { fill() }
        if isGoingOn { stepOn() }
        source.shard.turnEnded(sleeping: !hasMoved)
        step.shard.turnEnded(sleeping: !hasMoved)
        if !hasMoved { bell.wait(milliseconds: ConversionPass.waitMilliseconds) }
    }

    /// What had no room, and what is to be read anew.
    private func retry() {
        let held = waiting
        waiting = []
        for number in held { give(number, UnsafeRawBufferPointer(slots[number].image)) }
        let unread = again
        again = []
        for number in unread { read(number) }
    }

    /// Starts with more records. A target under pressure gets one at a time.
    private func fill() {
        var startedCount = 0
        while startedCount < ConversionPass.slotsMax, let number = free.last, waiting.isEmpty, again.isEmpty,
            bytesUnderWay < ConversionPass.bytesMax, !step.isPressed || isIdle {
            guard let record = walk.next() else {
                isWalked = true
                return
            }
            startedCount += 1
            hasMoved = true
            guard isWanted(record) else {
                doneRecords += 1
                continue
            }
            free.removeLast()
            slots[number].record = record
            bytesUnderWay += record.entry.byteCount
            read(number)
        }
    }

    private func stepOn() {
        do throws(StorageError) {
            try step.turn(isLast: isWalked && isIdle)
        } catch {
            fail(error, nil)
        }
    }

    // ---- One record ----

    private func read(_ number: Int) {
        guard isGoingOn, let record = slots[number].record else { return release(number) }
        do throws(StorageError) {
            let answer = try source.shard.read(
                record.digest, at: Location(rawValue: record.entry.location), byteCount: record.entry.byteCount,
                tag: Tag(rawValue: UInt64(number)))
            switch answer {
            case .here(let bytes): take(number, bytes)
            case .absent: lose(number, "it is not there")
            case .pending: break
            }
        } catch {
            if error == .overloaded { again.append(number) } else { lose(number, error.text) }
        }
    }

    private func ended(_ completion: borrowing Completion) {
        hasMoved = true
        let number = Int(completion.tag.rawValue)
        switch completion.result {
        case .read(let bytes): take(number, bytes)
        case .absent: lose(number, "it is not there")
        case .failed(let error):
            if error == .overloaded { again.append(number) } else { lose(number, error.text) }
        case .placed, .done: preconditionFailure("the source is only read")
        }
    }

    /// The source has given the bytes of a record.
    private func take(_ number: Int, _ bytes: UnsafeRawBufferPointer) {
        guard let record = slots[number].record else { preconditionFailure("nothing was asked for in slot \(number)") }
        guard let image = ConversionSum.image(in: bytes, of: record.digest) else {
            return lose(number, "it is not what was written")
        }
        give(number, image)
    }

    /// Hands an image to the step; one that has to wait is held.
    private func give(_ number: Int, _ image: UnsafeRawBufferPointer) {
        guard isGoingOn, let record = slots[number].record else { return release(number) }
        do throws(StorageError) {
            guard try step.begin(record, image, Tag(rawValue: UInt64(number))) else { return taken(number) }
            hold(number, image)
        } catch {
            guard error == .overloaded else { return end(number, error) }
            hold(number, image)
            waiting.append(number)
        }
    }

    private func finished(_ completion: borrowing Completion) {
        hasMoved = true
        do throws(StorageError) {
            guard completion.tag != ConversionPass.stepTag else { return try step.finish(completion.result) }
            let number = Int(completion.tag.rawValue)
            guard let record = slots[number].record else { preconditionFailure("nothing was begun in slot \(number)") }
            do throws(StorageError) {
                try step.finish(record, UnsafeRawBufferPointer(slots[number].image), completion.result)
                taken(number)
            } catch {
                if error == .overloaded { again.append(number) } else { end(number, error) }
            }
        } catch {
            fail(error, nil)
        }
    }

    private func taken(_ number: Int) {
        doneRecords += 1
        doneBytes += slots[number].record?.entry.byteCount ?? 0
        release(number)
    }

    private func end(_ number: Int, _ error: StorageError) {
        fail(error, slots[number].record)
        release(number)
    }

    private func fail(_ error: StorageError, _ record: IndexedRecord?) {
        if failure == nil { failure = (error, record) }
    }

    private func lose(_ number: Int, _ reason: String) {
        if let record = slots[number].record, isGoingOn {
            lost.insert(record.digest)
            doneRecords += 1
            if lost.count <= ConversionPass.linesMax {
                log.warning(.storage, "record \(record.digest) cannot be read from the source: \(reason)")
            }
            if lost.count == ConversionPass.linesMax {
                log.warning(.storage, "more such records are counted, not named")
            }
        }
        release(number)
    }

    private func hold(_ number: Int, _ image: UnsafeRawBufferPointer) {
        guard UnsafeRawPointer(slots[number].image.baseAddress) != image.baseAddress else { return }
        slots[number].image.deallocate()
        slots[number].image = .allocate(byteCount: image.count, alignment: 16)
        slots[number].image.copyMemory(from: image)
    }

    private func release(_ number: Int) {
        hasMoved = true
        bytesUnderWay -= slots[number].record?.entry.byteCount ?? 0
        slots[number].image.deallocate()
        slots[number] = Slot()
        free.append(number)
    }
}
