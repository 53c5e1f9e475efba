// Makes the corpora: two nodes meet, agree, take orders and part; what one of them lives through is written as an input of
// this fuzzer, and the frames that went between them as inputs of FuzzDecoders. `FuzzCluster record Tests/Fuzz/Corpus`.
import Assembly
import Base
import Fabric
import Glibc
import Membership

/// Two nodes on one wire. What happens to the first is written down.
private struct Recorder {
    var first: Fuzzed
    var second: Fuzzed
    var script: [UInt8]
    var frames: [FabricFrame] = []
    /// Which accepted stream of one is which dialled of the other.
    private var links: [(port: PortKind, dialled: StreamID, accepted: StreamID, byFirst: Bool)] = []
    private var acceptedCount: UInt64 = 0

    init(_ mode: Mode) {
        script = [mode.rawValue]
        first = begin(mode)
        let id = mode.contains(.high) ? low : high
        second = Fuzzed(start(id, port: 4002, seed: mode.contains(.seed) ? nil : 3002, mode: mode), seed: 2)
        second.tell(.timer)
    }

    mutating func happens(_ instruction: Instruction) {
        script += instruction.bytes
        first.follow(instruction)
    }

    mutating func run(_ milliseconds: UInt64) {
        for _ in 0..<(milliseconds / 5) {
            happens(.wait(1))
            second.wait(5)
            while !first.said.isEmpty || !second.said.isEmpty { exchange() }
        }
    }

    private mutating func exchange() {
        let fromFirst = first.said, fromSecond = second.said
        first.said = []
        second.said = []
        for (port, effect) in fromFirst { carry(port, effect, byFirst: true) }
        for (port, effect) in fromSecond { carry(port, effect, byFirst: false) }
    }

    private mutating func carry(_ port: PortKind, _ effect: StreamEffect, byFirst: Bool) {
        switch effect {
        case .connect(let stream, _, _):
            acceptedCount += 1
            links.append((port, stream, .accepted(acceptedCount), byFirst))
            let from = Address(host: "10.0.0.1", port: 40_000)
            deliver(port, .accepted(.accepted(acceptedCount), from: from), toFirst: !byFirst)
            deliver(port, .connected(stream), toFirst: byFirst)
        case .send(let stream, let bytes):
            guard let other = other(port, stream, byFirst) else { return }
            deliver(port, .received(other, bytes), toFirst: !byFirst)
        case .close(let stream):
            guard let other = other(port, stream, byFirst) else { return }
            links.removeAll { $0.port == port && ($0.dialled, $0.accepted) == (min(stream, other), max(stream, other)) }
            deliver(port, .closed(other, reason: "closed by the other end"), toFirst: !byFirst)
        }
    }

    private func other(_ port: PortKind, _ stream: StreamID, _ byFirst: Bool) -> StreamID? {
        for link in links where link.port == port {
            if link.byFirst == byFirst, link.dialled == stream { return link.accepted }
            if link.byFirst != byFirst, link.accepted == stream { return link.dialled }
        }
        return nil
    }

    private mutating func deliver(_ port: PortKind, _ event: StreamEvent, toFirst: Bool) {
        guard toFirst else {
            second.tell(port == .heartbeat ? .heartbeat(event) : .fabric(event))
            return
        }
        func name(_ stream: StreamID) -> StreamName {
            StreamName(port, stream.rawValue & ~(1 << 63), isAccepted: stream.isAccepted)
        }
        switch event {
        case .accepted(let stream, _): happens(.accepted(name(stream)))
        case .connected(let stream): happens(.connected(name(stream)))
        case .closed(let stream, _): happens(.closed(name(stream)))
        case .received(let stream, let bytes):
            var framer = StreamFramer()
            framer.append(bytes)
            while let frame = try? framer.next() {
                frames.append(frame)
                happens(.frame(name(stream), kind: frame.kind.rawValue, frame.body))
            }
        }
    }
}

/// Writes both corpora; the exit code.
func record(_ folder: String) -> CInt {
    for mode in [[], .high, .seed, [.high, .seed], .namespace, [.namespace, .high]] as [Mode] {
        let name = mode.rawValue
        var recorder = Recorder(mode)
        recorder.run(600)
        precondition(recorder.first.node.snapshot?.view?.members.count == 2, "the two have found each other")
        write(recorder.script, "\(folder)/cluster/meet-\(name)")
        for command in [UInt8(0), 1, 3, 0] {
            recorder.happens(.command(command))
            recorder.run(200)
        }
        write(recorder.script, "\(folder)/cluster/orders-\(name)")
        recorder.second.tell(.leave)
        recorder.run(300)
        write(recorder.script, "\(folder)/cluster/left-\(name)")
        var seen: [String: Int] = [:]
        for frame in recorder.frames {
            let kind = "\(frame.kind)" + (frame.kind == .view || frame.kind == .metadata ? "\(frame.body[0])" : "")
            seen[kind, default: 0] += 1
            guard seen[kind]! <= 2, mode == .namespace else { continue }
            write([frame.kind.rawValue] + frame.body, "\(folder)/decoders/\(kind)-\(seen[kind]!)")
        }
        guard mode == .namespace else { continue }
        for case .view(let bytes) in recorder.first.stored.suffix(2) {
            write([6] + bytes.dropLast(4), "\(folder)/decoders/stored-view")
        }
        for case .partitions(let all) in recorder.first.stored.prefix(9) {
            write([7] + all[0].metadata[7].dropFirst(5), "\(folder)/decoders/partition")
        }
    }
    return 0
}

private func write(_ bytes: some Sequence<UInt8>, _ path: String) {
    let bytes = Array(bytes)
    guard let file = fopen(path, "w") else { fatalError("\(path) cannot be written") }
    precondition(fwrite(bytes, 1, bytes.count, file) == bytes.count && fclose(file) == 0)
}
