// Images in memory, by digest and location, shared by all shards of a namespace. What makes its answers right:
//
// 1. An entry holds bytes that the backend below gave, or was given, for exactly this digest and location.
// 2. Whatever makes an entry wrong (an append that is placed, a delete that is done, an image that moves) replaces or
//    drops it before the engine learns of it, so nobody can ask in between.
// 3. What a read from below brings is kept only if nothing has replaced or dropped its digest's entry since the read
//    began: it may be older than that. `changes` tells; digests share counters, which costs an entry now and then and
//    nothing else.
// 4. Everything of a digest is in one stripe and changes under its lock. A stripe's `byteCount` is the sum of its
//    entries, at most its limit.
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

/// The cache. Any thread; waits only for others in the same stripe.
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

    /// What a look-up came to.
    enum Found {
        case image(HotImage)
        /// With what `fill` wants to know when the image has been read.
        case nothing(changes: UInt32)
    }

    /// The image of `digest` at `location`, if it is here.
    func find(_ digest: Digest, at location: Location) -> Found {
        stripe(digest).contents.withLock { $0.find(digest, location) }
    }

    /// Keeps an image that was appended, and none that was there before of the same digest.
    func put(_ digest: Digest, at location: Location, _ image: HotImage) {
        stripe(digest).contents.withLock { contents in
            contents.drop(digest, nil)
            contents.insert(digest, location, image)
        }
    }

    /// Keeps an image that was read, unless it may be older than what has happened to its digest since.
    func fill(_ digest: Digest, at location: Location, _ image: HotImage, unlessChangedSince changes: UInt32) {
        stripe(digest).contents.withLock { $0.fill(digest, location, image, changes) }
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

/// One stripe's entries. When there are too many, a hand goes round: it passes over an entry that was used since it came
/// by last, and takes the first that was not.
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
    private static let counters = 1024
    private let byteCountMax: Int
    private(set) var byteCount = 0
    private(set) var hits: UInt64 = 0
    private(set) var misses: UInt64 = 0
    private var entries: [Entry] = []
    private var places: [Digest: Int] = [:]
    private var hand = 0
    private var changes = [UInt32](repeating: 0, count: Contents.counters)

    init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

    private func counter(_ digest: Digest) -> Int { Int(digest.middle % UInt64(Contents.counters)) }

    mutating func find(_ digest: Digest, _ location: Location) -> HotCache.Found {
        guard let place = places[digest], entries[place].location == location else {
            misses += 1
            return .nothing(changes: changes[counter(digest)])
        }
        hits += 1
        entries[place].wasUsed = true
        return .image(entries[place].image)
    }

    /// Forgets the image of `digest`, if it is that of `location`; nil for any. Either way something has happened to this
    /// digest.
    mutating func drop(_ digest: Digest, _ location: Location?) {
        changes[counter(digest)] &+= 1
        guard let place = places[digest], location == nil || entries[place].location == location else { return }
        remove(place)
    }

    mutating func fill(_ digest: Digest, _ location: Location, _ image: HotImage, _ before: UInt32) {
        guard changes[counter(digest)] == before else { return }
        if let place = places[digest] { remove(place) }
        insert(digest, location, image)
    }

    mutating func insert(_ digest: Digest, _ location: Location, _ image: HotImage) {
        assert(places[digest] == nil, "one entry for each digest")
        let entry = Entry(digest: digest, location: location, image: image, wasUsed: true)
        while byteCount + entry.byteCount > byteCountMax, !entries.isEmpty { takeOne() }
        guard byteCount + entry.byteCount <= byteCountMax else { return }
        places[digest] = entries.count
        entries.append(entry)
        byteCount += entry.byteCount
        assert(places.count == entries.count)
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
