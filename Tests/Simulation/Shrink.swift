// Makes a failing run small: leaves out faults, then lowers options, as long as the same rule is broken.

/// A failing run that is being made smaller.
package struct Shrink {
    /// Places in the list of faults that the run drew.
    package private(set) var kept: [Int]
    package private(set) var options: RunOptions
    package private(set) var tries = 0
    private let triesMax: Int
    /// Whether the run still breaks the rule with these options and these faults.
    private let fails: (RunOptions, [Int]) -> Bool

    package init(
        options: RunOptions, faultCount: Int, triesMax: Int = 600, fails: @escaping (RunOptions, [Int]) -> Bool
    ) {
        self.options = options
        kept = Array(0..<faultCount)
        self.triesMax = triesMax
        self.fails = fails
    }

    /// Until nothing can be left out any more, or all tries are used up.
    package mutating func run() {
        repeat {
            let before = (kept.count, options)
            leaveOutFaults()
            lowerOptions()
            if before == (kept.count, options) { return }
        } while tries < triesMax
    }

    private mutating func holds(_ options: RunOptions, _ faults: [Int]) -> Bool {
        tries += 1
        return fails(options, faults)
    }

    /// Halves, quarters, and so on to single ones.
    private mutating func leaveOutFaults() {
        var size = max(1, kept.count / 2)
        while !kept.isEmpty, tries < triesMax {
            var begin = 0
            while begin < kept.count, tries < triesMax {
                var fewer = kept
                fewer.removeSubrange(begin..<min(begin + size, kept.count))
                if holds(options, fewer) { kept = fewer } else { begin += size }
            }
            if size == 1 { return }
            size = max(1, size / 2)
        }
    }

    private mutating func lowerOptions() {
        for row in RunOptions.table {
            var low = row.least
            // The least value first, then by halves.
            while tries < triesMax, options[keyPath: row.path] > low {
                var lower = options
                lower[keyPath: row.path] = low
                if holds(lower, kept) {
                    options = lower
                    break
                }
                low += max(1, (options[keyPath: row.path] - low + 1) / 2)
            }
        }
    }
}
