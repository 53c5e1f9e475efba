// What nodes say to each other about system metadata (docs/formats.md): the body of frames of kind `metadata`.
internal import Base
package import Fabric
package import Membership

/// One message.
package enum MetadataMessage: Equatable, Sendable {
    /// Have these on your disk. `number` counts the changes of the sender.
    case change(ViewMark, number: UInt64, isForced: Bool, [MetadataItem])
    /// I have.
    case stored(ViewMark, number: UInt64)
    /// I have not: why.
    case refused(ViewMark, number: UInt64, reason: String)
    /// Name times after all that you have published of these namespaces.
    case askTimes(ViewMark, number: UInt64, [String])
    case times(ViewMark, number: UInt64, [UInt64])
    /// Send me the items that your block has the fingerprint of.
    case askItems(MetadataFingerprint)
    /// Those, encoded.
    case items(MetadataFingerprint, [UInt8])

    package var bytes: [UInt8] {
        var writer = FabricWriter()
        switch self {
        case .change(let mark, let number, let isForced, let items):
            writer.head(1, mark, number)
            writer.flag(isForced)
            writer.list(items) { $0.metadataItem($1) }
        case .stored(let mark, let number): writer.head(2, mark, number)
        case .refused(let mark, let number, let reason):
            writer.head(3, mark, number)
            writer.text(reason)
        case .askTimes(let mark, let number, let namespaces):
            writer.head(4, mark, number)
            writer.list(namespaces) { $0.text($1) }
        case .times(let mark, let number, let times):
            writer.head(5, mark, number)
            writer.list(times) { $0.varint($1) }
        case .askItems(let print): writer.fingerprint(6, print)
        case .items(let print, let bytes):
            writer.fingerprint(7, print)
            writer.blob(bytes)
        }
        return writer.bytes
    }

    package init(_ bytes: [UInt8]) throws(FabricError) {
        var reader = FabricReader(bytes)
        let kind = try reader.byte()
        if kind == 6 || kind == 7 {
            let print = MetadataFingerprint(size: try reader.varint(), hash: try reader.integer())
            self = kind == 6 ? .askItems(print) : .items(print, try reader.blob())
        } else {
            let mark = ViewMark(number: try reader.varint(), key: try reader.integer())
            self = try MetadataMessage.read(kind, mark, try reader.varint(), &reader)
        }
        try reader.end()
    }

    private static func read(
        _ kind: UInt8, _ mark: ViewMark, _ number: UInt64, _ reader: inout FabricReader
    ) throws(FabricError) -> MetadataMessage {
        switch kind {
        case 1: return .change(mark, number: number, isForced: try reader.flag(), try reader.metadataItems())
        case 2: return .stored(mark, number: number)
        case 3: return .refused(mark, number: number, reason: try reader.text())
        case 4:
            return .askTimes(mark, number: number, try reader.list { (reader: inout FabricReader) throws(FabricError) in
                try reader.text()
            })
        case 5:
            return .times(mark, number: number, try reader.list { (reader: inout FabricReader) throws(FabricError) in
                try reader.varint()
            })
        default: throw FabricError("a message of metadata of kind \(kind) is not known")
        }
    }
}

extension FabricWriter {
    fileprivate mutating func head(_ kind: UInt8, _ mark: ViewMark, _ number: UInt64) {
        integer(kind)
        varint(mark.number)
        integer(mark.key)
        varint(number)
    }

    fileprivate mutating func fingerprint(_ kind: UInt8, _ print: MetadataFingerprint) {
        integer(kind)
        varint(print.size)
        integer(print.hash)
    }
}
