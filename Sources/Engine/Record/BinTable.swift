// The bins of one record while it is edited. Invariants:
// 1. Places 0..<used are in order of first appearance; a place whose type is null is a deleted bin.
// 2. `liveCount` is the number of places that are not null, `liveBytes` the size of their answer operations.
// 3. While `used` <= linearMax the hash is not in use; above, every place is in it and it is at most half
//    full.
internal import Base

/// A table of bins that is reused for every request. Not thread-safe.
struct BinTable: ~Copyable {
    private static let linearMax = 16
    private let places: UnsafeMutablePointer<BinView>
    private let hash: UnsafeMutablePointer<UInt16>
    private var hashMask = 0
    private(set) var used = 0
    private(set) var liveCount = 0
    private(set) var liveBytes = 0
    private static let hashRoom = 1 << 17

    init() {
        // Pages come with the first touch: most records have few bins.
        places = .allocate(capacity: 2 * Limits.operationsMax)
        hash = .allocate(capacity: BinTable.hashRoom)
    }

    deinit {
        places.deallocate()
        hash.deallocate()
    }

    mutating func removeAll() {
        used = 0
        liveCount = 0
        liveBytes = 0
        hashMask = 0
    }

    subscript(place: Int) -> BinView { places[place] }

    /// The place of a bin, live or deleted; nil if the name was never there.
    func place(of name: UnsafeRawBufferPointer) -> Int? {
        guard hashMask > 0 else {
            for place in 0..<used where places[place].name.equals(name) { return place }
            return nil
        }
        var slot = Int(crc32c(name)) & hashMask
        while hash[slot] != 0 {
            let place = Int(hash[slot]) - 1
            if places[place].name.equals(name) { return place }
            slot = (slot + 1) & hashMask
        }
        return nil
    }

    /// Gives a bin a value, or deletes it (type null). `name` must outlive the table's use.
    /// - Returns: false if there would be more bins than a record may have.
    mutating func set(_ bin: BinView) -> Bool {
        if let place = place(of: bin.name) {
            let revives = places[place].particleType == ParticleType.null && bin.particleType != ParticleType.null
            guard !revives || liveCount < Limits.binsMax else { return false }
            count(places[place], -1)
            places[place].particleType = bin.particleType
            places[place].value = bin.value
            count(bin, 1)
            return true
        }
        guard bin.particleType != ParticleType.null else { return true }
        guard liveCount < Limits.binsMax, used < 2 * Limits.operationsMax - 1 else { return false }
        append(bin)
        return true
    }

    /// Adds a bin whose name is known to be new.
    mutating func append(_ bin: BinView) {
        places[used] = bin
        used += 1
        count(bin, 1)
        guard used > BinTable.linearMax else { return }
        if 2 * used > hashMask { rebuild() } else { enter(used - 1) }
    }

    /// Deletes all bins; names keep their places.
    mutating func deleteAll() {
        for place in 0..<used { places[place].particleType = ParticleType.null }
        liveCount = 0
        liveBytes = 0
    }

    private mutating func count(_ bin: BinView, _ sign: Int) {
        guard bin.particleType != ParticleType.null else { return }
        liveCount += sign
        liveBytes += sign * (ImageFormat.binHeaderSize + bin.name.count + bin.value.count)
    }

    private mutating func rebuild() {
        var room = 64
        while room < 4 * used { room *= 2 }
        hashMask = min(room, BinTable.hashRoom) - 1
        hash.update(repeating: 0, count: hashMask + 1)
        for place in 0..<used { enter(place) }
    }

    private func enter(_ place: Int) {
        var slot = Int(crc32c(places[place].name)) & hashMask
        while hash[slot] != 0 { slot = (slot + 1) & hashMask }
        hash[slot] = UInt16(place + 1)
    }
}
