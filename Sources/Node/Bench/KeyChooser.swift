internal import Base
internal import Glibc

/// Which key comes next.
struct KeyChooser {
    /// How keys are spread.
    enum Distribution: String, Sendable {
        case uniform, zipfian
    }
    private let count: UInt64
    private let zipf: Zipf?

    init(_ distribution: Distribution, count: Int) {
        self.count = UInt64(count)
        zipf = distribution == .zipfian ? Zipf(count: count) : nil
    }

    func next(_ random: inout SeededRandom) -> Int {
        guard let zipf else { return Int(random.next().multipliedFullWidth(by: count).high) }
        // Ranks are scattered, so that hot keys are no neighbours.
        let rank = zipf.rank(Double(random.next() >> 11) * 0x1p-53)
        let mixed = (rank &+ 1) &* 0x9E37_79B9_7F4A_7C15
        return Int((mixed ^ mixed >> 32).multipliedFullWidth(by: count).high)
    }
}

/// Ranks by Zipf's law with exponent 0.99, in constant time: the method of Gray et al., "Quickly Generating
/// Billion-Record Synthetic Databases" (1994).
private struct Zipf {
    private static let theta = 0.99
    private let count: Double
    private let zeta: Double
    private let alpha: Double
    private let eta: Double

    init(count: Int) {
        self.count = Double(count)
        zeta = (1...max(count, 2)).reduce(0.0) { $0 + 1 / pow(Double($1), Zipf.theta) }
        alpha = 1 / (1 - Zipf.theta)
        eta = (1 - pow(2 / self.count, 1 - Zipf.theta)) / (1 - (1 + pow(0.5, Zipf.theta)) / zeta)
    }

    func rank(_ uniform: Double) -> UInt64 {
        let scaled = uniform * zeta
        if scaled < 1 { return 0 }
        if scaled < 1 + pow(0.5, Zipf.theta) { return 1 }
        return UInt64(count * pow(eta * uniform - eta + 1, alpha))
    }
}
