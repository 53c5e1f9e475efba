internal import Base
internal import Wire

/// Info requests and answers of a client.
package enum InfoExchange {
    /// The frame that asks `commands`, in order.
    package static func request(_ commands: [String]) -> [UInt8] {
        let body = Array(commands.map { $0 + "\n" }.joined().utf8)
        var frame = [UInt8](repeating: 0, count: FrameHeader.byteCount)
        frame.withUnsafeMutableBytes { FrameHeader.write(type: .info, bodySize: body.count, to: $0.baseAddress!) }
        return frame + body
    }

    /// The answers in the body of an info frame: command and value, in order. A line without a tab has no
    /// value.
    package static func answers(_ body: UnsafeRawBufferPointer) -> [(command: String, value: String)] {
        var parser = InfoRequestParser(body)
        var answers: [(command: String, value: String)] = []
        while let line = parser.next() {
            let text = line.text
            let tab = text.firstIndex(of: UInt8(ascii: "\t")) ?? text.count
            let value = tab < text.count ? UnsafeRawBufferPointer(rebasing: text[(tab + 1)...]).text : ""
            answers.append((UnsafeRawBufferPointer(rebasing: text[..<tab]).text, value))
        }
        return answers
    }
}
