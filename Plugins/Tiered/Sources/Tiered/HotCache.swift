// Images in memory, by digest and location, shared by all shards of a namespace. What makes its answers right:
//
// 1. An entry holds bytes that the backend below gave, or was given, for exactly this digest and location.
// 2. A location means other bytes only after an append or a compaction has put an image of the same digest there. Either replaces or drops
//    the entry of that digest before the engine learns of the location, so no reader can ask in between.
// 3. A read under way keeps its location from being used again (the backend below pins it), and its bytes are entered before they are
//    handed on. So what it enters comes before whatever replaces it.
// 4. Everything of a digest is in one stripe and changes under its lock. `byteCount` of a stripe is the sum of its entries, at most its limit.
internal import Base
internal import Storage
internal import Synchronization

/// One image in memory. It never changes, and lasts as long as somebody refers to it.
final class HotImage: @unchecked Sendable {
    let bytes: UnsafeRawBufferPointer

    init(copying image: UnsafeRawBufferPointer) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: image.count, alignment: 16)
        copy.copyMemory(from: image)
        bytes = UnsafeRawBufferPointer(copy)
    }

    deinit { bytes.deallocate() }
}

/// The cache. Any thread; waits only for others' look-ups in the same stripe.
final class HotCache: Sendable {
    private static let stripesMax = 64
    private static let stripeBytesMin = 16 << 20
    private let stripes: [Stripe]
    /// Larger images are not kept.
    let imageSizeMax: Int

    init(byteCountMax: Int) {
        let count = min(max(byteCountMax / HotCache.stripeBytesMin, 1), HotCache.stripesMax)
        stripes = (0..<count).map { _ in Stripe(byteCountMax: byteCountMax / count) }
        imageSizeMax = byteCountMax / count / 2
    }

    private func stripe(_ digest: Digest) -> Stripe { stripes[Int(digest.high >> 8) % stripes.count] }

    /// The image of `digest` at `location`, if it is here.
    func image(_ digest: Digest, at location: Location) -> HotImage? {
        stripe(digest).contents.withLock { $0.find(digest, location) }
    }

    /// Keeps this image, and none that was there before of the same digest.
    func put(_ digest: Digest, at location: Location, _ image: HotImage) {
        stripe(digest).contents.withLock { $0.put(digest, location, image) }
    }

    /// Forgets the image of `digest`, wherever it is.
    func drop(_ digest: Digest) { stripe(digest).contents.withLock { $0.drop(digest, nil) } }

    /// Forgets the image of `digest` if it is that of `location`.
    func drop(_ digest: Digest, at location: Location) { stripe(digest).contents.withLock { $0.drop(digest, location) } }

    /// What it holds and how often that helped.
    var figures: (byteCount: Int, hits: UInt64, misses: UInt64) {
        stripes.reduce((0, 0, 0)) { sum, stripe in
            stripe.contents.withLock { (sum.0 + $0.byteCount, sum.1 + $0.hits, sum.2 + $0.misses) }
        }
    }
}

private final class Stripe: Sendable {
    let contents: Mutex<Contents>

    init(byteCountMax: Int) { contents = Mutex(Contents(byteCountMax: byteCountMax)) }
}

/// One stripe's entries. When there are too many, a hand goes round: it passes over an entry that was used since it came by last, and takes
/// the first that was not.
private struct Contents {
    private struct Entry {
        let digest: Digest
        let location: Location
        let image: HotImage
        var wasUsed: Bool
        var byteCount: Int { Contents.overhead + image.bytes.count }
    }

    /// About what an entry takes beyond its image's bytes.
    private static let overhead = 128
    /// The hand takes whatever it finds after so many steps: a look-up must not wait for a long walk.
    private static let stepsMax = 64
    private let byteCountMax: Int
    private(set) var byteCount = 0
    private(set) var hits: UInt64 = 0
    private(set) var misses: UInt64 = 0
    private var entries: [Entry] = []
    private var places: [Digest: Int] = [:]
    private var hand = 0

    init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

    mutating func find(_ digest: Digest, _ location: Location) -> HotImage? {
        guard let place = places[digest], entries[place].location == location else {
            misses += 1
            return nil
        }
        hits += 1
        entries[place].wasUsed = true
        return entries[place].image
    }

    mutating func put(_ digest: Digest, _ location: Location, _ image: HotImage) {
        drop(digest, nil)
        let entry = Entry(digest: digest, location: location, image: image, wasUsed: true)
        while byteCount + entry.byteCount > byteCountMax, !entries.isEmpty { takeOne() }
        guard byteCount + entry.byteCount <= byteCountMax else { return }
        places[digest] = entries.count
        entries.append(entry)
        byteCount += entry.byteCount
        assert(places.count == entries.count)
    }

    mutating func drop(_ digest: Digest, _ location: Location?) {
        guard let place = places[digest], location == nil || entries[place].location == location else { return }
        remove(place)
    }

    private mutating func takeOne() {
        for _ in 0..<Contents.stepsMax {
            if hand >= entries.count { hand = 0 }
            guard entries[hand].wasUsed else { break }
            entries[hand].wasUsed = false
            hand += 1
        }
        if hand >= entries.count { hand = 0 }
        remove(hand)
    }

    /// The last entry takes the place of the one that goes.
    private mutating func remove(_ place: Int) {
        byteCount -= entries[place].byteCount
        places[entries[place].digest] = nil
        if let last = entries.popLast(), place < entries.count {
            entries[place] = last
            places[last.digest] = place
        }
        assert(places.count == entries.count && byteCount >= 0)
    }
}
