// The twin of an arena on persistent memory, for tests. Invariants:
// 1. Stores go to `base`; `medium` holds, line by line, what a power failure cannot take any more.
// 2. A line of 64 bytes reaches the medium as a whole: when it is persisted, or when the cache evicts it (`evict`),
//    with what it holds then.
// 3. After a power failure each line has what the medium has, or what it held last: nobody knows whether it was evicted in
//    the last moment.
// 4. One thread at a time: it is for tests that crash between two stores.
internal import Base

/// See the invariants above.
package final class SimulatedArena: Arena {
    package static let lineSize = 64
    package let base: UnsafeMutableRawPointer
    private let medium: UnsafeMutableRawPointer
    private let capacity: Int
    private var random: SeededRandom
    private var used = 0
    /// Every so many calls of `persist` one does nothing; 0 for never. For canaries.
    private let ignoredEvery: Int
    /// Calls of `persist` so far.
    package private(set) var persistCount = 0
    /// Called at the begin of each `persist`: the moment before something becomes safe.
    package var beforePersist: (() -> Void)?

    package init(capacity: Int, seed: UInt64, ignoredEvery: Int = 0) {
        precondition(capacity > 0 && capacity % SimulatedArena.lineSize == 0)
        self.capacity = capacity
        self.ignoredEvery = ignoredEvery
        random = SeededRandom(seed: seed)
        base = .allocate(byteCount: capacity, alignment: SimulatedArena.lineSize)
        medium = .allocate(byteCount: capacity, alignment: SimulatedArena.lineSize)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: capacity)
        medium.initializeMemory(as: UInt8.self, repeating: 0, count: capacity)
    }

    deinit {
        base.deallocate()
        medium.deallocate()
    }

    package var usedByteCount: Int { used }

    package func allocate(byteCount: Int) throws(IndexError) -> Int {
        precondition(byteCount > 0 && byteCount % 8 == 0)
        guard capacity - used >= byteCount else { throw .outOfSpace }
        used += byteCount
        return used - byteCount
    }

    package var needsPersist: Bool { true }

    package func persist(offset: Int, byteCount: Int) {
        precondition(offset >= 0 && byteCount > 0 && offset + byteCount <= used, "nothing was allocated there")
        beforePersist?()
        persistCount += 1
        if ignoredEvery > 0, persistCount % ignoredEvery == 0 { return }
        let size = SimulatedArena.lineSize
        for line in offset / size...(offset + byteCount - 1) / size { store(line) }
    }

    /// Lets each line that is not safe reach the medium now, with this chance in percent.
    package func evict(percent: Int) {
        for line in changedLines() where Int.random(in: 0..<100, using: &random) < percent { store(line) }
    }

    /// Lines whose last content a power failure might take.
    package func changedLines() -> [Int] {
        let size = SimulatedArena.lineSize
        return (0..<(used + size - 1) / size).filter { !bytesEqual(base + $0 * size, medium + $0 * size, size) }
    }

    private func store(_ line: Int) {
        let offset = line * SimulatedArena.lineSize
        (medium + offset).copyMemory(from: base + offset, byteCount: SimulatedArena.lineSize)
    }

    /// What may be found if power fails now, up to the end of what is used. Changes nothing.
    package func crashImage(seed: UInt64) -> [UInt8] {
        var chance = SeededRandom(seed: seed)
        var image = Array(UnsafeRawBufferPointer(start: medium, count: used))
        for line in changedLines() where Bool.random(using: &chance) {
            let offset = line * SimulatedArena.lineSize
            let end = min(offset + SimulatedArena.lineSize, used)
            image.replaceSubrange(
                offset..<end, with: UnsafeRawBufferPointer(start: base + offset, count: end - offset))
        }
        return image
    }
}
