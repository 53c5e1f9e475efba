// What a node has to know of views after a restart (docs/formats.md, "File of the view"):
// magic 4 · format 1 · accepted number 8 · whether a view follows 1 · the view · CRC32C of all that 4.
internal import Base
package import Fabric

/// The content of the file. Replaced as a whole.
package struct StoredView: Equatable, Sendable {
    package static let format: UInt8 = 1
    private static let magic: UInt32 = 0x4150_5657

    /// No number up to this one is ever accepted again.
    package var accepted: UInt64
    /// The last view that this node was ready to open.
    package var last: View?

    package init(accepted: UInt64, last: View?) {
        self.accepted = accepted
        self.last = last
    }

    /// As it is stored.
    package var bytes: [UInt8] {
        var writer = FabricWriter()
        writer.integer(StoredView.magic)
        writer.integer(StoredView.format)
        writer.integer(accepted)
        writer.flag(last != nil)
        if let last { writer.view(last) }
        writer.integer(writer.bytes.withUnsafeBytes { crc32c($0) })
        return writer.bytes
    }

    /// - Throws: a sentence, if the bytes are damaged or of another format. A node that goes on without them might accept a
    ///   number twice: the caller decides, and says so.
    package init(_ bytes: [UInt8]) throws(FabricError) {
        guard bytes.count >= 18 else { throw FabricError("the file of the view has only \(bytes.count) bytes") }
        var reader = FabricReader(bytes[..<(bytes.count - 4)])
        var end = FabricReader(bytes[(bytes.count - 4)...])
        guard try reader.integer(UInt32.self) == StoredView.magic else {
            throw FabricError("the file of the view does not begin as one")
        }
        let format = try reader.byte()
        guard format == StoredView.format else {
            throw FabricError("the file of the view has format \(format), this node reads format \(StoredView.format)")
        }
        let sum = bytes[..<(bytes.count - 4)].withUnsafeBytes { crc32c($0) }
        guard try end.integer(UInt32.self) == sum else {
            throw FabricError("the checksum of the file of the view does not fit")
        }
        accepted = try reader.integer()
        last = try reader.flag() ? try reader.view() : nil
        try reader.end()
        guard accepted <= ViewMark.numberMax, (last?.mark.number ?? 0) <= accepted else {
            throw FabricError("the file of the view contradicts itself: accepted \(accepted)")
        }
    }
}
