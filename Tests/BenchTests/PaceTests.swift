import Bench
import Testing

@Suite struct PaceTests {
    @Test func oneIsDueAtOnceAndTheOthersAnIntervalApart() {
        var pace = Pace(operationsPerSecond: 1000, begun: 5_000_000)
        #expect(pace.take(4_999_999) == nil)
        #expect(pace.take(5_000_000) == 5_000_000)
        #expect(pace.take(5_999_999) == nil)
        #expect(pace.wait(5_400_000) == 600_000)
        #expect(pace.take(6_000_000) == 6_000_000)
    }

    @Test func whoIsLateIsToldWhenItWasDue() {
        var pace = Pace(operationsPerSecond: 100, begun: 0)
        let dues = (0..<5).map { _ in pace.take(35_000_000) }
        #expect(dues == [0, 10_000_000, 20_000_000, 30_000_000, nil])
        #expect(pace.wait(35_000_000) == 5_000_000)
    }

    @Test func oddIntervalsDoNotDrift() {
        var pace = Pace(operationsPerSecond: 3, begun: 7)
        for _ in 0..<3_000_000 { _ = pace.take(.max) }
        #expect(pace.nextNanoseconds == 7 + 1_000_000 * 1_000_000_000)
    }
}
