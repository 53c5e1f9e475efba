// Overflow of a namespace in two steps, as a pure machine that is fed once a second. Invariants:
// 1. Every threshold is a number that rises to a limit: what is available is looked at as what is not.
// 2. A threshold that has struck holds until its number is clearly below the limit again: answers do not flap.
// 3. The first step stops the creation of records, the second every write; deletes, expiry and eviction go on.
internal import Synchronization

/// What a namespace refuses because it runs full.
package enum Overflow: UInt64, Sendable, BitwiseCopyable, Comparable {
    /// Nothing.
    case none
    /// Records that do not exist yet (`stop_writes`).
    case creates
    /// Every write that is not a delete (`stop_updates`).
    case updates

    /// The milder one first.
    package static func < (left: Overflow, right: Overflow) -> Bool { left.rawValue < right.rawValue }
}

/// What is looked at, of one moment. Percentages are 0 to 100.
package struct CapacityFigures: Sendable, BitwiseCopyable {
    /// Of the backend's capacity; nil if it has none.
    package var usedPercent: Double?
    /// Of the backend's capacity; nil if it has none.
    package var availablePercent: Double?
    /// Of the machine's memory that is in use; nil if unknown.
    package var systemMemoryPercent: Double?
    /// Bytes of the index.
    package var indexBytes: UInt64 = 0
    /// False: the medium of the index is full.
    package var indexHasRoom = true

    package init() {}
}

/// One threshold and what it is about.
struct CapacityThreshold: Sendable {
    enum Kind: Int, CaseIterable {
        case used, available, systemMemory, indexBudget, mountsBudget, indexRoom
        case updatesUsed, updatesAvailable, updatesSystemMemory
    }
    let kind: Kind
    /// Rises to `limit`.
    let value: Double
    let limit: Double
    /// At the limit already, not only beyond it.
    let strikesAtLimit: Bool

    var step: Overflow { kind.rawValue < Kind.updatesUsed.rawValue ? .creates : .updates }

    /// With its value, for the log and for `stop_writes_reason`.
    var text: String {
        func percent(_ number: Double) -> String { "\(tenths(number)) %" }
        switch kind {
        case .used: return "data used is \(percent(value)), stop-writes-used-pct is \(tenths(limit))"
        case .available:
            return "data available is \(percent(100 - value)), stop-writes-avail-pct is \(tenths(100 - limit))"
        case .systemMemory:
            return "the machine's memory is \(percent(value)) used, stop-writes-sys-memory-pct is \(tenths(limit))"
        case .indexBudget: return "the index takes \(UInt64(value)) bytes, indexes-memory-budget is \(UInt64(limit))"
        case .mountsBudget: return "the index takes \(UInt64(value)) bytes, mounts-budget is \(UInt64(limit))"
        case .indexRoom: return "the mount of the index is full; make it larger, or delete records"
        case .updatesUsed: return "data used is \(percent(value)), stop-updates-used-pct is \(tenths(limit))"
        case .updatesAvailable:
            return "data available is \(percent(100 - value)), stop-updates-avail-pct is \(tenths(100 - limit))"
        case .updatesSystemMemory:
            return "the machine's memory is \(percent(value)) used, stop-updates-sys-memory-pct is \(tenths(limit))"
        }
    }

    /// Rounded to a tenth, without it if there is none.
    private func tenths(_ number: Double) -> String {
        let rounded = (number * 10).rounded() / 10
        return rounded == rounded.rounded() ? "\(Int64(rounded))" : "\(rounded)"
    }

    /// Whether it strikes, or still holds if it has struck before.
    func strikes(hasStruck: Bool) -> Bool {
        guard kind != .indexRoom else { return value > 0 }
        if value > limit || strikesAtLimit && value >= limit { return true }
        return hasStruck && value > limit - max(limit * CapacityThreshold.marginShare, .leastNonzeroMagnitude)
    }

    /// How far below its limit a number must fall before the threshold lets go.
    private static let marginShare = 0.02

    /// All that are set, of this moment.
    static func all(_ figures: CapacityFigures, _ settings: LiveNamespaceSettings) -> [CapacityThreshold] {
        var all: [CapacityThreshold] = []
        func add(_ kind: Kind, _ value: Double?, _ limit: Double, isSet: Bool, atLimit: Bool = false) {
            guard isSet, let value else { return }
            all.append(CapacityThreshold(kind: kind, value: value, limit: limit, strikesAtLimit: atLimit))
        }
        func rising(_ kind: Kind, _ value: Double?, _ limit: UInt32, atLimit: Bool = false) {
            add(kind, value, Double(limit), isSet: limit > 0, atLimit: atLimit)
        }
        func falling(_ kind: Kind, _ limit: UInt32) {
            add(kind, figures.availablePercent.map { 100 - $0 }, 100 - Double(limit), isSet: limit > 0)
        }
        rising(.used, figures.usedPercent, settings.stopWritesUsedPercent, atLimit: true)
        falling(.available, settings.stopWritesAvailablePercent)
        rising(.systemMemory, figures.systemMemoryPercent, settings.stopWritesSystemMemoryPercent)
        let indexBytes = Double(figures.indexBytes)
        add(.indexBudget, indexBytes, Double(settings.indexesMemoryBudget), isSet: settings.indexesMemoryBudget > 0)
        add(.mountsBudget, indexBytes, Double(settings.indexMountsBudget), isSet: settings.indexMountsBudget > 0)
        add(.indexRoom, figures.indexHasRoom ? 0 : 1, 1, isSet: !figures.indexHasRoom)
        rising(.updatesUsed, figures.usedPercent, settings.stopUpdatesUsedPercent, atLimit: true)
        falling(.updatesAvailable, settings.stopUpdatesAvailablePercent)
        rising(.updatesSystemMemory, figures.systemMemoryPercent, settings.stopUpdatesSystemMemoryPercent)
        return all
    }
}

/// See the invariants above. A value; the thread that ticks owns it.
package struct CapacityWatch: Sendable {
    /// A line for the log.
    package struct Message: Sendable, Equatable {
        package let isWarning: Bool
        package let text: String
    }

    /// What is refused now.
    package private(set) var overflow = Overflow.none
    /// Which threshold stops writes, with its value; empty if none does.
    package private(set) var stopWritesReason = ""
    /// Which threshold stops updates, with its value; empty if none does.
    package private(set) var stopUpdatesReason = ""

    private var histories = CapacityThreshold.Kind.allCases.map { _ in CapacityHistory() }

    package init() {}

    /// Looks at the figures of `seconds` (monotonic, rising), once a second; what the log should say.
    package mutating func tick(
        seconds: UInt64, _ figures: CapacityFigures, _ settings: LiveNamespaceSettings
    ) -> [Message] {
        let before = overflow
        stopWritesReason = ""
        stopUpdatesReason = ""
        var messages: [Message] = []
        var isMet = CapacityThreshold.Kind.allCases.map { _ in false }
        for threshold in CapacityThreshold.all(figures, settings) {
            let place = threshold.kind.rawValue
            isMet[place] = true
            let hasStruck = threshold.strikes(hasStruck: histories[place].hasStruck)
            histories[place].hasStruck = hasStruck
            if hasStruck, threshold.step == .creates, stopWritesReason.isEmpty { stopWritesReason = threshold.text }
            if hasStruck, threshold.step == .updates, stopUpdatesReason.isEmpty { stopUpdatesReason = threshold.text }
            if threshold.kind != .indexRoom, let warning = histories[place].warning(seconds, threshold) {
                messages.append(Message(isWarning: true, text: warning))
            }
        }
        for place in isMet.indices where !isMet[place] { histories[place] = CapacityHistory() }
        if stopWritesReason.isEmpty { stopWritesReason = stopUpdatesReason }
        overflow = !stopUpdatesReason.isEmpty ? .updates : !stopWritesReason.isEmpty ? .creates : .none
        if overflow != before { messages.append(transition(from: before)) }
        return messages
    }

    private func transition(from before: Overflow) -> Message {
        switch overflow {
        case .updates:
            return Message(isWarning: true, text: "stop-updates: \(stopUpdatesReason); writes answer 8, deletes go on")
        case .creates where before == .none:
            return Message(isWarning: true, text: "stop-writes: \(stopWritesReason);"
                + " new records answer 8, updates and deletes go on")
        case .creates:
            return Message(isWarning: true, text: "stop-updates is over, stop-writes is not: \(stopWritesReason);"
                + " new records answer 8")
        case .none: return Message(isWarning: false, text: "stop-writes is over")
        }
    }
}

/// Which thresholds have struck, in words with their values. Any thread.
package final class OverflowReasons: Sendable {
    private let texts = Mutex((writes: "", updates: ""))

    init() {}

    /// Empty for a step that is not taken.
    package func set(writes: String, updates: String) { texts.withLock { $0 = (writes, updates) } }

    /// As they were set last.
    package var all: (writes: String, updates: String) { texts.withLock { $0 } }
}

/// How one number has gone over the last minutes, and what was said about it.
struct CapacityHistory: Sendable {
    var hasStruck = false
    private var samples: [(seconds: UInt64, value: Double)] = []
    private var warnedSeconds: UInt64?
    private var isNear = false
    static let sampleSeconds: UInt64 = 10
    static let samplesMax = 30
    /// A forecast needs so much history.
    static let forecastSeconds: UInt64 = 60
    /// Between two warnings about one threshold.
    static let quietSeconds: UInt64 = 600
    /// Share of the limit at which it is near, and at which it no longer is.
    static let nearShare = 0.9
    static let farShare = 0.85
    /// A limit that is farther away than this is not worth a line.
    static let forecastMaxSeconds: Double = 3600

    /// What is to be said about a threshold that has not struck.
    mutating func warning(_ seconds: UInt64, _ threshold: CapacityThreshold) -> String? {
        sample(seconds, threshold.value)
        guard !hasStruck else {
            // Not at once again when it lets go.
            warnedSeconds = seconds
            isNear = true
            return nil
        }
        let wasNear = isNear
        isNear = threshold.value >= threshold.limit * (wasNear ? CapacityHistory.farShare : CapacityHistory.nearShare)
        let left = secondsLeft(threshold)
        let isSoon = left.map { $0 < CapacityHistory.forecastMaxSeconds } ?? false
        guard isNear && !wasNear || isSoon else { return nil }
        if let warnedSeconds, seconds < warnedSeconds + CapacityHistory.quietSeconds { return nil }
        warnedSeconds = seconds
        let what = threshold.step == .creates ? "stop-writes" : "stop-updates"
        let forecast = left.map { "; at this rate \(what) in \(CapacityHistory.text(seconds: $0))" } ?? ""
        return "\(what) is near: \(threshold.text)\(forecast)"
    }

    private mutating func sample(_ seconds: UInt64, _ value: Double) {
        if let last = samples.last, seconds < last.seconds + CapacityHistory.sampleSeconds { return }
        if samples.count == CapacityHistory.samplesMax { samples.removeFirst() }
        samples.append((seconds, value))
    }

    /// Seconds until the limit by the slope of the least squares; nil if the number does not clearly rise.
    func secondsLeft(_ threshold: CapacityThreshold) -> Double? {
        guard let first = samples.first, let last = samples.last,
            last.seconds - first.seconds >= CapacityHistory.forecastSeconds,
            last.value - first.value >= threshold.limit / 200
        else { return nil }
        let count = Double(samples.count)
        let times = samples.map { Double($0.seconds - first.seconds) }
        let timeMean = times.reduce(0, +) / count
        let valueMean = samples.reduce(0) { $0 + $1.value } / count
        var covariance = 0.0
        var variance = 0.0
        for (time, sample) in zip(times, samples) {
            covariance += (time - timeMean) * (sample.value - valueMean)
            variance += (time - timeMean) * (time - timeMean)
        }
        guard covariance > 0, variance > 0 else { return nil }
        return max(threshold.limit - threshold.value, 0) / (covariance / variance)
    }

    /// A duration in words: seconds below two minutes, minutes below two hours, else hours.
    static func text(seconds: Double) -> String {
        if seconds < 120 { return "\(Int(seconds.rounded(.up))) seconds" }
        if seconds < 7200 { return "\(Int((seconds / 60).rounded())) minutes" }
        return "\(Int((min(seconds, 1e9) / 3600).rounded())) hours"
    }
}
