internal import Glibc

/// The content of a file; nil, with `errno` set, if it cannot be read or has more than `sizeMax` bytes (EFBIG).
func readFile(_ path: String, sizeMax: Int) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 64 << 10)
    while bytes.count <= sizeMax {
        let got = block.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        guard got >= 0 else { return nil }
        if got == 0 { return bytes }
        bytes += block[..<got]
    }
    errno = EFBIG
    return nil
}

/// The text of a small file of the system; empty if it cannot be read.
func readSmallFile(_ path: String) -> String {
    String(decoding: readFile(path, sizeMax: 64 << 10) ?? [], as: UTF8.self)
}

/// The path from / on, without links, of something that exists; otherwise as it is.
func absolutePath(_ path: String) -> String {
    guard let found = realpath(path, nil) else { return path }
    defer { free(found) }
    return String(cString: found)
}

/// Replaces a file of `directory` whole: whenever the machine stops, the old or the new one is there; durable when this
/// returns. Nil, or what is wrong.
func replaceFile(_ path: String, in directory: String, _ bytes: [UInt8]) -> String? {
    let fresh = path + ".new"
    let descriptor = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { return "cannot write \(fresh): \(errnoText())" }
    var written = 0
    while written < bytes.count {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + written, $0.count - written) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { break }
        written += count
    }
    let isWritten = written == bytes.count && fsync(descriptor) == 0
    let reason = errnoText()
    guard close(descriptor) == 0, isWritten else { return "cannot write \(fresh): \(reason)" }
    guard rename(fresh, path) == 0 else { return "cannot replace \(path): \(errnoText())" }
    let folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard folder >= 0 else { return "cannot open \(directory): \(errnoText())" }
    defer { close(folder) }
    return fsync(folder) == 0 ? nil : "cannot make \(directory) durable: \(errnoText())"
}
