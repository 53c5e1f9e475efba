// The items that a node holds. Pure. Invariants:
// 1. Of an item, named by module and key, there are the versions of which none replaces another: one, unless changes did
//    not know of each other. So nodes that have seen the same versions in any order hold the same.
// 2. The first of them is in force, by an order that all nodes share: of cut-offs the highest, of others the latest. A
//    change replaces exactly what its node held when it was made: an undo holds against that, and against nothing that was
//    cut off elsewhere at the same time.
// 3. What was deleted stays as a version without a value: otherwise an older copy would bring it back.
package import Base

/// Items by module and key.
package struct MetadataItems: Equatable, Sendable {
    private struct Entry: Equatable, Sendable {
        let key: MetadataKey
        /// The first is in force.
        var versions: [MetadataItem]
    }
    private struct Shelf: Equatable, Sendable {
        let module: String
        var entries: [Entry]

        /// Where that key is, or belongs.
        func place(of key: MetadataKey) -> (Int, isFound: Bool) {
            let place = entries.lowerBound { $0.key < key }
            return (place, place < entries.count && entries[place].key == key)
        }
    }
    private var shelves: [Shelf] = []
    /// The highest version ever merged here.
    package private(set) var highest = MetadataVersion.none
    /// Of an item; there are as many as nodes have changed it without knowing of each other. What is ordered last goes.
    package static let versionsMax = 64

    package init() {}

    package init(_ items: [MetadataItem]) {
        for item in items { merge(item) }
    }

    /// What is held, however it came to be.
    package static func == (left: MetadataItems, right: MetadataItems) -> Bool { left.shelves == right.shelves }

    /// All versions, by module and key in order, those in force first.
    package var all: [MetadataItem] { shelves.flatMap { $0.entries.flatMap(\.versions) } }

    private func shelf(_ module: String) -> Shelf? { shelves.first { $0.module == module } }

    /// What is in force of a module, by key in order, deleted ones too.
    package func items(of module: String) -> [MetadataItem] { shelf(module)?.entries.map { $0.versions[0] } ?? [] }

    /// All versions of a module.
    package func versions(of module: String) -> [MetadataItem] { shelf(module)?.entries.flatMap(\.versions) ?? [] }

    /// What is in force of all items.
    package var inForce: [MetadataItem] { shelves.flatMap { $0.entries.map { $0.versions[0] } } }

    /// What is in force of a namespace.
    package func items(ofNamespace name: String) -> [MetadataItem] {
        inForce.filter { $0.belongs(to: name) }
    }

    /// All versions of a namespace's items.
    package func versions(ofNamespace name: String) -> [MetadataItem] { all.filter { $0.belongs(to: name) } }

    /// All versions of one item, the one in force first.
    package func versions(_ module: String, _ key: MetadataKey) -> [MetadataItem] {
        guard let shelf = shelf(module) else { return [] }
        let (place, isFound) = shelf.place(of: key)
        return isFound ? shelf.entries[place].versions : []
    }

    /// The version of one item that is in force, deleted or not.
    package subscript(module: String, key: MetadataKey) -> MetadataItem? { versions(module, key).first }

    /// Versions that say something else than the one in force, made without knowing of it: kept to be read until the next
    /// change. A lower cut-off is none, it is contained in the higher one.
    package var conflicts: [MetadataItem] {
        shelves.flatMap { shelf in
            shelf.entries.filter { $0.versions.count > 1 }.flatMap { entry in
                entry.versions.dropFirst().filter { !$0.isCutOff && !$0.hasValue(of: entry.versions[0]) }
            }
        }
    }

    /// Whether that version would change nothing.
    package func holds(_ item: MetadataItem) -> Bool {
        versions(item.module, item.key).contains { $0 == item || $0.replaces(item) }
    }

    /// Takes a version in, unless it is held or replaced. True: something has changed.
    @discardableResult
    package mutating func merge(_ item: MetadataItem) -> Bool {
        highest = max(highest, item.version)
        let shelfPlace = shelves.firstIndex { $0.module >= item.module } ?? shelves.count
        if shelfPlace == shelves.count || shelves[shelfPlace].module != item.module {
            shelves.insert(Shelf(module: item.module, entries: []), at: shelfPlace)
        }
        let (place, isFound) = shelves[shelfPlace].place(of: item.key)
        guard isFound else {
            shelves[shelfPlace].entries.insert(Entry(key: item.key, versions: [item]), at: place)
            return true
        }
        guard !shelves[shelfPlace].entries[place].versions.contains(where: { $0 == item || $0.replaces(item) }) else {
            return false
        }
        MetadataItems.add(item, to: &shelves[shelfPlace].entries[place].versions)
        return true
    }

    /// Takes versions in.
    package mutating func merge(_ items: [MetadataItem]) {
        for item in items { merge(item) }
    }

    private static func add(_ item: MetadataItem, to versions: inout [MetadataItem]) {
        versions.removeAll { item.replaces($0) }
        versions.insert(item, at: versions.firstIndex { item.isInForce(over: $0) } ?? versions.count)
        if versions.count > versionsMax { versions.removeLast() }
    }

    /// What came of a version of another node.
    package enum Adoption: Equatable, Sendable {
        /// It was known.
        case kept
        case taken
        /// It, or what is held, was ordered later, and says less than the cut-off that stays.
        case raised(to: UInt64)
    }

    /// Takes a version in, and says whether a cut-off stays although a later change, which did not know of it, was lower.
    package mutating func adopt(_ item: MetadataItem) -> Adoption {
        guard merge(item) else { return .kept }
        let held = versions(item.module, item.key)
        guard item.isCutOff, held.dropFirst().contains(where: { $0.isOrdered(after: held[0]) }) else { return .taken }
        return .raised(to: held[0].number)
    }

    /// A version that replaces all that are held of an item, nil to delete it. It is not merged.
    package func next(
        _ module: MetadataModule, _ key: MetadataKey, _ value: String?, at time: UInt64, version: MetadataVersion
    ) -> MetadataItem {
        let held = versions(module.rawValue, key)
        var follows = MetadataLine()
        for one in held {
            follows.take(one.follows)
            follows.take(one.version)
        }
        let generation = held.map(\.generation).max() ?? 0
        return MetadataItem(
            module: module.rawValue, key: key, value: value, generation: generation == .max ? .max : generation + 1,
            timestamp: max(time, held.map(\.timestamp).max() ?? 0), version: version, follows: follows)
    }

    /// Changes an item on a node without a cluster, nil to delete it; newer than the one before whatever the clock says.
    package mutating func set(
        _ module: MetadataModule, _ key: MetadataKey, to value: String?, at time: UInt64, by node: NodeID
    ) {
        merge(next(module, key, value, at: time, version: highest.next(view: 0, node: node, time: time)))
    }
}
