// Whether packed values are equal, whatever widths their integers are written in. Bins hold lists and maps as the
// client sent them, so nothing here trusts the bytes. Invariants:
// 1. Every element that is looked at or passed over, and every 64 bytes that are compared, take one from `workLeft`; with
//    less than nothing left, nothing more is looked at and the result is unknown.
// 2. A pair of a map is equal to one pair of the other map at most, also where keys are there twice.
internal import Base

struct PackedEquality {
    /// Deeper values are not compared: the result is unknown.
    private static let depthMax = 32
    /// In maps whose order differs, so many pairs from there on are compared; with more the result is unknown.
    private static let searchedPairsMax = 64
    /// See invariant 1. Below zero: the limit was reached.
    private(set) var workLeft: Int

    /// May look at `workLeft` elements.
    init(workLeft: Int) { self.workLeft = workLeft }

    /// Whether two whole values are equal; nil if one is damaged, too deep, a map too large to be compared, or beyond the
    /// limit.
    mutating func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool? {
        var leftReader = PackedReader(left)
        var rightReader = PackedReader(right)
        return equal(&leftReader, &rightReader, depth: 0)
    }

    /// Whether `list` has an element equal to `value`; nil if the list is damaged, or beyond the limit.
    mutating func contains(_ list: UnsafeRawBufferPointer, _ value: ExpressionValue) -> Bool? {
        var reader = PackedReader(list)
        guard let count = reader.beginList() else { return nil }
        for _ in 0..<count {
            let element = reader
            workLeft -= 1
            guard workLeft >= 0, let token = reader.next() else { return nil }
            switch token {
            case .list, .map:
                reader = element
                guard reader.skip(&workLeft) else { return nil }
            default: break
            }
            guard let isEqual = equal(element, token, value) else { return nil }
            if isEqual { return true }
        }
        return false
    }

    /// `token` is what `element` stands at.
    private mutating func equal(_ element: PackedReader, _ token: PackedToken, _ value: ExpressionValue) -> Bool? {
        if PackedEquality.isWildcard(token) { return true }
        switch (token, value.kind) {
        case (.none, .none): return true
        case (.bool(let bool), .bool): return bool == value.isTrue
        case (.integer(let integer), .integer): return integer == value.integer
        case (.float(let float), .float): return float == value.float
        case (.bytes(let bytes), .string), (.bytes(let bytes), .blob):
            guard let type = bytes.first else { return nil }
            let wanted = value.kind == .string ? ParticleType.string : value.particleType
            guard type == wanted else { return false }
            return areSame(UnsafeRawBufferPointer(rebasing: bytes.dropFirst()), value.bytes)
        case (.list, .list), (.map, .map):
            var (left, right) = (element, PackedReader(value.bytes))
            return equal(&left, &right, depth: 0)
        default: return false
        }
    }

    private static func isWildcard(_ token: PackedToken) -> Bool {
        guard case .extra(0xFF, let payload) = token else { return false }
        return payload.count == 1 && payload[0] == 0
    }

    private mutating func areSame(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool? {
        guard left.count == right.count else { return false }
        workLeft -= left.count >> 6
        return workLeft < 0 ? nil : left.equals(right)
    }

    /// Both readers stand behind the value if it is equal; otherwise where they stand says nothing.
    private mutating func equal(_ left: inout PackedReader, _ right: inout PackedReader, depth: Int) -> Bool? {
        workLeft -= 1
        guard depth < PackedEquality.depthMax, workLeft >= 0 else { return nil }
        var (leftAhead, rightAhead) = (left, right)
        guard let one = leftAhead.next(), let other = rightAhead.next() else { return nil }
        if PackedEquality.isWildcard(one) || PackedEquality.isWildcard(other) {
            return left.skip(&workLeft) && right.skip(&workLeft) ? true : nil
        }
        (left, right) = (leftAhead, rightAhead)
        switch (one, other) {
        case (.none, .none): return true
        case (.bool(let one), .bool(let other)): return one == other
        case (.integer(let one), .integer(let other)): return one == other
        case (.float(let one), .float(let other)): return one == other
        case (.bytes(let one), .bytes(let other)): return areSame(one, other)
        case (.extra(let type, let one), .extra(let otherType, let other)):
            return type == otherType ? areSame(one, other) : false
        case (.list(let one), .list(let other)):
            let count = one - (left.passAttributes(one) == nil ? 0 : 1)
            guard count == other - (right.passAttributes(other) == nil ? 0 : 1) else { return false }
            for _ in 0..<count {
                guard let isEqual = equal(&left, &right, depth: depth + 1) else { return nil }
                guard isEqual else { return false }
            }
            return true
        case (.map(let one), .map(let other)): return mapsEqual(&left, one, &right, other, depth: depth)
        default: return false
        }
    }

    /// The pairs follow at both readers. Nearly always both are in the same order; where that ends, the rest is searched.
    private mutating func mapsEqual(
        _ left: inout PackedReader, _ leftPairs: Int, _ right: inout PackedReader, _ rightPairs: Int, depth: Int
    ) -> Bool? {
        let pairs = leftPairs - PackedEquality.passMapAttributes(&left, leftPairs)
        guard pairs == rightPairs - PackedEquality.passMapAttributes(&right, rightPairs) else { return false }
        for place in 0..<pairs {
            var (leftAhead, rightAhead) = (left, right)
            guard let isSame = keysEqual(&leftAhead, &rightAhead) else { return nil }
            guard isSame else { return restEqual(&left, &right, pairs: pairs - place, depth: depth) }
            (left, right) = (leftAhead, rightAhead)
            guard let isEqual = equal(&left, &right, depth: depth + 1) else { return nil }
            guard isEqual else { return false }
        }
        return true
    }

    /// The same for pairs in any order. Both maps are passed over once, however many pairs they have; the keys of `right`
    /// are found by where they stand.
    private mutating func restEqual(
        _ left: inout PackedReader, _ right: inout PackedReader, pairs: Int, depth: Int
    ) -> Bool? {
        guard pairs <= PackedEquality.searchedPairsMax else { return nil }
        let start = right
        var offsets = InlineArray<64, Int>(repeating: 0)
        for place in 0..<pairs {
            offsets[place] = right.bytes(since: start.cursor).count
            guard right.skip(&workLeft), right.skip(&workLeft) else { return nil }
        }
        // Bit n: pair n of `right` is not equal to one of `left` yet.
        var unmatched = pairs == 64 ? UInt64.max : (1 << UInt64(pairs)) - 1
        for _ in 0..<pairs {
            let key = left
            var candidates = unmatched
            var isFound = false
            while candidates != 0, !isFound {
                let place = candidates.trailingZeroBitCount
                candidates &= candidates - 1
                var value = start.advanced(by: offsets[place])
                left = key
                guard let isSame = keysEqual(&left, &value) else { return nil }
                guard isSame else { continue }
                guard let isEqual = equal(&left, &value, depth: depth + 1) else { return nil }
                guard isEqual else { return false }
                unmatched &= ~(1 << UInt64(place))
                isFound = true
            }
            guard isFound else { return false }
        }
        return true
    }

    /// Keys are scalars: lists and maps in their place are not compared.
    private mutating func keysEqual(_ left: inout PackedReader, _ right: inout PackedReader) -> Bool? {
        equal(&left, &right, depth: PackedEquality.depthMax - 1)
    }

    /// 1 if a map of `pairs` begins with its attributes, which are passed over, else 0.
    private static func passMapAttributes(_ reader: inout PackedReader, _ pairs: Int) -> Int {
        guard reader.passAttributes(pairs) != nil else { return 0 }
        _ = reader.skip()
        return 1
    }
}
