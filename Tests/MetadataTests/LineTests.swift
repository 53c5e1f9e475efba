import Base
import Fabric
import Metadata
import Testing
import TestSupport

/// Nodes that change items, each by what it knows, and hear of each other in any order.
@Suite struct LineTests {
    private let key = MetadataKey([Array("ns".utf8)])

    private func node(_ number: Int) -> NodeID { NodeID(rawValue: UInt64(0xA0 + number)) }

    private func change(
        _ items: inout MetadataItems, _ module: MetadataModule, _ value: String?, view: UInt64, _ number: Int
    ) -> MetadataItem {
        let version = items.highest.next(view: view, node: node(number), time: 0)
        let item = items.next(module, key, value, at: 0, version: version)
        items.merge(item)
        return item
    }

    /// What a change knew of is replaced, whatever its value; what it did not know of is not.
    @Test func anUndoHoldsAgainstWhatItKnewOf() {
        var (one, two) = (MetadataItems(), MetadataItems())
        two.merge(change(&one, .truncate, "100", view: 1, 1))
        let undo = change(&one, .truncate, nil, view: 9, 1)
        var merged = two
        merged.merge(undo)
        #expect(merged["truncate", key]?.value == nil, "an undo of what both have seen")
        let higher = change(&two, .truncate, "150", view: 2, 2)
        merged.merge(higher)
        #expect(merged["truncate", key]?.value == "150", "a cut-off that the undo did not know of, though in an older view")
        let later = change(&merged, .truncate, nil, view: 10, 3)
        for before in [one, two] {
            var items = before
            items.merge(later)
            #expect(items["truncate", key]?.value == nil && items.all.count == 1, "an undo that knew of both")
        }
        two = MetadataItems()
        let lower = change(&two, .truncate, "90", view: 11, 2)
        merged.merge(lower)
        #expect(merged["truncate", key]?.value == "90", "of a node that had lost its disk")
    }

    @Test func theLoserStaysReadable() {
        var (one, two) = (MetadataItems(), MetadataItems())
        two.merge(change(&one, .sets, "1", view: 1, 1))
        let left = change(&one, .sets, "2", view: 2, 1)
        let right = change(&two, .sets, "3", view: 3, 2)
        one.merge(right)
        two.merge(left)
        #expect(one == two && one["sets", key]?.value == "3" && one.conflicts == [left])
        let last = change(&one, .sets, "4", view: 4, 1)
        two.merge(last)
        #expect(two.conflicts.isEmpty && two.all == [last], "until the next change")
        #expect(!two.merge(left) && !two.merge(right), "they do not come back")
        let (same, other) = (change(&one, .sets, "5", view: 5, 1), change(&two, .sets, "5", view: 5, 2))
        one.merge(other)
        two.merge(same)
        #expect(one == two && one.conflicts.isEmpty, "both have said the same")
    }

    /// Whatever is heard in which order and how often: the same items, the same bytes, and the highest cut-off that nobody
    /// has undone who knew of it.
    @Test func orderDoesNotMatter() throws {
        var random = SeededRandom(seed: runSeed("LineTests.orderDoesNotMatter"))
        for _ in 0..<300 {
            var nodes = (0..<Int.random(in: 2...5, using: &random)).map { _ in MetadataItems() }
            var made: [MetadataItem] = []
            for view in 1...UInt64.random(in: 1...30, using: &random) {
                let number = nodes.indices.randomElement(using: &random)!
                if Int.random(in: 0..<2, using: &random) == 0, let heard = nodes.randomElement(using: &random) {
                    for item in heard.all { nodes[number].merge(item) }
                }
                let module = [MetadataModule.truncate, .sets, .evict].randomElement(using: &random)!
                let value = Int.random(in: 0..<3, using: &random) == 0 ? nil : "\(Int.random(in: 1...99, using: &random))"
                made.append(change(&nodes[number], module, value, view: view % 4, number))
            }
            let whole = MetadataItems(made)
            for _ in 0..<4 {
                let mixed = made.shuffled(using: &random) + made.shuffled(using: &random).prefix(5)
                let items = MetadataItems(mixed)
                #expect(items == whole)
                #expect(MetadataBlock.whole(items.all).bytes == MetadataBlock.whole(whole.all).bytes)
            }
            for module in ["truncate", "evict"] {
                let all = made.filter { $0.module == module }
                let open = all.filter { one in !all.contains { $0.replaces(one) } }
                #expect(whole[module, key]?.number ?? 0 == open.map(\.number).max() ?? 0)
            }
            let read = try MetadataFormat.decode(MetadataFormat.encode(whole.all))
            #expect(MetadataItems(read) == whole && read == whole.all)
            #expect(try MetadataBlock(MetadataBlock.whole(whole.all).bytes) == .whole(whole.all))
        }
    }

    @Test func versionsRise() {
        let last = MetadataVersion(view: 5, counter: 7, node: node(1))
        #expect(last.next(view: 5, node: node(2), time: 99) == MetadataVersion(view: 5, counter: 8, node: node(2)))
        #expect(last.next(view: 6, node: node(2), time: 99) == MetadataVersion(view: 6, counter: 1, node: node(2)))
        #expect(last.next(view: 0, node: node(2), time: 99) == MetadataVersion(view: 5, counter: 8, node: node(2)))
        let none = MetadataVersion.none.next(view: 0, node: node(2), time: 99)
        #expect(none == MetadataVersion(view: 0, counter: 99, node: node(2)), "without a view by time")
        #expect(none.next(view: 0, node: node(1), time: 3).counter == 100)
        #expect(none < last && MetadataVersion(written: last.description) == last)
        for bad in ["", "1.2", "1.2.3.4", "1.x.A", "-1.2.A", "\(MetadataVersion.numberMax).1.A", "1.2.G"] {
            #expect(MetadataVersion(written: bad) == nil, "\(bad)")
        }
    }

    @Test func manyVersionsHaveAnEnd() {
        var items = MetadataItems()
        for number in 1...(MetadataItems.versionsMax + 10) {
            var alone = MetadataItems()
            items.merge(change(&alone, .truncate, "\(number)", view: 1, number))
        }
        #expect(items.all.count == MetadataItems.versionsMax)
        #expect(items["truncate", key]?.number == UInt64(MetadataItems.versionsMax + 10), "the highest stay")
    }

    // ---- Bytes of the network ----

    @Test func noBytesTrap() {
        var random = SeededRandom(seed: runSeed("LineTests.noBytesTrap"))
        var items = MetadataItems()
        for number in 1...3 { _ = change(&items, .sets, "\(number)", view: 1, number) }
        let good = MetadataBlock.whole(items.all).bytes
        for _ in 0..<20_000 {
            var bytes = good
            for _ in 0...Int.random(in: 0...3, using: &random) {
                bytes[bytes.indices.randomElement(using: &random)!] = UInt8.random(in: 0...255, using: &random)
            }
            if Int.random(in: 0..<4, using: &random) == 0 {
                bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random))
            }
            guard case .whole(let read)? = try? MetadataBlock(bytes) else { continue }
            var merged = items
            for item in read {
                #expect(item.isSound && MetadataFormat.isModule(item.module.utf8))
                merged.merge(item)
            }
            let next = merged.next(.sets, key, "9", at: 0, version: merged.highest.next(view: 3, node: node(1), time: 0))
            #expect(next.isSound)
        }
    }

    @Test func whatCannotBeKeptIsRefused() {
        func bytes(
            _ module: String, _ key: String, _ version: MetadataVersion, _ follows: [MetadataVersion]
        ) -> [UInt8] {
            var writer = FabricWriter()
            writer.flag(true)
            writer.count(1)
            writer.text(module)
            writer.text(key)
            writer.flag(false)
            writer.varint(1)
            writer.varint(1)
            writer.metadataVersion(version)
            writer.list(follows) { $0.metadataVersion($1) }
            return writer.bytes
        }
        let version = MetadataVersion(view: 1, counter: 2, node: node(1))
        let before = MetadataVersion(view: 1, counter: 1, node: node(1))
        let none = NodeID(rawValue: 0)
        let highest = MetadataVersion(view: MetadataVersion.numberMax, counter: 0, node: none)
        #expect(throws: Never.self) { try MetadataBlock(bytes("sets", "a|b", version, [before])) }
        for bad in [
            bytes("../x", "a", version, []), bytes("", "a", version, []), bytes("sets", "a%4", version, []),
            bytes("sets", "a b", version, []), bytes("sets", "a", before, [version]), bytes("sets", "a", version, [version]),
            bytes("sets", "a", highest, []),
        ] {
            #expect(throws: FabricError.self) { try MetadataBlock(bad) }
        }
    }

    // ---- Rosters ----

    @Test func aRosterNamesItsPredecessor() {
        func members(_ numbers: Int...) -> [Member] { numbers.map { Member(id: node($0), incarnation: 1) } }
        func refusal(_ item: MetadataItem, _ items: MetadataItems, _ members: [Member], isForced: Bool = false) -> String? {
            Roster.refusal(of: item, over: items.versions("roster", key), members: members, isForced: isForced)
        }
        #expect(Roster(text: "A1@2,A3")?.text == "A3@0,A1@2" && Roster(text: "")?.seats == [])
        for bad in ["A1@", "A1,,A2", "A1@2,A1@3", "x", "0@1", ",", "A1@1@1"] { #expect(Roster(text: bad) == nil, "\(bad)") }
        var (one, two) = (MetadataItems(), MetadataItems())
        let first = change(&one, .roster, "A1@0,A2@0,A3@0,A4@0", view: 1, 1)
        #expect(refusal(first, two, members(1)) == nil, "the first one has no predecessor")
        two.merge(first)
        let second = change(&one, .roster, "A1@0", view: 2, 1)
        #expect(refusal(second, two, members(1, 2, 3)) == nil)
        #expect(refusal(second, two, members(1, 2))?.hasPrefix("2 of the 4 nodes") == true, "half is no majority")
        #expect(refusal(second, two, members(1, 2), isForced: true) == nil)
        let other = change(&two, .roster, "A2@0", view: 2, 2)
        for isForced in [false, true] {
            let says = refusal(other, one, members(1, 2, 3, 4), isForced: isForced)
            #expect(says?.contains("has come first") == true, "it names another predecessor")
        }
        #expect(refusal(second, one, members(1)) == nil, "it is here already")
    }
}
