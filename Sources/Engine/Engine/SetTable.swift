// The sets of one namespace: names and their local ids. Invariants:
// 1. Ids are 1, 2, 3, ... in order of creation; an id never changes its name and is never taken back.
// 2. A name's bytes and length are written before its id is published in the hash, and `count` after that.
// 3. The hash has twice as many places as there can be sets, so a search always ends.
internal import Base
internal import CBase
internal import Glibc

/// Names to ids, and back. Look-ups on any thread without a lock; additions take one.
package final class SetTable: @unchecked Sendable {
    private static let nameRoom = 64
    private static let places = 8192
    private let names: UnsafeMutableRawPointer
    private let hash: UnsafeMutablePointer<UInt32>
    private let words: UnsafeMutablePointer<UInt32>

    package init() {
        let nameBytes = (Limits.setsMax + 1) * SetTable.nameRoom
        guard let pages = apus_pages_reserve(nameBytes, false) else { fatalError("no address space for set names") }
        names = pages
        hash = .allocate(capacity: SetTable.places)
        hash.initialize(repeating: 0, count: SetTable.places)
        words = .allocate(capacity: 2)
        words.initialize(repeating: 0, count: 2)
    }

    deinit {
        apus_pages_release(names, (Limits.setsMax + 1) * SetTable.nameRoom)
        hash.deallocate()
        words.deallocate()
    }

    /// How many sets there are.
    package var count: Int { Int(apus_load_acquire_u32(words + 1)) }

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
        apus_lock(words)
        defer { apus_unlock(words) }
        let place = place(of: name)
        if hash[place] != 0 { return UInt16(hash[place]) }
        let id = Int(words[1]) + 1
        guard id <= Limits.setsMax else { return nil }
        let room = names + id * SetTable.nameRoom
        room.storeBytes(of: UInt8(name.count), as: UInt8.self)
        memcpy(room + 1, name.baseAddress!, name.count)
        apus_store_release_u32(hash + place, UInt32(id))
        apus_store_release_u32(words + 1, UInt32(id))
        return UInt16(id)
    }

    /// The name of an id that was given out.
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
