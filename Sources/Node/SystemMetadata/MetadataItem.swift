// What nodes agree on beside records: truncation times, settings of sets, later indexes, functions, rosters and users. Pure.
// Invariants:
// 1. Of an item, named by module and key, there is one version; `merge` keeps the newer of two, whichever comes first, so
//    nodes that have seen the same versions in any order hold the same.
// 2. What was deleted stays as an item without a value: otherwise an older copy would bring it back.
// 3. `adopt` never lowers a truncation time: the storage of another node brings records that its own truncates cover.

/// Which items there are. A file for each.
package enum MetadataModule: String, CaseIterable, Sendable {
    /// Key `namespace` or `namespace|set`, value the time in milliseconds since 2010.
    case truncate
    /// Key `namespace|set|setting`, value its plain form.
    case sets
    /// Key `namespace`, value the void-time up to which records are evicted, in seconds since 2010.
    case evict
}

/// One versioned item.
package struct MetadataItem: Equatable, Sendable {
    /// A module's name in plain ASCII; one that this version does not know is kept as it is.
    package let module: String
    package let key: MetadataKey
    /// Nil if the item was deleted.
    package let value: String?
    /// Counts the changes of the item.
    package let generation: UInt32
    /// When it was changed, in milliseconds since 2010.
    package let timestamp: UInt64

    package init(module: String, key: MetadataKey, value: String?, generation: UInt32, timestamp: UInt64) {
        self.module = module
        self.key = key
        self.value = value
        self.generation = generation
        self.timestamp = timestamp
    }

    /// Byte by byte.
    package static func == (left: MetadataItem, right: MetadataItem) -> Bool {
        left.module == right.module && left.key == right.key && left.generation == right.generation
            && left.timestamp == right.timestamp && left.value.map { Array($0.utf8) } == right.value.map { Array($0.utf8) }
    }

    /// Whether this version replaces the other. Equal times are ordered by generation, then by value, so that all nodes
    /// choose alike.
    package func isNewer(than other: MetadataItem) -> Bool {
        if timestamp != other.timestamp { return timestamp > other.timestamp }
        if generation != other.generation { return generation > other.generation }
        guard let value else { return false }
        return other.value.map { $0.utf8.lexicographicallyPrecedes(value.utf8) } ?? true
    }

    /// Whether it is about a namespace, and belongs into the copy that the namespace's storage keeps.
    package func belongs(to namespace: String) -> Bool {
        guard MetadataModule(rawValue: module) != nil else { return false }
        let own = MetadataKey([Array(namespace.utf8)]).text
        return key.text == own || key.text.hasPrefix(own + "|")
    }

    /// A truncation time, 0 for none.
    fileprivate var time: UInt64 { value.flatMap { UInt64($0) } ?? 0 }
}

/// Items by module and key.
package struct MetadataItems: Equatable, Sendable {
    private var modules: [String: [MetadataKey: MetadataItem]] = [:]

    package init() {}

    /// All of them, by module and key in order.
    package var all: [MetadataItem] { modules.keys.sorted().flatMap { items(of: $0) } }

    /// Those of a module, by key in order, deleted ones too.
    package func items(of module: String) -> [MetadataItem] {
        (modules[module] ?? [:]).values.sorted { $0.key < $1.key }
    }

    /// Those of a namespace.
    package func items(ofNamespace name: String) -> [MetadataItem] { all.filter { $0.belongs(to: name) } }

    /// The version of one item, deleted or not.
    package subscript(module: String, key: MetadataKey) -> MetadataItem? { modules[module]?[key] }

    /// Takes a version in, if it is newer. True: it was.
    @discardableResult
    package mutating func merge(_ item: MetadataItem) -> Bool {
        if let held = modules[item.module]?[item.key], !item.isNewer(than: held) { return false }
        modules[item.module, default: [:]][item.key] = item
        return true
    }

    /// What came of a version of another node.
    package enum Adoption: Equatable, Sendable {
        /// What is held is newer.
        case kept
        case taken
        /// Of two truncates the one with the later time stays, in a new version, although the other was ordered later.
        case raised(to: UInt64)
    }

    /// Takes in a version that comes with storage of another node. Neither side has seen the changes of the other: which
    /// truncate was ordered last, and whether one was undone, says nothing about the records of the other side.
    package mutating func adopt(_ item: MetadataItem) -> Adoption {
        guard item.module == MetadataModule.truncate.rawValue, let held = modules[item.module]?[item.key] else {
            return merge(item) ? .taken : .kept
        }
        let newer = item.isNewer(than: held) ? item : held
        let time = max(item.time, held.time)
        guard newer.time < time else { return merge(item) ? .taken : .kept }
        put(.truncate, item.key, "\(time)", at: newer.timestamp, after: max(item.generation, held.generation))
        return .raised(to: time)
    }

    /// A new version of an item, nil to delete it, newer than the one before whatever the clock says.
    package mutating func set(_ module: MetadataModule, _ key: MetadataKey, to value: String?, at time: UInt64) {
        let held = modules[module.rawValue]?[key]
        put(module, key, value, at: max(time, held?.timestamp ?? 0), after: held?.generation ?? 0)
    }

    private mutating func put(
        _ module: MetadataModule, _ key: MetadataKey, _ value: String?, at time: UInt64, after generation: UInt32
    ) {
        let isLast = generation == .max
        merge(
            MetadataItem(
                module: module.rawValue, key: key, value: value, generation: generation &+ 1,
                timestamp: isLast ? time + 1 : time))
    }
}
