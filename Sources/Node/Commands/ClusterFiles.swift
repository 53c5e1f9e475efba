// Small files and free ports, for commands.
internal import Glibc

/// Small files of text.
enum TextFile {
    private static let sizeMax = 4 << 20

    /// The content; nil if it cannot be read. Of a large file the last 4 MiB.
    static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        let size = lseek(descriptor, 0, SEEK_END)
        // Files of /proc have no size and are read from the start.
        _ = lseek(descriptor, max(size - sizeMax, 0), SEEK_SET)
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < 2 * sizeMax {
            let got = block.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            guard got >= 0 else { return nil }
            if got == 0 { break }
            bytes += block[..<got]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Replaces a file whole.
    static func write(_ path: String, _ text: String) throws(ClusterCommandError) {
        let fresh = path + ".new"
        let descriptor = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw problem("write", fresh) }
        var text = text
        let isWritten = text.withUTF8 { Glibc.write(descriptor, $0.baseAddress, $0.count) == $0.count }
        guard isWritten else {
            let error = problem("write", fresh)
            close(descriptor)
            throw error
        }
        close(descriptor)
        guard rename(fresh, path) == 0 else { throw problem("replace", path) }
    }

    /// Makes a directory and what is missing above it.
    static func makeDirectory(_ path: String) throws(ClusterCommandError) {
        var partial = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            partial += part + "/"
            guard mkdir(partial, 0o755) == 0 || errno == EEXIST else { throw problem("make", partial) }
        }
    }

    /// The path from / on, without links; nil if there is no such file.
    static func absolute(_ path: String) -> String? {
        guard let found = realpath(path, nil) else { return nil }
        defer { free(found) }
        return String(cString: found)
    }

    private static func problem(_ verb: String, _ path: String) -> ClusterCommandError {
        ClusterCommandError("cannot \(verb) \(path): \(String(cString: strerror(errno))); give another --directory")
    }
}

/// Ports of 127.0.0.1.
enum LocalPorts {
    /// Ports that nobody has now, chosen by the system.
    static func free(_ count: Int) throws(ClusterCommandError) -> [Int] {
        // All are held until the last is found: none comes twice.
        var sockets: [Int32] = []
        defer { for one in sockets { close(one) } }
        var ports: [Int] = []
        for _ in 0..<count {
            guard let (descriptor, port) = bound(0) else {
                throw ClusterCommandError("the system gives no free port: \(String(cString: strerror(errno)))")
            }
            sockets.append(descriptor)
            ports.append(port)
        }
        return ports
    }

    /// Whether a node could listen on the port now.
    static func isFree(_ port: Int) -> Bool {
        guard let (descriptor, _) = bound(port) else { return false }
        close(descriptor)
        return true
    }

    private static func bound(_ port: Int) -> (descriptor: Int32, port: Int)? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var reuse: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(truncatingIfNeeded: port).bigEndian)
        address.sin_addr.s_addr = in_addr_t(UInt32(0x7F00_0001).bigEndian)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        guard isBound else {
            close(descriptor)
            return nil
        }
        return (descriptor, Int(UInt16(bigEndian: address.sin_port)))
    }
}
