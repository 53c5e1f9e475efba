// The files of system metadata: one for each module in a directory of the node's. Invariants:
// 1. A file is replaced whole and is durable when `write` returns: whenever the machine stops, the old or the new one is
//    there.
// 2. A file that cannot be understood is never written over.
package import Base
internal import Files
package import Metadata

/// Why system metadata cannot be had or kept: one sentence for the operator.
package struct MetadataError: Error, Equatable {
    package let message: String

    package init(_ message: String) { self.message = message }
}

/// Reads and writes the files. One thread at a time.
package struct MetadataFiles: Sendable {
    package let path: String
    private static let suffix = ".smd"
    private static let sizeMax = 64 << 20

    /// Makes the directory if it is missing.
    package init(path: String) throws(MetadataError) {
        self.path = path
        try MetadataFiles.told { () throws(FileError) in try makeDirectory(path) }
    }

    /// Does it, and says of what fails what an operator reads.
    private static func told<Value>(_ body: () throws(FileError) -> Value) throws(MetadataError) -> Value {
        do throws(FileError) {
            return try body()
        } catch {
            throw MetadataError(error.sentence)
        }
    }

    /// The items of all files, which `node` has written.
    /// - Throws: if one is damaged, or was written by a later version.
    package func readAll(of node: NodeID) throws(MetadataError) -> [MetadataItem] {
        var items: [MetadataItem] = []
        let names = try MetadataFiles.told { () throws(FileError) in try fileNames(in: path) }
        for name in names where name.hasSuffix(MetadataFiles.suffix) {
            let file = path + "/" + name
            let bytes = try MetadataFiles.told { () throws(FileError) in
                try readFile(file, byteCountMax: MetadataFiles.sizeMax)
            }
            do throws(MetadataFormatError) {
                items += try MetadataFormat.decode(bytes, of: node)
            } catch {
                throw MetadataError(MetadataFiles.sentence(file, error))
            }
        }
        return items
    }

    private static func sentence(_ file: String, _ error: MetadataFormatError) -> String {
        switch error {
        case .newer(let format):
            "\(file) has format \(format), this version of Apus reads up to \(MetadataFormat.current): start the newer"
                + " version"
        case .damaged(let what):
            "\(file) is damaged: \(what). Put a copy of it in its place, or move it away: then the copies that the storage"
                + " of each namespace keeps are used, and what is in none of them (what was truncated in a namespace whose"
                + " storage keeps nothing) is forgotten"
        }
    }

    /// Replaces the file of a module; it is durable when this returns.
    package func write(_ module: String, _ items: [MetadataItem]) throws(MetadataError) {
        let file = path + "/" + module + MetadataFiles.suffix
        try MetadataFiles.told { () throws(FileError) in try replaceFile(file, with: MetadataFormat.encode(items)) }
    }
}
