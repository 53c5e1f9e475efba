// Items as nodes send them to each other, and as they stand in a bundle.
internal import Base
package import Fabric

extension FabricWriter {
    package mutating func metadataVersion(_ version: MetadataVersion) {
        varint(version.view)
        varint(version.counter)
        node(version.node)
    }

    package mutating func metadataItem(_ item: MetadataItem) {
        text(item.module)
        text(item.key.text)
        flag(item.value != nil)
        if let value = item.value { text(value) }
        varint(UInt64(item.generation))
        varint(item.timestamp)
        metadataVersion(item.version)
        list(item.follows.versions) { $0.metadataVersion($1) }
    }
}

extension FabricReader {
    /// Bytes that the smallest item takes.
    private static let itemSizeMin = 16
    private static let versionSizeMin = 10

    package mutating func metadataVersion() throws(FabricError) -> MetadataVersion {
        MetadataVersion(view: try varint(), counter: try varint(), node: try node())
    }

    /// An item that can be kept: its module may be the name of a file, its key is one, a change can have made it.
    package mutating func metadataItem() throws(FabricError) -> MetadataItem {
        let module = try text()
        guard MetadataFormat.isModule(module.utf8) else { throw FabricError("a module of metadata has no such name") }
        let written = try text()
        guard let key = MetadataKey(written: Array(written.utf8)[...]), key.text == written else {
            throw FabricError("a key of metadata is none")
        }
        let value = try flag() ? try text() : nil
        let generation = try varint()
        let timestamp = try varint()
        let version = try metadataVersion()
        let versions = try list(ofSize: FabricReader.versionSizeMin) { (reader: inout FabricReader) throws(FabricError) in
            try reader.metadataVersion()
        }
        guard generation <= UInt64(UInt32.max) else { throw FabricError("a generation of metadata is too high") }
        let item = MetadataItem(
            module: module, key: key, value: value, generation: UInt32(generation), timestamp: timestamp,
            version: version, follows: MetadataLine(versions))
        guard item.isSound else { throw FabricError("version \(version) of metadata cannot be") }
        return item
    }

    package mutating func metadataItems() throws(FabricError) -> [MetadataItem] {
        try list(ofSize: FabricReader.itemSizeMin) { (reader: inout FabricReader) throws(FabricError) in
            try reader.metadataItem()
        }
    }
}

/// What a member says of its items when a view is agreed on: all of them, or, where they are many, their fingerprint.
package enum MetadataBlock: Equatable, Sendable {
    case whole([MetadataItem])
    case fingerprint(MetadataFingerprint)

    package init(_ bytes: [UInt8]) throws(FabricError) {
        var reader = FabricReader(bytes)
        if try reader.flag() {
            self = .whole(try reader.metadataItems())
        } else {
            self = .fingerprint(MetadataFingerprint(size: try reader.varint(), hash: try reader.integer()))
        }
        try reader.end()
    }

    package var bytes: [UInt8] {
        var writer = FabricWriter()
        switch self {
        case .whole(let items):
            writer.flag(true)
            writer.list(items) { $0.metadataItem($1) }
        case .fingerprint(let print):
            writer.flag(false)
            writer.varint(print.size)
            writer.integer(print.hash)
        }
        return writer.bytes
    }
}

/// Which items those are, in 16 bytes: equal for equal items.
package struct MetadataFingerprint: Hashable, Sendable, BitwiseCopyable {
    /// Bytes of the items, encoded.
    package let size: UInt64
    /// FNV-1a of those bytes.
    package let hash: UInt64

    package init(size: UInt64, hash: UInt64) {
        self.size = size
        self.hash = hash
    }

    package init(of bytes: [UInt8]) {
        self.init(size: UInt64(bytes.count), hash: fnv1a(bytes))
    }
}
