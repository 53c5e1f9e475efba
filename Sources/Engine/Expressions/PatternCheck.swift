// What a regular expression would cost the C library, before it sees it. The library writes repetitions out, `a+` as `aa*`,
// so that repetitions of repetitions multiply; and where parts of them may be empty, the time to compile grows with the
// third power of the atoms in them, and by a factor with each level. Matching a back-reference can take time exponential in
// the text. Invariant: `groups` has the pattern as a whole, then one group for each that is open.
internal import Base

/// Looks through a pattern once.
struct PatternCheck {
    /// How many atoms a pattern may have when its repetitions are written out.
    private static let atomsMax = 2048
    /// The same for all that is repeated and has repetitions in it, counted at each level.
    private static let repeatedAtomsMax = 256
    /// How often repetitions may stand inside each other.
    private static let depthMax = 4
    private static let groupsMax = 64

    /// A part of a pattern: its atoms when written out, and how many repetitions stand inside each other in it.
    private struct Part {
        var atoms = 0
        var depth = 0
    }
    private let pattern: UnsafeRawBufferPointer
    private var place = 0
    private var groups = [Part()]
    /// What a repetition at this place would repeat.
    private var last = Part(atoms: 1)
    private var repeatedAtoms = 0

    /// Whether the library may compile and match `pattern`.
    static func isHarmless(_ pattern: UnsafeRawBufferPointer, isExtended: Bool) -> Bool {
        var check = PatternCheck(pattern: pattern)
        while check.place < pattern.count { guard check.step(isExtended: isExtended) else { return false } }
        return true
    }

    private init(pattern: UnsafeRawBufferPointer) { self.pattern = pattern }

    private mutating func step(isExtended: Bool) -> Bool {
        let isEscaped = pattern[place] == UInt8(ascii: "\\") && place + 1 < pattern.count
        let character = isEscaped ? pattern[place + 1] : pattern[place]
        place += isEscaped ? 2 : 1
        // In basic expressions the escaped ones are the operators.
        let isOperator = isEscaped != isExtended
        switch character {
        case UInt8(ascii: "1")...UInt8(ascii: "9") where isEscaped: return false
        case UInt8(ascii: "(") where isOperator:
            groups.append(Part())
            last = Part(atoms: 1)
            return groups.count <= PatternCheck.groupsMax
        case UInt8(ascii: ")") where isOperator: return close()
        case UInt8(ascii: "{") where isOperator: return repeated(times: passNumbers() + 1)
        // Behind it comes what repeats the repetition.
        case UInt8(ascii: "}") where isOperator: return true
        case UInt8(ascii: "+") where isOperator: return repeated(times: 2)
        case UInt8(ascii: "?") where isOperator, UInt8(ascii: "*") where !isEscaped: return repeated(times: 1)
        case UInt8(ascii: "[") where !isEscaped: passBrackets()
        default: break
        }
        last = Part(atoms: 1)
        return add(last)
    }

    private mutating func add(_ part: Part) -> Bool {
        groups[groups.count - 1].atoms += part.atoms
        groups[groups.count - 1].depth = max(groups[groups.count - 1].depth, part.depth)
        return groups[groups.count - 1].atoms <= PatternCheck.atomsMax
    }

    /// A group is an atom to what stands behind it. One that was not open closes all there is: the library refuses it, or it
    /// is text.
    private mutating func close() -> Bool {
        guard groups.count > 1 else {
            last = groups[0]
            return add(Part(atoms: 1))
        }
        last = groups.removeLast()
        last.atoms += 1
        return add(last)
    }

    private mutating func repeated(times: Int) -> Bool {
        let before = last.atoms
        last.atoms = last.atoms * times + 1
        last.depth += 1
        if last.depth > 1 { repeatedAtoms += last.atoms }
        guard last.depth <= PatternCheck.depthMax, repeatedAtoms <= PatternCheck.repeatedAtomsMax else { return false }
        return add(Part(atoms: last.atoms - before, depth: last.depth))
    }

    /// The largest number between braces; moves behind the digits.
    private mutating func passNumbers() -> Int {
        var (largest, number) = (0, 0)
        while place < pattern.count {
            let byte = pattern[place]
            if (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
                number = min(number * 10 + Int(byte - UInt8(ascii: "0")), 1 << 20)
                largest = max(largest, number)
            } else if byte == UInt8(ascii: ",") {
                number = 0
            } else {
                return largest
            }
            place += 1
        }
        return largest
    }

    /// Moves from behind an opening bracket to behind its closing one.
    private mutating func passBrackets() {
        func isNext(_ wanted: UInt8) -> Bool { place < pattern.count && pattern[place] == wanted }
        if isNext(UInt8(ascii: "^")) { place += 1 }
        if isNext(UInt8(ascii: "]")) { place += 1 }
        while place < pattern.count, pattern[place] != UInt8(ascii: "]") {
            let mark = place + 1 < pattern.count ? pattern[place + 1] : 0
            let isClass = pattern[place] == UInt8(ascii: "[")
                && (mark == UInt8(ascii: ":") || mark == UInt8(ascii: ".") || mark == UInt8(ascii: "="))
            guard isClass else {
                place += 1
                continue
            }
            place += 2
            while place + 1 < pattern.count, !(pattern[place] == mark && pattern[place + 1] == UInt8(ascii: "]")) {
                place += 1
            }
            place += 2
        }
        place += 1
    }
}
