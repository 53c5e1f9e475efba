// Memory on the medium of a namespace's index (`index-type shmem` or `pmem`), which outlives the process. The node keeps the
// index in it, a backend that asks for it (`BackendDescriptor.keepsMemory`) what it has not written out yet. Index entries
// point at both, so both are gone on from together or not at all.
//
// What ties memory and medium together is a *session key*: a number of chance that a backend takes at every open and
// writes to all of its devices. Memory whose key is not on every device belongs to another time, or to other devices, and
// is forgotten: the index is built from the medium (a cold start). The order, so that the process may die at any point:
//
//     1. `sessionKeys` fit all devices: a warm start. Else `startCold`.
//     2. `beginSession(new)`: from here on the old keys and the new one fit.
//     3. The devices get the new key.
//     4. `sessionBegan`: only the new key fits.
//     5. The index is complete (walked, or built), and what was not written out is: the node calls `complete`.
public import Base

/// See above. Calls come from one thread at a time; not from a reactor.
public protocol KeptMemory: AnyObject, Sendable {
    /// What the operator calls it: `shmem` or `pmem`.
    var name: String { get }
    /// Keys of which each device must hold one for a warm start: one, or more if processes died while their sessions began.
    /// Empty: there is nothing to go on from.
    var sessionKeys: [UInt64] { get }
    /// Whether who used it last has closed it: then everything was written out.
    var wasClosed: Bool { get }
    /// Forgets everything; `reason` goes to the log. Before any region is asked for.
    /// - Throws: `device`.
    func startCold(because reason: String) throws(StorageError)
    /// Step 2. After `startCold` no key fits until `complete`.
    /// - Throws: `device`.
    func beginSession(_ key: UInt64) throws(StorageError)
    /// Step 4.
    /// - Throws: `device`.
    func sessionBegan() throws(StorageError)
    /// A region by name, [a-z0-9-], with what was in it, or zeros; after `beginSession`. The same name gives the same one.
    /// - Throws: `settings` without address space, `device`.
    func region(_ name: String, capacity: Int) throws(StorageError) -> any MemoryRegion
    /// Step 5, by the node.
    /// - Throws: `device`.
    func complete() throws(StorageError)
    /// By the node, after the backend was closed: whether everything was written out.
    func close(isClean: Bool)
}

/// What a backend keeps in such memory.
public enum KeptMemoryUse: Sendable {
    /// It does not use it.
    case nothing
    /// What is not written out yet, if anything: the memory it takes is bounded by settings.
    case unwritten
    /// Its records: as much memory as there is data. Only if the operator asks for it.
    case records
}

/// Facet: a backend that was opened with memory it goes on from. The node shows it every image that the index points at,
/// then calls `finish`; only then are shards used.
public protocol WarmStarting: AnyObject, Sendable {
    /// The index points at an image of `byteCount` bytes at `location`: it is live. Any of several threads at once.
    /// - Returns: false if no image can be there: the memory is not to be trusted, and the node starts cold.
    func adopt(_ location: Location, byteCount: Int) -> Bool

    /// Every live image was shown. Makes durable what was not, and sees to it that nothing else comes back at a later cold
    /// start; the process may die in the middle and do it all again.
    /// - Throws: `device`, `medium` if the memory is not to be trusted.
    func finish() throws(StorageError)
}
