// The system metadata of one node: in memory, and in its files. Invariant: what `items` gives is in the files, durable.
package import Base
package import Metadata
internal import Synchronization

/// Items and their files. Reading on any thread; changes on one thread at a time, which may block.
package final class MetadataStore: Sendable {
    private let files: MetadataFiles
    /// The directory of the files.
    package var path: String { files.path }
    private let held: Mutex<MetadataItems>

    /// Who makes the changes of `set` and `changed`.
    private let node: NodeID

    /// Reads what is in the directory `path`, which belongs to `node`.
    package init(path: String, node: NodeID) throws(MetadataError) {
        self.node = node
        files = try MetadataFiles(path: path)
        var items = MetadataItems()
        for item in try files.readAll(of: node) { items.merge(item) }
        held = Mutex(items)
    }

    /// All items, as they are now.
    package var items: MetadataItems { held.withLock { $0 } }

    /// Changes items of one module, nil to delete: durable when this returns. Nothing has changed if it throws.
    package func set(
        _ module: MetadataModule, _ values: [(key: MetadataKey, value: String?)], at time: UInt64
    ) throws(MetadataError) {
        try put(changed(module, values, at: time), module)
    }

    /// All items as they would be after such a change.
    package func changed(
        _ module: MetadataModule, _ values: [(key: MetadataKey, value: String?)], at time: UInt64
    ) -> MetadataItems {
        var items = self.items
        for (key, value) in values { items.set(module, key, to: value, at: time, by: node) }
        return items
    }

    /// Takes what `changed` has made of one module: durable when this returns. Nothing has changed if it throws.
    package func put(_ items: MetadataItems, _ module: MetadataModule) throws(MetadataError) {
        try files.write(module.rawValue, items.versions(of: module.rawValue))
        replace(items)
    }

    /// Takes versions from elsewhere in, where they are newer: durable when this returns. True: some were.
    package func merge(_ others: [MetadataItem]) throws(MetadataError) -> Bool {
        var items = self.items
        var changed: [String] = []
        for item in others where items.merge(item) { changed.append(item.module) }
        try write(items, changed)
        return !changed.isEmpty
    }

    /// Takes in what came with storage of another node, see `MetadataItems.adopt`: durable when this returns. What came of
    /// each.
    package func adopt(_ others: [MetadataItem]) throws(MetadataError) -> [(MetadataItem, MetadataItems.Adoption)] {
        var items = self.items
        let outcomes = others.map { ($0, items.adopt($0)) }
        try write(items, outcomes.filter { $0.1 != .kept }.map(\.0.module))
        return outcomes
    }

    private func write(_ items: MetadataItems, _ modules: [String]) throws(MetadataError) {
        for module in Set(modules).sorted() { try files.write(module, items.versions(of: module)) }
        if !modules.isEmpty { replace(items) }
    }

    private func replace(_ items: MetadataItems) { held.withLock { $0 = items } }
}
