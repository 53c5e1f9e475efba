// Files read whole, and names. All may block.
internal import Glibc

/// The content of a file.
/// - Throws: why it cannot be read; EFBIG if it has more than `byteCountMax` bytes.
package func readFile(_ path: String, byteCountMax: Int) throws(FileError) -> [UInt8] {
    let descriptor = try openToRead(path)
    defer { close(descriptor) }
    return try readOn(descriptor, path, byteCountMax)
}

/// The content of a file; nil if there is none with this name.
/// - Throws: as `readFile`.
package func readFileIfThere(_ path: String, byteCountMax: Int) throws(FileError) -> [UInt8]? {
    do throws(FileError) {
        return try readFile(path, byteCountMax: byteCountMax)
    } catch {
        guard error.reason == ENOENT else { throw error }
        return nil
    }
}

/// The text of a small file, or of one of the system (/proc, /sys); empty if it cannot be read.
package func readSmallFile(_ path: String) -> String {
    let byteCountMax = 8 << 20
    return String(decoding: (try? readFile(path, byteCountMax: byteCountMax)) ?? [], as: UTF8.self)
}

/// The end of a file that may be large, such as a log: its last `byteCount` bytes, and a little more if it grows meanwhile.
package func readEnd(of path: String, byteCount: Int) throws(FileError) -> [UInt8] {
    let descriptor = try openToRead(path)
    defer { close(descriptor) }
    let size = lseek(descriptor, 0, SEEK_END)
    guard size >= 0, lseek(descriptor, max(size - byteCount, 0), SEEK_SET) >= 0 else { throw FileError(.read, path) }
    return try readOn(descriptor, path, 2 * byteCount)
}

private func openToRead(_ path: String) throws(FileError) -> Int32 {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(.read, path) }
    return descriptor
}

/// From where the descriptor is to the end: what `fstat` says of a size does not hold for files of the system.
private func readOn(_ descriptor: Int32, _ path: String, _ byteCountMax: Int) throws(FileError) -> [UInt8] {
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 64 << 10)
    while bytes.count <= byteCountMax {
        let got = block.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        if got < 0, errno == EINTR { continue }
        guard got >= 0 else { throw FileError(.read, path) }
        if got == 0 { return bytes }
        bytes += block[..<got]
    }
    throw FileError(.read, path, reason: EFBIG)
}

// ---- Names ----

/// The names in a directory, sorted, without `.` and `..`.
package func fileNames(in path: String) throws(FileError) -> [String] {
    guard let directory = opendir(path) else { throw FileError(.read, path) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
            tuple.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: tuple.pointee)) {
                String(cString: $0)
            }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}

/// The path from / on, without links; nil, with `errno` set, if nothing has that path.
package func realPath(_ path: String) -> String? {
    guard let found = realpath(path, nil) else { return nil }
    defer { free(found) }
    return String(cString: found)
}

/// The path from / on, without links, of something that exists; otherwise as it is.
package func absolutePath(_ path: String) -> String { realPath(path) ?? path }

/// The directory that a path is in: `.` for a bare name.
package func parentDirectory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
}
