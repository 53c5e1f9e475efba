import Base
import Client
import TestSupport
import Testing
import Wire

@Suite struct DigestHasherTests {
    /// The protocol's golden vectors.
    @Test func knownDigests() throws {
        let hasher = try #require(DigestHasher())
        #expect(hasher.digest(set: "demo", key: "k1").description == "b747f5854d0b33259928d0cfab7fad81d6abfbf6")
        #expect(hasher.digest(set: "demo", key: 1).description == "b7f4b83889e2da67de683e1df6919a1eacc446c8")
        #expect(hasher.digest(set: "", key: "k1").description == "50149955959c2fef0a83613ae80c78bb9c96b269")
        let blob = hasher.digest(set: Block(Array("demo".utf8)).view, particleType: 4, key: Block([1, 2, 3]).view)
        #expect(blob.description == "ff31c926fbef445648ce63ca72a698a5473425c1")
    }
}

@Suite struct InfoExchangeTests {
    @Test func knownFrames() {
        #expect(hex(InfoExchange.request(["node"])) == "02010000000000056e6f64650a")
        let answer = Block(Array(bytes(hex: "02010000000000156e6f6465094242393032303031314143343230320a")[8...]))
        let parsed = InfoExchange.answers(answer.view)
        #expect(parsed.count == 1 && parsed[0].command == "node" && parsed[0].value == "BB9020011AC4202")
    }
}

@Suite struct TendTests {
    private let full = Base64.encode([UInt8](repeating: 0xFF, count: 512))
    private let none = Base64.encode([UInt8](repeating: 0, count: 512))
    private let first = NodeAddress(host: "10.0.0.1", port: 3000)
    private let second = NodeAddress(host: "10.0.0.2", port: 3100)

    private func answers(
        _ id: String, _ replicas: String, peers: String = "0,3000,[]"
    ) -> [(command: String, value: String)] {
        [("node", id), ("partition-generation", "1"), ("replicas", replicas), ("peers-clear-std", peers)]
    }

    @Test func findsPeersAndMasters() {
        var tend = Tend(namespace: "test")
        var effects: [Tend.Effect] = []
        tend.seed([first], &effects)
        #expect(effects.count == 1 && !tend.isSettled)
        effects = []
        var half = [UInt8](repeating: 0, count: 512)
        half[0] = 0x80
        let peers = "1,3000,[[B,,[10.0.0.2:3100,10.1.0.2]],[C,tls,[10.0.0.3]],[D,,[[::1]:3200]]]"
        tend.answered(first, answers("A", "x:0,1,\(full);test:2,1,\(Base64.encode(half))", peers: peers), &effects)
        #expect(effects.map { effect in
            guard case .ask(let address, _) = effect else { return "" }
            return address.description
        } == ["10.0.0.2:3100", "10.0.0.3:3000", "[::1]:3200"])
        effects = []
        tend.answered(second, answers("B", "test:1,1,\(full)"), &effects)
        #expect(tend.partitions[PartitionID(0)] == 0, "the higher regime holds it")
        #expect(tend.partitions[PartitionID(1)] == 1 && tend.partitions.orphanCount == 0)
        tend.failed(NodeAddress(host: "10.0.0.3", port: 3000))
        tend.failed(NodeAddress(host: "::1", port: 3200))
        #expect(tend.isSettled && tend.nodes.map(\.id) == ["A", "B"])
    }

    @Test func aNodeThatGaveAPartitionUp() {
        var tend = Tend(namespace: "test")
        var effects: [Tend.Effect] = []
        tend.answered(first, answers("A", "test:1,1,\(full)"), &effects)
        tend.answered(first, answers("A", "test:1,1,\(none)"), &effects)
        #expect(tend.partitions.orphanCount == 4096 && tend.nodes.count == 1)
    }

    @Test func damagedAnswers() {
        var tend = Tend(namespace: "test")
        var effects: [Tend.Effect] = []
        for text in ["", "test:", "test:1", "test:1,1,", "test:1,1,!!!!", "test:x,1,\(full)", "other:1,1,\(full)"] {
            tend.answered(first, answers("A", text, peers: text), &effects)
            #expect(tend.partitions.orphanCount == 4096, "\(text)")
        }
        tend.answered(first, [], &effects)
        #expect(effects.isEmpty)
    }

    @Test func addresses() {
        #expect(NodeAddress("1.2.3.4:5")?.description == "1.2.3.4:5" && NodeAddress("[::1]:5")?.host == "::1")
        for text in ["", ":1", "a", "a:b", "a:0", "a:70000", "::1:3000", "[::1:3000"] {
            #expect(NodeAddress(text) == nil, "\(text)")
        }
    }
}
