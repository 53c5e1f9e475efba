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
