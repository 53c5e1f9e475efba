// Whether packed values are equal, whatever widths their integers are written in. Bins hold lists and maps as the
// client sent them, so nothing here trusts the bytes.
internal import Base

enum PackedEquality {
    /// Deeper values are not compared: the result is unknown.
    private static let depthMax = 32
    /// Larger maps are compared only if both are in the same order.
    private static let searchedPairsMax = 64

    /// Whether two whole values are equal; nil if one is damaged, too deep, or a map too large to be compared.
    static func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool? {
        var leftReader = PackedReader(left)
        var rightReader = PackedReader(right)
        return equal(&leftReader, &rightReader, depth: 0)
    }

    /// Whether `list` has an element equal to `value`; nil if the list is damaged.
    static func contains(_ list: UnsafeRawBufferPointer, _ value: ExpressionValue) -> Bool? {
        var reader = PackedReader(list)
        guard let count = reader.beginList() else { return nil }
        for _ in 0..<count {
            var element = reader
            guard reader.skip() else { return nil }
            guard let isEqual = equal(&element, value) else { return nil }
            if isEqual { return true }
        }
        return false
    }

    private static func equal(_ element: inout PackedReader, _ value: ExpressionValue) -> Bool? {
        var ahead = element
        guard let token = ahead.next() else { return nil }
        if isWildcard(token) { return true }
        switch (token, value.kind) {
        case (.none, .none): return true
        case (.bool(let bool), .bool): return bool == value.isTrue
        case (.integer(let integer), .integer): return integer == value.integer
        case (.float(let float), .float): return float == value.float
        case (.bytes(let bytes), .string), (.bytes(let bytes), .blob):
            guard let type = bytes.first else { return nil }
            let wanted = value.kind == .string ? ParticleType.string : value.particleType
            return type == wanted && UnsafeRawBufferPointer(rebasing: bytes.dropFirst()).equals(value.bytes)
        case (.list, .list), (.map, .map):
            var reader = PackedReader(value.bytes)
            return equal(&element, &reader, depth: 0)
        default: return false
        }
    }

    private static func isWildcard(_ token: PackedToken) -> Bool {
        guard case .extra(0xFF, let payload) = token else { return false }
        return payload.count == 1 && payload[0] == 0
    }

    /// Both readers stand behind the value if it is equal; otherwise where they stand says nothing.
    private static func equal(_ left: inout PackedReader, _ right: inout PackedReader, depth: Int) -> Bool? {
        guard depth < depthMax else { return nil }
        var (leftAhead, rightAhead) = (left, right)
        guard let one = leftAhead.next(), let other = rightAhead.next() else { return nil }
        if isWildcard(one) || isWildcard(other) { return left.skip() && right.skip() ? true : nil }
        (left, right) = (leftAhead, rightAhead)
        switch (one, other) {
        case (.none, .none): return true
        case (.bool(let one), .bool(let other)): return one == other
        case (.integer(let one), .integer(let other)): return one == other
        case (.float(let one), .float(let other)): return one == other
        case (.bytes(let one), .bytes(let other)): return one.equals(other)
        case (.extra(let type, let one), .extra(let otherType, let other)): return type == otherType && one.equals(other)
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

    /// The pairs follow at both readers.
    private static func mapsEqual(
        _ left: inout PackedReader, _ leftPairs: Int, _ right: inout PackedReader, _ rightPairs: Int, depth: Int
    ) -> Bool? {
        let pairs = leftPairs - passMapAttributes(&left, leftPairs)
        guard pairs == rightPairs - passMapAttributes(&right, rightPairs) else { return false }
        let start = right
        // Nearly always both are in the same order: the pair behind the last one that was found comes first.
        var place = 0
        for _ in 0..<pairs {
            let key = left
            guard left.skip() else { return nil }
            var found = find(key, in: right, from: place, to: min(place + 1, pairs))
            if case .absent = found {
                guard pairs <= searchedPairsMax else { return nil }
                found = find(key, in: start, from: 0, to: pairs)
            }
            guard case .value(var value, let foundAt) = found else {
                if case .absent = found { return false }
                return nil
            }
            guard let isEqual = equal(&left, &value, depth: depth + 1) else { return nil }
            guard isEqual else { return false }
            right = value
            place = foundAt + 1
        }
        // Where the last pair was need not be the end.
        right = start
        for _ in 0..<(2 * pairs) { guard right.skip() else { return nil } }
        return true
    }

    private enum Search {
        /// A reader at the value of the key, and which pair it is of.
        case value(PackedReader, Int)
        case absent
        case damaged
    }

    /// Looks for `key` among the pairs from `first` to before `end`; `map` stands at pair `first`.
    private static func find(_ key: PackedReader, in map: PackedReader, from first: Int, to end: Int) -> Search {
        var reader = map
        for place in first..<max(first, end) {
            var (wanted, candidate) = (key, reader)
            // Keys are scalars: lists and maps in their place are not compared.
            guard let isEqual = equal(&wanted, &candidate, depth: depthMax - 1) else { return .damaged }
            if isEqual { return .value(candidate, place) }
            guard reader.skip(), reader.skip() else { return .damaged }
        }
        return .absent
    }

    /// 1 if a map of `pairs` begins with its attributes, which are passed over, else 0.
    private static func passMapAttributes(_ reader: inout PackedReader, _ pairs: Int) -> Int {
        guard reader.passAttributes(pairs) != nil else { return 0 }
        _ = reader.skip()
        return 1
    }
}
