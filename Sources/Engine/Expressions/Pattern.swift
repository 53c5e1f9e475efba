// Regular expressions of the C library. A client must not be able to make the library use memory or time out of
// proportion to the pattern and the text, so some patterns are refused: see `isHarmless`.
internal import Base
internal import Glibc

/// One compiled pattern. Not thread-safe.
final class Pattern {
    /// Longest pattern in bytes.
    private static let sizeMax = 4096
    /// How many atoms a pattern may have when its repetitions are written out.
    private static let atomsMax = 8192
    private static let nestingMax = 64
    /// The library keeps what it learns about a pattern while it matches: after this many bytes it begins anew.
    private static let matchedBytesMax = 1 << 20
    private let compiled: UnsafeMutablePointer<regex_t>
    private let text: [CChar]
    private let flags: CInt
    private var isCompiled = false
    private var matchedBytes = 0

    /// Compiles `bytes` with the flags of regcomp, as they are; nil if it is refused.
    init?(_ bytes: UnsafeRawBufferPointer, flags: Int64) {
        compiled = .allocate(capacity: 1)
        text = bytes.map { CChar(bitPattern: $0) } + [0]
        self.flags = CInt(truncatingIfNeeded: flags)
        guard let flags = CInt(exactly: flags), bytes.count <= Pattern.sizeMax, !bytes.contains(0),
            Pattern.isHarmless(bytes, isExtended: flags & REG_EXTENDED != 0), compile()
        else { return nil }
    }

    deinit {
        if isCompiled { regfree(compiled) }
        compiled.deallocate()
    }

    private func compile() -> Bool {
        isCompiled = regcomp(compiled, text, flags) == 0
        return isCompiled
    }

    /// Whether the pattern matches somewhere in `text`.
    func matches(_ text: UnsafeRawBufferPointer) -> Bool {
        matchedBytes += text.count
        if matchedBytes > Pattern.matchedBytesMax {
            matchedBytes = text.count
            regfree(compiled)
            // What has compiled once fails only for want of memory.
            guard compile() else { return false }
        }
        guard isCompiled else { return false }
        // The library takes the end of the text from here: the text needs no NUL.
        var range = regmatch_t()
        range.rm_so = 0
        range.rm_eo = regoff_t(text.count)
        return withUnsafeMutablePointer(to: &range) { range in
            guard let base = text.baseAddress else { return regexec(compiled, "", 0, range, REG_STARTEND) == 0 }
            return regexec(compiled, base.assumingMemoryBound(to: CChar.self), 0, range, REG_STARTEND) == 0
        }
    }

    /// No back-references (matching them can take time exponential in the text), few groups inside each other, and
    /// nested repetitions that do not multiply to much.
    static func isHarmless(_ pattern: UnsafeRawBufferPointer, isExtended: Bool) -> Bool {
        // Sums of atoms: of the whole pattern first, then of each open group.
        var sums = [0]
        var atom = 0
        var place = 0
        while place < pattern.count {
            let byte = pattern[place]
            let isEscaped = byte == UInt8(ascii: "\\") && place + 1 < pattern.count
            let character = isEscaped ? pattern[place + 1] : byte
            place += isEscaped ? 2 : 1
            if isEscaped, (UInt8(ascii: "1")...UInt8(ascii: "9")).contains(character) { return false }
            // In basic expressions the escaped ones are the operators.
            let isOperator = isEscaped != isExtended
            switch character {
            case UInt8(ascii: "(") where isOperator:
                sums.append(0)
                guard sums.count <= nestingMax else { return false }
            case UInt8(ascii: ")") where isOperator:
                atom = (sums.count > 1 ? sums.removeLast() : sums[0]) + 1
                sums[sums.count - 1] += atom
            case UInt8(ascii: "{") where isOperator:
                sums[sums.count - 1] += atom * repetitions(pattern, &place)
            case UInt8(ascii: "[") where !isEscaped:
                passBrackets(pattern, &place)
                atom = 1
                sums[sums.count - 1] += 1
            default:
                atom = 1
                sums[sums.count - 1] += 1
            }
            guard sums[sums.count - 1] <= atomsMax else { return false }
        }
        return true
    }

    /// The largest number between braces; `place` is behind the opening one and moves behind the digits.
    private static func repetitions(_ pattern: UnsafeRawBufferPointer, _ place: inout Int) -> Int {
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

    /// Moves `place` from behind an opening bracket to behind its closing one.
    private static func passBrackets(_ pattern: UnsafeRawBufferPointer, _ place: inout Int) {
        if place < pattern.count, pattern[place] == UInt8(ascii: "^") { place += 1 }
        if place < pattern.count, pattern[place] == UInt8(ascii: "]") { place += 1 }
        while place < pattern.count, pattern[place] != UInt8(ascii: "]") {
            let isClass = pattern[place] == UInt8(ascii: "[") && place + 1 < pattern.count
                && [UInt8(ascii: ":"), UInt8(ascii: "."), UInt8(ascii: "=")].contains(pattern[place + 1])
            guard isClass else {
                place += 1
                continue
            }
            let mark = pattern[place + 1]
            place += 2
            while place + 1 < pattern.count, !(pattern[place] == mark && pattern[place + 1] == UInt8(ascii: "]")) {
                place += 1
            }
            place += 2
        }
        place += 1
    }
}
