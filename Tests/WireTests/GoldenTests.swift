import Base
import TestSupport
import Testing
import Wire

/// The byte sequences of the protocol's reference, bit for bit.
@Suite struct GoldenTests {
    private let digest = Digest(hex: "b747f5854d0b33259928d0cfab7fad81d6abfbf6")
    private let get = "02030000000000411603000000000000000000000000000003e800030000000000050074657374000000050164656d6f"
        + "0000001504b747f5854d0b33259928d0cfab7fad81d6abfbf6"
    private let put = "02030000000000521600010000000000000000000000000003e800030001000000050074657374000000050164656d6f"
        + "0000001504b747f5854d0b33259928d0cfab7fad81d6abfbf60000000d02010001610000000000000005"

    private func encode(_ header: MessageHeader, _ operations: (inout RequestEncoder) -> Void) -> String {
        let output = OutputBuffer()
        var encoder = RequestEncoder(output)
        encoder.begin(header)
        encoder.field(.namespace, "test")
        encoder.field(.set, "demo")
        encoder.field(digest)
        operations(&encoder)
        encoder.end()
        return hex(output.bytes)
    }

    @Test func encodesAGet() {
        var header = MessageHeader()
        header.info1 = [.read, .getAllBins]
        header.transactionTimeout = 1000
        #expect(encode(header) { _ in } == get)
    }

    @Test func encodesAPut() {
        var header = MessageHeader()
        header.info2 = .write
        header.transactionTimeout = 1000
        let value = Block([0, 0, 0, 0, 0, 0, 0, 5])
        #expect(encode(header) { $0.operation(2, 1, "a", value.view) } == put)
    }

    @Test func parsesThePut() throws {
        let frame = Block(bytes(hex: put))
        guard case .frame(let header) = FrameHeader.parse(frame.view) else { throw Failure() }
        #expect(header.type == 3 && header.bodySize == 0x52)
        guard case .request(let request) = RequestView.parse(UnsafeRawBufferPointer(rebasing: frame.view[8...]))
        else { throw Failure() }
        #expect(request.namespace.text == "test" && request.set.text == "demo" && request.digest == digest)
        #expect(request.header.info2 == .write && request.header.transactionTimeout == 1000)
        #expect(request.has(.digest) && !request.has(.key) && request.field(.set)?.text == "demo")
        var operations = request.operations
        let next = operations.next()
        let operation = try #require(next)
        #expect(operation.code == 2 && operation.particleType == 1 && operation.name.text == "a")
        #expect(Array(operation.value) == [0, 0, 0, 0, 0, 0, 0, 5])
        #expect(operations.next() == nil)
    }

    private struct Failure: Error {}

    private func answer(_ result: ResultCode, _ generation: UInt16, _ operation: (OutputBuffer) -> Void) -> String {
        let operations = OutputBuffer()
        operation(operations)
        let output = OutputBuffer()
        AnswerWriter.appendAnswer(
            result: result, generation: generation, voidTime: 0, operations: operations.bytes,
            operationCount: operations.count > 0 ? 1 : 0, to: output)
        return hex(output.bytes)
    }

    @Test func writesAnswers() {
        #expect(answer(.ok, 1) { _ in } == "020300000000001616000000000000000001000000000000000000000000")
        #expect(answer(.notFound, 0) { _ in } == "020300000000001616000000000200000000000000000000000000000000")
        let name = Block(Array("a".utf8))
        let value = Block([0, 0, 0, 0, 0, 0, 0, 5])
        let withBin = answer(.ok, 1) {
            AnswerWriter.appendOperation(code: 1, particleType: 1, name: name.view, value: value.view, to: $0)
        }
        #expect(withBin == "0203000000000027160000000000000000010000000000000000000000010000000d01010001610000000000000005")
        let output = OutputBuffer()
        AnswerWriter.appendLast(result: .ok, to: output)
        #expect(hex(output.bytes) == "020300000000001616000001000000000000000000000000000000000000")
    }

    @Test func answersAreReadBack() throws {
        let frame = "0203000000000027160000000000000000010000000000000000000000010000000d01010001610000000000000005"
        let body = Block(Array(bytes(hex: frame)[8...]))
        let answer = try #require(AnswerView(body.view))
        #expect(answer.header.resultCode == 0 && answer.header.generation == 1)
        var operations = answer.operations
        let next = operations.next()
        let bin = try #require(next)
        #expect(bin.name.text == "a" && bin.particleType == 1)
    }
}
