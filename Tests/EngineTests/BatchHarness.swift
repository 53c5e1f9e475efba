import Base
import Engine
import Memory
import Storage
import TestSupport
import Testing
import Wire

/// One message of a batch's answer.
struct BatchAnswerRow: Equatable {
    var index: UInt32
    var result: ResultCode
    var generation: UInt32
    var codes: [UInt8] = []
    var bins: [String: Int64] = [:]
}

/// What came for a batch: its rows, and the code of the last message; nil if there is none yet.
struct BatchAnswer {
    var rows: [BatchAnswerRow] = []
    var last: ResultCode?
    var frames = 0
    var frameSizeMax = 0

    init(_ bytes: [UInt8]) {
        var rest = Block(bytes).view[...]
        while !rest.isEmpty {
            guard case .frame(let header) = FrameHeader.parse(UnsafeRawBufferPointer(rebasing: rest)) else {
                Issue.record("no frame")
                return
            }
            #expect(rest.count >= FrameHeader.byteCount + header.bodySize, "a whole frame")
            let end = rest.startIndex + FrameHeader.byteCount + header.bodySize
            take(UnsafeRawBufferPointer(rebasing: rest[(rest.startIndex + FrameHeader.byteCount)..<end]))
            frames += 1
            frameSizeMax = max(frameSizeMax, FrameHeader.byteCount + header.bodySize)
            rest = rest[end...]
        }
    }

    private mutating func take(_ body: UnsafeRawBufferPointer) {
        var at = 0
        while at < body.count {
            #expect(last == nil, "nothing follows the last message")
            let header = MessageHeader(body.baseAddress! + at)
            at += MessageHeader.byteCount
            if header.info3.contains(.last) {
                last = ResultCode(rawValue: header.resultCode)
                continue
            }
            var row = BatchAnswerRow(
                index: header.transactionTimeout, result: ResultCode(rawValue: header.resultCode),
                generation: header.generation)
            let rest = UnsafeRawBufferPointer(rebasing: body[at...])
            var operations = OperationSequence(rest, count: Int(header.operationCount))
            while let bin = operations.next() {
                row.codes.append(bin.code)
                row.bins[bin.name.text] = bin.value.reduce(0) { $0 << 8 | Int64($1) }
            }
            at += OperationSequence.byteCount(rest, count: Int(header.operationCount)) ?? 0
            rows.append(row)
        }
    }
}

extension Harness {
    /// Sends a batch; what is answered in its turn, and later, is in `streams`.
    func send(batch frame: [UInt8], _ connection: UInt64 = 1) {
        let body = Block(Array(frame[FrameHeader.byteCount...]))
        guard case .request(let request) = RequestView.parse(body.view) else { preconditionFailure("a whole request") }
        let output = OutputBuffer()
        streams[connection] = []
        endedStreams.remove(connection)
        let progress = withUnsafePointer(to: request) {
            shards[0].execute($0, namespace: -1, connection: connection, arrived: time.monotonic, output: output)
        }
        streams[connection]! += Array(output.bytes)
        // The bytes of a connection are not there any more when its turn is over.
        for place in 0..<body.count { body.bytes[place] = 0xEE }
        if progress == .answered { endedStreams.insert(connection) }
    }

    func run(_ frame: [UInt8], _ connection: UInt64 = 1) -> BatchAnswer {
        send(batch: frame, connection)
        finishBatches()
        return BatchAnswer(streams[connection]!)
    }

    /// Turns and slices until nothing is under way.
    func finishBatches() {
        for _ in 0..<100_000 {
            var hasWork = shards.contains(where: \.wantsTicks) || !letters.isEmpty
            for shard in shards {
                if case .none = shard.backgroundSlice() { continue }
                hasWork = true
            }
            guard hasWork else { return }
            turn()
        }
        Issue.record("it does not end")
    }
}

/// The frame of a batch.
func batch(
    _ flags: BatchFlags = .respondAllKeys, timeout: UInt32 = 0, filter: [UInt8] = [],
    _ make: (inout BatchEncoder) -> Void
) -> [UInt8] {
    let output = OutputBuffer()
    var header = MessageHeader()
    header.transactionTimeout = timeout
    var encoder = BatchEncoder(output, header, flags: flags, filter: Block(filter).view)
    make(&encoder)
    encoder.end()
    return Array(output.bytes)
}

let readHeader: MessageHeader = {
    var header = MessageHeader()
    header.info1 = [.read, .getAllBins]
    return header
}()
let writeHeader: MessageHeader = {
    var header = MessageHeader()
    header.info2 = .write
    return header
}()
let countHeader: MessageHeader = {
    var header = MessageHeader()
    header.info1 = .read
    header.info2 = [.write, .respondAllOperations]
    return header
}()

extension BatchEncoder {
    mutating func get(_ index: UInt32, _ digest: Digest) { row(index, digest, readHeader, namespace: "test") }
    mutating func put(_ index: UInt32, _ digest: Digest, _ value: Int64) {
        row(index, digest, writeHeader, namespace: "test")
        operation(OperationCode.write, ParticleType.integer, "n", Block(Request.integer(value)).view)
    }
    mutating func count(_ index: UInt32, _ digest: Digest) {
        row(index, digest, countHeader, namespace: "test")
        operation(OperationCode.increment, ParticleType.integer, "n", Block(Request.integer(1)).view)
        operation(OperationCode.read, 0, "n", Block([]).view)
    }
    mutating func delete(_ index: UInt32, _ digest: Digest) {
        var header = writeHeader
        header.info2 = [.write, .delete]
        row(index, digest, header, namespace: "test")
    }
}
