// The compiled expressions of one reactor. Invariants:
// 1. An expression stands in the set that the checksum of its bytes picks, at most once.
// 2. `byteCount` is the memory of all that are held; it is at most `byteCountMax`.
// An expression that is thrown out lives on while somebody holds it.
internal import Base

/// Bytes to compiled expressions; the one that was wanted longest ago goes first. Reactor's thread only.
package final class ExpressionCache {
    private struct Place {
        var expression: Expression?
        var checksum: UInt32 = 0
        var used: UInt64 = 0
    }
    private static let ways = 4
    private static let sets = 256
    private let byteCountMax: Int
    private var places: [Place]
    private var clock: UInt64 = 0
    /// Memory of the expressions that are held.
    package private(set) var byteCount = 0
    /// What finding, compiling and evaluating has taken in all, as `Expression.workMax` counts it. Whoever evaluates adds
    /// its share.
    package var work = 0
    /// How many expressions have been compiled.
    package private(set) var compiledCount: UInt64 = 0
    /// Where the search for memory goes on.
    private var hand = 0

    /// Room for 1024 expressions of together `byteCountMax` bytes.
    package init(byteCountMax: Int = 8 << 20) {
        self.byteCountMax = byteCountMax
        places = Array(repeating: Place(), count: ExpressionCache.ways * ExpressionCache.sets)
    }

    /// The compiled form of `bytes`. Allocates if it has to be compiled: not under a lock.
    package func expression(_ bytes: UnsafeRawBufferPointer) throws(ExpressionError) -> Expression {
        guard bytes.count <= Expression.byteCountMax else { throw .malformed }
        work += 1 + bytes.count >> 5
        let checksum = crc32c(bytes)
        let first = Int(checksum) % ExpressionCache.sets * ExpressionCache.ways
        clock += 1
        var oldest = first
        for place in first..<(first + ExpressionCache.ways) {
            if places[place].checksum == checksum, let held = places[place].expression, held.bytes.equals(bytes) {
                places[place].used = clock
                return held
            }
            if places[place].used < places[oldest].used { oldest = place }
        }
        // Most instructions are made of more bytes than one.
        work += min(bytes.count, Expression.instructionsMax) << 2
        let made = try Expression(bytes)
        compiledCount += 1
        hold(made, checksum, at: oldest)
        return made
    }

    /// One that would take a third of the room is not held; with the usual room, there is none so large.
    private func hold(_ expression: Expression, _ checksum: UInt32, at place: Int) {
        guard expression.memoryByteCount <= byteCountMax / 3 else { return }
        drop(place)
        byteCount += expression.memoryByteCount
        while byteCount > byteCountMax {
            drop(hand)
            hand = (hand + 1) % places.count
        }
        places[place] = Place(expression: expression, checksum: checksum, used: clock)
    }

    private func drop(_ place: Int) {
        guard let expression = places[place].expression else { return }
        byteCount -= expression.memoryByteCount
        places[place] = Place()
        assert(byteCount >= 0)
    }
}
