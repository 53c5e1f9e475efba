// Files that are in the way, and free ports, for commands.
internal import Files
internal import Glibc

extension ClusterCommandError {
    /// What is wrong with a file of the cluster's directory.
    init(_ error: FileError) { self.init("\(error.text); give another --directory") }
}

/// Keeps two commands from starting nodes in one directory at once: each would take those of the other for missing. Ends
/// with `release`, or with this process.
struct CommandLock {
    private let descriptor: Int32

    /// An error if another command has the lock.
    init(_ directory: String) throws(ClusterCommandError) {
        let path = directory + "/cluster.lock"
        descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw ClusterCommandError("cannot write \(path): \(String(cString: strerror(errno))). Give another --directory")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw ClusterCommandError("another 'apus cluster up' starts nodes in \(directory): wait until it has ended")
        }
    }

    func release() { close(descriptor) }
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
                throw ClusterCommandError("the system gives no free port: \(errnoText())")
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
