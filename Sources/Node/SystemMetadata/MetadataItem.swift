// What nodes agree on beside records: truncation times, settings of sets, later indexes, functions, rosters and users. Pure.
// Invariants:
// 1. Of an item, named by module and key, there is one version; `merge` keeps the newer of two, whichever comes first, so
//    nodes that have seen the same versions in any order hold the same.
// 2. What was deleted stays as an item without a value: otherwise an older copy would bring it back.

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
    /// A module's name; one that this version does not know is kept as it is.
    package let module: String
    package let key: String
    /// Nil if the item was deleted.
    package let value: String?
    /// Counts the changes of the item.
    package let generation: UInt32
    /// When it was changed, in milliseconds since 2010.
    package let timestamp: UInt64

    package init(module: String, key: String, value: String?, generation: UInt32, timestamp: UInt64) {
        self.module = module
        self.key = key
        self.value = value
        self.generation = generation
        self.timestamp = timestamp
    }

    /// Whether this version replaces the other. Equal times are ordered by generation, then by value, so that all nodes
    /// choose alike.
    package func isNewer(than other: MetadataItem) -> Bool {
        if timestamp != other.timestamp { return timestamp > other.timestamp }
        if generation != other.generation { return generation > other.generation }
        guard let value else { return false }
        return other.value.map { value > $0 } ?? true
    }

    /// Whether it is about a namespace, and belongs into the copy that the namespace's storage keeps.
    package func belongs(to namespace: String) -> Bool {
        guard MetadataModule(rawValue: module) != nil else { return false }
        return key == namespace || key.hasPrefix(namespace + "|")
    }
}

/// Items by module and key.
package struct MetadataItems: Equatable, Sendable {
    private var modules: [String: [String: MetadataItem]] = [:]

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
    package subscript(module: String, key: String) -> MetadataItem? { modules[module]?[key] }

    /// Takes a version in, if it is newer. True: it was.
    @discardableResult
    package mutating func merge(_ item: MetadataItem) -> Bool {
        if let held = modules[item.module]?[item.key], !item.isNewer(than: held) { return false }
        modules[item.module, default: [:]][item.key] = item
        return true
    }

    /// A new version of an item, nil to delete it, newer than the one before whatever the clock says.
    package mutating func set(_ module: MetadataModule, _ key: String, to value: String?, at time: UInt64) {
        let held = modules[module.rawValue]?[key]
        merge(
            MetadataItem(
                module: module.rawValue, key: key, value: value, generation: (held?.generation ?? 0) &+ 1,
                timestamp: max(time, (held?.timestamp ?? 0) + (held?.generation == .max ? 1 : 0))))
    }
}
