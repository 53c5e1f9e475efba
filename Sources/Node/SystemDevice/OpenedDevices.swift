// What this process has open for writing: a lock does not keep a process from itself. Invariant: one entry for each
// `SystemDevice` that is not only looked at, as long as its descriptor is open and locked.
internal import CUring
internal import Synchronization

/// The table of the process. Any thread.
enum OpenedDevices {
    /// A file or device, whatever its path.
    fileprivate struct Identity: Hashable {
        let device: UInt64
        let inode: UInt64
    }

    /// An entry; given up once.
    struct Claim: Sendable {
        fileprivate let identity: Identity

        func giveUp() { OpenedDevices.paths.withLock { _ = $0.removeValue(forKey: identity) } }
    }

    private static let paths = Mutex<[Identity: String]>([:])

    /// An entry for the file or device, or the path under which it is open already.
    static func claim(_ found: apus_identity, path: String) -> (claim: Claim?, openPath: String?) {
        let identity = Identity(device: found.device, inode: found.inode)
        return paths.withLock { paths in
            if let openPath = paths[identity] { return (nil, openPath) }
            paths[identity] = path
            return (Claim(identity: identity), nil)
        }
    }
}
