// Regular expressions of the C library. A client must not be able to make the library use memory or time out of
// proportion to the pattern and the text, so some patterns are refused: see `PatternCheck`.
internal import Base
internal import Glibc

/// One compiled pattern. Not thread-safe.
final class Pattern {
    /// Longest pattern in bytes.
    private static let sizeMax = 4096
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
            PatternCheck.isHarmless(bytes, isExtended: flags & REG_EXTENDED != 0), compile()
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
}
