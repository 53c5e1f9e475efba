// Which records may have an older version on the medium that would outlive the newest one. Without it, expiry could not
// delete without a tombstone on a backend whose releases do not last: the image of the expired version may be overwritten
// before that of an older one, and a cold start would find the older one alone. If no version was to live longer than the
// one after it, all older ones have expired as well, and nothing can come back: the ordinary case. So whoever shortens a
// life, or writes over a tombstone, notes it here. Invariants:
// 1. For each digest the table holds at least the latest void-time of all older versions that outlive a later one. It holds
//    one number for many digests: the error is a tombstone that nobody needs, never one that is missing.
// 2. Numbers only rise; a cold start builds them anew from all images that it sees, a warm start goes on with the table.
internal import Base
internal import CBase
internal import Index
internal import Storage

/// See the invariants above. Any thread.
final class LongerLives: @unchecked Sendable {
    private static let places = 1 << 20
    static let byteCount = places * 4
    /// What no void-time reaches: a version that never expires.
    private static let forever = UInt32.max
    private let words: UnsafeMutableRawPointer
    private let region: (any MemoryRegion)?

    /// In ordinary memory; pages come with the first number that is noted.
    init() {
        guard let pages = apus_pages_reserve(LongerLives.byteCount, false) else {
            fatalError("no address space for \(LongerLives.byteCount) bytes: raise the limit (ulimit -v)")
        }
        words = pages
        region = nil
    }

    /// In memory that outlives the process.
    /// - Throws: `settings` if the memory has no room.
    init(_ region: any MemoryRegion) throws(StorageError) {
        guard region.grow(to: LongerLives.byteCount) else {
            throw .settings("the medium of the index has no room for void-times of older versions")
        }
        words = region.base
        self.region = region
    }

    deinit { if region == nil { apus_pages_release(words, LongerLives.byteCount) } }

    private func offset(_ digest: Digest) -> Int { Int(digest.middle & UInt64(LongerLives.places - 1)) * 4 }

    /// The latest second at which an older version of the record may be alive; 0 if there is none.
    func latest(_ digest: Digest) -> UInt32 { apus_load_relaxed_u32(words + offset(digest)) }

    /// How many marks are of a time at or after this second: the others are as good as none, for what they are about has
    /// expired. Those of versions that never expire stay until a cold start. Reads 4 MiB. Any thread.
    func count(at seconds: UInt32) -> Int {
        var count = 0
        for offset in stride(from: 0, to: LongerLives.byteCount, by: 4) {
            let voidTime = apus_load_relaxed_u32(words + offset)
            if voidTime > 0, voidTime >= seconds { count += 1 }
        }
        return count
    }

    /// `next` takes the place of `older`.
    @inline(__always)
    func replaces(_ older: IndexEntry, _ next: IndexEntry, _ digest: Digest) {
        guard next.kind == .live, next.voidTime > 0 else { return }
        let isForever = older.kind != .live || older.voidTime == 0
        guard isForever || older.voidTime > next.voidTime else { return }
        note(digest, isForever ? LongerLives.forever : older.voidTime)
    }

    private func note(_ digest: Digest, _ voidTime: UInt32) {
        let offset = offset(digest)
        var held = apus_load_relaxed_u32(words + offset)
        while held < voidTime, !apus_compare_exchange_u32(words + offset, held, voidTime) {
            held = apus_load_relaxed_u32(words + offset)
        }
        guard held < voidTime else { return }
        region?.persist(offset: offset, byteCount: 4)
    }
}
