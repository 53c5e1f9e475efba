// The file `header` of a segment: two copies of the header, 32 KiB. Invariants:
// 1. The copy with a good checksum and the higher version counts. A change is written over the other one: whoever dies in
//    the middle of it, or loses power, leaves what counted before.
// 2. `current` is what counts, or will when the first change is written (`isStored`).
// 3. In persistent memory a change lasts when `change` returns.
internal import Glibc
internal import Storage
internal import Synchronization

/// The header of a segment in use. Any thread.
final class SegmentHeaderFile: Sendable {
    private struct State {
        var current: SegmentHeader
        var isStored: Bool
        var descriptor: Int32
    }

    private static let name = "header"
    private let folder: String
    private let isPersistent: Bool
    private let state: Mutex<State>

    /// What a header file turns out to be.
    enum Found: Sendable, Equatable {
        /// There is none.
        case absent
        case copy(SegmentHeader.Found)
    }

    /// Goes on with `header`, which is `isStored`, or begins with it.
    init(folder: String, header: SegmentHeader, isStored: Bool) {
        self.folder = folder
        isPersistent = header.kind == .pmem
        state = Mutex(State(current: header, isStored: isStored, descriptor: -1))
    }

    deinit {
        let descriptor = state.withLock { $0.descriptor }
        if descriptor >= 0 { close(descriptor) }
    }

    /// Reads the header in a folder.
    /// - Throws: `medium` if the system does not let it.
    static func read(_ folder: String) throws(StorageError) -> Found {
        let path = folder + "/" + name
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        if descriptor < 0, errno == ENOENT { return .absent }
        guard descriptor >= 0 else { throw FileProblem.medium("read", path) }
        defer { close(descriptor) }
        let size = SegmentHeader.copyByteCount
        var bytes = [UInt8](repeating: 0, count: 2 * size)
        let got = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
        guard got >= 0 else { throw FileProblem.medium("read", path) }
        let copies = bytes.withUnsafeBytes { bytes in
            [0, size].map { SegmentHeader.parse(UnsafeRawBufferPointer(rebasing: bytes[$0..<($0 + size)])) }
        }
        return .copy(copies[1].version > copies[0].version ? copies[1].found : copies[0].found)
    }

    /// What counts.
    var current: SegmentHeader { state.withLock { $0.current } }

    /// Changes the header in one step; 0 or an errno, and then nothing has changed.
    func change(_ body: (inout SegmentHeader) -> Void) -> Int32 {
        state.withLock { state in
            var next = state.current
            body(&next)
            next.version = state.current.version + 1
            let reason = store(next, &state)
            if reason == 0 {
                state.current = next
                state.isStored = true
            }
            return reason
        }
    }

    private func store(_ header: SegmentHeader, _ state: inout State) -> Int32 {
        if state.descriptor < 0 {
            let reason = openFile(&state)
            if reason != 0 { return reason }
        }
        let bytes = header.encoded
        let offset = Int(header.version % 2) * SegmentHeader.copyByteCount
        let written = bytes.withUnsafeBytes { pwrite(state.descriptor, $0.baseAddress, $0.count, off_t(offset)) }
        guard written == bytes.count else { return written < 0 ? errno : ENOSPC }
        guard isPersistent else { return 0 }
        return fsync(state.descriptor) == 0 ? 0 : errno
    }

    private func openFile(_ state: inout State) -> Int32 {
        let path = folder + "/" + SegmentHeaderFile.name
        // What is there and does not count must not count later because its version is higher.
        let emptying = state.isStored ? 0 : O_TRUNC
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | emptying, 0o600)
        guard descriptor >= 0 else { return errno }
        // All of it now: a later change finds its room.
        var reason = posix_fallocate(descriptor, 0, off_t(2 * SegmentHeader.copyByteCount))
        if reason == 0, isPersistent { reason = FileProblem.flushDirectory(folder) }
        guard reason == 0 else {
            close(descriptor)
            return reason
        }
        state.descriptor = descriptor
        return 0
    }
}
