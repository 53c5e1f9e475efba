internal import Storage

/// How the text of one setting becomes its plain form.
package enum SettingValue {
    /// The number of bytes that `text` means, with K, M, G, T or P; nil if it means none.
    package static func bytes(_ text: String) -> UInt64? {
        guard case .value(let value) = read(text, as: .size(0...UInt64.max)) else { return nil }
        return UInt64(value)
    }

    /// The plain form of `text`, or what is wrong with it.
    enum Outcome: Equatable {
        case value(String)
        case wrong(String)
    }

    /// Reads what an operator wrote.
    static func read(_ text: String, as kind: SettingSchema.Kind) -> Outcome {
        switch kind {
        case .boolean:
            switch text.lowercased() {
            case "true", "yes": return .value("true")
            case "false", "no": return .value("false")
            default: return .wrong("'\(text)' is neither true nor false")
            }
        case .integer(let bounds): return number(text, [:], bounds, "a whole number")
        case .size(let bounds): return number(text, sizeUnits, bounds, "bytes, with K, M, G, T or P if you like")
        case .seconds(let bounds): return number(text, secondUnits, bounds, "seconds, or with m, h or d")
        case .milliseconds(let bounds):
            return number(text, millisecondUnits, bounds, "milliseconds, or with s, m, h or d")
        case .word(let words):
            guard words.contains(text) else {
                return .wrong("'\(text)' is not one of: \(words.joined(separator: ", "))")
            }
            return .value(text)
        case .text, .list, .backend: return .value(text)
        }
    }

    /// The plain form of a default: written by us, not checked against the bounds (0 often stands for "not
    /// set").
    static func plainDefault(_ setting: SettingSchema) -> String {
        guard !setting.defaultText.isEmpty else { return "" }
        let unbounded: SettingSchema.Kind =
            switch setting.kind {
            case .integer: .integer(0...UInt64.max)
            case .size: .size(0...UInt64.max)
            case .seconds: .seconds(0...UInt64.max)
            case .milliseconds: .milliseconds(0...UInt64.max)
            default: setting.kind
            }
        guard case .value(let value) = read(setting.defaultText, as: unbounded) else { return setting.defaultText }
        return value
    }

    private static let sizeUnits: [Character: UInt64] = [
        "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50,
    ]
    private static let secondUnits: [Character: UInt64] = ["s": 1, "m": 60, "h": 3600, "d": 86400]
    private static let millisecondUnits: [Character: UInt64] = [
        "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000,
    ]

    private static func number(
        _ text: String, _ units: [Character: UInt64], _ bounds: ClosedRange<UInt64>, _ form: String
    ) -> Outcome {
        let lower = text.lowercased()
        var digits = Substring(lower)
        var unit: UInt64 = 1
        if !lower.hasPrefix("0x"), let last = lower.last, let factor = units[last] {
            unit = factor
            digits = lower.dropLast()
        }
        let parsed = digits.hasPrefix("0x") ? UInt64(digits.dropFirst(2), radix: 16) : UInt64(digits)
        guard let parsed, !digits.hasPrefix("+") else { return .wrong("'\(text)' is not \(form)") }
        let (value, isTooLarge) = parsed.multipliedReportingOverflow(by: unit)
        guard !isTooLarge, bounds.contains(value) else {
            return .wrong("'\(text)' is out of bounds: from \(bounds.lowerBound) to \(bounds.upperBound)")
        }
        return .value("\(value)")
    }
}
