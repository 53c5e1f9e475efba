// Memory that a later process may find again. Its bytes hold no pointers. Whoever keeps something in it orders his stores
// so that the process may die between any two of them; where `needsPersist` says so, power may fail as well, and then any
// line of 64 bytes that was not persisted may or may not have arrived.

/// One run of such memory.
public protocol MemoryRegion: AnyObject, Sendable {
    /// Where it begins; page-aligned, constant.
    var base: UnsafeMutableRawPointer { get }
    /// Bytes of address space, constant.
    var capacity: Int { get }
    /// Bytes from the front on that may be touched. Any thread.
    var backedByteCount: Int { get }
    /// Has at least `byteCount` bytes backed; new ones read as zero. False if the medium has no room: what was backed stays
    /// so. Any thread; takes about a millisecond for each 4 MiB that are new.
    func grow(to byteCount: Int) -> Bool
    /// Whether stores need `persist` to outlive a loss of power. Constant.
    var needsPersist: Bool { get }
    /// Makes all earlier stores to these bytes last before any later store does. Any thread; does nothing without
    /// `needsPersist`.
    func persist(offset: Int, byteCount: Int)
}
