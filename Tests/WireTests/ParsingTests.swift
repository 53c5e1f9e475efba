import Base
import TestSupport
import Testing
import Wire

@Suite struct FrameTests {
    private func parse(_ text: String) -> FrameHeader.Parse { FrameHeader.parse(Block(bytes(hex: text)).view) }

    private func refusal(_ text: String) -> String? {
        if case .refused(let reason) = parse(text) { return reason.sentence }
        return nil
    }

    @Test func refusesWhatIsNotTheProtocol() {
        #expect(refusal("0103000000000000")?.contains("version 1") == true)
        #expect(refusal("0205000000000000")?.contains("type 5") == true)
        #expect(refusal("0200000000000000")?.contains("type 0") == true)
        #expect(refusal("0203000008000001")?.contains("134217729") == true)
        #expect(refusal("0203ffffffffffff") != nil)
        #expect(refusal("1603010200010001")?.contains("TLS") == true)
        #expect(refusal("0203000008000000") == nil)
        #expect(refusal("0002000000000000") == nil, "old tools send security messages as version 0")
        if case .incomplete = parse("02030000000000") {} else { Issue.record("seven bytes are no header") }
    }
}

@Suite struct RequestTests {
    private let put = bytes(hex:
        "1600010000000000000000000000000003e800030001000000050074657374000000050164656d6f"
            + "0000001504b747f5854d0b33259928d0cfab7fad81d6abfbf60000000d02010001610000000000000005")

    private func isRequest(_ body: [UInt8]) -> Bool {
        // A block of its own size: a sanitizer sees every byte read behind it.
        if case .request = RequestView.parse(Block(body).view) { return true }
        return false
    }

    @Test func everyTruncationIsMalformed() {
        for count in 0..<put.count { #expect(!isRequest(Array(put[..<count])), "\(count) bytes") }
        #expect(isRequest(put))
        #expect(!isRequest(put + [0]), "bytes behind the last operation")
    }

    /// Any byte changed: either it parses to views inside the body, or it is malformed. Nothing else.
    @Test func everyChangedByteIsSafe() {
        for position in put.indices {
            for value in [0, 1, 0x7F, 0x80, 0xFF, put[position] &+ 1] as [UInt8] {
                var body = put
                body[position] = value
                let block = Block(body)
                guard case .request(let request) = RequestView.parse(block.view) else { continue }
                var operations = request.operations
                while let operation = operations.next() {
                    for view in [operation.name, operation.value] where !view.isEmpty {
                        #expect(view.baseAddress! >= block.view.baseAddress!)
                        #expect(view.baseAddress! + view.count <= block.view.baseAddress! + block.view.count)
                    }
                }
            }
        }
    }

    @Test func lyingCounts() {
        var body = put
        body[18] = 0xFF
        body[19] = 0xFF
        #expect(!isRequest(body), "65535 fields")
        body = put
        body[20] = 0xFF
        body[21] = 0xFF
        #expect(!isRequest(body), "65535 operations")
    }

    @Test func digestOfAnotherSize() {
        let short = bytes(hex: "16010000000000000000000000000000000000010000" + "0000000304aabb")
        guard case .request(let request) = RequestView.parse(Block(short).view) else {
            Issue.record("sizes fit")
            return
        }
        #expect(request.isDigestMalformed)
    }
}

@Suite struct InfoTests {
    private func lines(_ text: String) -> [String] {
        let block = Block(Array(text.utf8))
        var parser = InfoRequestParser(block.view)
        var lines: [String] = []
        while let line = parser.next() { lines.append(line.text.text) }
        return lines
    }

    private func request(_ text: String) -> InfoRequest? {
        let block = Block(Array(text.utf8))
        var parser = InfoRequestParser(block.view)
        return parser.next().flatMap { InfoRequest($0) }
    }

    @Test func linesOfARequest() {
        #expect(lines("node\nbuild\n") == ["node", "build"])
        #expect(lines("node") == ["node"])
        #expect(lines("\n\n") == [])
        #expect(lines("") == [])
    }

    @Test func partsOfALine() {
        let slash = request("sets/test/demo")
        #expect(slash?.name == "sets" && slash?.arguments == ["test", "demo"])
        let colon = request("get-config:context=namespace;id=test")
        #expect(colon?.name == "get-config" && colon?["context"] == "namespace" && colon?["id"] == "test")
        #expect(colon?["none"] == nil)
        #expect(request("latencies:")?.parameters.isEmpty == true)
        #expect(request("x=1:a=b=c")?["a"] == "b=c")
        #expect(request(":a=b") == nil)
        #expect(request(String(repeating: "x", count: 32)) == nil)
        #expect(request(String(repeating: "x", count: 31)) != nil)
    }

    /// Names of sets are bytes: also what is no UTF-8, and what Unicode joins to the separator before it.
    @Test func valuesAsTheyCame() {
        let names: [[UInt8]] = [[0xFF, 0xFE], Array("\u{301}abc".utf8), Array("e\u{301}".utf8), Array("a\u{37E}b".utf8)]
        for name in names {
            let block = Block(Array("truncate:set=".utf8) + name + Array(";lut=5;x\n".utf8))
            var parser = InfoRequestParser(block.view)
            let request = parser.next().flatMap { InfoRequest($0) }
            #expect(request?.bytes("set") == name && request?["lut"] == "5" && request?["x"] == "")
            #expect(request?.bytes("x") == [] && request?.bytes("none") == nil)
            let path = Block(Array("sets/test/".utf8) + name + Array("\n".utf8))
            parser = InfoRequestParser(path.view)
            let sets = parser.next().flatMap { InfoRequest($0) }
            #expect(sets?.bytes(argument: 1) == name && sets?.bytes(argument: 2) == nil && sets?.arguments.count == 2)
        }
    }

    @Test func base64() {
        #expect(Base64.encode(Array("".utf8)) == "")
        #expect(Base64.encode(Array("f".utf8)) == "Zg==")
        #expect(Base64.encode(Array("fo".utf8)) == "Zm8=")
        #expect(Base64.encode(Array("foobar".utf8)) == "Zm9vYmFy")
        #expect(Base64.encode([0xFF, 0xEF]) == "/+8=")
    }
}
