// The files of system metadata: one for each module in a directory of the node's. Invariants:
// 1. A file is replaced whole: the new one is written beside it, made durable, renamed, and the directory made durable,
//    before `write` returns. Whenever the machine stops, the old or the new one is there.
// 2. A file that cannot be understood is never written over.
package import Base
internal import Glibc
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
        guard mkdir(path, 0o755) == 0 else {
            guard errno == EEXIST else { throw MetadataError("cannot make \(path): \(MetadataFiles.reason)") }
            return
        }
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        try MetadataFiles.settle(parent.isEmpty ? "/" : parent)
    }

    private static var reason: String { String(cString: strerror(errno)) }

    /// The items of all files, which `node` has written.
    /// - Throws: if one is damaged, or was written by a later version.
    package func readAll(of node: NodeID) throws(MetadataError) -> [MetadataItem] {
        var items: [MetadataItem] = []
        for name in try names() {
            let file = path + "/" + name
            guard let bytes = MetadataFiles.read(file) else {
                throw MetadataError("cannot read \(file): \(MetadataFiles.reason)")
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

    private func names() throws(MetadataError) -> [String] {
        guard let directory = opendir(path) else { throw MetadataError("cannot read \(path): \(MetadataFiles.reason)") }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasSuffix(MetadataFiles.suffix) { names.append(name) }
        }
        return names.sorted()
    }

    private static func read(_ file: String) -> [UInt8]? {
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= sizeMax {
            let got = block.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            guard got >= 0 else { return nil }
            if got == 0 { return bytes }
            bytes += block[..<got]
        }
        errno = EFBIG
        return nil
    }

    /// Replaces the file of a module; it is durable when this returns.
    package func write(_ module: String, _ items: [MetadataItem]) throws(MetadataError) {
        let file = path + "/" + module + MetadataFiles.suffix
        let fresh = file + ".new"
        let descriptor = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw MetadataError("cannot write \(fresh): \(MetadataFiles.reason)") }
        let isWritten = MetadataFiles.write(descriptor, MetadataFormat.encode(items)) && fsync(descriptor) == 0
        let reason = MetadataFiles.reason
        guard close(descriptor) == 0, isWritten else { throw MetadataError("cannot write \(fresh): \(reason)") }
        guard rename(fresh, file) == 0 else { throw MetadataError("cannot replace \(file): \(MetadataFiles.reason)") }
        try MetadataFiles.settle(path)
    }

    private static func write(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { bytes in
            var written = 0
            while written < bytes.count {
                let count = Glibc.write(descriptor, bytes.baseAddress! + written, bytes.count - written)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return false }
                written += count
            }
            return true
        }
    }

    /// Names in a directory last from here on.
    private static func settle(_ path: String) throws(MetadataError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw MetadataError("cannot open \(path): \(reason)") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw MetadataError("cannot make \(path) durable: \(reason)") }
    }
}
