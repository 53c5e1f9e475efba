// Mistakes that an index can be told to make, so that tests see whether anybody would notice. Nobody asks for them on the
// way of a heap index: the branches stand behind `entriesNeedPersist`, or where runs and splits are changed.
internal import Base
internal import CBase
internal import Glibc

/// See above.
package enum IndexCanary: Sendable, CaseIterable {
    /// A handle is stored before its entry is written.
    case publishesHandleEarly
    /// Level and split are published before the new bucket is filled.
    case publishesLevelEarly
    /// The elements of a run are moved as if nothing could happen meanwhile.
    case movesRunsAtOnce
}

extension PrimaryIndex {
    /// `publishesHandleEarly`.
    func replaceEarly(
        _ reference: IndexReference, with entry: IndexEntry, _ partition: Int
    ) throws(IndexError) -> IndexReference {
        let old = reference.handle.pointee
        let fresh = try takeEntry(partition)
        apus_store_release_u32(reference.handle, fresh)
        persistLines(reference.handle, 4)
        write(entry, to: fresh)
        freeEntry(partition, old)
        return reference
    }

    /// `movesRunsAtOnce`.
    func moveAtOnce(_ run: UInt32, inserting element: UInt64, _ rank: Int, _ count: Int) {
        let elements = elements(run)
        apus_store_release_u32(line(run), UInt32(count + 1))
        memmove(elements + rank + 1, elements + rank, (count - rank) * 8)
        apus_store_release_u64(elements + rank, element)
        persistLines(line(run), Run.headerSize + (count + 1) * 8)
    }

    /// `movesRunsAtOnce`.
    func moveAtOnce(_ run: UInt32, removing rank: Int, _ count: Int) {
        let elements = elements(run)
        memmove(elements + rank, elements + rank + 1, (count - rank - 1) * 8)
        apus_store_release_u32(line(run), UInt32(count - 1))
        persistLines(line(run), Run.headerSize + count * 8)
    }
}
