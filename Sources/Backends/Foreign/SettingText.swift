// Defaults of a plugin's settings are in the words of the operator. They are checked when the plugin is loaded, so
// that a wrong one is the author's to find and not the operator's.
internal import Storage

enum SettingText {
    /// Whether a name can stand in a configuration.
    static func isWord(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.allSatisfy { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                || byte == UInt8(ascii: "-")
        }
    }

    /// Whether `text` is a value of this kind within its bounds.
    static func fits(_ text: String, _ kind: SettingSchema.Kind) -> Bool {
        switch kind {
        case .boolean: text == "true" || text == "false"
        case .integer(let bounds): isNumber(text, [], within: bounds)
        case .size(let bounds): isNumber(text, sizeUnits, within: bounds)
        case .seconds(let bounds): isNumber(text, secondUnits, within: bounds)
        case .milliseconds(let bounds):
            isNumber(text, secondUnits.map { ($0.letter, $0.factor * 1000) }, within: bounds)
        case .word(let words): words.contains(text)
        case .text, .list: true
        case .backend: false
        }
    }

    private typealias Unit = (letter: UInt8, factor: UInt64)
    private static let sizeUnits: [Unit] = [
        (UInt8(ascii: "k"), 1 << 10), (UInt8(ascii: "m"), 1 << 20), (UInt8(ascii: "g"), 1 << 30),
        (UInt8(ascii: "t"), 1 << 40), (UInt8(ascii: "p"), 1 << 50),
    ]
    private static let secondUnits: [Unit] = [
        (UInt8(ascii: "s"), 1), (UInt8(ascii: "m"), 60), (UInt8(ascii: "h"), 3600), (UInt8(ascii: "d"), 86_400),
    ]

    private static func isNumber(_ text: String, _ units: [Unit], within bounds: ClosedRange<UInt64>) -> Bool {
        var digits = Substring(text.lowercased())
        var factor: UInt64 = 1
        if let last = digits.utf8.last, let unit = units.first(where: { $0.letter == last }) {
            factor = unit.factor
            digits.removeLast()
        }
        guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let number = UInt64(digits)
        else { return false }
        let (value, overflow) = number.multipliedReportingOverflow(by: factor)
        return !overflow && bounds.contains(value)
    }
}
