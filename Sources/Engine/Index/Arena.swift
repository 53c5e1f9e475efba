internal import Base
internal import CBase

/// Why the index cannot take another record.
package enum IndexError: Error, Sendable {
    /// The arena is full.
    case outOfSpace
    /// 2^32 - 1 entries.
    case tooManyRecords
    /// No address space could be reserved.
    case noAddressSpace(byteCount: Int)
}

/// Memory of an index: one run of bytes without pointers in it, taken from the front and never given back.
package protocol Arena: AnyObject {
    /// Where it begins; 64-byte aligned, constant.
    var base: UnsafeMutableRawPointer { get }
    /// Bytes handed out. Any thread.
    var usedByteCount: Int { get }
    /// Takes `byteCount` bytes, a multiple of 8, that read as zero; returns their offset. Any thread.
    func allocate(byteCount: Int) throws(IndexError) -> Int
    /// Backs what will be handed out soon. May take long; any thread but a reactor's. False: the medium has no room.
    func growAhead() -> Bool
    /// Whether stores need `persist` to last. Constant.
    var needsPersist: Bool { get }
    /// Makes stores to these bytes last, for media where that takes an effort.
    func persist(offset: Int, byteCount: Int)
}

/// An arena in anonymous memory with huge pages where the system gives them.
package final class HeapArena: Arena, @unchecked Sendable {
    package let base: UnsafeMutableRawPointer
    private let capacity: Int
    private let lockWord: UnsafeMutablePointer<UInt32>
    private let used: UnsafeMutablePointer<UInt64>

    /// Reserves address space, not memory: pages come with the first touch.
    package init(capacity: Int) throws(IndexError) {
        guard let pages = apus_pages_reserve(capacity, true) else { throw .noAddressSpace(byteCount: capacity) }
        base = pages
        self.capacity = capacity
        lockWord = .allocate(capacity: 1)
        lockWord.initialize(to: 0)
        used = .allocate(capacity: 1)
        used.initialize(to: 0)
    }

    deinit {
        apus_pages_release(base, capacity)
        lockWord.deallocate()
        used.deallocate()
    }

    package var usedByteCount: Int { Int(apus_load_relaxed_u64(used)) }

    package func allocate(byteCount: Int) throws(IndexError) -> Int {
        precondition(byteCount > 0 && byteCount % 8 == 0)
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        let offset = usedByteCount
        guard capacity - offset >= byteCount else { throw .outOfSpace }
        apus_store_relaxed_u64(used, UInt64(offset + byteCount))
        return offset
    }

    /// Pages come with the first touch.
    package func growAhead() -> Bool { true }

    /// What is in ordinary memory lasts as long as it can.
    package var needsPersist: Bool { false }

    package func persist(offset: Int, byteCount: Int) {}
}
