import Base
import FuzzDriver
import Wire

private func fuzzInfo(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    var parser = InfoRequestParser(UnsafeRawBufferPointer(start: data, count: count))
    var seen = 0
    while let line = parser.next() {
        seen += line.text.count + 1
        precondition(!line.text.isEmpty && seen <= count + 1)
        guard let request = InfoRequest(line) else { continue }
        precondition(!request.name.isEmpty && request.name.utf8.count <= 3 * Limits.infoNameSizeMax)
        precondition(request.arguments.isEmpty || request.parameters.isEmpty)
        for (name, value) in request.parameters where request[name] == nil { fatalError("lost \(name)=\(value)") }
    }
    return 0
}

@_cdecl("FuzzInfo_main")
public func entry(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    runFuzzer(count, words) { fuzzInfo($0, $1) }
}
