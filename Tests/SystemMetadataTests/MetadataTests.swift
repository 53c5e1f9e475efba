import Base
import Glibc
import Metadata
import SystemMetadata
import TestSupport
import Testing

/// Items, their bytes, their files.
@Suite struct MetadataTests {
    private func item(
        _ key: String, _ value: String?, generation: UInt32 = 1, at time: UInt64 = 1, module: String = "truncate",
        by node: NodeID = NodeID(rawValue: 0)
    ) -> MetadataItem {
        MetadataItem(
            module: module, key: self.key(key), value: value, generation: generation, timestamp: time, node: node)
    }
    private let me = NodeID(rawValue: 0xA1)

    /// Parts between bars.
    private func key(_ text: String) -> MetadataKey {
        MetadataKey(text.utf8.split(separator: UInt8(ascii: "|"), omittingEmptySubsequences: false).map { Array($0) })
    }

    private func randomItem(_ random: inout SeededRandom) -> MetadataItem {
        let keys = ["a", "a|s", "a|s 1", "b|%\t\n", "b|\u{E9}|x", "b|e\u{301}|x", "\u{301}|", ""]
        let values = [nil, "", "-", "5", "x y", "%41", "\u{E9}", "e\u{301}"]
        return item(
            keys.randomElement(using: &random)!, values.randomElement(using: &random)!,
            generation: UInt32.random(in: 1...3, using: &random), at: UInt64.random(in: 1...3, using: &random),
            module: ["truncate", "sets", "later"].randomElement(using: &random)!)
    }

    private final class Directory {
        let path: String
        init() {
            var template = Array("/tmp/apus-smd-XXXXXX".utf8CString)
            path = String(cString: mkdtemp(&template)!)
        }
        deinit { _ = system("rm -rf '\(path)'") }
        func write(_ name: String, _ bytes: [UInt8]) {
            let file = fopen("\(path)/\(name)", "w")!
            fwrite(bytes, 1, bytes.count, file)
            fclose(file)
        }
        func read(_ name: String) -> [UInt8] {
            let file = fopen("\(path)/\(name)", "r")!
            defer { fclose(file) }
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
            return bytes
        }
    }

    // ---- Versions ----

    @Test func theNewerWins() {
        var items = MetadataItems()
        func takes(_ value: String?, generation: UInt32, at time: UInt64) -> Bool {
            items.merge(item("a", value, generation: generation, at: time))
        }
        #expect(takes("1", generation: 9, at: 5))
        #expect(!takes("2", generation: 10, at: 4), "time comes first")
        #expect(!takes("2", generation: 8, at: 5) && items["truncate", key("a")]?.value == "1")
        #expect(takes(nil, generation: 10, at: 5) && items["truncate", key("a")]?.value == nil)
        #expect(!takes(nil, generation: 10, at: 5), "the same again")
        #expect(takes("1", generation: 10, at: 5), "a value before none")
        items.set(.truncate, key("a"), to: "7", at: 2, by: me)
        let last = items["truncate", key("a")]
        #expect(last?.value == "7" && last?.generation == 11 && last?.timestamp == 5, "newer although the clock went back")
        #expect(last?.version == MetadataVersion(view: 0, counter: 6, node: me) && items.all.count == 1)
    }

    /// Whatever the order, and however often: the same items.
    @Test func mergeHasNoOrder() {
        let seed = runSeed("MetadataTests")
        var random = SeededRandom(seed: seed)
        for _ in 0..<200 {
            let all = (0..<20).map { _ in randomItem(&random) }
            var (one, two) = (MetadataItems(), MetadataItems())
            for item in all { one.merge(item) }
            for item in all.shuffled(using: &random) + all.prefix(5) { two.merge(item) }
            #expect(one == two)
            let bytes = MetadataFormat.encode(one.all)
            #expect((try? MetadataFormat.decode(bytes)) == one.all)
        }
    }

    @Test func whatBelongsToANamespace() {
        #expect(item("ns", "1").belongs(to: "ns") && item("ns|set", "1").belongs(to: "ns"))
        #expect(!item("ns2|set", "1").belongs(to: "ns") && !item("n", "1").belongs(to: "ns"))
        #expect(!item("ns", "1", module: "udf").belongs(to: "ns"))
    }

    // ---- Storage of another node ----

    /// The time that counts when `theirs`, of another node, comes to one that holds `ours`, and the other way round.
    private func adopted(_ ours: MetadataItem, _ theirs: MetadataItem) -> String? {
        func made(_ item: MetadataItem, by node: NodeID) -> MetadataItem {
            MetadataItem(
                module: item.module, key: item.key, value: item.value, generation: item.generation,
                timestamp: item.timestamp, node: node)
        }
        let (ours, theirs) = (made(ours, by: me), made(theirs, by: NodeID(rawValue: 0xB2)))
        var (one, two) = (MetadataItems([ours]), MetadataItems([theirs]))
        _ = one.adopt(theirs)
        _ = two.adopt(ours)
        #expect(one == two)
        for item in [ours, theirs] {
            let again = one.adopt(item)
            #expect(again == .kept, "what was adopted is there")
            let isTaken = one.merge(item)
            #expect(!isTaken)
        }
        let time = one["truncate", ours.key]?.value
        one.set(.truncate, ours.key, to: nil, at: 1, by: me)
        #expect(one["truncate", ours.key]?.value == nil && one.all.count == 1, "an undo of who has seen both")
        return time
    }

    @Test func aTruncateOfAnotherNodeIsNotTakenBack() {
        #expect(adopted(item("ns|s", "100", at: 100), item("ns|s", "50", at: 200)) == "100", "a lower time, ordered later")
        #expect(adopted(item("ns|s", "100", at: 100), item("ns|s", nil, generation: 2, at: 200)) == "100", "an undo")
        #expect(adopted(item("ns|s", "100", at: 100), item("ns|s", "150", at: 200)) == "150")
        #expect(adopted(item("ns|s", "9", at: 100), item("ns|s", "10", at: 90)) == "10", "numbers, not text")
        #expect(adopted(item("ns|s", nil, at: 100), item("ns|s", nil, at: 200)) == nil)
        #expect(adopted(item("ns|s", "100", generation: .max, at: 7), item("ns|s", nil, generation: .max, at: 8)) == "100")
        let other = NodeID(rawValue: 0xB2)
        var items = MetadataItems([item("ns|s", "100", at: 100)])
        let outcomes = [items.adopt(item("ns|s", nil, at: 200, by: other)), items.adopt(item("ns|t", "5", at: 1, by: other))]
        #expect(outcomes == [.raised(to: 100), .taken])
        items.set(.truncate, key("ns|s"), to: nil, at: 300, by: me)
        #expect(items["truncate", key("ns|s")]?.value == nil, "an undo of the node itself")
        items.merge(item("ns|s|default-ttl", "100", at: 100, module: "sets"))
        let outcome = items.adopt(item("ns|s|default-ttl", "5", at: 200, module: "sets", by: other))
        #expect(outcome == .taken && items["sets", key("ns|s|default-ttl")]?.value == "5", "other modules: the newer")
        #expect(items.conflicts.map(\.value) == ["100"], "and what it has not seen can be read")
    }

    @Test func copiesNameTheirWriter() throws {
        let writer = NodeID(rawValue: 0xA0)
        let copy = MetadataCopy(writer: "A0", items: [item("ns|a", "5", by: writer), item("ns|b", nil, by: writer)])
        #expect(try MetadataCopy(bytes: copy.bytes) == copy)
        #expect(MetadataCopy(writer: "A0", items: []).bytes.isEmpty)
        #expect(try MetadataCopy(bytes: []) == MetadataCopy(writer: "", items: []))
        #expect(try MetadataCopy(bytes: MetadataFormat.encode(copy.items)).writer.isEmpty, "nobody says who wrote it")
    }

    // ---- Keys ----

    /// Names are bytes: nothing that Unicode holds for the same is the same.
    @Test func keysAreBytes() throws {
        let names: [[UInt8]] = [
            Array("caf\u{E9}".utf8), Array("cafe\u{301}".utf8), [0xFF, 0xFE], [0xFF, 0xFD], Array("\u{FFFD}\u{FFFD}".utf8),
            Array("\u{301}a".utf8), Array("a|b".utf8), Array("a".utf8), Array("a%7Cb".utf8), [],
        ]
        var items = MetadataItems()
        for (number, name) in names.enumerated() {
            let key = MetadataKey([Array("n\u{E9}".utf8), name])
            #expect(key.parts == [Array("n\u{E9}".utf8), name])
            items.set(.truncate, key, to: "\(number + 1)", at: 1, by: me)
        }
        let read = try MetadataFormat.decode(MetadataFormat.encode(items.all))
        #expect(read == items.all && read.count == names.count)
        for (number, name) in names.enumerated() {
            #expect(items["truncate", MetadataKey([Array("n\u{E9}".utf8), name])]?.value == "\(number + 1)")
        }
        #expect(items.items(ofNamespace: "n\u{E9}").count == names.count)
        #expect(items.items(ofNamespace: "ne\u{301}").isEmpty)
        let barred = MetadataItem(
            module: "truncate", key: MetadataKey([Array("ns|x".utf8)]), value: "1", generation: 1, timestamp: 1)
        #expect(barred.belongs(to: "ns|x") && !barred.belongs(to: "ns"))
    }

    // ---- Bytes ----

    @Test func looksLikeThis() {
        let bytes = MetadataFormat.encode([item("ns|a b", "5", generation: 2, at: 7), item("z", nil)])
        let text = String(decoding: bytes, as: UTF8.self)
        let lines = text.split(separator: "\n")
        #expect(lines[0] == "apus-smd 2" && lines[1] == "truncate\tns|a%20b\t2\t7\t5\t0.7.0\t0.6.0")
        #expect(lines[2] == "truncate\tz\t1\t1\t-\t0.1.0\t0.0.0" && lines.count == 4 && lines[3].hasPrefix("end 2 "))
    }

    /// Every prefix and every changed byte is noticed.
    @Test func tornAndDamaged() {
        let bytes = MetadataFormat.encode([item("ns|a", "5"), item("ns|b", nil)])
        for count in 0..<bytes.count {
            #expect(throws: MetadataFormatError.self) { try MetadataFormat.decode(Array(bytes[..<count])) }
        }
        for place in 0..<bytes.count {
            var damaged = bytes
            damaged[place] ^= 1
            #expect(throws: MetadataFormatError.self) { try MetadataFormat.decode(damaged) }
        }
        #expect(throws: MetadataFormatError.self) { try MetadataFormat.decode(bytes + [10]) }
        #expect(throws: MetadataFormatError.newer(format: 3)) {
            try MetadataFormat.decode(Array("apus-smd 3\nwhatever".utf8))
        }
    }

    /// Format 1 has no versions: its items are the own ones of the node whose file it is, and what is changed now is newer.
    @Test func theFormatBefore() throws {
        let lines = "truncate\tns|a\t3\t10\t9\nsets\tns|a|default-ttl\t1\t11\t-\n"
        let text = Array("apus-smd 1\n\(lines)".utf8)
        let sum = String(text.withUnsafeBytes { crc32c($0) }, radix: 16)
        let bytes = text + Array("end 2 \(String(repeating: "0", count: 8 - sum.utf8.count))\(sum)\n".utf8)
        let read = try MetadataFormat.decode(bytes)
        #expect(read == [
            item("ns|a", "9", generation: 3, at: 10), item("ns|a|default-ttl", nil, at: 11, module: "sets"),
        ])
        let directory = Directory()
        directory.write("truncate.smd", bytes)
        let store = try MetadataStore(path: directory.path, node: me)
        #expect(store.items["truncate", key("ns|a")] == item("ns|a", "9", generation: 3, at: 10, by: me))
        try store.set(.truncate, [(key("ns|a"), nil)], at: 4)
        let again = try MetadataStore(path: directory.path, node: me).items.versions("truncate", key("ns|a"))
        #expect(again.count == 1 && again.first?.value == nil && again.first?.generation == 4)
    }

    // ---- Files ----

    @Test func filesOutliveTheStore() throws {
        let directory = Directory()
        do {
            let store = try MetadataStore(path: directory.path + "/smd", node: me)
            try store.set(.truncate, [(key("ns|a"), "5"), (key("ns"), "6")], at: 10)
            try store.set(.sets, [(key("ns|a|default-ttl"), "60")], at: 10)
            try store.set(.truncate, [(key("ns|a"), nil)], at: 11)
        }
        let again = try MetadataStore(path: directory.path + "/smd", node: me)
        #expect(again.items.all.count == 3)
        let undone = again.items["truncate", key("ns|a")]
        #expect(undone?.value == nil && undone?.generation == 2 && undone?.timestamp == 11)
        #expect(again.items.items(of: "truncate").map(\.key.text) == ["ns", "ns|a"])
        #expect(again.items.items(ofNamespace: "ns").count == 3 && again.items.items(ofNamespace: "n").isEmpty)
    }

    @Test func newerCopiesAreTakenOver() throws {
        let directory = Directory()
        let store = try MetadataStore(path: directory.path, node: me)
        let older = item("ns|a", "7", at: 9, by: me)
        #expect(try store.merge([older]))
        try store.set(.truncate, [(key("ns|a"), "5"), (key("ns|b"), "5")], at: 10)
        #expect(try store.merge([older, item("ns|b", "9", at: 12, by: me), item("k", "v", module: "later")]))
        #expect(try !store.merge([item("ns|b", "9", at: 12, by: me)]))
        let again = try MetadataStore(path: directory.path, node: me)
        #expect(again.items == store.items && again.items["truncate", key("ns|a")]?.value == "5")
        #expect(again.items["truncate", key("ns|b")]?.value == "9" && again.items["later", key("k")]?.value == "v")
    }

    /// A write that was cut off leaves a file beside the old one, which is what counts.
    @Test func tornWrite() throws {
        let directory = Directory()
        try MetadataStore(path: directory.path, node: me).set(.truncate, [(key("ns"), "5")], at: 1)
        directory.write("truncate.smd.new", Array("apus-s".utf8))
        let store = try MetadataStore(path: directory.path, node: me)
        #expect(store.items["truncate", key("ns")]?.value == "5")
        try store.set(.truncate, [(key("ns"), "6")], at: 2)
        #expect(try MetadataStore(path: directory.path, node: me).items["truncate", key("ns")]?.value == "6")
    }

    @Test func damagedFilesAreRefusedAndLeftAlone() throws {
        let directory = Directory()
        try MetadataStore(path: directory.path, node: me).set(.truncate, [(key("ns"), "5")], at: 1)
        let whole = directory.read("truncate.smd")
        for bytes in [[], Array(whole.dropLast(3)), Array("apus-smd 3\n".utf8)] {
            directory.write("truncate.smd", bytes)
            do {
                _ = try MetadataStore(path: directory.path, node: me)
                Issue.record("a damaged file was read")
            } catch {
                #expect(error.message.contains(directory.path + "/truncate.smd"))
                #expect(error.message.contains(bytes.count == 11 ? "start the newer version" : "move it away"))
            }
            #expect(directory.read("truncate.smd") == bytes)
        }
    }

    @Test func nothingChangesIfNothingCanBeWritten() throws {
        let directory = Directory()
        let store = try MetadataStore(path: directory.path, node: me)
        try store.set(.truncate, [(key("ns"), "5")], at: 1)
        // A directory where the new file is to be: the tests may run as root, whom no mode stops.
        mkdir(directory.path + "/truncate.smd.new", 0o755)
        #expect(throws: MetadataError.self) { try store.set(.truncate, [(key("ns"), "6")], at: 2) }
        #expect(store.items["truncate", key("ns")]?.value == "5")
        #expect(try MetadataStore(path: directory.path, node: me).items["truncate", key("ns")]?.value == "5")
    }
}
