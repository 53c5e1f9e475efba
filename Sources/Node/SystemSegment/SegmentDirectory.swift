// What segments lie on the mounts of a machine: for `apus shm`.
internal import Files
internal import Glibc
package import Storage

/// A segment as seen from outside: its directories of one name on the mounts that were looked at.
package struct SegmentSummary: Sendable {
    /// What it is doing.
    package enum State: Sendable, Equatable, CustomStringConvertible {
        /// A process uses it; nil if its id is not known.
        case inUse(processID: Int32?)
        /// Its process has written everything out and closed it.
        case closed
        /// Its process died, or was stopped before everything was written out; the next start goes on from it.
        case left
        /// Its process died before it was complete; the next start is a cold one.
        case halfMade
        /// Why not even that can be said.
        case unreadable(String)

        /// For a table.
        package var description: String {
            switch self {
            case .inUse(let processID): "in use by process \(processID.map { "\($0)" } ?? "?")"
            case .closed: "closed"
            case .left: "left by a process that died"
            case .halfMade: "half made"
            case .unreadable(let why): "unreadable: \(why)"
            }
        }
    }

    /// Name of its directories.
    package let name: String
    /// Its directories.
    package let paths: [String]
    /// What it is doing.
    package let state: State
    /// Memory that its files take, bytes.
    package let byteCount: Int
    /// Empty if it is unreadable, like what follows.
    package let namespace: String
    /// Work directory of its node.
    package let owner: String
    /// Storage engine.
    package let backend: String
}

/// Segments from outside. Any thread but a reactor's.
package enum SegmentDirectory {
    /// All segments that have directories on these mounts, by name. A mount that is named twice counts once.
    /// - Throws: `medium` if a mount cannot be read.
    package static func list(mounts: [String]) throws(StorageError) -> [SegmentSummary] {
        var found: [String: [String]] = [:]
        for mount in unique(mounts) {
            for name in try FileProblem.names(in: mount) where isSegment(name, in: mount) {
                found[name, default: []].append("\(mount)/\(name)")
            }
        }
        return found.keys.sorted().map { summary($0, found[$0] ?? []) }
    }

    /// Without those that are another's directory, whatever they are called.
    private static func unique(_ mounts: [String]) -> [String] {
        var seen: Set<String> = []
        return mounts.filter { seen.insert(absolutePath($0)).inserted }
    }

    /// Of the form that `SegmentFolders.name` gives.
    private static func isSegment(_ name: String, in mount: String) -> Bool {
        guard name.hasPrefix(SegmentFolders.prefix) else { return false }
        let rest = name.dropFirst(SegmentFolders.prefix.count)
        guard rest.count > 17, rest.prefix(16).allSatisfy(\.isHexDigit), rest.dropFirst(16).first == "-" else {
            return false
        }
        var status = stat()
        return lstat("\(mount)/\(name)", &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    private static func summary(_ name: String, _ paths: [String]) -> SegmentSummary {
        var header: SegmentHeader?
        var state: SegmentSummary.State?
        // The header lies on the first mount, which need not be the first of these.
        for path in paths where header == nil {
            do throws(StorageError) {
                switch try SegmentHeaderFile.read(path) {
                case .absent: continue
                case .copy(.nothing): state = .unreadable("its header is damaged")
                case .copy(.otherFormat(let format)): state = .unreadable("its header has format \(format)")
                case .copy(.header(let read)):
                    header = read
                    state = !read.isComplete ? .halfMade : read.isClosed ? .closed : .left
                }
            } catch {
                state = .unreadable("no permission to read it")
            }
        }
        if let holder = paths.lazy.map({ SegmentLock.holder($0) }).first(where: { $0.isHeld }) {
            state = .inUse(processID: holder.processID)
        }
        return SegmentSummary(
            name: name, paths: paths, state: state ?? .unreadable("it has no header, or that is on another mount"),
            byteCount: paths.reduce(0) { $0 + size($1) }, namespace: header?.namespace ?? "", owner: header?.owner ?? "",
            backend: header?.backend ?? "")
    }

    private static func size(_ folder: String) -> Int {
        ((try? FileProblem.names(in: folder)) ?? []).reduce(0) { sum, name in
            var file = stat()
            return lstat("\(folder)/\(name)", &file) == 0 ? sum + Int(file.st_blocks) * 512 : sum
        }
    }

    /// Removes a segment from the mounts that were looked at.
    /// - Throws: `medium`: it is in use, or may not be removed.
    package static func remove(_ summary: SegmentSummary) throws(StorageError) {
        var locks: [SegmentLock] = []
        for path in summary.paths {
            if let lock = try SegmentLock.take(path, isPatient: false) { locks.append(lock) }
        }
        // What holds for the first directory holds for all: none is removed before all are locked.
        for path in summary.paths where access(path, F_OK) == 0 { try SegmentFolders.remove(path) }
        withExtendedLifetime(locks) {}
    }
}
