// The sets of one namespace: names and their local ids. Invariants:
// 1. Ids are 1, 2, 3, ... in order of creation; an id never changes its name and is never taken back.
// 2. A name's bytes and length are written before `count` includes it, and that before its id is published in the hash.
// 3. The hash has twice as many places as there can be sets, so a search always ends.
// 4. Names and their count may lie in memory that outlives the process: 64 bytes for each id, the length first. Place 0
//    has length 0, as the name of no set, and behind it the count. A name
//    lasts before the count says so, and that before the id is given out. The hash is built anew.
package import Base
internal import CBase
internal import Glibc
package import Storage

/// Names to ids, and back. Look-ups on any thread without a lock; additions take one.
package final class SetTable: @unchecked Sendable {
    private static let nameRoom = 64
    private static let places = 8192
    /// In place 0.
    private static let countOffset = 32
    private let names: UnsafeMutableRawPointer
    private let hash: UnsafeMutablePointer<UInt32>
    private let lockWord: UnsafeMutablePointer<UInt32>
    /// Nil for ordinary memory.
    private let region: (any MemoryRegion)?
    package static let byteCount = (Limits.setsMax + 1) * nameRoom

    /// No sets, in ordinary memory.
    package init() {
        guard let pages = apus_pages_reserve(SetTable.byteCount, false) else { fatalError("no address space for set names") }
        names = pages
        region = nil
        (hash, lockWord) = SetTable.makeHash()
    }

    /// The sets that `region`, of `byteCount` bytes, holds.
    /// - Throws: `settings` if the region has no room, `medium` if what it holds cannot be names.
    package init(_ region: any MemoryRegion) throws(StorageError) {
        guard region.grow(to: SetTable.byteCount) else {
            throw .settings("the medium of the index has no room for set names")
        }
        names = region.base
        self.region = region
        (hash, lockWord) = SetTable.makeHash()
        guard count <= Limits.setsMax else { throw .medium("the index counts \(count) sets") }
        for id in 0..<count { try restore(UInt16(id + 1)) }
    }

    private func restore(_ id: UInt16) throws(StorageError) {
        let length = Int((names + Int(id) * SetTable.nameRoom).load(as: UInt8.self))
        guard length > 0, length <= Limits.setNameSizeMax else { throw .medium("set \(id) of the index has no name") }
        let place = place(of: name(of: id))
        guard hash[place] == 0 else { throw .medium("sets \(hash[place]) and \(id) of the index have the same name") }
        hash[place] = UInt32(id)
    }

    private static func makeHash() -> (hash: UnsafeMutablePointer<UInt32>, lock: UnsafeMutablePointer<UInt32>) {
        let hash = UnsafeMutablePointer<UInt32>.allocate(capacity: places)
        hash.initialize(repeating: 0, count: places)
        let lock = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
        lock.initialize(to: 0)
        return (hash, lock)
    }

    deinit {
        if region == nil { apus_pages_release(names, SetTable.byteCount) }
        hash.deallocate()
        lockWord.deallocate()
    }

    /// How many sets there are.
    package var count: Int { Int(apus_load_acquire_u32(names + SetTable.countOffset)) }

    /// The id of `name`, 1 to 4095; 0 for the empty name; nil if there is no such set.
    package func id(of name: UnsafeRawBufferPointer) -> UInt16? {
        guard name.count > 0 else { return 0 }
        guard name.count <= Limits.setNameSizeMax else { return nil }
        let id = apus_load_acquire_u32(hash + place(of: name))
        return id == 0 ? nil : UInt16(id)
    }

    /// The id of `name`, made if it is new. Nil if the name is too long or there are 4095 sets already.
    package func makeID(for name: UnsafeRawBufferPointer) -> UInt16? {
        if let id = id(of: name) { return id }
        guard name.count <= Limits.setNameSizeMax else { return nil }
        apus_lock(lockWord)
        defer { apus_unlock(lockWord) }
        let place = place(of: name)
        if hash[place] != 0 { return UInt16(hash[place]) }
        let id = count + 1
        guard id <= Limits.setsMax else { return nil }
        let room = names + id * SetTable.nameRoom
        room.storeBytes(of: UInt8(name.count), as: UInt8.self)
        memcpy(room + 1, name.baseAddress!, name.count)
        region?.persist(offset: id * SetTable.nameRoom, byteCount: SetTable.nameRoom)
        apus_store_release_u32(names + SetTable.countOffset, UInt32(id))
        region?.persist(offset: SetTable.countOffset, byteCount: 4)
        apus_store_release_u32(hash + place, UInt32(id))
        return UInt16(id)
    }

    /// The name of an id that was given out; empty for 0.
    package func name(of id: UInt16) -> UnsafeRawBufferPointer {
        let room = names + Int(id) * SetTable.nameRoom
        return UnsafeRawBufferPointer(start: room + 1, count: Int(room.load(as: UInt8.self)))
    }

    /// Where `name` is or would be.
    private func place(of name: UnsafeRawBufferPointer) -> Int {
        var place = Int(crc32c(name)) & (SetTable.places - 1)
        while true {
            let id = apus_load_acquire_u32(hash + place)
            if id == 0 || self.name(of: UInt16(id)).equals(name) { return place }
            place = (place + 1) & (SetTable.places - 1)
        }
    }
}
