// Everything of the cluster that is read from bytes of others or of a disk. What it holds: what is read, is written again as
// it was, or as something that reads the same.
import Base
import Fabric
import FuzzDriver
@testable import Membership
import Metadata
import Partitions

/// The first byte says what the rest is. Checksums are put right, so that what is behind them is read.
private func fuzzDecoder(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 0 else { return 0 }
    let body = Array(UnsafeRawBufferPointer(start: data + 1, count: count - 1))
    do {
        switch data[0] % 11 {
        case 1: try hello(body)
        case 2: try pulse(body)
        case 3: try introduction(body)
        case 4: try view(body)
        case 5: try metadata(body)
        case 6: try storedView(body)
        case 7: try partition(body)
        case 8: try block(body)
        case 9: try items(body)
        case 10: try datagram(body)
        default: try frames(body)
        }
    } catch { precondition(!"\(error)".isEmpty) }
    return 0
}

/// Whatever a node has written, it can read, and finds the same.
private func same(_ isSame: @autoclosure () throws -> Bool) {
    do {
        let isSame = try isSame()
        precondition(isSame, "what was written reads otherwise")
    } catch { fatalError("what was written cannot be read: \(error)") }
}

private func checksum(_ sum: UInt32) -> [UInt8] {
    var writer = FabricWriter()
    writer.integer(sum)
    return writer.bytes
}

/// The body of the one frame that `bytes` are.
private func body(_ bytes: [UInt8]) throws -> [UInt8] { try FabricFrame(datagram: bytes).body }

private func hello(_ bytes: [UInt8]) throws {
    let read = try Hello(bytes)
    same(try Hello(body(read.frame)) == read)
}

private func pulse(_ bytes: [UInt8]) throws {
    let read = try Pulse(stream: bytes)
    same(try Pulse(stream: body(read.frame)) == read)
}

private func introduction(_ bytes: [UInt8]) throws {
    let read = try Introduction(bytes)
    same(try Introduction(body(read.frame)) == read)
}

private func datagram(_ bytes: [UInt8]) throws {
    let read = try DatagramPulse(datagram: FabricFrame(.pulse, bytes).bytes)
    same(try DatagramPulse(datagram: read.frame) == read)
    let parts = read.split(sizeMax: 1500)
    precondition(parts.flatMap { $0.pulse.hears ?? [] } == read.pulse.hears)
    for part in parts { same(try DatagramPulse(datagram: part.frame) == part) }
}

private func view(_ bytes: [UInt8]) throws {
    let (read, to) = try ViewMessage.decode(bytes)
    let again = try ViewMessage.decode(read.bytes(to: to))
    precondition(again.to == to && again.message.bytes(to: to) == read.bytes(to: to))
    // Blocks inside are what a member computes its map from.
    switch read {
    case .accept(_, let inner): try block(inner)
    case .bundle(_, let blocks): for inner in blocks { try block(inner) }
    default: break
    }
}

private func metadata(_ bytes: [UInt8]) throws {
    let read = try MetadataMessage(bytes)
    same(try MetadataMessage(read.bytes) == read)
    if case .items(_, let inner) = read { try items(inner) }
}

private func storedView(_ bytes: [UInt8]) throws {
    let sum = bytes.withUnsafeBytes { crc32c($0) }
    let read = try StoredView(bytes + checksum(sum))
    same(try StoredView(read.bytes) == read)
}

private func partition(_ bytes: [UInt8]) throws {
    let sum = bytes.withUnsafeBytes { crc32c($0) }
    let read = try PartitionRecord([1] + checksum(sum) + bytes, namespace: "test", partition: 7)
    same(try PartitionRecord(read.encoded, namespace: "test", partition: 7) == read)
}

private func block(_ bytes: [UInt8]) throws {
    let read = try NodeBlock(bytes)
    same(try NodeBlock(read.encoded).encoded == read.encoded)
    _ = try? MetadataBlock(read.systemMetadata)
}

private func items(_ bytes: [UInt8]) throws {
    if let read = try? MetadataBlock(bytes) { same(try MetadataBlock(read.bytes) == read) }
    let read = try MetadataFormat.decode(bytes)
    same(try MetadataFormat.decode(MetadataFormat.encode(read)) == read)
}

/// Whatever the pieces, the frames are the same.
private func frames(_ bytes: [UInt8]) throws {
    func all(_ size: Int) -> (frames: [FabricFrame], error: String?) {
        var framer = StreamFramer(), found: [FabricFrame] = []
        do {
            for begin in stride(from: 0, to: bytes.count, by: size) {
                framer.append(Array(bytes[begin..<min(begin + size, bytes.count)]))
                while let frame = try framer.next() { found.append(frame) }
            }
        } catch { return (found, "\(error)") }
        return (found, nil)
    }
    let whole = all(max(bytes.count, 1)), pieces = all(7)
    precondition(whole.frames == pieces.frames && whole.error == pieces.error)
}

@_cdecl("FuzzDecoders_main")
public func entry(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    runFuzzer(count, words) { fuzzDecoder($0, $1) }
}
