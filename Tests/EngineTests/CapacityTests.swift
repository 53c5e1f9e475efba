import Engine
import Testing

/// The machine behind stop-writes and stop-updates.
@Suite struct CapacityTests {
    private func figures(used: Double, available: Double = 50, system: Double = 10) -> CapacityFigures {
        var figures = CapacityFigures()
        figures.usedPercent = used
        figures.availablePercent = available
        figures.systemMemoryPercent = system
        return figures
    }

    @Test func twoStepsAndTheirReasons() {
        var watch = CapacityWatch()
        let settings = LiveNamespaceSettings()
        #expect(watch.tick(seconds: 0, figures(used: 10), settings).isEmpty && watch.overflow == .none)
        let first = watch.tick(seconds: 1, figures(used: 70), settings)
        #expect(watch.overflow == .creates && watch.stopUpdatesReason.isEmpty)
        #expect(watch.stopWritesReason == "data used is 70 %, stop-writes-used-pct is 70")
        #expect(first.count == 1 && first[0].isWarning && first[0].text.hasPrefix("stop-writes: data used is 70 %"))
        #expect(watch.tick(seconds: 2, figures(used: 80), settings).isEmpty)
        let second = watch.tick(seconds: 3, figures(used: 90.25), settings)
        #expect(watch.overflow == .updates)
        #expect(watch.stopUpdatesReason == "data used is 90.3 %, stop-updates-used-pct is 90")
        #expect(second.map(\.text).contains { $0.hasPrefix("stop-updates: data used is 90.3 %") })
        let back = watch.tick(seconds: 4, figures(used: 75), settings)
        #expect(watch.overflow == .creates && back[0].text.hasPrefix("stop-updates is over, stop-writes is not"))
        let over = watch.tick(seconds: 5, figures(used: 30), settings)
        #expect(watch.overflow == .none && over.map(\.text) == ["stop-writes is over"] && !over[0].isWarning)
        #expect(watch.stopWritesReason.isEmpty)
    }

    /// Whichever threshold strikes says so with its value.
    @Test func everyThresholdStrikes() {
        var settings = LiveNamespaceSettings()
        settings.indexesMemoryBudget = 1000
        settings.indexMountsBudget = 2000
        func struck(_ figures: CapacityFigures) -> (Overflow, String, String) {
            var watch = CapacityWatch()
            _ = watch.tick(seconds: 0, figures, settings)
            return (watch.overflow, watch.stopWritesReason, watch.stopUpdatesReason)
        }
        #expect(struck(figures(used: 10, available: 5)) == (.none, "", ""))
        let available = struck(figures(used: 10, available: 4.9))
        #expect(available == (.creates, "data available is 4.9 %, stop-writes-avail-pct is 5", ""))
        #expect(struck(figures(used: 10, available: 1.5)).0 == .updates)
        #expect(struck(figures(used: 10, system: 90)).0 == .none)
        #expect(struck(figures(used: 10, system: 91)).1
            == "the machine's memory is 91 % used, stop-writes-sys-memory-pct is 90")
        #expect(struck(figures(used: 10, system: 96)).0 == .updates)
        var index = figures(used: 10)
        index.indexBytes = 1001
        #expect(struck(index).1 == "the index takes 1001 bytes, indexes-memory-budget is 1000")
        settings.indexesMemoryBudget = 0
        index.indexBytes = 2001
        #expect(struck(index).1 == "the index takes 2001 bytes, mounts-budget is 2000")
        index.indexBytes = 5
        index.indexHasRoom = false
        #expect(struck(index).0 == .creates && struck(index).1.hasPrefix("the mount of the index is full"))
        settings.stopWritesUsedPercent = 0
        settings.stopUpdatesUsedPercent = 0
        #expect(struck(figures(used: 100)) == (.none, "", ""), "0 is never")
        #expect(struck(CapacityFigures()) == (.none, "", ""), "a backend without a capacity")
    }

    /// A number that wavers around its limit strikes once.
    @Test func doesNotFlap() {
        var watch = CapacityWatch()
        let settings = LiveNamespaceSettings()
        var changes = 0
        for second in 0..<1000 {
            let before = watch.overflow
            _ = watch.tick(seconds: UInt64(second), figures(used: second % 2 == 0 ? 70.2 : 69.4), settings)
            if watch.overflow != before { changes += 1 }
        }
        #expect(changes == 1 && watch.overflow == .creates)
        _ = watch.tick(seconds: 1000, figures(used: 68.5), settings)
        #expect(watch.overflow == .none)
    }

    /// A limit that is raised lets go.
    @Test func settingsMayChange() {
        var watch = CapacityWatch()
        var settings = LiveNamespaceSettings()
        _ = watch.tick(seconds: 0, figures(used: 71), settings)
        #expect(watch.overflow == .creates)
        settings.stopWritesUsedPercent = 80
        _ = watch.tick(seconds: 1, figures(used: 71), settings)
        #expect(watch.overflow == .none)
        settings.stopWritesUsedPercent = 60
        _ = watch.tick(seconds: 2, figures(used: 71), settings)
        #expect(watch.overflow == .creates)
        settings.stopWritesUsedPercent = 0
        _ = watch.tick(seconds: 3, figures(used: 71), settings)
        #expect(watch.overflow == .none)
    }

    /// Warned before it strikes, with a forecast once there is a history; and not every second.
    @Test func warnsAndForecasts() {
        var watch = CapacityWatch()
        let settings = LiveNamespaceSettings()
        var lines: [(second: Int, text: String)] = []
        // A percent a minute: stop-writes after 70 minutes.
        var second = 0
        while watch.overflow == .none {
            let messages = watch.tick(seconds: UInt64(second), figures(used: Double(second) / 60), settings)
            lines += messages.map { (second, $0.text) }
            second += 1
        }
        #expect(second == 70 * 60 + 1)
        let forecasts = lines.filter { $0.text.contains("at this rate stop-writes in") }
        let first = forecasts.first
        #expect(first.map { (599...720).contains($0.second) } ?? false, "below an hour: \(lines)")
        #expect(first?.text.contains("60 minutes") ?? false, "\(lines)")
        #expect(forecasts.contains { $0.text.contains("in 40 minutes") || $0.text.contains("in 30 minutes") }, "\(lines)")
        #expect(lines.contains { $0.second >= 60 * 60 && $0.text.hasPrefix("stop-writes is near: data used is") })
        #expect(lines.last?.text.hasPrefix("stop-writes: data used is 70 %") ?? false)
        #expect(lines.filter { $0.text.hasPrefix("stop-writes is near") }.count < 9, "\(lines)")
    }

    /// What does not rise makes no forecast, and what stays near is said once.
    @Test func staysQuiet() {
        var watch = CapacityWatch()
        var lines: [String] = []
        for second in 0..<7200 {
            lines += watch.tick(seconds: UInt64(second), figures(used: 65), LiveNamespaceSettings()).map(\.text)
        }
        #expect(lines == ["stop-writes is near: data used is 65 %, stop-writes-used-pct is 70"])
    }
}
