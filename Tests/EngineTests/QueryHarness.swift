import Base
import Engine
import TestSupport
import Testing
import Wire

/// What a query has answered, taken apart.
struct QueryAnswer {
    struct Record {
        var digest: Digest
        var set: String
        var generation: UInt32
        var bins: [String: Int64]
    }
    var records: [Record] = []
    /// Of the last message; nil if it has not come.
    var result: ResultCode?
    var partsLargest = 0
    /// Partitions of which the answer says that they are elsewhere.
    var elsewhere: Set<Int> = []

    /// Checks on the way that the stream is one of whole frames, and that nothing follows its end.
    init(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                guard case .frame(let frame) = FrameHeader.parse(UnsafeRawBufferPointer(rebasing: bytes[offset...])) else {
                    Issue.record("a stream is whole frames")
                    return
                }
                offset += FrameHeader.byteCount
                take(UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + frame.bodySize)]))
                offset += frame.bodySize
                partsLargest = max(partsLargest, frame.bodySize)
            }
        }
    }

    private mutating func take(_ body: UnsafeRawBufferPointer) {
        var offset = 0
        while offset < body.count {
            #expect(result == nil, "nothing follows the last message")
            let base = body.baseAddress! + offset
            let header = MessageHeader(base)
            if header.info3.contains(.last) { result = ResultCode(rawValue: header.resultCode) }
            if header.info3.contains(.partitionDone), header.resultCode == ResultCode.unavailable.rawValue {
                elsewhere.insert(Int(header.generation))
            }
            let none = Digest(low: 0, middle: 0, high: 0)
            var record = Record(digest: none, set: "", generation: header.generation, bins: [:])
            var place = MessageHeader.byteCount
            for _ in 0..<header.fieldCount {
                let size = Int(base.bigEndian(UInt32.self, at: place))
                let value = UnsafeRawBufferPointer(start: base + place + 5, count: size - 1)
                switch base.load(fromByteOffset: place + 4, as: UInt8.self) {
                case FieldNumber.digest.rawValue: record.digest = Digest(value.baseAddress!)
                case FieldNumber.set.rawValue: record.set = value.text
                default: break
                }
                place += 4 + size
            }
            for _ in 0..<header.operationCount {
                let size = Int(base.bigEndian(UInt32.self, at: place))
                let nameSize = Int(base.load(fromByteOffset: place + 7, as: UInt8.self))
                let name = UnsafeRawBufferPointer(start: base + place + 8, count: nameSize).text
                if size == 4 + nameSize + 8 { record.bins[name] = base.bigEndian(Int64.self, at: place + 8 + nameSize) }
                place += 4 + size
            }
            if header.fieldCount > 0 { records.append(record) }
            offset += place
        }
    }
}

/// A query as a client sends it.
struct QueryRequest {
    var partitions: [UInt16] = []
    var behind: [Digest] = []
    var set = ""
    var bins: [String] = []
    var recordsMax: UInt64 = 0
    var recordsPerSecond: UInt32 = 0
    var task: UInt64 = 1
    var info1: Info1 = .read
    var info2: Info2 = []
    var info3: Info3 = .partitionDone
    var operations: [Request.Operation] = []

    static var everything: QueryRequest { QueryRequest(partitions: (0..<4096).map { $0 }) }

    var frame: [UInt8] {
        var header = MessageHeader()
        header.info1 = info1
        header.info2 = info2
        header.info3 = info3
        let output = OutputBuffer()
        var encoder = RequestEncoder(output)
        encoder.begin(header)
        encoder.field(.namespace, "test")
        if !set.isEmpty { encoder.field(.set, set) }
        func field(_ number: FieldNumber, _ bytes: [UInt8]) { encoder.field(number, Block(bytes).view) }
        field(.taskID, withUnsafeBytes(of: task.bigEndian) { Array($0) })
        if recordsPerSecond > 0 { field(.recordsPerSecond, withUnsafeBytes(of: recordsPerSecond.bigEndian) { Array($0) }) }
        if recordsMax > 0 { field(.recordsMax, withUnsafeBytes(of: recordsMax.bigEndian) { Array($0) }) }
        if !partitions.isEmpty { field(.partitionIDs, partitions.flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }) }
        if !behind.isEmpty {
            field(.digests, behind.flatMap { digest in
                withUnsafeTemporaryAllocation(byteCount: 20, alignment: 8) { place in
                    digest.store(to: place.baseAddress!)
                    return Array(place)
                }
            })
        }
        for bin in bins { encoder.operation(OperationCode.read, 0, bin, Block([]).view) }
        for operation in operations {
            encoder.operation(operation.code, operation.type, operation.name, Block(operation.value).view)
        }
        encoder.end()
        return Array(output.bytes)
    }
}

extension Harness {
    /// Begins a query on a connection of its own.
    func begin(_ query: QueryRequest, _ connection: UInt64 = 1000) {
        streams[connection] = []
        endedStreams.remove(connection)
        send(query.frame, connection)
        if let answer = answers[connection] {
            // Answered at once, with a lone last message.
            let output = OutputBuffer()
            AnswerWriter.appendLast(result: answer.result, to: output)
            streams[connection] = Array(output.bytes)
            answers[connection] = nil
            endedStreams.insert(connection)
        }
    }

    /// Slices and turns until the query on `connection` has ended; `between` is called after each turn.
    func finish(_ connection: UInt64 = 1000, _ between: () -> Void = {}) -> QueryAnswer {
        for _ in 0..<1_000_000 where !endedStreams.contains(connection) {
            background()
            between()
        }
        #expect(endedStreams.contains(connection), "a query ends")
        return QueryAnswer(streams[connection] ?? [])
    }

    /// Some slices of every reactor, and a turn of a millisecond.
    func background(_ times: Int = 1) {
        for _ in 0..<times {
            for _ in 0..<8 {
                for shard in shards { _ = shard.backgroundSlice() }
            }
            turn(advancing: 1)
        }
    }

    /// A whole query.
    func query(_ query: QueryRequest) -> QueryAnswer {
        begin(query)
        return finish()
    }
}
