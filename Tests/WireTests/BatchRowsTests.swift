import Base
import TestSupport
import Testing
import Wire

@Suite struct BatchRowsTests {
    /// The protocol's golden batch: one get.
    private let golden = "02030000000000561608000000000000000000000000000003e8000100000000003c29000000010d00000000b747f585"
        + "4d0b33259928d0cfab7fad81d6abfbf60a0300000000000000020000000000050074657374000000050164656d6f"
    private let digest = Digest(hex: "b747f5854d0b33259928d0cfab7fad81d6abfbf6")

    private struct Row { var index: UInt32, view: RequestView, isRepeat: Bool }

    /// The rows of a body, and whether their end was in order; nil if there is no batch field.
    private func parse(_ body: UnsafeRawBufferPointer) -> (rows: [Row], isWhole: Bool)? {
        guard case .request(let request) = RequestView.parse(body), var rows = BatchRows(request) else { return nil }
        var found: [Row] = []
        let row = UnsafeMutablePointer<BatchRow>.allocate(capacity: 1)
        row.initialize(to: BatchRow())
        defer { row.deallocate() }
        while true {
            switch rows.next(into: row) {
            case .row(let isRepeat):
                found.append(Row(index: row.pointee.index, view: row.pointee.request, isRepeat: isRepeat))
            case .end: return (found, true)
            case .malformed: return (found, false)
            }
        }
    }

    private func body(_ flags: BatchFlags = [], filter: [UInt8] = [], _ make: (inout BatchEncoder) -> Void) -> [UInt8] {
        let output = OutputBuffer()
        var header = MessageHeader()
        header.transactionTimeout = 1000
        var encoder = BatchEncoder(output, header, flags: flags, filter: Block(filter).view)
        make(&encoder)
        encoder.end()
        return Array(output.bytes[FrameHeader.byteCount...])
    }

    private var read: MessageHeader {
        var header = MessageHeader()
        header.info1 = [.read, .getAllBins]
        return header
    }

    @Test func parsesTheGoldenBatch() throws {
        let (rows, isWhole) = try #require(parse(Block(Array(bytes(hex: golden)[8...])).view))
        #expect(isWhole && rows.count == 1 && rows[0].index == 0)
        let view = rows[0].view
        #expect(view.digest == digest && view.has(.digest) && view.namespace.text == "test" && view.set.text == "demo")
        #expect(view.header.info1 == [.read, .getAllBins] && view.header.transactionTimeout == 1000)
        #expect(view.field(.set)?.text == "demo" && view.operationCount == 0)
    }

    @Test func everyFormOfARow() throws {
        let key = Block([3, 0x6B])
        let value = Block([0, 0, 0, 0, 0, 0, 0, 5])
        let filter: [UInt8] = [0x93, 1, 2, 3]
        let body = Block(body(filter: filter) { batch in
            batch.row(7, digest, read, namespace: "test", set: "demo")
            batch.repeatRow(8, Digest(low: 1, middle: 2, high: 3))
            var write = MessageHeader()
            write.info2 = .write
            write.info3 = .updateOnly
            write.info4 = 0x10
            write.generation = 0xABCD
            write.timeToLive = 77
            batch.row(9, digest, write, namespace: "other")
            batch.field(.filter, Block([0xC3]).view)
            batch.field(.key, key.view)
            batch.operation(OperationCode.write, ParticleType.integer, "a", value.view)
        })
        let (rows, isWhole) = try #require(parse(body.view))
        #expect(isWhole && rows.map(\.index) == [7, 8, 9] && rows.map(\.isRepeat) == [false, true, false])
        #expect(rows[1].view.digest == Digest(low: 1, middle: 2, high: 3) && rows[1].view.set.text == "demo")
        for row in rows[..<2] {
            #expect(row.view.has(.filter) && Array(row.view.filter) == filter, "the batch's filter")
            #expect(row.view.field(.filter).map { Array($0) } == filter)
        }
        let write = rows[2].view
        #expect(Array(write.filter) == [0xC3], "its own filter wins")
        #expect(write.header.info2 == .write && write.header.info3 == .updateOnly && write.header.info4 == 0x10)
        #expect(write.header.generation == 0xABCD && write.header.timeToLive == 77 && write.namespace.text == "other")
        #expect(Array(write.key) == [3, 0x6B] && write.set.isEmpty && write.field(.key).map { Array($0) } == [3, 0x6B])
        var operations = write.operations
        #expect(operations.next()?.name.text == "a" && operations.next() == nil)
    }

    /// Flags 0: the consistency of reads stands in the batch's header. A count of no fields means the namespace.
    @Test func theOldestForm() throws {
        var body = body { $0.row(0, digest, read, namespace: "test") }
        body[3] = 0xC0 | Info3.updateOnly.rawValue
        let head = MessageHeader.byteCount + 10
        body[head + 24] = 0
        // Only info1 stays of info, generation and time to live; then no fields are counted.
        body.removeSubrange((head + 26)..<(head + 34))
        body[head + 27] = 0
        let field = UInt32(body.count - MessageHeader.byteCount - 4)
        for place in 0..<4 {
            body[MessageHeader.byteCount + place] = UInt8(truncatingIfNeeded: field >> (24 - 8 * UInt32(place)))
        }
        let (rows, isWhole) = try #require(parse(Block(body).view))
        #expect(isWhole && rows.count == 1 && rows[0].view.namespace.text == "test")
        #expect(rows[0].view.header.info3.rawValue == 0xC0 && rows[0].view.header.fieldCount == 1)
    }

    @Test func originAndCompressionAreTheBatchsAffair() throws {
        var header = read
        header.info1 = Info1(rawValue: 0xFF)
        let (rows, _) = try #require(parse(Block(body { $0.row(0, digest, header, namespace: "test") }).view))
        #expect(rows[0].view.header.info1.rawValue == 0xFF & ~0x90)
    }

    @Test func whatMayNotBeRepeated() throws {
        let first = try #require(parse(Block(body { $0.repeatRow(0, digest) }).view))
        #expect(first.rows.isEmpty && !first.isWhole, "nothing before it")
        let key = try #require(parse(Block(body {
            $0.row(0, digest, read, namespace: "test")
            $0.field(.key, Block([3, 0x6B]).view)
            $0.repeatRow(1, digest)
        }).view))
        #expect(key.rows.count == 1 && !key.isWhole, "a key belongs to one record")
        let noNamespace = try #require(parse(Block(body {
            $0.row(0, digest, read, namespace: "test")
            $0.row(1, digest, read, namespace: "test")
        }.replacing([0, 0, 0, 5, 0, 0x74], with: [0, 0, 0, 5, 1, 0x74], maxReplacements: 1)).view))
        #expect(noNamespace.rows.isEmpty && !noNamespace.isWhole, "the namespace comes first")
    }

    @Test func lyingCounts() throws {
        let honest = body {
            for index in 0..<3 { $0.row(UInt32(index), digest, read, namespace: "test") }
        }
        for (count, rows) in [(2, 2), (4, 3), (0xFF, 3)] {
            var body = honest
            body[MessageHeader.byteCount + 8] = UInt8(count)
            let parsed = try #require(parse(Block(body).view))
            #expect(parsed.rows.count == rows && !parsed.isWhole, "\(count) announced")
        }
        #expect(try #require(parse(Block(honest).view)).isWhole)
    }

    /// Bytes cut or changed by chance: rows lie inside the body, or the batch is malformed; copies at another address say
    /// the same.
    @Test func damagedBatchesAreSafe() throws {
        let seed = runSeed("BatchRowsTests")
        var random = SeededRandom(seed: seed)
        let value = Block([0, 0, 0, 0, 0, 0, 0, 5])
        let whole = body(filter: [1, 2, 3]) { batch in
            for index in 0..<6 {
                var header = read
                header.info4 = index == 3 ? 1 : 0
                batch.row(UInt32(index), .random(&random), header, namespace: "test", set: "s")
                if index == 4 { batch.field(.key, Block([3, 0x6B]).view) }
                if index % 2 == 0 { batch.operation(OperationCode.write, ParticleType.integer, "bin", value.view) }
                if index != 4 { batch.repeatRow(UInt32(100 + index), .random(&random)) }
            }
        }
        forAWhile(1) {
            var body = whole
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let place = Int.random(in: 0..<body.count, using: &random)
                let values = [0, 1, 0xFF, body[place] &+ 1, UInt8.random(in: 0...255, using: &random)]
                body[place] = values.randomElement(using: &random)!
            }
            if Int.random(in: 0..<4, using: &random) == 0 { body.removeLast(Int.random(in: 1..<body.count, using: &random)) }
            let block = Block(body)
            guard let (rows, _) = parse(block.view) else { return }
            let inside = block.view.baseAddress!...(block.view.baseAddress! + block.count)
            for row in rows {
                var views = [row.view.bytes, row.view.namespace, row.view.set, row.view.key, row.view.filter]
                var operations = row.view.operations
                while let operation = operations.next() { views += [operation.name, operation.value] }
                for view in views where !view.isEmpty {
                    #expect(inside.contains(view.baseAddress!) && inside.contains(view.baseAddress! + view.count))
                }
                let copy = Block(body)
                var moved = row.view
                moved.rebase(by: copy.view.baseAddress! - block.view.baseAddress!)
                #expect(moved.namespace.elementsEqual(row.view.namespace) && moved.key.elementsEqual(row.view.key))
                #expect(moved.field(.set).map { Array($0) } == row.view.field(.set).map { Array($0) })
                #expect(moved.operationBytes.elementsEqual(row.view.operationBytes))
            }
        }
    }

    @Test func recordsInAFrame() throws {
        let output = OutputBuffer()
        let operations = OutputBuffer()
        AnswerWriter.appendOperation(
            code: OperationCode.increment, particleType: 1, name: Block([0x61]).view,
            value: Block([0, 0, 0, 0, 0, 0, 0, 5]).view, to: operations)
        let start = RecordWriter.beginFrame(output)
        var head = RecordHead()
        head.generation = 0x102
        head.voidTime = 7
        head.index = 9
        RecordWriter.append(
            head, fields: UnsafeRawBufferPointer(start: nil, count: 0), fieldCount: 0, operations: operations.bytes,
            operationCount: 1, operationCode: OperationCode.read, to: output)
        RecordWriter.appendLast(result: .parameter, to: output)
        RecordWriter.endFrame(output, from: start)
        #expect(hex(output.bytes) == "020300000000003d" + "16000000000000000102" + "00000007" + "00000009" + "0000" + "0001"
            + "0000000d01010001610000000000000005" + "16000001000400000000" + "000000000000000000000000")
    }
}
