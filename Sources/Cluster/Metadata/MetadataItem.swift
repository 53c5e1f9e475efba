// One change of what nodes agree on beside records: truncation times, settings of sets, thresholds of eviction, rosters.
package import Base

/// Which items there are. A file for each.
package enum MetadataModule: String, CaseIterable, Sendable {
    /// Key `namespace` or `namespace|set`, value the time in milliseconds since 2010.
    case truncate
    /// Key `namespace|set|setting`, value its plain form.
    case sets
    /// Key `namespace`, value the void-time up to which records are evicted, in seconds since 2010.
    case evict
    /// Key `namespace`, value the nodes, see `Roster`.
    case roster

    /// Whether values are numbers of which the highest counts where two changes did not know of each other: what the one
    /// has cut off must not come back because of the other.
    package var isCutOff: Bool { self == .truncate || self == .evict }
}

/// One version of an item, as one change has made it.
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
    /// The name of the change.
    package let version: MetadataVersion
    /// The changes of this item that the change knew of, and replaces.
    package let follows: MetadataLine

    package init(
        module: String, key: MetadataKey, value: String?, generation: UInt32, timestamp: UInt64, version: MetadataVersion,
        follows: MetadataLine
    ) {
        self.module = module
        self.key = key
        self.value = value
        self.generation = generation
        self.timestamp = timestamp
        self.version = version
        self.follows = follows
    }

    /// As formats without versions have it: of one node, whose changes follow each other by their times.
    package init(
        module: String, key: MetadataKey, value: String?, generation: UInt32, timestamp: UInt64,
        node: NodeID = MetadataVersion.none.node
    ) {
        let time = min(timestamp, MetadataVersion.numberMax - 1)
        let earlier = time > 0 ? [MetadataVersion(view: 0, counter: time - 1, node: node)] : []
        self.init(
            module: module, key: key, value: value, generation: generation, timestamp: timestamp,
            version: MetadataVersion(view: 0, counter: time, node: node), follows: MetadataLine(earlier))
    }

    /// Byte by byte.
    package static func == (left: MetadataItem, right: MetadataItem) -> Bool {
        left.module == right.module && left.key == right.key && left.version == right.version
            && left.generation == right.generation && left.timestamp == right.timestamp && left.follows == right.follows
            && left.hasValue(of: right)
    }

    /// Byte by byte.
    package func hasValue(of other: MetadataItem) -> Bool {
        value.map { Array($0.utf8) } == other.value.map { Array($0.utf8) }
    }

    /// Whether the change of this version knew of the other, which it replaces. Of two changes under one name, as older
    /// formats may have them within a millisecond, it is the one that is ordered later.
    package func replaces(_ other: MetadataItem) -> Bool {
        if follows.covers(other.version) { return true }
        return version == other.version && isOrdered(after: other)
    }

    /// An order of all versions of an item, the same on all nodes: by version. Without a view times decide, which are the
    /// counters there, and then generations.
    package func isOrdered(after other: MetadataItem) -> Bool {
        if (version.view, version.counter) != (other.version.view, other.version.counter) {
            return version > other.version
        }
        if version.view == 0, generation != other.generation { return generation > other.generation }
        if version.node != other.version.node { return version.node > other.version.node }
        if generation != other.generation { return generation > other.generation }
        if timestamp != other.timestamp { return timestamp > other.timestamp }
        guard hasValue(of: other) else {
            guard let value, let otherValue = other.value else { return value != nil }
            return otherValue.utf8.lexicographicallyPrecedes(value.utf8)
        }
        return follows.description > other.follows.description
    }

    /// Whether it can have been made: above all that it follows.
    package var isSound: Bool {
        version.view < MetadataVersion.numberMax && version.counter < MetadataVersion.numberMax
            && follows.versions.allSatisfy { $0 < version }
    }

    /// Whether this version is in force where neither replaces the other.
    package func isInForce(over other: MetadataItem) -> Bool {
        if isCutOff, number != other.number { return number > other.number }
        return isOrdered(after: other)
    }

    package var isCutOff: Bool { MetadataModule(rawValue: module)?.isCutOff ?? false }

    /// The value as a number, 0 for none.
    package var number: UInt64 { value.flatMap { UInt64($0) } ?? 0 }

    /// Whether it is about a namespace, and belongs into the copy that the namespace's storage keeps.
    package func belongs(to namespace: String) -> Bool {
        guard MetadataModule(rawValue: module) != nil else { return false }
        return key.isOf(namespace: namespace)
    }
}
