// The copy of a namespace's items in its storage.
internal import Base

/// What the storage of a namespace holds: items, and which node has written them. A copy of the node itself is never ahead
/// of the node's files but by what they have lost; one of another node has a history of its own.
package struct MetadataCopy: Equatable, Sendable {
    /// Id of the node that wrote the copy; empty if that is not known.
    package let writer: String
    package let items: [MetadataItem]
    private static let module = "writer"

    package init(writer: String, items: [MetadataItem]) {
        self.writer = writer
        self.items = items
    }

    /// Nothing, if nobody has changed anything yet.
    package var bytes: [UInt8] {
        guard !items.isEmpty else { return [] }
        let mark = MetadataItem(
            module: MetadataCopy.module, key: MetadataKey([]), value: writer, generation: 1, timestamp: 0)
        return MetadataFormat.encode([mark] + items)
    }

    /// What `bytes` were; of none, no items.
    package init(bytes: [UInt8]) throws(MetadataFormatError) {
        guard !bytes.isEmpty else {
            self.init(writer: "", items: [])
            return
        }
        let writer = try MetadataFormat.decode(bytes).first { $0.module == MetadataCopy.module }?.value ?? ""
        let all = try MetadataFormat.decode(bytes, of: NodeID(rawValue: UInt64(writer, radix: 16) ?? 0))
        self.init(writer: writer, items: all.filter { $0.module != MetadataCopy.module })
    }
}
