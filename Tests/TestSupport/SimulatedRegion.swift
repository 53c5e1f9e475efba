// The twin of memory that outlives the process, for tests that crash between two stores. Invariants:
// 1. Stores go to `base`; `medium` holds, line by line, what a power failure cannot take any more.
// 2. A line of 64 bytes reaches the medium as a whole: when it is persisted, or when the cache evicts it (`evict`),
//    with what it holds then.
// 3. After a power failure each line has what the medium has, or what it held last: nobody knows whether it was evicted in
//    the last moment. After a kill each line has what it held last.
// 4. One thread at a time, except `grow`.
internal import Base

/// See the invariants above.
package final class SimulatedRegion: MemoryRegion, @unchecked Sendable {
    package static let lineSize = 64
    private static let pageSize = 4096
    package let base: UnsafeMutableRawPointer
    private let medium: UnsafeMutableRawPointer
    package let capacity: Int
    package private(set) var backedByteCount = 0
    /// Bytes that the medium has room for.
    package var room: Int
    package let needsPersist: Bool
    private var random: SeededRandom
    /// Every so many calls of `persist` one does nothing; 0 for never. For canaries.
    package var ignoredEvery = 0
    /// Calls of `persist` so far.
    package private(set) var persistCount = 0
    /// Called at the begin of each `persist`: the moment before something becomes safe.
    package var beforePersist: (() -> Void)?

    /// Empty, or with what a crash has left.
    package init(capacity: Int, seed: UInt64, needsPersist: Bool = true, image: [UInt8] = []) {
        precondition(capacity > 0 && image.count <= capacity)
        self.capacity = capacity
        self.needsPersist = needsPersist
        room = capacity
        random = SeededRandom(seed: seed)
        base = .allocate(byteCount: capacity, alignment: SimulatedRegion.pageSize)
        medium = .allocate(byteCount: capacity, alignment: SimulatedRegion.pageSize)
        for bytes in [base, medium] {
            bytes.initializeMemory(as: UInt8.self, repeating: 0, count: capacity)
            image.withUnsafeBytes { if let source = $0.baseAddress { bytes.copyMemory(from: source, byteCount: $0.count) } }
        }
        backedByteCount = image.count
    }

    deinit {
        base.deallocate()
        medium.deallocate()
    }

    package func grow(to byteCount: Int) -> Bool {
        guard byteCount <= min(capacity, room) else { return false }
        backedByteCount = max(backedByteCount, byteCount)
        return true
    }

    package func persist(offset: Int, byteCount: Int) {
        guard needsPersist else { return }
        precondition(offset >= 0 && byteCount > 0 && offset + byteCount <= backedByteCount, "nothing is backed there")
        beforePersist?()
        persistCount += 1
        if ignoredEvery > 0, persistCount % ignoredEvery == 0 { return }
        let size = SimulatedRegion.lineSize
        for line in offset / size...(offset + byteCount - 1) / size { store(line) }
    }

    /// Lets each line that is not safe reach the medium now, with this chance in percent.
    package func evict(percent: Int) {
        for line in changedLines() where Int.random(in: 0..<100, using: &random) < percent { store(line) }
    }

    /// Lines whose last content a power failure might take.
    package func changedLines() -> [Int] {
        let size = SimulatedRegion.lineSize
        return (0..<(backedByteCount + size - 1) / size).filter {
            !bytesEqual(base + $0 * size, medium + $0 * size, min(size, capacity - $0 * size))
        }
    }

    private func store(_ line: Int) {
        let offset = line * SimulatedRegion.lineSize
        (medium + offset).copyMemory(from: base + offset, byteCount: min(SimulatedRegion.lineSize, capacity - offset))
    }

    /// What is found if the process is killed now. Changes nothing.
    package func killImage() -> [UInt8] { Array(UnsafeRawBufferPointer(start: base, count: backedByteCount)) }

    /// What may be found if power fails now. Changes nothing.
    package func crashImage(seed: UInt64) -> [UInt8] {
        var chance = SeededRandom(seed: seed)
        var image = Array(UnsafeRawBufferPointer(start: medium, count: backedByteCount))
        for line in changedLines() where Bool.random(using: &chance) {
            let offset = line * SimulatedRegion.lineSize
            let end = min(offset + SimulatedRegion.lineSize, backedByteCount)
            image.replaceSubrange(
                offset..<end, with: UnsafeRawBufferPointer(start: base + offset, count: end - offset))
        }
        return image
    }
}
