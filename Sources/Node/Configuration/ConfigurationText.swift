// The grammar: statements of words that end with the line, blocks in braces, comments from # to the end of
// the line.

/// Everything that is wrong with a configuration, each problem one sentence with file and line.
package struct ConfigurationError: Error, Sendable {
    package let problems: [String]
    package init(problems: [String]) { self.problems = problems }
}

/// One statement, with what stands in its braces.
struct Statement {
    var words: [String]
    var line: Int
    var block: [Statement]?
}

/// Splits a file into statements. Memory and depth are bounded by the file's size and `depthMax`.
struct StatementReader {
    static let depthMax = 8
    private static let wordSizeMax = 1024
    private var tokens: [Token] = []
    private var next = 0
    private let fileName: String

    private struct Token {
        enum Kind { case word(String), open, close, lineEnd }
        var kind: Kind
        var line: Int
    }

    /// Reads the statements of a whole file.
    static func read(_ bytes: [UInt8], fileName: String) throws(ConfigurationError) -> [Statement] {
        var reader = StatementReader(fileName: fileName)
        try reader.tokenize(bytes)
        return try reader.statements(depth: 0, openedAt: 0)
    }

    private init(fileName: String) { self.fileName = fileName }

    private func problem(_ line: Int, _ text: String) -> ConfigurationError {
        ConfigurationError(problems: ["\(fileName):\(line): \(text)"])
    }

    private mutating func tokenize(_ bytes: [UInt8]) throws(ConfigurationError) {
        var line = 1
        var at = 0
        while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "\n"):
                tokens.append(Token(kind: .lineEnd, line: line))
                line += 1
                at += 1
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): at += 1
            case UInt8(ascii: "#"): while at < bytes.count, bytes[at] != UInt8(ascii: "\n") { at += 1 }
            case UInt8(ascii: "{"):
                tokens.append(Token(kind: .open, line: line))
                at += 1
            case UInt8(ascii: "}"):
                tokens.append(Token(kind: .close, line: line))
                at += 1
            default:
                let end = bytes[at...].firstIndex { StatementReader.endsWord($0) } ?? bytes.count
                guard end - at <= StatementReader.wordSizeMax else { throw problem(line, "a word of \(end - at) bytes") }
                guard bytes[at..<end].allSatisfy({ StatementReader.isText($0) }),
                    let word = String(validating: bytes[at..<end], as: UTF8.self)
                else { throw problem(line, "bytes that are no text") }
                tokens.append(Token(kind: .word(word), line: line))
                at = end
            }
        }
        tokens.append(Token(kind: .lineEnd, line: line))
    }

    private static func isText(_ byte: UInt8) -> Bool { byte > 0x20 && byte != 0x7F }

    /// Whether a file can say this in one word.
    static func isWord(_ text: String) -> Bool {
        1...wordSizeMax ~= text.utf8.count && text.utf8.allSatisfy { isText($0) && !endsWord($0) }
    }

    private static func endsWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"), UInt8(ascii: "{"),
            UInt8(ascii: "}"), UInt8(ascii: "#"):
            true
        default: false
        }
    }

    private mutating func statements(depth: Int, openedAt: Int) throws(ConfigurationError) -> [Statement] {
        guard depth <= StatementReader.depthMax else {
            throw problem(openedAt, "braces nested deeper than \(StatementReader.depthMax)")
        }
        var list: [Statement] = []
        var current: Statement?
        while next < tokens.count {
            let token = tokens[next]
            next += 1
            switch token.kind {
            case .word(let word):
                if current == nil { current = Statement(words: [], line: token.line) }
                current?.words.append(word)
            case .lineEnd:
                if let statement = current { list.append(statement) }
                current = nil
            case .open:
                // The brace may stand on the next line.
                guard var owner = current ?? takeBlockOwner(&list) else {
                    throw problem(token.line, "a { without a name before it")
                }
                current = nil
                owner.block = try statements(depth: depth + 1, openedAt: token.line)
                list.append(owner)
            case .close:
                if let statement = current { list.append(statement) }
                guard depth > 0 else { throw problem(token.line, "a } without a { before it") }
                return list
            }
        }
        guard depth == 0 else { throw problem(openedAt, "this { is never closed") }
        return list
    }

    private func takeBlockOwner(_ list: inout [Statement]) -> Statement? {
        guard let last = list.last, last.block == nil else { return nil }
        return list.removeLast()
    }
}
