import Base
import Engine
import TestSupport
import Testing

/// Which void-time eviction chooses.
@Suite struct EvictionChoiceTests {
    @Test func scalesCoverTheirRange() {
        let scale = VoidTimeScale(low: 1000, high: 1999, count: 100)
        #expect(scale.width == 10 && scale.place(1000) == 0 && scale.place(1009) == 0 && scale.place(1010) == 1)
        #expect(scale.place(1999) == 99 && scale.end(99) == 2000 && scale.place(.max) == 99 && scale.place(0) == 0)
        #expect(VoidTimeScale(low: 5, high: 5, count: 100).width == 1)
        #expect(VoidTimeScale(low: 9, high: 5, count: 100).width == 1)
        let wide = VoidTimeScale(low: 0, high: .max, count: 100)
        #expect(wide.place(.max) == 99 && wide.end(99) == .max)
    }

    @Test func takesWholeBucketsFromBelow() {
        let scale = VoidTimeScale(low: 1000, high: 1099, count: 100)
        var counts = [UInt64](repeating: 0, count: 100)
        #expect(EvictionChoice.choose(counts, scale, tenthsPercent: 5) == .nothing)
        for place in 10..<60 { counts[place] = 20 }
        #expect(EvictionChoice.choose(counts, scale, tenthsPercent: 50) == .below(1012, count: 40))
        #expect(EvictionChoice.choose(counts, scale, tenthsPercent: 1000) == .below(1060, count: 1000))
        #expect(EvictionChoice.choose(counts, scale, tenthsPercent: .max) == .below(1060, count: 1000))
        // One second holds more than is wanted: it goes as a whole, for it cannot be parted.
        #expect(EvictionChoice.choose(counts, scale, tenthsPercent: 5) == .below(1011, count: 20))
    }

    @Test func looksCloserAtOneBucket() {
        let scale = VoidTimeScale(low: 1000, high: 10_999, count: 100)
        var counts = [UInt64](repeating: 0, count: 100)
        counts[3] = 500
        counts[50] = 400
        #expect(EvictionChoice.choose(counts, scale, tenthsPercent: 5) == .closer(low: 1300, high: 1400))
        let closer = VoidTimeScale(low: 1300, high: 1399, count: 100)
        var found = [UInt64](repeating: 0, count: 100)
        found[7] = 500
        found[99] = 400
        #expect(EvictionChoice.choose(found, closer, tenthsPercent: 5) == .tooManyAtOnce(1307, count: 500))
        found[8] = 101
        #expect(EvictionChoice.choose(found, closer, tenthsPercent: 5) == .below(1308, count: 500))
    }

    /// Whatever is chosen: the records below are those that were counted, and no more than wanted, unless they are of
    /// one second.
    @Test func chanceAgreesWithCounting() {
        var random = SeededRandom(seed: runSeed("EvictionChoiceTests"))
        forAWhile(1) {
            let low = UInt32.random(in: 1...1_000_000, using: &random)
            let spread = UInt32.random(in: 1...100_000, using: &random)
            let voidTimes = (0..<Int.random(in: 1...500, using: &random)).map { _ in
                low + UInt32.random(in: 0..<spread, using: &random)
            }
            let tenths = UInt32.random(in: 1...1000, using: &random)
            var scale = VoidTimeScale(low: voidTimes.min()!, high: voidTimes.max()! + 1, count: 100)
            for _ in 0..<8 {
                var counts = [UInt64](repeating: 0, count: scale.count)
                for voidTime in voidTimes { counts[scale.place(voidTime)] += 1 }
                switch EvictionChoice.choose(counts, scale, tenthsPercent: tenths) {
                case .below(let bound, let count):
                    let below = voidTimes.filter { $0 < bound }
                    #expect(below.count == Int(count))
                    let wanted = max(voidTimes.count * Int(tenths) / 1000, 1)
                    #expect(below.count <= wanted || Set(below).count == 1, "\(below.count) of \(wanted)")
                    return
                case .closer(let low, let high):
                    #expect(high - low <= scale.width)
                    scale = VoidTimeScale(low: low, high: high, count: 100)
                case .nothing: Issue.record("there are records")
                case .tooManyAtOnce(let voidTime, let count):
                    #expect(voidTimes.filter { $0 == voidTime }.count == Int(count) && Int(count) * 2 > voidTimes.count)
                    return
                }
            }
            Issue.record("no choice after eight looks")
        }
    }
}
