// What the tests need: directories of their own on tmpfs and on a disk, small mounts, segments with less to say.
import Base
import Glibc
import Storage
import Synchronization
import SystemSegment

/// Bytes of each of the two copies in the file `header`.
let headerCopyByteCount = 16 << 10

/// A directory that is removed with this object.
final class Scratch {
    let path: String

    /// On tmpfs for shared memory, on the disk for (forced) persistent memory.
    convenience init(_ kind: Segment.Kind) throws { try self.init(in: kind == .shmem ? "/dev/shm" : "/tmp") }

    init(in parent: String) throws {
        var template = Array("\(parent)/apustest-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw StorageError.device(errno: errno, operation: "mkdtemp") }
        path = String(cString: made)
    }

    deinit { _ = run("rm -rf '\(path)'") }

    /// A directory in it, to be a mount.
    func mount(_ name: String) -> String {
        mkdir("\(path)/\(name)", 0o700)
        return "\(path)/\(name)"
    }
}

/// A file system in memory of its own, unmounted with this object; nil, and a line that says so, where the machine does not
/// let this test have one.
final class SmallMount {
    let path: String
    private let scratch: Scratch

    init?(_ options: String) throws {
        scratch = try Scratch(in: "/tmp")
        path = scratch.mount("small")
        guard geteuid() == 0, run("mount -t tmpfs -o \(options) tmpfs '\(path)' 2>/dev/null") != nil else {
            print("skipped: no mounts here")
            return nil
        }
    }

    deinit { _ = run("umount -l '\(path)'") }
}

/// Runs a command; its output without the last line's end, nil if it failed.
func run(_ command: String) -> String? {
    guard let pipe = popen(command, "r") else { return nil }
    var output: [UInt8] = []
    while case let byte = getc(pipe), byte >= 0 { output.append(UInt8(byte)) }
    guard pclose(pipe) == 0 else { return nil }
    if output.last == 10 { output.removeLast() }
    return String(decoding: output, as: UTF8.self)
}

/// Lines for the operator.
final class Lines: Sendable {
    private let kept = Mutex<[String]>([])
    var all: [String] { kept.withLock { $0 } }
    func add(_ line: String) { kept.withLock { $0.append(line) } }
}

/// What a test wants: namespace `birds` of the node in /var/apus, persistent memory forced.
struct Wish {
    var spec: Segment.Spec
    let logged = Lines()
    let warned = Lines()

    init(_ kind: Segment.Kind, _ mounts: [String], isForced: Bool = true) {
        let (logged, warned) = (logged, warned)
        spec = Segment.Spec(
            kind: kind, mounts: mounts, namespace: "birds", owner: "/var/apus", backend: "device", layout: 3,
            log: { logged.add($0) }, warn: { warned.add($0) })
        spec.isForced = isForced
        spec.stageByteCount = 2 << 20
    }

    func open() throws -> Segment { try Segment.open(spec) }

    /// An opened segment that has begun a session, completely.
    func begin(_ key: UInt64) throws -> Segment {
        let segment = try open()
        try segment.beginSession(key)
        try segment.sessionBegan()
        return segment
    }

    /// Leaves a complete segment with a region of 5 MiB behind, as a killed process does.
    func leave(_ key: UInt64) throws {
        let segment = try begin(key)
        let region = try segment.region("entries", capacity: 8 << 20)
        guard region.grow(to: 5 << 20) else { throw StorageError.outOfSpace }
        region.base.storeBytes(of: key, as: UInt64.self)
        try segment.complete()
    }

    /// Why it cannot be opened; nil if it can.
    func refusal() -> StorageError? {
        do throws(StorageError) {
            _ = try Segment.open(spec)
            return nil
        } catch {
            return error
        }
    }

    /// The sentence for an operator that `refusal` has.
    func sentence() -> String? {
        switch refusal() {
        case .medium(let sentence), .settings(let sentence): sentence
        case let other: other.map { "\($0)" }
        }
    }
}
