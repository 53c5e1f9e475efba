// Chance for the simulated world. One seed is split by name: a draw that is added in one part shifts no other part.
package import Base

/// A stream of draws of its own.
package struct Chance: Sendable {
    package var random: SeededRandom

    /// The stream called `name` of the run `seed`.
    package init(seed: UInt64, _ name: String) {
        var mixed = seed ^ 0x9E37_79B9_7F4A_7C15
        for byte in name.utf8 { mixed = (mixed ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        random = SeededRandom(seed: mixed)
    }

    /// 0 to `limit` - 1; 0 if `limit` is 0.
    package mutating func below(_ limit: UInt64) -> UInt64 {
        limit < 2 ? 0 : random.next().multipliedFullWidth(by: limit).high
    }

    package mutating func below(_ limit: Int) -> Int { Int(below(UInt64(limit))) }

    /// Both ends may come.
    package mutating func between(_ least: UInt64, _ most: UInt64) -> UInt64 { least + below(most - least + 1) }

    package mutating func between(_ least: Int, _ most: Int) -> Int { least + below(most - least + 1) }

    /// As often between 1 and 10 as between 10 and 100: for what differs by magnitudes. `least` > 0.
    package mutating func magnitude(_ least: UInt64, _ most: UInt64) -> UInt64 {
        let low = 63 - least.leadingZeroBitCount
        let high = 63 - most.leadingZeroBitCount
        let floor = UInt64(1) << UInt64(between(low, high))
        return min(max(floor + below(floor), least), most)
    }

    /// True so many times in a thousand.
    package mutating func permille(_ count: Int) -> Bool { count > 0 && below(1000) < count }

    package mutating func pick<Element>(_ list: [Element]) -> Element { list[below(list.count)] }

    /// One of the places of `weights`, each as often as its weight says. At least one weight is not 0.
    package mutating func place(_ weights: [Int]) -> Int {
        var rest = below(weights.reduce(0, +))
        for (place, weight) in weights.enumerated() {
            if rest < weight { return place }
            rest -= weight
        }
        preconditionFailure("all weights are 0")
    }
}

/// The hash of a run: over every event that was delivered to a process, in order. Equal runs have equal hashes.
package struct TraceHash: Sendable, Equatable {
    package private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325
    package init() {}

    package mutating func add(_ word: UInt64) {
        value = (value ^ word) &* 0x9FB2_1C65_1E98_DF25
        value ^= value >> 29
    }

    package mutating func add(_ bytes: [UInt8]) {
        add(UInt64(bytes.count))
        add(UInt64(bytes.withUnsafeBytes { crc32c($0) }))
    }

    package mutating func add(_ text: String) { add(Array(text.utf8)) }
}
