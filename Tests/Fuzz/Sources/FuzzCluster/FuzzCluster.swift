// The life of a node among others who may say anything. What it holds: see `Fuzzed`.
import Assembly
import Base
import FuzzDriver

/// An input: a `Mode`, then instructions.
private func fuzzCluster(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 0 else { return 0 }
    var bytes = Array(UnsafeRawBufferPointer(start: data, count: count))[...]
    var fuzzed = begin(Mode(rawValue: bytes.removeFirst()))
    while let instruction = Instruction.next(&bytes) { fuzzed.follow(instruction) }
    fuzzed.wait(400)
    return 0
}

/// The node at the begin of an input.
func begin(_ mode: Mode) -> Fuzzed {
    let id = mode.contains(.high) ? high : low
    let node = start(id, port: 3002, seed: mode.contains(.seed) ? 4002 : nil, mode: mode)
    var fuzzed = Fuzzed(node, seed: 1)
    fuzzed.tell(.timer)
    return fuzzed
}

@_cdecl("FuzzCluster_main")
public func entry(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    if count == 3, let words, let word = words[1], let folder = words[2], String(cString: word) == "record" {
        return record(String(cString: folder))
    }
    return runFuzzer(count, words) { fuzzCluster($0, $1) }
}
