// The system metadata of one node: in memory, and in its files. Invariant: what `items` gives is in the files, durable.
internal import Synchronization

/// Items and their files. Reading on any thread; changes on one thread at a time, which may block.
package final class MetadataStore: Sendable {
    private let files: MetadataFiles
    /// The directory of the files.
    package var path: String { files.path }
    private let held: Mutex<MetadataItems>

    /// Reads what is in the directory `path`.
    package init(path: String) throws(MetadataError) {
        files = try MetadataFiles(path: path)
        var items = MetadataItems()
        for item in try files.readAll() { items.merge(item) }
        held = Mutex(items)
    }

    /// All items, as they are now.
    package var items: MetadataItems { held.withLock { $0 } }

    /// Changes items of one module, nil to delete: durable when this returns. Nothing has changed if it throws.
    package func set(
        _ module: MetadataModule, _ values: [(key: String, value: String?)], at time: UInt64
    ) throws(MetadataError) {
        var items = self.items
        for (key, value) in values { items.set(module, key, to: value, at: time) }
        try files.write(module.rawValue, items.items(of: module.rawValue))
        replace(items)
    }

    /// Takes versions from elsewhere in, where they are newer: durable when this returns. True: some were.
    package func merge(_ others: [MetadataItem]) throws(MetadataError) -> Bool {
        var items = self.items
        var changed: [String] = []
        for item in others where items.merge(item) {
            if !changed.contains(item.module) { changed.append(item.module) }
        }
        for module in changed { try files.write(module, items.items(of: module)) }
        if !changed.isEmpty { replace(items) }
        return !changed.isEmpty
    }

    private func replace(_ items: MetadataItems) { held.withLock { $0 = items } }
}
