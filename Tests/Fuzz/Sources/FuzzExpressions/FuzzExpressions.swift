import Base
import Expressions
import FuzzDriver
import Record

/// One for all inputs: its memory is large. The driver calls from one thread.
nonisolated(unsafe) private let editor = RecordEditor()

/// The input: one byte with the number of bytes of a record's list bin, that bin, then an expression.
private func fuzzExpression(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 0 else { return 0 }
    let bytes = UnsafeRawBufferPointer(start: data, count: count)
    let listCount = min(Int(bytes[0]), count - 1)
    let list = UnsafeRawBufferPointer(rebasing: bytes[1..<(1 + listCount)])
    let source = UnsafeRawBufferPointer(rebasing: bytes[(1 + listCount)...])
    let expression: Expression
    do throws(ExpressionError) { expression = try Expression(source) } catch { return 0 }
    editor.begin(nil)
    let integer: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 5]
    let text = Array("axb".utf8)
    integer.withUnsafeBytes { integer in
        text.withUnsafeBytes { text in
            let names = UnsafeRawBufferPointer(rebasing: text[0..<3])
            func write(_ place: Int, _ type: UInt8, _ value: UnsafeRawBufferPointer) {
                let name = UnsafeRawBufferPointer(rebasing: names[place..<(place + 1)])
                precondition(editor.set(name, type, copying: value) == .ok)
            }
            write(0, ParticleType.integer, integer)
            write(1, ParticleType.string, text)
            write(2, ParticleType.list, list)
            evaluate(expression, editor, text)
        }
    }
    return 0
}

/// Metadata, an editor and an image agree.
private func evaluate(_ expression: Expression, _ editor: RecordEditor, _ text: UnsafeRawBufferPointer) {
    let facts = RecordFacts(
        digest: Digest(low: 1, middle: 2, high: 3), lastUpdate: 4, voidTime: 5, isKeyStored: false, isTombstone: false,
        byteCount: 64, setName: text, now: RecordTime(milliseconds: 1000))
    let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    let edited = expression.evaluate(facts, BinSource(editor, key: nothing))
    let header = ImageHeader(
        generation: 1, voidTime: 5, lastUpdate: 4, epoch: Epoch(regime: 1, viewKey: 2), setName: nothing, key: nothing)
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: editor.imageByteCount(header), alignment: 16)
    defer { room.deallocate() }
    editor.writeImage(header, to: room.baseAddress!)
    guard let image = ImageView(UnsafeRawBufferPointer(room)) else { fatalError("an image that was written") }
    let isUnknown = edited.isUnknown
    let stored = expression.evaluate(facts, BinSource(image))
    precondition(stored.isUnknown == isUnknown, "an editor and an image agree")
    guard expression.isFilter else { return }
    let passes = expression.passes(facts, BinSource(image))
    switch expression.metadata(facts) {
    case .isTrue: precondition(passes)
    case .isFalse, .unknown: precondition(!passes)
    case .needsRecord: precondition(expression.readsRecord)
    }
}

@_cdecl("FuzzExpressions_main")
public func entry(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    runFuzzer(count, words) { fuzzExpression($0, $1) }
}
