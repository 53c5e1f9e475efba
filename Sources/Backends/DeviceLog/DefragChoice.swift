// Which block of a device is emptied next: the emptiest one that is eligible, of equally empty ones the oldest
// (decision 023). Invariants:
// 1. Choosing looks at `sliceLines` lines of the table at a time at most. A table of no more is looked at afresh for every
//    choice; of a larger one the emptiest `keptMax` blocks of one walk are used up before the next walk begins.
// 2. A block that could not be emptied has its live units of then in `leftUnits`: it is not chosen while they are the same,
//    unless its images were only passed over and some time has gone by.
// 3. After a walk that found nothing, nobody looks again before something has changed (`restMark`).
// 4. Each claimed victim has a free block to itself, but for the first: so victims that are emptied side by side cannot use
//    up what all of them need.
// 5. Everything is under `lockWord`, taken inside of the device's lock or without it, never around it; the words are read
//    without a lock, as hints.
internal import Base
internal import CBase
internal import Storage

/// A block that may be emptied.
struct DefragCandidate: BitwiseCopyable {
    let block: Int
    /// What emptying it wins for what it costs, times its age: a block that has been written for long has lost what
    /// it is going to lose soon, a young one will be emptier if it is left alone.
    let worth: Double
}

/// See the invariants above. Any thread.
final class DefragChoice: @unchecked Sendable {
    enum Answer {
        /// It is claimed.
        case victim(Int)
        /// The walk is not over yet.
        case looking
        case none
    }
    /// Lines of the table looked at in one go: some 10 us.
    static let sliceLines = 2048
    private static let keptMax = 32
    /// Before a block is tried again of which some images were passed over.
    static let patienceMilliseconds: UInt64 = 100

    private let words: UnsafeMutablePointer<UInt64>
    private let lockWord: UnsafeMutablePointer<UInt32>
    /// The emptiest last.
    private var kept: [DefragCandidate] = []
    /// The same of the walk that is under way, the emptiest first.
    private var found: [DefragCandidate] = []
    private var nextLine = 0
    private var retries: [(block: Int, due: UInt64)] = []

    init() {
        words = .allocate(capacity: 8)
        words.initialize(repeating: 0, count: 8)
        lockWord = .allocate(capacity: 16)
        lockWord.initialize(repeating: 0, count: 16)
        kept.reserveCapacity(DefragChoice.keptMax)
        found.reserveCapacity(DefragChoice.keptMax + 1)
    }

    deinit {
        words.deallocate()
        lockWord.deallocate()
    }

    // ---- Hints ----

    /// Victims that are claimed now.
    var claimedCount: Int { Int(apus_load_acquire_u64(words)) }
    private var restMark: UnsafeMutablePointer<UInt64> { words + 1 }
    private var keptCount: UnsafeMutablePointer<UInt64> { words + 2 }
    private var retryCount: UnsafeMutablePointer<UInt64> { words + 3 }
    private var stuckWord: UnsafeMutablePointer<UInt64> { words + 4 }

    /// Moved images found no room, and nothing is about to become free: what is claimed wins nothing back.
    var isStuck: Bool {
        get { apus_load_acquire_u64(stuckWord) == 1 }
        set { if newValue != isStuck { apus_store_release_u64(stuckWord, newValue ? 1 : 0) } }
    }

    /// Nothing was eligible when somebody looked last, and nothing has changed since.
    func isResting(_ device: LogDevice) -> Bool {
        apus_load_acquire_u64(restMark) == DefragChoice.mark(device) && apus_load_relaxed_u64(retryCount) == 0
    }

    /// Whether some block may be won back, as far as is known.
    func mayWin(_ device: LogDevice) -> Bool {
        if claimedCount > 0 { return !isStuck }
        return apus_load_relaxed_u64(keptCount) > 0 || !isResting(device)
    }

    /// The same, after looking: for an appender that found no free block. What it does not know yet counts as true.
    func canWin(_ device: LogDevice) -> Bool {
        guard mayWin(device), claimedCount == 0, apus_try_lock(lockWord) else { return mayWin(device) }
        defer { apus_unlock(lockWord) }
        look(device)
        return mayWin(device)
    }

    /// Changes with everything that can make a block eligible; of large tables only with a good deal of it, so that they are
    /// not walked in vain all the time.
    private static func mark(_ device: LogDevice) -> UInt64 {
        let figures = device.figures
        var mark = device.core.nextSequence &* 0x9E37_79B9_7F4A_7C15
        if isSmall(device) {
            mark ^= device.streams[0].now.rawValue &* 0xBF58_476D_1CE4_E5B9
            mark ^= UInt64(truncatingIfNeeded: figures[.liveUnits]) &* 0x94D0_49BB_1331_11EB
            mark ^= UInt64(truncatingIfNeeded: figures[.unwrittenBytes]) << 32
        } else {
            let live = figures[.liveUnits] * 16 / device.layout.unitsPerBlock
            mark ^= UInt64(truncatingIfNeeded: live) &* 0x94D0_49BB_1331_11EB
            mark ^= figures[.unwrittenBytes] == 0 ? 1 << 32 : 0
        }
        return mark | 1
    }

    private static func isSmall(_ device: LogDevice) -> Bool { device.blockCount <= sliceLines }

    // ---- Choosing ----

    /// Claims the emptiest block that is eligible.
    func choose(_ device: LogDevice, nowMilliseconds: UInt64) -> Answer {
        guard apus_try_lock(lockWord) else { return .none }
        defer { apus_unlock(lockWord) }
        retryDue(device, nowMilliseconds)
        let claimed = claimedCount
        guard claimed == 0 || claimed + 1 <= device.freeCount else { return .none }
        if DefragChoice.isSmall(device) { forgetKept() }
        if kept.isEmpty {
            guard !isResting(device) else { return .none }
            guard look(device) else { return .looking }
        }
        defer { apus_store_release_u64(keptCount, UInt64(kept.count)) }
        while let candidate = kept.popLast() {
            guard device.isEligible(candidate.block), device.claimVictim(candidate.block) else { continue }
            _ = apus_fetch_add_u64(words, 1)
            return .victim(candidate.block)
        }
        return .none
    }

    private func forgetKept() {
        kept.removeAll(keepingCapacity: true)
        nextLine = 0
    }

    /// Goes on with the walk by one slice, unless some of the last one's blocks are left. False: it is not over yet. Under
    /// the lock.
    @discardableResult
    private func look(_ device: LogDevice) -> Bool {
        guard kept.isEmpty else { return true }
        // Before the walk: what changes behind it counts.
        let before = DefragChoice.mark(device)
        if nextLine == 0 { found.removeAll(keepingCapacity: true) }
        let end = min(device.blockCount, nextLine + DefragChoice.sliceLines)
        for block in nextLine..<max(nextLine, end) where device.isEligible(block) {
            note(DefragCandidate(block: block, worth: device.worth(block)))
        }
        nextLine = end
        guard end >= device.blockCount else { return false }
        nextLine = 0
        kept.append(contentsOf: found.reversed())
        apus_store_release_u64(keptCount, UInt64(kept.count))
        apus_store_release_u64(restMark, kept.isEmpty ? before : 0)
        return true
    }

    private func note(_ candidate: DefragCandidate) {
        if found.count == DefragChoice.keptMax {
            guard candidate.worth > found[found.count - 1].worth else { return }
            found.removeLast()
        }
        var place = found.count
        while place > 0, found[place - 1].worth < candidate.worth { place -= 1 }
        found.insert(candidate, at: place)
    }

    // ---- Ends ----

    /// Its owner has done with a victim; images of `leftUnits` live in it still. Before `LogDevice.closeBlock`.
    func ended(_ device: LogDevice, _ block: Int, leftUnits: Int, isDamaged: Bool, nowMilliseconds: UInt64) {
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        device.setLeftUnits(block, leftUnits)
        if leftUnits > 0, !isDamaged {
            retries.append((block, nowMilliseconds + DefragChoice.patienceMilliseconds))
            apus_store_release_u64(retryCount, UInt64(retries.count))
        }
        let before = apus_fetch_add_u64(words, 0 &- 1)
        precondition(before > 0, "a victim has ended twice")
        isStuck = false
    }

    private func retryDue(_ device: LogDevice, _ nowMilliseconds: UInt64) {
        guard !retries.isEmpty else { return }
        for retry in retries where retry.due <= nowMilliseconds { device.setLeftUnits(retry.block, 0) }
        let count = retries.count
        retries.removeAll { $0.due <= nowMilliseconds }
        guard retries.count < count else { return }
        apus_store_release_u64(retryCount, UInt64(retries.count))
        apus_store_release_u64(restMark, 0)
    }
}

extension LogDevice {
    /// Blocks, free or on the way there, below which defragmentation begins (`defrag-free-target-pct`).
    var freeTargetBlocks: Int { max(reserveBlocks + 2, blockCount * core.settings.defragFreePercent / 100) }

    var needsBlocks: Bool { freeSoonCount < freeTargetBlocks }

    /// Whether a block is closed, little enough of it is live, and emptying it is not known to be in vain.
    func isEligible(_ block: Int) -> Bool {
        guard stateNow(block) == BlockState.closed else { return false }
        let live = liveUnits(block)
        return live > 0 && live * 100 < eligiblePercent * layout.unitsPerBlock && live != leftUnits(block)
    }

    /// `defrag-lwm-pct`; more when half of what should be free is not: rather many bytes moved than writes refused.
    private var eligiblePercent: Int {
        let isShort = freeSoonCount <= reserveBlocks + (freeTargetBlocks - reserveBlocks) / 2
        return isShort ? max(core.defragLivePercent, LogDevice.pressedPercent) : core.defragLivePercent
    }
    private static let pressedPercent = 95

    /// See `DefragCandidate.worth`.
    func worth(_ block: Int) -> Double {
        let live = Double(liveUnits(block))
        let age = core.nextSequence > lines[block].sequence ? core.nextSequence - lines[block].sequence : 1
        return (Double(layout.unitsPerBlock) - live) / max(live, 1) * Double(age)
    }

    private func leftWord(_ block: Int) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(lines + block) + MemoryLayout<BlockLine>.offset(of: \.leftUnits)!
    }

    private func leftUnits(_ block: Int) -> Int { Int(apus_load_relaxed_u32(leftWord(block))) }

    func setLeftUnits(_ block: Int, _ units: Int) { apus_store_release_u32(leftWord(block), UInt32(units)) }
}
