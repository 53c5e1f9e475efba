// The directories of a segment, one on each mount: made, checked and locked.
internal import Base
internal import Files
internal import Glibc
internal import Storage

/// Directories that are locked until `unlock`, or as long as this value or a copy of it.
struct SegmentFolders: Sendable {
    static let prefix = "apus-"
    private(set) var paths: [String] = []
    private var made: [String] = []
    private var locks: [SegmentLock] = []

    /// The name of a segment's directories: the same for the same node and namespace.
    static func name(owner: String, namespace: String) -> String {
        let digits = String(fnv1a(owner.utf8), radix: 16)
        return prefix + String(repeating: "0", count: 16 - digits.count) + digits + "-" + namespace
    }

    /// Makes what is missing and locks all; what fails leaves nothing behind.
    /// - Throws: `medium` with what is wrong with a mount or a directory.
    init(_ spec: Segment.Spec) throws(StorageError) {
        let name = SegmentFolders.name(owner: spec.owner, namespace: spec.namespace)
        do throws(StorageError) {
            for mount in spec.mounts {
                try SegmentFolders.check(mount, spec.kind)
                try add("\(mount)/\(name)", on: mount, spec.kind)
            }
        } catch {
            undo()
            throw error
        }
    }

    /// Removes the directories that were made by `init`.
    func undo() {
        for path in made { try? SegmentFolders.remove(path) }
    }

    /// Lets others have them.
    mutating func unlock() { locks = [] }

    private static func check(_ mount: String, _ kind: Segment.Kind) throws(StorageError) {
        var found = stat()
        guard stat(mount, &found) == 0 else { throw FileProblem.medium("use", mount) }
        guard found.st_mode & S_IFMT == S_IFDIR else { throw FileProblem.medium("use", mount, ENOTDIR) }
        guard kind == .pmem || SegmentMedium.isTmpfs(mount) else {
            throw .medium("\(mount) is not on tmpfs: index-type shmem needs memory: take /dev/shm, or mount a tmpfs"
                + " (mount -t tmpfs -o size=8G,huge=advise tmpfs \(mount))")
        }
    }

    private mutating func add(_ path: String, on mount: String, _ kind: Segment.Kind) throws(StorageError) {
        // Somebody may remove the directory between any two steps: look again then, a few times.
        for _ in 0..<8 {
            let wasMade = mkdir(path, 0o700) == 0
            guard wasMade || errno == EEXIST else { throw FileProblem.medium("make", path) }
            if wasMade, kind == .pmem {
                let reason = FileProblem.flushDirectory(mount)
                if reason != 0 { throw FileProblem.medium("flush", mount, reason) }
            }
            try SegmentFolders.checkOwner(path)
            guard let lock = try SegmentLock.take(path, isPatient: true) else { continue }
            paths.append(path)
            locks.append(lock)
            if wasMade { made.append(path) }
            return
        }
        throw .medium("\(path): another process makes and removes it again and again")
    }

    /// Everybody may make directories in /dev/shm: what another user has made could be read and changed by him.
    private static func checkOwner(_ path: String) throws(StorageError) {
        var found = stat()
        guard lstat(path, &found) == 0 else {
            if errno == ENOENT { return }
            throw FileProblem.medium("use", path)
        }
        guard found.st_mode & S_IFMT == S_IFDIR else { throw FileProblem.medium("use", path, ENOTDIR) }
        guard found.st_uid == geteuid() else {
            throw .medium("\(path) belongs to the user with id \(found.st_uid), this node runs as \(geteuid()): run it as"
                + " that user, or remove the directory (apus shm remove)")
        }
    }

    /// Whether an earlier segment has left something else than its header.
    var hasRegions: Bool {
        paths.contains { folder in
            ((try? FileProblem.names(in: folder)) ?? []).contains { $0 != "header" && $0 != "lock" && $0 != "probe" }
        }
    }

    /// Removes the regions' files, and whatever else is there, but not header and lock.
    /// - Throws: `device`.
    func removeRegions() throws(StorageError) {
        for folder in paths {
            let names: [String]
            do throws(FileError) {
                names = try fileNames(in: folder)
            } catch {
                throw .device(errno: error.reason, operation: "read \(folder)")
            }
            for name in names where name != "header" && name != "lock" {
                guard unlink("\(folder)/\(name)") == 0 || errno == ENOENT else {
                    throw .device(errno: errno, operation: "remove \(folder)/\(name)")
                }
            }
        }
    }

    /// Removes a directory that the caller has locked, with its files; the header first: without it the rest is nothing.
    /// - Throws: `medium`.
    static func remove(_ folder: String) throws(StorageError) {
        let rest = try FileProblem.names(in: folder).filter { $0 != "header" && $0 != "lock" }
        for name in ["header"] + rest + ["lock"] {
            guard unlink("\(folder)/\(name)") == 0 || errno == ENOENT else {
                throw FileProblem.medium("remove", "\(folder)/\(name)")
            }
        }
        guard rmdir(folder) == 0 || errno == ENOENT else { throw FileProblem.medium("remove", folder) }
    }
}

extension Segment {
    /// Whether a node of this user has left a segment of its namespace on `mount`, with a header: what was written last may
    /// be there and nowhere else. Locks nothing.
    package static func isLeft(on mount: String, owner: String, namespace: String) -> Bool {
        let folder = "\(mount)/\(SegmentFolders.name(owner: owner, namespace: namespace))"
        var found = stat()
        guard lstat(folder, &found) == 0, found.st_mode & S_IFMT == S_IFDIR, found.st_uid == geteuid() else { return false }
        return lstat(folder + "/header", &found) == 0
    }
}
